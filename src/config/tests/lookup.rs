//! What a `lookup` may say, and what it does not go with.

use std::time::Duration;

use super::{check_route, loaded, route};
use crate::idempotency::lookup::{Next, Recipe, Shape};

/// A route's lookup with `more` in it, in flow style.
fn with(more: &str) -> String {
    format!(
        "lookup: {{request: '/v1/jobs?page={{page}}', items: /jobs, match: /tag, next: {{page: 1}}{more}}}"
    )
}

fn recipe(more: &str) -> Recipe {
    let config = loaded(&route(&with(more)));
    let recipe = config.routes.first().and_then(|route| route.lookup.clone());
    Recipe::clone(&recipe.expect("it has a lookup"))
}

#[test]
fn a_lookup_is_read_once() {
    let plain = recipe("");
    assert_eq!((&plain.tag, &plain.answer, plain.next.clone()), (&None, &None, Next::Page(1)));
    assert_eq!((plain.pages.get(), plain.status.as_u16()), (10, 200));
    let patience = plain.patience;
    assert_eq!(
        (patience.settle, patience.every),
        (Duration::from_secs(30), Duration::from_secs(30))
    );
    assert_eq!(patience.readings.get(), 2);
    assert!(plain.credentials.is_none());
    let more =
        recipe(", tag: {json: /a/b}, answer: {ok: true, id: '{json:/id}', n: [1, x]}, status: 201");
    assert_eq!(more.tag.map(|tag| tag.to_string()).as_deref(), Some("/a/b"));
    let Some(Shape::Object(members)) = more.answer else { panic!("it is an object") };
    let names: Vec<_> = members.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((names, more.status.as_u16()), (vec!["ok", "id", "n"], 201));
    assert!(loaded(&route("lookup: null")).routes[0].lookup.is_none());
}

#[test]
fn credentials_are_read_from_their_file_and_shown_to_nobody() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "hunter2\n").expect("written");
    let more = format!(", credentials: {{header: X-Api-Key, file: '{}'}}", file.path().display());
    let credentials = recipe(&more).credentials.expect("they are there");
    assert_eq!(
        (credentials.header.as_str(), credentials.value.as_bytes()),
        ("x-api-key", &b"hunter2"[..])
    );
    assert!(!format!("{credentials:?}").contains("hunter2"));
}

#[test]
fn what_a_lookup_lacks_is_named() {
    let long = |more: &str| with(more);
    let cases = [
        ("lookup: {}".to_owned(), &["request: must be given", "match: must be given"][..]),
        (long(", pages: 0"), &["pages: must be at least 1 (got 0)"]),
        (long(", pages: 1000"), &[]),
        (long(", pages: 1001"), &["pages: must be at most 1000 (got 1001)"]),
        (long(", readings: 1"), &["readings: must be at least 2 (got 1)"]),
        (long(", readings: 10"), &[]),
        (long(", readings: 11"), &["readings: must be at most 10 (got 11)"]),
        (long(", every: 999ms"), &["every: must be at least 1s (got `999ms`)"]),
        (long(", every: 1s, settle: 0"), &[]),
        (long(", status: 300"), &["status: must be at most 299 (got 300)"]),
        (long(", tag: {}"), &["tag.json: must be given: a JSON pointer"]),
        (
            long(", tag: {json: ''}"),
            &["tag.json: must be a JSON pointer below the root, such as /order/id (got ``)"],
        ),
        (long(", answer: '{id}'"), &["answer: must hold no braces but {json:POINTER}"]),
        (
            long(", answer: [{a: '{json:b}'}]"),
            &["answer: must be a JSON pointer that starts with `/`"],
        ),
        (
            long(", credentials: {}"),
            &[
                "credentials.header: must be given with `file`",
                "credentials.file: must be given with `header`",
            ],
        ),
        (
            long(", credentials: {header: a, file: /nonexistent}"),
            &[
                "credentials.file: /nonexistent: cannot be read: No such file or directory (os error 2)",
            ],
        ),
        (
            "lookup: {request: 'https://a.test/', items: /jobs, match: /tag}".to_owned(),
            &[
                "request: must be a path, such as /v1/jobs?limit=100&page={page} (got `https://a.test/`)",
            ],
        ),
    ];
    for (block, wanted) in cases {
        let wanted: Vec<_> = wanted.iter().map(|fault| format!("lookup.{fault}")).collect();
        let wanted: Vec<_> = wanted.iter().map(String::as_str).collect();
        check_route(&[(&block, &wanted)]);
    }
}

#[test]
fn pages_are_asked_for_as_the_request_says() {
    const PAGED: &str = "lookup.next: must go with `request`: {page: FIRST} with {page} in it, \
                         {offset: 0} with {offset}, {cursor: POINTER} with {cursor}, null with \
                         none of them";
    const CUT: &str = "lookup.next: must be given, unless `request` asks for the {key}: a list \
                       that is cut off proves nothing";
    for (request, rest, wanted) in [
        ("/j?page={page}", "items: /j, next: {page: 0}", &[][..]),
        ("/j?after={cursor}", "items: /j, next: {cursor: /next}", &[]),
        ("/j?offset={offset}", "items: /j, next: {offset: 0}", &[]),
        ("/j?offset={offset}", "items: /j, next: {page: 1}", &[PAGED]),
        ("/j?offset={offset}", "items: /j", &[PAGED]),
        ("/j?page={page}", "items: /j, next: {offset: 0}", &[PAGED]),
        ("/j?page={page}", "items: /j", &[PAGED]),
        ("/j", "items: /j, next: {page: 1}", &[PAGED]),
        ("/j?page={page}", "items: /j, next: {cursor: /next}", &[PAGED]),
        ("/j", "items: /j", &[CUT]),
        ("/j?id={key}", "items: /j", &[]),
        ("/j/{key}", "items: null", &[]),
        (
            "/j?page={page}",
            "items: /j, next: {page: 1, cursor: /next}",
            &["lookup.next: must be {page: FIRST}, {offset: 0} or {cursor: POINTER}"],
        ),
    ] {
        let block = format!("lookup: {{request: '{request}', match: /tag, {rest}}}");
        check_route(&[(&block, wanted)]);
    }
}

#[test]
fn a_lookup_goes_with_effects_and_with_one_request_a_key() {
    let effect = format!("kind: effect\n    {}", with(""));
    assert!(loaded(&route(&effect)).routes[0].lookup.is_some());
    let read = format!("{}\n    kind: read", with(""));
    check_route(&[(&read, &["lookup: goes with `kind: effect`: nothing else leaves unknowns"])]);
    let forward = format!("{}\n    idempotency: {{mismatch: forward}}", with(""));
    check_route(&[(
        &forward,
        &["lookup: does not go with `mismatch: forward`: of two requests under one key nobody \
           could tell which was found"],
    )]);
}

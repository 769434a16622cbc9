//! What a reading makes of the pages that come.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use http::Method;

use super::*;
use crate::exchange::body::BodyError;
use crate::exchange::tests::{data, full, response, streamed};
use crate::exchange::{Body, Origin, Pointer};
use crate::idempotency::lookup::Target;
use crate::idempotency::lookup::tests::recipe;

type Said = Result<Response, Failure>;

#[expect(clippy::unnecessary_wraps, reason = "what is said may be a failure")]
fn good(text: &'static str) -> Said {
    Ok(response(200, &[], full(text)))
}

/// Says these one after the other, and notes what was asked.
fn provider(said: Vec<Said>) -> (Asker, Arc<Mutex<Vec<String>>>) {
    let (said, paths) = (Mutex::new(VecDeque::from(said)), Arc::new(Mutex::new(Vec::new())));
    let noted = paths.clone();
    let asker = Asker(Arc::new(move |request| {
        assert_eq!(request.method, Method::GET);
        noted.lock().expect("no test panics here").push(request.path.to_string());
        let next = said.lock().expect("no test panics here").pop_front();
        Box::pin(async move {
            match next {
                Some(said) => said,
                None => std::future::pending().await,
            }
        })
    }));
    (asker, paths)
}

async fn reads(recipe: &Recipe, said: Vec<Said>) -> (Read, usize) {
    let (read, asked) = asks(recipe, said).await;
    (read, asked.len())
}

/// What the reading came to, and the paths that were asked for.
async fn asks(recipe: &Recipe, said: Vec<Said>) -> (Read, Vec<String>) {
    let access = Access {
        origin: Origin::parse("https://api.test").expect("an origin"),
        headers: HeaderMap::new(),
        extra: Vec::new(),
        caller: [0; 32],
    };
    let question = Question { recipe, access: &access, key: "k", since: Some(0), now: 1 };
    let (asker, paths) = provider(said);
    let read = read(&question, &asker).await;
    let paths = paths.lock().expect("no test panics here").clone();
    (read, paths)
}

fn found(text: &str) -> Read {
    Read::Found(text.to_owned())
}

fn paged(next: Next) -> Recipe {
    let request = match next {
        Next::Never => "/v1/jobs?tag={key}",
        Next::Page(_) => "/v1/jobs?page={page}",
        Next::Offset => "/v1/jobs?limit=9&offset={offset}",
        Next::Cursor(_) => "/v1/jobs?after={cursor}",
    };
    Recipe { next, request: Target::parse(request).expect("a target"), ..recipe() }
}

const NONE: &str = r#"{"jobs":[]}"#;
const OTHER: &str = r#"{"jobs":[{"tag":"x"}]}"#;
const BARE: &str = r#"{"jobs":[{"id":1}]}"#;
const OURS: &str = r#"{"jobs":[{"tag":"k"}]}"#;
const TWICE: &str = r#"{"jobs":[{"tag":"k","n":1},{"tag":"k","n":2}]}"#;
const ITEM: &str = r#"{"tag":"k"}"#;

#[tokio::test(start_paused = true)]
async fn one_page_is_all_or_nothing() {
    for (said, wanted) in [
        (good(OURS), found(ITEM)),
        (good(TWICE), Read::Several),
        (good(NONE), Read::Absent),
        (good(OTHER), Read::Absent),
        // Where nothing in it is named, it is not where names stand.
        (good(BARE), Read::Inconclusive),
        (good("[]"), Read::Inconclusive),
        (good(r#"{"jobs":[{"tag":"#), Read::Inconclusive),
        (good(""), Read::Inconclusive),
        (Ok(response(204, &[], Body::empty())), Read::Inconclusive),
        (Ok(response(203, &[], full(NONE))), Read::Failed),
        (Ok(response(206, &[], full(NONE))), Read::Failed),
        (Ok(response(301, &[], full(NONE))), Read::Failed),
        (Ok(response(401, &[], full(NONE))), Read::Failed),
        // Of a list, that says that it is elsewhere.
        (Ok(response(404, &[], full(NONE))), Read::Failed),
        (Ok(response(503, &[], full(NONE))), Read::Failed),
        (Err(Failure::ClientGone), Read::Failed),
        (
            Ok(response(200, &[], streamed([data(NONE), Err(BodyError::UpstreamBroke)]))),
            Read::Failed,
        ),
        (Ok(response(200, &[("content-encoding", "gzip")], full(NONE))), Read::Inconclusive),
    ] {
        let text = format!("{said:?}");
        assert_eq!(reads(&paged(Next::Never), vec![said]).await, (wanted, 1), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_compressed_page_is_read() {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(OURS.as_bytes()).expect("memory takes it");
    let body = Body::full(encoder.finish().expect("memory takes it").into());
    let said = Ok(response(200, &[("content-encoding", "gzip")], body));
    assert_eq!(reads(&paged(Next::Never), vec![said]).await, (found(ITEM), 1));
}

#[tokio::test(start_paused = true)]
async fn a_page_is_read_up_to_its_limit() {
    for (length, wanted) in
        [(READ_MAX - 1, Read::Absent), (READ_MAX, Read::Absent), (READ_MAX + 1, Read::Inconclusive)]
    {
        let text = format!("{NONE}{}", " ".repeat(length - NONE.len()));
        let said = Ok(response(200, &[], Body::full(text.into())));
        assert_eq!(reads(&paged(Next::Never), vec![said]).await, (wanted, 1), "{length}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_older_than_its_question_proves_no_absence() {
    for (name, value, wanted) in [
        ("age", "0", Read::Absent),
        ("age", "1", Read::Inconclusive),
        ("age", "soon", Read::Inconclusive),
        ("date", "Thu, 01 Jan 1970 00:05:00 GMT", Read::Absent),
        ("date", "Thu, 01 Jan 1970 00:05:01 GMT", Read::Inconclusive),
        ("date", "Thu, 01 Jan 1970 00:00:00 GMT", Read::Absent),
        ("date", "today", Read::Absent),
    ] {
        let said = |text| Ok(response(200, &[(name, value)], full(text)));
        let recipe = paged(Next::Never);
        assert_eq!(reads(&recipe, vec![said(NONE)]).await, (wanted, 1), "{name}: {value}");
        assert_eq!(reads(&recipe, vec![said(OURS)]).await, (found(ITEM), 1), "{name}: {value}");
    }
}

#[tokio::test(start_paused = true)]
async fn pages_are_read_until_one_is_empty() {
    let failed = || Ok(response(500, &[], Body::empty()));
    for (said, wanted) in [
        (vec![good(NONE)], (Read::Absent, 1)),
        (vec![good(OTHER), good(NONE)], (Read::Absent, 2)),
        (vec![good(OTHER), good(OTHER), good(NONE)], (Read::Absent, 3)),
        // More than `pages` would be needed.
        (vec![good(OTHER), good(OTHER), good(OTHER)], (Read::Inconclusive, 3)),
        (vec![good(OTHER), failed()], (Read::Failed, 2)),
        // What is found was done, whatever comes after.
        (vec![good(OTHER), good(OURS), good(NONE)], (found(ITEM), 3)),
        (vec![good(OTHER), good(OTHER), good(OURS)], (found(ITEM), 3)),
        (vec![good(OURS), failed()], (found(ITEM), 2)),
        (vec![good(OURS), good("[")], (found(ITEM), 2)),
        // The same item on two pages is one that moved; another is another.
        (vec![good(OURS), good(OURS), good(NONE)], (found(ITEM), 3)),
        (vec![good(OURS), good(TWICE), good(NONE)], (Read::Several, 3)),
        // In a list that names nothing, page for page.
        (vec![good(BARE), good(BARE), good(NONE)], (Read::Inconclusive, 3)),
        (vec![good(BARE), good(OTHER), good(NONE)], (Read::Absent, 3)),
    ] {
        let text = format!("{said:?}");
        assert_eq!(reads(&paged(Next::Page(1)), said).await, wanted, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_offset_is_what_came_and_not_what_was_asked_for() {
    // Nine are asked for, and the provider gives two, one, and none.
    let two = || good(r#"{"jobs":[{"tag":"x"},{"tag":"y"}]}"#);
    let (read, asked) = asks(&paged(Next::Offset), vec![two(), good(OTHER), good(NONE)]).await;
    assert_eq!(read, Read::Absent);
    let wanted = ["0", "2", "3"].map(|offset| format!("/v1/jobs?limit=9&offset={offset}"));
    assert_eq!(asked, wanted);
    let (read, asked) = asks(&paged(Next::Offset), vec![two(), two(), two()]).await;
    assert_eq!((read, asked.len()), (Read::Inconclusive, 3), "there may be more");
    let (read, _) = asks(&paged(Next::Offset), vec![two(), good(OURS), good(NONE)]).await;
    assert_eq!(read, found(ITEM));
}

#[tokio::test(start_paused = true)]
async fn a_cursor_is_followed_until_there_is_none() {
    let next = Next::Cursor(Pointer::parse("/next").expect("a pointer"));
    let to = |cursor: &'static str| match cursor {
        "a" => good(r#"{"jobs":[],"next":"a"}"#),
        "b" => good(r#"{"jobs":[],"next":"b"}"#),
        _ => good(OURS),
    };
    for (said, wanted) in [
        (vec![good(NONE)], (Read::Absent, 1)),
        // An empty page is not the last where there is another.
        (vec![to("a"), to("b"), good(OURS)], (found(ITEM), 3)),
        (vec![to("a"), good(NONE)], (Read::Absent, 2)),
        (vec![to("a"), to("a")], (Read::Inconclusive, 2)),
        (vec![to("a"), to("b"), to("a")], (Read::Inconclusive, 3)),
    ] {
        let text = format!("{said:?}");
        assert_eq!(reads(&paged(next.clone()), said).await, wanted, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_item_is_asked_for_by_its_key() {
    let recipe = Recipe { items: None, ..paged(Next::Never) };
    for (said, wanted) in [
        (good(ITEM), found(ITEM)),
        (Ok(response(404, &[], full("{}"))), Read::Absent),
        (Ok(response(410, &[], full("{}"))), Read::Failed),
        (good(r#"{"tag":"other"}"#), Read::Inconclusive),
        (good("{}"), Read::Inconclusive),
    ] {
        let text = format!("{said:?}");
        assert_eq!(reads(&recipe, vec![said]).await, (wanted, 1), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reading_that_takes_too_long_proves_no_more_than_what_it_found() {
    assert_eq!(reads(&paged(Next::Page(1)), vec![good(OTHER)]).await, (Read::Failed, 2));
    assert_eq!(reads(&paged(Next::Page(1)), vec![good(OURS)]).await, (found(ITEM), 2));
}

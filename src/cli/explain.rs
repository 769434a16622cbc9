//! `samekey explain`: the decisions of a route, asked without sending anything.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use samekey::config::Config;
use samekey::exchange::hint::{self, Hint};
use samekey::exchange::{
    Body, Failure, Origin, Outcome, Response, Scheme, Shape, Standing, Stop as StopWord, signature,
};
use samekey::intercept::{self, Distrust, Why};
use samekey::retry::budget::{Cost, Terms};
use samekey::retry::decision::{Decision, Facts, decide, repeatable};
use samekey::retry::outcome::{Classified, classify};
use samekey::retry::{Attempts, Backoff, Budget};
use samekey::route::{Kind, Mode, Route};
use tokio::time::Instant;

use crate::cli::keyed::{self, Keyed};
use crate::cli::{Stop, bounds, credit, destination, inbox, load, outlook, polls, print, written};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The request's method
    method: String,
    /// Its URL
    url: String,
    /// A header field, as `Name: value`; may be given more than once
    #[arg(short = 'H', long = "header", value_name = "FIELD")]
    headers: Vec<String>,
    /// Only this outcome: a status, connect, reset, timeout, or a word such as refused or ambiguous
    #[arg(long, value_name = "OUTCOME")]
    after: Option<String>,
}

pub(super) struct Request {
    pub(super) method: Method,
    origin: Origin,
    pub(super) path: PathAndQuery,
    pub(super) headers: HeaderMap,
}

pub(super) fn explain(path: Option<&Path>, arguments: &Arguments) -> Result<ExitCode, Stop> {
    let request = read(arguments)?;
    let words = match &arguments.after {
        Some(one) => vec![one.as_str()],
        None => vec!["429", "500", "503", "connect", "reset", "timeout"],
    };
    let ends: Vec<_> = words.iter().map(|word| end(word)).collect::<Result<_, _>>()?;
    let text = explained(&load(path)?, &request, words.into_iter().zip(ends))?;
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// All that is said of a request: its route, and what comes after each of these `ends`.
fn explained<'a>(
    config: &Config,
    request: &Request,
    ends: impl Iterator<Item = (&'a str, Result<Response, Failure>)>,
) -> Result<String, Stop> {
    let Origin { host, port, .. } = &request.origin;
    if intercept::is_own(host) {
        return Ok("route: none\n  samekey answers this host itself: nothing is sent\n".to_owned());
    }
    let refused = destination::refused(config, &request.origin);
    let barred = refused.as_deref().map(here);
    if let Some(why) = tunnelled(config, &request.origin) {
        let barred = barred.unwrap_or_default();
        return Ok(format!(
            "route: none\n  {why}: its TLS is not opened, and no route applies\n{barred}"
        ));
    }
    let found = config
        .routes
        .iter()
        .find(|route| route.matcher.matches(host, *port, &request.method, request.path.path()));
    let Some(route) = found else {
        return Ok(format!("route: none\n{}", barred.as_deref().unwrap_or(FORWARDED)));
    };
    let mut text = String::new();
    if let Some(rules) = inbox::of(config, route, (&request.method, &request.origin)) {
        writeln!(text, "route: {} ({})", route.name, config.source).expect(INTO_A_STRING);
        inbox::describe(&mut text, rules);
        for (word, end) in ends {
            let line = inbox::after(rules, &route.retry.backoff, &end);
            writeln!(text, "after {word:<8} {line}").expect(INTO_A_STRING);
        }
        return Ok(text);
    }
    let key = describe(&mut text, &config.source.to_string(), route, request);
    // The key is asked for before anybody connects.
    if let Some(why) = key.refused.as_ref().or(refused.as_ref()) {
        return Ok(text + &here(why));
    }
    for (word, end) in ends {
        let attempt = classify(&end, &route.retry).ok_or_else(unasked)?;
        let line = after(route, request, &key, attempt);
        writeln!(text, "after {word:<8} {line}").expect(INTO_A_STRING);
    }
    Ok(text)
}

/// Says that a request goes nowhere, so that nothing of it is retried.
fn here(why: &str) -> String {
    format!("answered here: {why}: nothing is sent\n")
}

fn read(arguments: &Arguments) -> Result<Request, Stop> {
    let usage = |text: String| Stop::Usage(format!("samekey explain: {text}"));
    let method = Method::from_bytes(arguments.method.as_bytes())
        .map_err(|_invalid| usage(format!("{:?} is not a method", arguments.method)))?;
    let wanted = || usage("the URL has to be http://host/path or https://host/path".to_owned());
    let uri: Uri = arguments.url.parse().map_err(|_invalid| wanted())?;
    let scheme = match uri.scheme_str() {
        Some("http") => Scheme::Http,
        Some("https") => Scheme::Https,
        Some(_) | None => return Err(wanted()),
    };
    let origin = uri.authority().and_then(|authority| Origin::of(scheme, authority));
    let path = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let mut headers = HeaderMap::new();
    for field in &arguments.headers {
        let wrong = || usage(format!("{field:?} is not a field such as `Name: value`"));
        let (name, value) = field.split_once(':').ok_or_else(wrong)?;
        let name: HeaderName = name.trim().parse().map_err(|_invalid| wrong())?;
        let value: HeaderValue = value.trim().parse().map_err(|_invalid| wrong())?;
        headers.append(name, value);
    }
    Ok(Request { method, origin: origin.ok_or_else(wanted)?, path, headers })
}

/// Why the host's TLS is not opened; none where it is.
pub(super) fn tunnelled(config: &Config, origin: &Origin) -> Option<&'static str> {
    let Origin { scheme, host, port, .. } = origin;
    let routed = config.routes.iter().any(|route| route.matcher.names(host, *port));
    let asked = intercept::Asked { host, routed };
    let decided = intercept::decide(&config.intercept, asked, &Distrust::default(), Instant::now());
    match decided {
        _ if *scheme == Scheme::Http => None,
        intercept::Decision::Open => None,
        intercept::Decision::Tunnel(Why::Nothing) => Some("intercept.hosts is none"),
        intercept::Decision::Tunnel(Why::Excepted) => Some("intercept.except names the host"),
        intercept::Decision::Tunnel(Why::Unrouted) => Some("no route names the host"),
        intercept::Decision::Tunnel(Why::Distrusted) => Some("a client refused the certificate"),
    }
}

/// What a line is about, what it says, and the keys that decide it.
pub(super) type Line = (&'static str, String, &'static [&'static str]);

fn describe(text: &mut String, source: &str, route: &Route, request: &Request) -> Keyed {
    let kind = route.kind_of(&request.method);
    let effect = kind == Kind::Effect;
    let rules = &route.rules;
    let keyed = keyed::of(route, request, effect);
    let policy = &route.retry;
    let attempts = match policy.attempts {
        Attempts::AtMost(most) => most.to_string(),
        Attempts::Unlimited => "unlimited".to_owned(),
    };
    let resumes = kind == Kind::Fetch
        && request.method == Method::GET
        && route.mode == Mode::Enforce
        && !policy.attempts.is_single();
    let anew =
        if resumes { "; a download that broke off is resumed, under a strong ETag" } else { "" };
    let observed =
        if route.mode == Mode::Observe { " (observe: counted, not carried out)" } else { "" };
    let dedupes = match rules.upstream_dedupes {
        Some(true) => "yes: a repeated key has one effect there",
        Some(false) => "no",
        None => "not known; say upstream_dedupes: true if its documentation promises it",
    };
    let origin = written::origin(route, source);
    writeln!(text, "route: {} ({origin}){observed}", route.name).expect(INTO_A_STRING);
    let within = format!("{attempts}, within {:?}{anew}", policy.deadline.after);
    let lines: [Line; 8] = [
        ("kind", format!("{kind:?}").to_lowercase(), &["kind"]),
        ("key", keyed.words.clone(), KEY),
        ("upstream de-duplicates", dedupes.to_owned(), &["idempotency.upstream_dedupes"]),
        ("attempts", within, &["retry.attempts", "retry.deadline"]),
        (
            "retry-after obeyed up to",
            format!("{:?}", policy.retry_after_max),
            &["retry.retry_after_max"],
        ),
        ("backoff", backoff(&policy.backoff), written::BACKOFF),
        ("budget", budget(policy.budget), written::BUDGET),
        ("answers made here", errors(&route.errors).to_owned(), &["errors"]),
    ];
    let checked = route.schema.as_ref().map(|_schema| {
        let words = "a JSON body that does not fit is answered 400 here, and nothing is sent";
        ("schema", words.to_owned(), &["schema"][..])
    });
    let unknown = effect.then(|| ("an unknown outcome", outlook::of(route), outlook::KEYS));
    // Reads are neither held back nor asked about.
    let credit = if effect { credit::lines(route) } else { Vec::new() };
    let bounds = bounds::lines(route, effect);
    let more = checked.into_iter().chain(bounds).chain(unknown);
    let more = more.chain(polls::lines(route)).chain(credit);
    for (name, words, keys) in lines.into_iter().chain(more) {
        let by = written::by(route, keys);
        writeln!(text, "  {name}: {words}{by}").expect(INTO_A_STRING);
    }
    keyed
}

fn backoff(backoff: &Backoff) -> String {
    let Backoff { growth, initial, max, jitter } = backoff;
    format!("{growth:?} from {initial:?} to {max:?}, jitter {jitter:?}").to_lowercase()
}

fn budget(terms: Terms) -> String {
    let Terms { ratio_milli, per_second, burst } = terms;
    let ratio = f64::from(ratio_milli) / 1000.0;
    format!(
        "{ratio} of a retry for each success and {per_second} a second, {burst} saved up at most"
    )
}

fn errors(shape: &Shape) -> &'static str {
    match shape {
        Shape::Problem => "problems (RFC 9457)",
        Shape::Provider(_) => "the provider's own error JSON",
    }
}

fn after(route: &Route, request: &Request, key: &Keyed, attempt: Classified) -> String {
    let policy = &route.retry;
    let now = Instant::now();
    let promised = key.sent && route.rules.upstream_dedupes == Some(true);
    let standing = Standing {
        dedupes_until: promised.then(|| now + route.rules.upstream_ttl),
        ..Standing::default()
    };
    let facts = Facts {
        attempt,
        made: 1,
        free_used: 0,
        hint: Hint::Absent,
        instructed: None,
        permanent: false,
        in_progress: false,
        repeatable: repeatable(&request.method, &standing, policy, now),
        replayable: true,
        signed: signature::signature(&request.headers, request.path.query(), SystemTime::now()),
        off: request
            .headers
            .get("samekey-retry")
            .is_some_and(|off| off.as_bytes().eq_ignore_ascii_case(b"off")),
        sdk_retry: hint::is_sdk_retry(&request.headers),
        now,
        deadline: now + policy.deadline.after,
    };
    // The longest of the waits that chance may choose.
    let decision = match decide(policy, &facts, 0.0) {
        // The budget is asked last; a full one is the best case.
        Decision::Retry { cost, .. }
            if Budget::new(policy.budget, now).withdraw(cost, now).is_none() =>
        {
            Decision::Stop(StopWord::Budget)
        }
        other => other,
    };
    let keys = written::deciding(&decision, &facts);
    let by = if keys.is_empty() { String::new() } else { written::by(route, keys) };
    words(decision, &facts) + &by
}

fn words(decision: Decision, facts: &Facts) -> String {
    match decision {
        Decision::Retry { wait, cost, .. } => {
            let why = match facts.attempt.outcome {
                Outcome::NotSent => "nothing was sent",
                Outcome::Refused => "the upstream refused it unprocessed",
                Outcome::Throttled if !facts.repeatable => {
                    "the status proves that nothing was done"
                }
                Outcome::Throttled | Outcome::Failed | Outcome::Ambiguous => "repeating it is safe",
                Outcome::Replayed | Outcome::Done => "the upstream asks for it",
            };
            let (outcome, cost) = (facts.attempt.outcome.as_str(), price(cost));
            format!("{outcome}: retried after up to {wait:?}, for {cost} of the budget: {why}")
        }
        Decision::Stop(stop) => {
            let (outcome, word, why) = (facts.attempt.outcome.as_str(), stop.as_str(), why(stop));
            format!("{outcome}: passed on, Samekey-Stop: {word}: {why}")
        }
        Decision::Pass => {
            let why = match facts.attempt.outcome {
                Outcome::Done | Outcome::Replayed => "there is nothing to retry",
                Outcome::NotSent
                | Outcome::Refused
                | Outcome::Throttled
                | Outcome::Failed
                | Outcome::Ambiguous => "the route's `on` does not hold it",
            };
            format!("{}: passed on: {why}", facts.attempt.outcome.as_str())
        }
    }
}

fn price(cost: Cost) -> &'static str {
    match cost {
        Cost::Free => "nothing",
        Cost::Third => "a third of a token",
        Cost::One => "one token",
        Cost::Two => "two tokens",
    }
}

fn why(stop: StopWord) -> &'static str {
    match stop {
        StopWord::Attempts => "there are no more attempts",
        StopWord::Deadline => "the wait would pass the deadline",
        StopWord::Budget => "the route has not earned another retry",
        StopWord::Unsafe => {
            "it may have been done, and the upstream is not known to de-duplicate by key"
        }
        StopWord::Body => "the body can no longer be sent again",
        StopWord::Permanent => "the answer says that no repetition will help",
        StopWord::RetryAfter => "the upstream asks for a longer wait than the route allows",
        StopWord::UpstreamSaidNo => "the upstream says not to retry",
        StopWord::Signed => "its signature would no longer be accepted",
        StopWord::Off => "the request asks for a single attempt",
    }
}

/// How an attempt ends that is asked for by a status, a way to fail, or an outcome's
/// own word.
fn end(word: &str) -> Result<Result<Response, Failure>, Stop> {
    let unreachable = || Failure::Unreachable { detail: String::new(), kind: "connection_refused" };
    Ok(match word {
        "connect" | "not_sent" => Err(unreachable()),
        "refused" => Err(Failure::Refused),
        "reset" | "ambiguous" => Err(Failure::Protocol { detail: String::new(), broken: true }),
        "timeout" => Err(Failure::TimedOut { after: Duration::ZERO, sent: true }),
        "throttled" => Ok(Response::new(StatusCode::TOO_MANY_REQUESTS, Body::empty())),
        "failed" => Ok(Response::new(StatusCode::INTERNAL_SERVER_ERROR, Body::empty())),
        "replayed" => Ok(replayed()),
        "done" => Ok(Response::new(StatusCode::OK, Body::empty())),
        status => Ok(Response::new(status.parse().map_err(|_invalid| unasked())?, Body::empty())),
    })
}

fn replayed() -> Response {
    let mut response = Response::new(StatusCode::OK, Body::empty());
    response.headers.insert("idempotent-replayed", HeaderValue::from_static("true"));
    response
}

fn unasked() -> Stop {
    let words = "a status, connect, reset, timeout, or an outcome such as refused or ambiguous";
    Stop::Usage(format!("samekey explain: --after takes {words}"))
}

const FORWARDED: &str =
    "  no route matches: it is forwarded as it came, without a key and without retries\n";
const INTO_A_STRING: &str = "writing into a string never fails";
const KEY: &[&str] =
    &["idempotency.header", "idempotency.inject", "idempotency.identity", "idempotency.require"];

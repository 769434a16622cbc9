//! `samekey explain`: the decisions of a route, asked without sending anything.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use samekey::exchange::hint::{self, Hint};
use samekey::exchange::{Origin, Outcome, Scheme, Standing, signature};
use samekey::idempotency::splice::client_key;
use samekey::idempotency::{Carrier, Rules};
use samekey::retry::decision::{Decision, Facts, decide, repeatable};
use samekey::retry::outcome::{Classified, classify};
use samekey::retry::{Attempts, Policy};
use samekey::route::{Kind, Mode, Route};
use tokio::time::Instant;

use crate::cli::{Stop, load, print};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The request's method
    method: String,
    /// Its URL
    url: String,
    /// A header field, as `Name: value`; may be given more than once
    #[arg(short = 'H', long = "header", value_name = "FIELD")]
    headers: Vec<String>,
    /// Only this outcome: a status, or connect, refused, reset, timeout
    #[arg(long, value_name = "OUTCOME")]
    after: Option<String>,
}

struct Request {
    method: Method,
    origin: Origin,
    path: PathAndQuery,
    headers: HeaderMap,
}

pub(super) fn explain(path: Option<PathBuf>, arguments: &Arguments) -> Result<ExitCode, Stop> {
    let request = read(arguments)?;
    let outcomes: Vec<String> = match &arguments.after {
        Some(one) => vec![one.clone()],
        None => ["429", "500", "503", "connect", "reset", "timeout"].map(str::to_owned).to_vec(),
    };
    let (config, _) = load(path)?;
    let Origin { host, port, .. } = &request.origin;
    let found = config.routes.iter().find(|route| {
        route.matcher.matches(host, *port, &request.method, request.path.path())
    });
    let Some(route) = found else {
        let text = "route: none\n  no route matches: it is forwarded as it came, without a key and \
                    without retries\n";
        print(text)?;
        return Ok(ExitCode::SUCCESS);
    };
    let mut text = String::new();
    let key = describe(&mut text, &config.source.to_string(), route, &request);
    for outcome in outcomes {
        let line = after(route, &request, &key, &outcome)?;
        writeln!(text, "after {outcome:<8} {line}").expect("writing into a string never fails");
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
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

/// What is known of the key that a request would have.
struct Key {
    sent: bool,
}

fn describe(text: &mut String, source: &str, route: &Route, request: &Request) -> Key {
    let kind = route.kind_of(&request.method);
    let effect = kind == Kind::Effect;
    let rules = &route.rules;
    let (words, sent) = key(rules, request, effect);
    let policy = &route.retry;
    let attempts = match policy.attempts {
        Attempts::AtMost(most) => most.to_string(),
        Attempts::Unlimited => "unlimited".to_owned(),
    };
    let observed = if route.mode == Mode::Observe { " (observe: counted, not carried out)" } else { "" };
    let dedupes = match rules.upstream_dedupes {
        Some(true) => "yes: a repeated key has one effect there",
        Some(false) => "no",
        None => "not known; say upstream_dedupes: true if its documentation promises it",
    };
    let lines = [
        format!("route: {} ({source}){observed}", route.name),
        format!("  kind: {kind:?}").to_lowercase(),
        format!("  key: {words}"),
        format!("  upstream de-duplicates: {dedupes}"),
        format!("  attempts: {attempts}, within {:?}", policy.deadline.after),
        format!("  retry-after obeyed up to: {:?}", policy.retry_after_max),
    ];
    for line in lines {
        writeln!(text, "{line}").expect("writing into a string never fails");
    }
    Key { sent }
}

fn key(rules: &Rules, request: &Request, effect: bool) -> (String, bool) {
    let carrier = match &rules.carrier {
        Carrier::Header(name) => format!("header {name}"),
        Carrier::Json(pointer) => format!("JSON member {pointer}"),
        Carrier::Query(name) => format!("query parameter {name}"),
    };
    let own = client_key(&rules.carrier, &request.headers, request.path.query(), None);
    if let Ok(Some(_)) = own {
        return (format!("the client's own, in {carrier}"), true);
    }
    let wall = SystemTime::now();
    let signed = signature::signature(&request.headers, request.path.query(), wall).is_some();
    let injects = rules.inject.unwrap_or(effect) && !signed;
    if request.headers.contains_key("samekey-key") {
        return (format!("derived from Samekey-Key, in {carrier}"), injects);
    }
    if rules.identity.is_some() {
        return (format!("derived from the route's identity where the request has it, in {carrier}"), injects);
    }
    match (injects, signed) {
        (true, _) => (format!("a random one, in {carrier}"), true),
        (false, true) => ("none: the request is signed, and nothing is added to it".to_owned(), false),
        (false, false) => ("none: this is not an effect route".to_owned(), false),
    }
}

fn after(route: &Route, request: &Request, key: &Key, outcome: &str) -> Result<String, Stop> {
    let policy = &route.retry;
    let attempt = attempt(policy, request, outcome)?;
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
        repeatable: repeatable(&request.method, &standing, policy, now),
        replayable: true,
        signed: signature::signature(&request.headers, request.path.query(), SystemTime::now()),
        off: request.headers.get("samekey-retry").is_some_and(|off| off.as_bytes().eq_ignore_ascii_case(b"off")),
        sdk_retry: hint::is_sdk_retry(&request.headers),
        now,
        deadline: now + policy.deadline.after,
    };
    // The longest of the waits that chance may choose.
    Ok(words(decide(policy, &facts, 0.0), &facts))
}

fn words(decision: Decision, facts: &Facts) -> String {
    match decision {
        Decision::Retry { wait, cost, .. } => {
            let why = match facts.attempt.outcome {
                Outcome::NotSent => "nothing was sent",
                Outcome::Refused => "the upstream refused it unprocessed",
                Outcome::Throttled if !facts.repeatable => "the status proves that nothing was done",
                Outcome::Throttled | Outcome::Failed | Outcome::Ambiguous => "repeating it is safe",
                Outcome::Replayed | Outcome::Done => "the upstream asks for it",
            };
            format!("{}: retried after up to {wait:?}, for {cost:?} of the budget: {why}", facts.attempt.outcome.as_str())
        }
        Decision::Stop(stop) => {
            format!("{}: passed on, Samekey-Stop: {}", facts.attempt.outcome.as_str(), stop.as_str())
        }
        Decision::Pass => format!("{}: passed on", facts.attempt.outcome.as_str()),
    }
}

fn attempt(policy: &Policy, request: &Request, outcome: &str) -> Result<Classified, Stop> {
    use samekey::exchange::{Body, Failure, Response};
    let broken = || Failure::Protocol { detail: String::new(), broken: true };
    let result = match outcome {
        "connect" => Err(Failure::Unreachable { detail: String::new(), kind: "connection_refused" }),
        "refused" => Err(Failure::Refused),
        "reset" => Err(broken()),
        "timeout" => Err(Failure::TimedOut { after: Duration::ZERO, sent: true }),
        status => {
            let status = status.parse::<StatusCode>().map_err(|_invalid| {
                let text = "--after takes a status, or connect, refused, reset, timeout";
                Stop::Usage(format!("samekey explain: {text}"))
            })?;
            Ok(Response::new(status, Body::empty()))
        }
    };
    let unsent = || Stop::Failed(format!("samekey: {} is no attempt", request.path));
    classify(&result, policy).ok_or_else(unsent)
}

//! The page of the admin listener: what the API tells, for people.
//!
//! It holds no script, loads nothing and sends nothing: what can be done is written as the
//! line to type. All that comes from traffic is escaped by how it is put in.

mod routes;

use std::time::SystemTime;

use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::response::{IntoResponse as _, Response};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;

use crate::admin::{Attempt, Desk, Exchange};
use crate::credit::breakers;
use crate::exchange::instant::rfc3339;
use crate::journal::State as Outcome;
use crate::journal::ledger::Filter;
use crate::journal::moment::micros_of;
use crate::proxy::sheet::{POLICY, STYLE};

pub(super) async fn show(State(desk): State<Desk>) -> Response {
    let list = async |state, most| {
        let wanted = Filter { state, limit: most + 1, ..Filter::default() };
        let entries = (desk.books.list)(wanted).await.map_err(|fault| fault.to_string())?;
        Ok(entries.iter().map(Exchange::from).collect())
    };
    let seen = Seen {
        status: (desk.status)(),
        routes: (desk.routes)(),
        unknown: list(Some(Outcome::Unknown), UNKNOWN_MAX).await,
        recent: list(None, RECENT_MAX).await,
        breakers: desk.breakers.list(),
        at: rfc3339(micros_of(SystemTime::now())),
    };
    let mut response = page(&seen).into_string().into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(policy) = HeaderValue::from_str(&POLICY) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// What the page is made of.
struct Seen {
    status: Value,
    routes: Value,
    unknown: Listed,
    recent: Listed,
    breakers: Vec<breakers::Shown>,
    at: String,
}

/// Exchanges, of which one more was asked for than is shown, or why they cannot be read.
type Listed = Result<Vec<Exchange>, String>;

fn page(seen: &Seen) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "samekey" (counted(&seen.unknown)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "samekey " span.quiet { (text(&seen.status, "version")) } }
                    (links())
                }
                main {
                    (status(&seen.status))
                    (unknown(&seen.unknown))
                    (breakers_open(&seen.breakers, &text(&seen.status, "admin")))
                    (recent(&seen.recent))
                    (routes::routes(&seen.routes))
                }
                footer { p { "As of " (time(&seen.at)) ". Nothing here changes by itself: load it again." } }
            }
        }
    }
}

/// How many are open, for the title: a tab says it when nobody looks at it.
fn counted(unknown: &Listed) -> String {
    match unknown.as_ref().map_or(0, Vec::len) {
        0 => String::new(),
        open if open > UNKNOWN_MAX as usize => format!(": more than {UNKNOWN_MAX} unknown"),
        open => format!(": {open} unknown"),
    }
}

fn links() -> Markup {
    html! {
        nav aria-label="What programs read" {
            ul {
                @for path in ["/metrics", "/api/status", "/api/routes", "/api/exchanges",
                    "/api/breakers", "/livez", "/readyz"]
                {
                    li { a href=(path) { (path) } }
                }
            }
        }
    }
}

fn status(status: &Value) -> Markup {
    let store = status.get("store").unwrap_or(&Value::Null);
    let listeners = status.get("listeners").and_then(Value::as_array);
    let listeners: Vec<String> = listeners.into_iter().flatten().map(plain).collect();
    let draining = status.get("draining").and_then(Value::as_bool).unwrap_or_default();
    let up = status.get("up_seconds").and_then(Value::as_u64).unwrap_or_default();
    html! {
        section aria-label="Status" {
            dl {
                dt { "state" }
                dd {
                    @if draining { span.warn { "draining" } } @else { span.good { "up" } }
                    " for " (span(up))
                }
                dt { "listens on" } dd { (listeners.join(", ")) }
                dt { "config in force" } dd { (text(status, "config")) }
                dt { "store" }
                dd { (text(store, "kind")) ": " (text(store, "entries")) " keys, "
                    (size(store.get("bytes").and_then(Value::as_u64).unwrap_or_default())) }
                dt { "deliveries waiting" } dd { (text(status, "inbox_waiting")) }
            }
        }
    }
}

fn unknown(listed: &Listed) -> Markup {
    let most = UNKNOWN_MAX as usize;
    match listed {
        Err(fault) => unreadable("Unknown outcomes", fault),
        Ok(all) if all.is_empty() => html! {
            section aria-labelledby="unknown" {
                h2 #unknown { "Unknown outcomes" }
                p.good { "None: of every key it is known what became of it." }
            }
        },
        Ok(all) => html! {
            section.alert aria-labelledby="unknown" {
                h2 #unknown.bad { "Unknown outcomes" }
                p { "Nobody knows whether these were done, and their keys stay closed. Ask the "
                    "provider, then type one of the two lines; neither can be taken back." }
                ol.cards { @for one in all.iter().take(most) { li { (card(one)) } } }
                @if all.len() > most {
                    p { "There are more: " code { "samekey ledger list --state unknown" } }
                }
            }
        },
    }
}

/// One whose outcome is unknown, with the lines that settle it.
fn card(one: &Exchange) -> Markup {
    html! {
        h3 { (one.method) " " (one.url) }
        dl {
            dt { "began" } dd { (time(&one.started_at)) }
            dt { "route" } dd { (one.route) }
            dt { "attempts" } dd { (attempts(&one.attempts)) }
            @if let Some(key) = &one.key { dt { "key" } dd { code { (key) } } }
            @for (name, value) in &one.captured { dt { (name) } dd { code { (value) } } }
        }
        pre { "samekey ledger resolve " (one.id) " landed\nsamekey ledger resolve " (one.id) " absent" }
    }
}

fn breakers_open(open: &[breakers::Shown], admin: &str) -> Markup {
    html! {
        section aria-labelledby="breakers" {
            h2 #breakers { "Credit breakers" }
            @if open.is_empty() { p.quiet { "None is open." } } @else {
                p.warn { "Effects of these credentials are refused with 402 until there is credit again." }
                div.wide tabindex="0" role="region" aria-label="Table of open breakers" {
                    table {
                        (headings(&["Route", "Upstream", "Opened", "Next try"]))
                        tbody {
                            @for one in open {
                                tr {
                                    th scope="row" { (one.route) }
                                    td { (one.origin) }
                                    td { (time(&rfc3339(micros_of(one.opened_at)))) }
                                    td { (time(&rfc3339(micros_of(one.resets_at)))) }
                                }
                            }
                        }
                    }
                }
                p { "To close them now: " code { "curl -X POST http://" (admin) "/api/breakers/reset" } }
            }
        }
    }
}

fn recent(listed: &Listed) -> Markup {
    let all = match listed {
        Err(fault) => return unreadable("Recent exchanges", fault),
        Ok(all) => all,
    };
    html! {
        section aria-labelledby="recent" {
            h2 #recent { "Recent exchanges" }
            @if all.is_empty() {
                p.quiet { "None yet: the ledger has those with a key, and those that were retried." }
            } @else {
                div.wide tabindex="0" role="region" aria-label="Table of recent exchanges" {
                    table {
                        caption { "Newest first: those with a key, and those that were retried." }
                        (headings(&["Began", "Route", "Request", "State", "Attempts", "Captured"]))
                        tbody {
                            @for one in all.iter().take(RECENT_MAX as usize) { (recent_row(one)) }
                        }
                    }
                }
            }
        }
    }
}

fn recent_row(one: &Exchange) -> Markup {
    let class = match one.state.as_str() {
        "completed" => "good",
        "unknown" => "bad",
        "failed" => "warn",
        _ => "",
    };
    html! {
        tr {
            th scope="row" {
                a href=(format!("/api/exchanges/{}", one.id)) { (time(&one.started_at)) }
            }
            td { (one.route) }
            td.url { (one.method) " " (one.url) }
            td { span class=(class) { (one.state.replace('_', " ")) }
                @if let Some(status) = one.status { " " (status) } }
            td { (attempts(&one.attempts)) }
            td { (captured(one)) }
        }
    }
}

/// Each attempt as `outcome status, after a wait`.
fn attempts(all: &[Attempt]) -> Markup {
    html! {
        ul {
            @for one in all {
                li { (one.outcome)
                    @if let Some(status) = one.status { " " (status) }
                    @if one.wait_ms > 0 { span.quiet { " after " (one.wait_ms) " ms" } }
                }
            }
        }
    }
}

fn captured(one: &Exchange) -> Markup {
    html! {
        ul { @for (name, value) in &one.captured { li { (name) ": " code { (value) } } } }
    }
}

fn headings(names: &[&str]) -> Markup {
    html! { thead { tr { @for name in names { th scope="col" { (name) } } } } }
}

fn unreadable(what: &str, fault: &str) -> Markup {
    html! {
        section.alert aria-label=(what) {
            h2 { (what) }
            p.bad { "The ledger cannot be read: " (fault) }
        }
    }
}

/// A time to the second; its whole text is there for programs.
fn time(at: &str) -> Markup {
    let short = at.get(..19).unwrap_or(at).replacen('T', " ", 1);
    html! { time datetime=(at) { (short) " UTC" } }
}

/// A member as text: empty where there is none.
fn text(of: &Value, name: &str) -> String {
    of.get(name).map(plain).unwrap_or_default()
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = UNITS.iter().find(|(unit, _)| bytes >= *unit);
    unit.map_or_else(|| format!("{bytes} B"), |(unit, name)| format!("{} {name}", bytes / unit))
}

/// More are for the ledger's own list: a page is read from its top.
const UNKNOWN_MAX: u32 = 100;
const RECENT_MAX: u32 = 50;

#[cfg(test)]
mod tests;

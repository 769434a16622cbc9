//! What has become of a key, and how it is opened by hand.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::json;

use crate::admin::Desk;
use crate::admin::api::{answer, problem};
use crate::admin::exchanges::{missing, unreadable};
use crate::admin::shown::{Exchange, name};
use crate::admin::wanted::LIMIT_MAX;
use crate::journal;
use crate::journal::ledger::{Entry, Filter};
use crate::journal::resolve::Freed;

/// The exchanges of a key, newest first, and what has become of the newest.
pub(super) async fn show(
    State(desk): State<Desk>,
    key: Result<Path<String>, PathRejection>,
) -> Response {
    let Ok(Path(key)) = key else { return unheard_of() };
    let wanted = Filter { key: Some(key.clone()), limit: LIMIT_MAX, ..Filter::default() };
    match (desk.books.list)(wanted).await {
        Ok(entries) => match closest(&entries) {
            Some(closest) => answer(&Shown {
                key: &key,
                state: closest.state.as_str(),
                exchanges: entries.iter().map(Exchange::from).collect(),
            }),
            None => unheard_of(),
        },
        Err(fault) => unreadable(fault),
    }
}

/// What a key is closed by first: what is under way, what is unknown, the newest.
fn closest(entries: &[Entry]) -> Option<&Entry> {
    let of = |state| entries.iter().find(move |entry| entry.state == state);
    of(journal::State::InFlight).or_else(|| of(journal::State::Unknown)).or_else(|| entries.first())
}

/// Opens a key, so that it can be asked for anew.
pub(super) async fn free(
    State(desk): State<Desk>,
    key: Result<Path<String>, PathRejection>,
) -> Response {
    let Ok(Path(key)) = key else { return unheard_of() };
    match (desk.books.free)(key.clone()).await {
        Ok(Freed::Busy(state)) => busy(&desk, key, state).await,
        // It may be free already: then there are rows of it that do not close it.
        Ok(Freed::Ids(ids)) if ids.is_empty() => {
            let wanted = Filter { key: Some(key.clone()), limit: 1, ..Filter::default() };
            match (desk.books.list)(wanted).await {
                Ok(entries) if entries.is_empty() => unheard_of(),
                Ok(_) => freed(&key, 0),
                Err(fault) => unreadable(fault),
            }
        }
        Ok(Freed::Ids(ids)) => freed(&key, ids.len()),
        Err(fault) => unreadable(fault),
    }
}

/// A key that is not forgotten, and whose exchange has to be resolved.
async fn busy(desk: &Desk, key: String, state: journal::State) -> Response {
    let wanted = Filter { key: Some(key), state: Some(state), limit: 1, ..Filter::default() };
    let id = match (desk.books.list)(wanted).await {
        Ok(entries) => entries.first().map(name),
        Err(fault) => return unreadable(fault),
    };
    let detail = match (id, state) {
        (None, _) => "its exchange has just ended: ask again".to_owned(),
        (Some(id), journal::State::InFlight) => {
            format!("exchange {id} is in_flight: wait for its end, and resolve it if it is unknown")
        }
        (Some(id), _) => {
            let word = state.as_str();
            format!("exchange {id} is {word}: resolve it (POST /api/exchanges/{id}/resolve)")
        }
    };
    problem(StatusCode::CONFLICT, "key-busy", &detail)
}

fn freed(key: &str, count: usize) -> Response {
    answer(&json!({"key": key, "freed": count}))
}

fn unheard_of() -> Response {
    missing("there is no exchange with this key")
}

/// A key, as it is shown.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    key: &'a str,
    state: &'static str,
    exchanges: Vec<Exchange>,
}

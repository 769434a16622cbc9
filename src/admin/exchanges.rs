//! What was tried, and what an operator says came of it.

use axum::body::{Body, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use crate::admin::Desk;
use crate::admin::api::{answer, problem};
use crate::admin::shown::{Exchange, Page, stands};
use crate::admin::wanted;
use crate::exchange::id::ExchangeId;
use crate::journal::Fault;
use crate::journal::ledger::Filter;
use crate::journal::resolve::{Resolution, Verdict};

/// Which of them there are, newest first.
pub(super) async fn list(State(desk): State<Desk>, RawQuery(query): RawQuery) -> Response {
    let filter = match wanted::filter(query.as_deref()) {
        Ok(filter) => filter,
        Err(wrong) => return problem(StatusCode::BAD_REQUEST, "bad-request", &wrong),
    };
    let limit = filter.limit;
    // One more says whether there is a next page.
    let listed = (desk.books.list)(Filter { limit: limit + 1, ..filter }).await;
    listed.map_or_else(unreadable, |entries| answer(&Page::of(&entries, limit)))
}

/// One of them.
pub(super) async fn show(
    State(desk): State<Desk>,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    let id = match named(id) {
        Ok(id) => id,
        Err(wrong) => return missing(&wrong),
    };
    shown(&desk, id).await
}

/// Settles one whose outcome is unknown.
pub(super) async fn resolve(
    State(desk): State<Desk>,
    id: Result<Path<String>, PathRejection>,
    body: Body,
) -> Response {
    let id = match named(id) {
        Ok(id) => id,
        Err(wrong) => return missing(&wrong),
    };
    let Ok(body) = to_bytes(body, BODY_MAX).await else {
        // Cut short, nobody is left to read this: it was too long.
        let wrong = format!("{WANTED}, in at most {BODY_MAX} bytes");
        return problem(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", &wrong);
    };
    let Ok(settlement) = serde_json::from_slice::<Settlement>(&body) else {
        return problem(StatusCode::BAD_REQUEST, "bad-request", WANTED);
    };
    match (desk.books.resolve)(id, settlement.outcome.verdict()).await {
        Ok(Resolution::Settled(_)) => shown(&desk, id).await,
        Ok(Resolution::Stands(state)) => {
            problem(StatusCode::CONFLICT, "not-unknown", &stands(id, state))
        }
        Ok(Resolution::Missing) => missing(&unheard_of(id)),
        Err(fault) => unreadable(fault),
    }
}

async fn shown(desk: &Desk, id: ExchangeId) -> Response {
    match (desk.books.show)(id).await {
        Ok(Some(entry)) => answer(&Exchange::from(&entry)),
        Ok(None) => missing(&unheard_of(id)),
        Err(fault) => unreadable(fault),
    }
}

fn named(id: Result<Path<String>, PathRejection>) -> Result<ExchangeId, String> {
    let text = id.map(|Path(text)| text).unwrap_or_default();
    text.parse().map_err(|malformed: crate::exchange::id::NoExchangeId| malformed.to_string())
}

fn unheard_of(id: ExchangeId) -> String {
    format!("there is no exchange {id}")
}

/// There is nothing of that name.
pub(super) fn missing(detail: &str) -> Response {
    problem(StatusCode::NOT_FOUND, "not-found", detail)
}

/// The ledger did not answer.
pub(super) fn unreadable(fault: Fault) -> Response {
    problem(StatusCode::SERVICE_UNAVAILABLE, "store-unavailable", &fault.to_string())
}

/// What a request to resolve says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settlement {
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Landed,
    Absent,
}

impl Outcome {
    fn verdict(self) -> Verdict {
        match self {
            Self::Landed => Verdict::Landed,
            Self::Absent => Verdict::Absent,
        }
    }
}

const WANTED: &str = r#"the body has to be {"outcome": "landed"} or {"outcome": "absent"}"#;
/// A hundred times what is wanted.
const BODY_MAX: usize = 4096;

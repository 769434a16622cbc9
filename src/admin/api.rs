//! What can be asked about the sidecar, in JSON.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};
use serde_json::{Value, json};

use crate::admin::Desk;

pub(super) fn router() -> Router<Desk> {
    Router::new()
        .route("/status", get(|State(desk): State<Desk>| async move { answer(&(desk.status)()) }))
        .route("/routes", get(|State(desk): State<Desk>| async move { answer(&(desk.routes)()) }))
        .route("/reload", post(reload))
        .route("/exchanges", any(later))
        .route("/exchanges/{*rest}", any(later))
        .route("/keys/{*rest}", any(later))
        .route("/events", any(later))
        .method_not_allowed_fallback(|| async {
            let detail = "this is asked with another method";
            problem(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail)
        })
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "not-found", "there is nothing here") })
}

/// What the ledger will answer.
async fn later() -> Response {
    let detail = "exchanges, keys and events come with a later version";
    problem(StatusCode::NOT_IMPLEMENTED, "not-implemented", detail)
}

async fn reload(State(desk): State<Desk>) -> Response {
    // It reads files; the listener's other callers wait for it no longer than that.
    match (desk.reload)() {
        Ok(()) => answer(&json!({"reloaded": true})),
        Err(faults) => problem(StatusCode::UNPROCESSABLE_ENTITY, "config-refused", &faults),
    }
}

fn answer(value: &Value) -> Response {
    ([(CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

/// A problem of the admin side (RFC 9457).
pub(super) fn problem(status: StatusCode, slug: &str, detail: &str) -> Response {
    let text = json!({
        "type": format!("urn:samekey:{slug}"),
        "title": status.canonical_reason().unwrap_or_default(),
        "status": status.as_u16(),
        "detail": detail,
        "code": slug.replace('-', "_"),
    });
    (status, [(CONTENT_TYPE, "application/problem+json")], text.to_string()).into_response()
}

//! What can be asked about the sidecar, in JSON.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use crate::admin::Desk;

pub(super) fn router() -> Router<Desk> {
    Router::new()
        .route("/status", get(|State(desk): State<Desk>| async move { answer(&(desk.status)()) }))
        .route("/routes", get(|State(desk): State<Desk>| async move { answer(&(desk.routes)()) }))
        .route("/reload", post(reload))
        .fallback(|| async {
            problem(StatusCode::NOT_FOUND, "not-found", "there is nothing here")
        })
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

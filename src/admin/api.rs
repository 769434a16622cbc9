//! What can be asked about the sidecar, in JSON.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde::Serialize;
use serde_json::json;

use crate::admin::{Desk, breakers, events, exchanges, keys};

pub(super) fn router() -> Router<Desk> {
    Router::new()
        .route("/status", get(|State(desk): State<Desk>| async move { answer(&(desk.status)()) }))
        .route("/routes", get(|State(desk): State<Desk>| async move { answer(&(desk.routes)()) }))
        .route("/reload", post(reload))
        .route("/exchanges", get(exchanges::list))
        .route("/exchanges/{id}", get(exchanges::show))
        .route("/exchanges/{id}/resolve", post(exchanges::resolve))
        // A key may hold a slash, written as one or as %2F.
        .route("/keys/{*key}", get(keys::show).delete(keys::free))
        .route("/breakers", get(breakers::list))
        .route("/breakers/reset", post(breakers::reset))
        .route("/events", events::route())
        .method_not_allowed_fallback(|| async {
            let detail = "this is asked with another method";
            problem(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail)
        })
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "not-found", "there is nothing here") })
}

async fn reload(State(desk): State<Desk>) -> Response {
    // It reads files; the listener's other callers wait for it no longer than that.
    match (desk.reload)() {
        Ok(()) => answer(&json!({"reloaded": true})),
        Err(faults) => problem(StatusCode::UNPROCESSABLE_ENTITY, "config-refused", &faults),
    }
}

pub(super) fn answer(value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => ([(CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => {
            let detail = error.to_string();
            problem(StatusCode::INTERNAL_SERVER_ERROR, "internal", &detail)
        }
    }
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

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::extract::Request;
    use tokio::sync::broadcast;
    use tower::Service as _;

    use super::*;
    use crate::admin::books::tests::desk;

    #[tokio::test]
    async fn a_ledger_that_cannot_be_read_is_a_problem_with_its_reason() {
        let (ended, _nobody) = broadcast::channel(1);
        let mut router: Router = router().with_state(desk(ended));
        let exchange = "/exchanges/00000000003e800000007";
        for (method, path) in [
            ("GET", "/exchanges"),
            ("GET", exchange),
            ("POST", &format!("{exchange}/resolve")),
            ("GET", "/keys/k"),
            ("DELETE", "/keys/k"),
        ] {
            let body = Body::from(r#"{"outcome": "landed"}"#);
            let request = Request::builder().method(method).uri(path).body(body);
            let answer = router.call(request.expect("a request")).await.expect("an answer");
            assert_eq!(answer.status(), 503, "{method} {path}");
            let body = to_bytes(answer.into_body(), 1000).await.expect("a problem");
            let problem: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(problem["code"], "store_unavailable");
            assert_eq!(problem["detail"], "the journal is damaged");
        }
    }
}

//! Which credit breakers are open, and how an operator closes them.

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::admin::Desk;
use crate::admin::api::{answer, problem};
use crate::credit::breakers;
use crate::exchange::instant::rfc3339;
use crate::journal::moment::micros_of;

/// Those that are open, oldest first; whose they are is nobody's to see.
pub(super) async fn list(State(desk): State<Desk>) -> Response {
    let open: Vec<Shown> = desk.breakers.list().into_iter().map(Shown::from).collect();
    answer(&json!({"breakers": open}))
}

/// Closes all, or those that one route opened.
pub(super) async fn reset(State(desk): State<Desk>, body: Body) -> Response {
    let Ok(body) = to_bytes(body, BODY_MAX).await else {
        // Cut short, nobody is left to read this: it was too long.
        let wrong = format!("{WANTED}, in at most {BODY_MAX} bytes");
        return problem(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", &wrong);
    };
    let wanted =
        if body.is_empty() { Ok(Wanted::default()) } else { serde_json::from_slice(&body) };
    let Ok(Wanted { route }) = wanted else {
        return problem(StatusCode::BAD_REQUEST, "bad-request", WANTED);
    };
    let reset = desk.breakers.reset(route.as_deref());
    tracing::info!(route, reset, "credit breakers were reset");
    answer(&json!({"reset": reset}))
}

/// What a request to reset says.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wanted {
    route: Option<String>,
}

/// A breaker, as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    route: String,
    origin: String,
    opened_at: String,
    resets_at: String,
}

impl From<breakers::Shown> for Shown {
    fn from(shown: breakers::Shown) -> Self {
        Self {
            route: shown.route,
            origin: shown.origin,
            opened_at: rfc3339(micros_of(shown.opened_at)),
            resets_at: rfc3339(micros_of(shown.resets_at)),
        }
    }
}

const WANTED: &str = r#"the body has to be empty or {"route": NAME}"#;
/// Many times what a route's name takes.
const BODY_MAX: usize = 4096;

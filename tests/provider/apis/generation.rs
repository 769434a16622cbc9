//! Generates media, under keys that are honoured for 24 hours.
//!
//! ```text
//! POST /v1/models/MODEL            queues a request and charges for it
//! POST /v1/models/MODEL/estimate   {"credits": N}, for nothing
//! GET  /v1/requests/ID/status      how far it is
//! GET  /v1/requests/ID             its output; 202 while there is none
//! ```
//!
//! The same key with the same parameters gives the same request and costs nothing, with
//! other parameters 409 `idempotency_key_reuse`, and while the first is under way 409
//! `request_in_progress`. No header says that an answer was given before.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::courier::{self, Delivery, Times};
use super::desk::{Desk, Effect, Standing};
use super::keys::{Keys, Known};
use super::progress::{Progress, Stage};
use super::{Answer, Api, Call, Head, opaque, text, with};

/// The requests of one account.
#[derive(Default)]
pub(super) struct Generation {
    keys: Keys,
    requests: Vec<Asked>,
}

struct Asked {
    id: String,
    model: String,
    progress: Progress,
}

impl Api for Generation {
    fn serve(&mut self, call: &Call<'_>, desk: &mut Desk) -> Answer {
        if call.head.field("authorization").is_none() {
            return error(401, "invalid_api_key");
        }
        let standing = desk.admit(call);
        if standing.over {
            let told = with(error(429, "rate_limit_exceeded"), "Retry-After", standing.reset);
            return limits(told, standing, desk);
        }
        let (method, words) = call.words();
        let answer = match (method, words.as_slice()) {
            ("POST", ["v1", "models", model]) => self.submit(call, model, desk),
            ("POST", ["v1", "models", model, "estimate"]) => {
                Answer::json(200, &json!({"credits": cost(model)}))
            }
            ("GET", ["v1", "requests", id, "status"]) => self.poll(call, id, desk),
            ("GET", ["v1", "requests", id]) => self.output(call, id, desk),
            _ => error(404, "not_found"),
        };
        limits(answer, standing, desk)
    }

    fn error(&self, status: u16) -> Answer {
        let code = match status {
            401 | 403 => "invalid_api_key",
            402 => "insufficient_credits",
            422 => "model_input_invalid",
            429 => "rate_limit_exceeded",
            503 => "service_unavailable",
            400..=499 => "invalid_request",
            _ => "internal_error",
        };
        error(status, code)
    }

    fn ended(&mut self, head: &Head) {
        self.keys.ended(head);
    }
}

impl Generation {
    fn submit(&mut self, call: &Call<'_>, model: &str, desk: &mut Desk) -> Answer {
        if !call.key().is_none_or(is_uuid_v4) {
            return error(desk.terms().refusal_status, "invalid_request");
        }
        match self.keys.ask(call, KEPT) {
            Known::Nothing => {}
            Known::Answered(status, body) => return Answer::json(status, &body),
            Known::Running => return error(409, "request_in_progress"),
            Known::Other => return error(409, "idempotency_key_reuse"),
        }
        let wanted = call.json();
        let prompt = text(&wanted, "/input/prompt");
        if prompt.is_empty() {
            return error(422, "model_input_invalid");
        }
        let id = id(self.requests.len());
        let (key, cost) = (call.key().map(str::to_owned), cost(model));
        if !desk.charge(Effect { id: id.clone(), key, event: prompt, cost }) {
            return error(desk.terms().broke_status, "insufficient_credits");
        }
        let body = json!({
            "request_id": id,
            "status": "IN_QUEUE",
            "status_url": format!("/v1/requests/{id}/status"),
            "response_url": format!("/v1/requests/{id}"),
            "cost": cost,
        });
        self.keys.keep(call, 200, &body);
        let progress = Progress::new(call.around.now);
        let asked = Asked { id, model: model.to_owned(), progress };
        asked.announce(&text(&wanted, "/webhook_url"), call.around.now, desk);
        self.requests.push(asked);
        Answer::json(200, &body)
    }

    fn poll(&mut self, call: &Call<'_>, id: &str, desk: &Desk) -> Answer {
        let Some(asked) = self.requests.iter_mut().find(|asked| asked.id == id) else {
            return error(404, "not_found");
        };
        let status = match asked.progress.poll(desk.terms(), call.around.now) {
            Stage::Queued => "IN_QUEUE",
            Stage::Running | Stage::Stumbled => "IN_PROGRESS",
            Stage::Done => "COMPLETED",
        };
        Answer::json(200, &json!({"request_id": id, "status": status}))
    }

    fn output(&self, call: &Call<'_>, id: &str, desk: &Desk) -> Answer {
        let Some(asked) = self.requests.iter().find(|asked| asked.id == id) else {
            return error(404, "not_found");
        };
        if asked.progress.stage(desk.terms(), call.around.now) != Stage::Done {
            return Answer::json(202, &json!({"request_id": id, "status": "IN_PROGRESS"}));
        }
        Answer::json(
            200,
            &json!({
                "request_id": id,
                "status": "COMPLETED",
                "output": asked.output(),
                "cost": cost(&asked.model),
            }),
        )
    }
}

impl Asked {
    fn output(&self) -> Value {
        json!({"images": [{"url": format!("https://media.provider.test/works/{}.png", self.id)}]})
    }

    /// Tells the request's webhook, when it is done.
    fn announce(&self, url: &str, now: Duration, desk: &mut Desk) {
        if url.is_empty() {
            return;
        }
        let payload =
            json!({"model": self.model, "output": self.output(), "cost": cost(&self.model)});
        let body = json!({"request_id": self.id, "status": "OK", "payload": payload}).to_string();
        let after = Duration::from_millis(desk.terms().takes_ms);
        let at = (now + after).as_secs();
        let signature = if desk.terms().signs_time {
            format!("t={at},v1={}", courier::signature(&format!("{at}.{body}")))
        } else {
            courier::signature(&body)
        };
        let field = |name: &str, value: String| (name.to_owned(), value);
        let headers = vec![
            field("X-Clipia-Webhook-Id", self.id.clone()),
            field("X-Clipia-Timestamp", at.to_string()),
            field("X-Clipia-Signature", signature),
        ];
        let times = Times::UntilTaken(Duration::from_millis(desk.terms().redeliver_ms));
        desk.post(Delivery { url: url.to_owned(), headers, body, after, times });
    }
}

/// What a model costs: a film is dearer than an image.
fn cost(model: &str) -> u64 {
    if model.contains("film") { 12 } else { 1 }
}

fn id(n: usize) -> String {
    let lot = u128::from_str_radix(&opaque("generation", n, 32), 16).unwrap_or_default();
    uuid::Builder::from_random_bytes(lot.to_be_bytes()).into_uuid().to_string()
}

fn is_uuid_v4(key: &str) -> bool {
    key.len() == 36 && Uuid::parse_str(key).is_ok_and(|uuid| uuid.get_version_num() == 4)
}

fn limits(answer: Answer, standing: Standing, desk: &Desk) -> Answer {
    let answer = with(answer, "RateLimit-Limit", desk.terms().per_minute);
    let answer = with(answer, "RateLimit-Remaining", standing.remaining);
    with(answer, "RateLimit-Reset", standing.reset)
}

fn error(status: u16, code: &str) -> Answer {
    let kind = match status {
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    };
    let message = code.replace('_', " ");
    Answer::json(status, &json!({"error": {"type": kind, "code": code, "message": message}}))
}

/// How long a key is known.
const KEPT: Duration = Duration::from_hours(24);

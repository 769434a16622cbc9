//! Takes payments, with keys under which every answer is kept, a 500 too.
//!
//! ```text
//! POST /v1/payment_intents   a form with `amount` and `currency`
//! POST /v1/charges           the same     GET /v1/KIND/ID   what was made
//! ```
//!
//! Once a request with a key has begun, its answer is kept, whatever it is, and given
//! again with `Idempotent-Replayed: true`. What is refused before that is not kept.

use std::time::Duration;

use serde_json::{Value, json};

use super::desk::{Desk, Effect};
use super::keys::{Keys, Known};
use super::{Answer, Api, Call, Head, opaque, text, with};

/// The payments of one account.
#[derive(Default)]
pub(super) struct Charges {
    keys: Keys,
    made: Vec<Value>,
}

impl Api for Charges {
    fn serve(&mut self, call: &Call<'_>, desk: &mut Desk) -> Answer {
        if call.head.field("authorization").is_none() {
            return Answer::json(401, &error("invalid_request_error", "api_key_missing"));
        }
        if desk.admit(call).over {
            let body = error("invalid_request_error", "rate_limit");
            return with(Answer::json(429, &body), "Stripe-Should-Retry", true);
        }
        let (method, words) = call.words();
        match (method, words.as_slice()) {
            ("POST", ["v1", "payment_intents"]) => self.create(call, "payment_intent", desk),
            ("POST", ["v1", "charges"]) => self.create(call, "charge", desk),
            ("GET", ["v1", _, id]) => {
                let found = self.made.iter().find(|made| text(made, "/id") == *id);
                let missing = || error("invalid_request_error", "resource_missing");
                found.map_or_else(|| Answer::json(404, &missing()), |made| Answer::json(200, made))
            }
            _ => Answer::json(404, &error("invalid_request_error", "resource_missing")),
        }
    }

    fn error(&self, status: u16) -> Answer {
        Answer::json(status, &scripted(status))
    }

    fn ended(&mut self, head: &Head) {
        self.keys.ended(head);
    }
}

impl Charges {
    fn create(&mut self, call: &Call<'_>, object: &str, desk: &mut Desk) -> Answer {
        match self.keys.ask(call, KEPT) {
            Known::Nothing => {}
            Known::Answered(status, body) => {
                return with(Answer::json(status, &body), "Idempotent-Replayed", true);
            }
            Known::Running => {
                let body = error("invalid_request_error", "idempotency_key_in_use");
                return with(Answer::json(409, &body), "Stripe-Should-Retry", true);
            }
            Known::Other => {
                return Answer::json(400, &error("idempotency_error", "idempotency_error"));
            }
        }
        let amount = call.form("amount").and_then(|text| text.parse::<u64>().ok());
        let (Some(amount), Some(currency)) = (amount, call.form("currency")) else {
            return Answer::json(400, &error("invalid_request_error", "parameter_missing"));
        };
        let prefix = if object == "charge" { "ch" } else { "pi" };
        let id = format!("{prefix}_{}", opaque("charges", self.made.len(), 24));
        let made = json!({
            "id": id,
            "object": object,
            "amount": amount,
            "currency": currency,
            "status": "succeeded",
        });
        let (status, body) = self.pay(call, id, made, desk);
        self.keys.keep(call, status, &body);
        Answer::json(status, &body)
    }

    fn pay(&mut self, call: &Call<'_>, id: String, made: Value, desk: &mut Desk) -> (u16, Value) {
        let event = call.form("metadata[order]").unwrap_or_default();
        let key = call.key().map(str::to_owned);
        if !desk.charge(Effect { id, key, event, cost: 1 }) {
            return (desk.terms().broke_status, error("card_error", "card_declined"));
        }
        self.made.push(made.clone());
        // What a script makes of it is what is kept: the execution had begun.
        call.around.forced.map_or((200, made), |status| (status, scripted(status)))
    }
}

fn error(kind: &str, code: &str) -> Value {
    json!({"error": {"type": kind, "code": code, "message": code.replace('_', " ")}})
}

fn scripted(status: u16) -> Value {
    match status {
        429 => error("invalid_request_error", "rate_limit"),
        400..=499 => error("invalid_request_error", "scripted"),
        _ => error("api_error", "scripted"),
    }
}

/// How long a key is known, at least.
const KEPT: Duration = Duration::from_hours(24);

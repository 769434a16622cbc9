//! Completes chats, whole or as a stream of events. There are no keys.
//!
//! ```text
//! POST /v1/chat/completions   JSON with `model` and `messages`; `stream: true` for events
//! ```
//!
//! Too many requests and no credits are both 429: the code tells them apart.

use serde_json::{Value, json};

use super::desk::{Desk, Effect};
use super::{Answer, Api, Call, bytes, opaque, text, with};

/// The completions of one account.
#[derive(Default)]
pub(super) struct Completions {
    made: usize,
}

impl Api for Completions {
    fn serve(&mut self, call: &Call<'_>, desk: &mut Desk) -> Answer {
        if call.head.field("authorization").is_none() {
            return error(401, "invalid_api_key");
        }
        let standing = desk.admit(call);
        if standing.over {
            let told = with(error(429, "rate_limit_exceeded"), "x-should-retry", true);
            return with(told, "retry-after-ms", standing.reset * 1000);
        }
        let (method, words) = call.words();
        match (method, words.as_slice()) {
            ("POST", ["v1", "chat", "completions"]) => self.complete(call, desk),
            _ => error(404, "not_found"),
        }
    }

    fn error(&self, status: u16) -> Answer {
        error(status, if status == 429 { "rate_limit_exceeded" } else { "server_error" })
    }
}

impl Completions {
    fn complete(&mut self, call: &Call<'_>, desk: &mut Desk) -> Answer {
        let wanted = call.json();
        let last = wanted.get("messages").and_then(Value::as_array).and_then(|all| all.last());
        let Some(last) = last else {
            return error(desk.terms().refusal_status, "invalid_request");
        };
        let id = format!("chatcmpl-{}", opaque("completions", self.made, 24));
        let (event, key) = (text(last, "/content"), call.key().map(str::to_owned));
        if !desk.charge(Effect { id: id.clone(), key, event, cost: 1 }) {
            return error(desk.terms().broke_status, "insufficient_quota");
        }
        self.made += 1;
        let (model, created) = (text(&wanted, "/model"), call.around.now.as_secs());
        if wanted.get("stream") == Some(&Value::Bool(true)) {
            return stream(&id, &model, created);
        }
        let message = json!({"role": "assistant", "content": SAID, "refusal": null});
        let choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
        Answer::json(
            200,
            &json!({
                "id": id,
                "object": "chat.completion",
                "created": created,
                "model": model,
                "choices": [choice],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            }),
        )
    }
}

fn stream(id: &str, model: &str, created: u64) -> Answer {
    let event = |delta: Value, finish: Option<&str>| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        let chunk = json!({
            "id": id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
            "choices": [choice],
        });
        format!("data: {chunk}\n\n")
    };
    let events = [
        event(json!({"role": "assistant", "content": ""}), None),
        event(json!({"content": SAID}), None),
        event(json!({}), Some("stop")),
        "data: [DONE]\n\n".to_owned(),
    ];
    bytes("text/event-stream", events.concat())
}

fn error(status: u16, code: &str) -> Answer {
    let message = code.replace('_', " ");
    let body = json!({"message": message, "type": code, "param": null, "code": code});
    Answer::json(status, &json!({"error": body}))
}

/// What every chat is completed with.
const SAID: &str = "An intro";

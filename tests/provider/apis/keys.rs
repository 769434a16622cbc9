//! Keys that are honoured: what was asked under each, and what was answered.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;

use super::super::request::Head;
use super::{Call, credential};

/// The keys of one API, each of its credential's.
#[derive(Default)]
pub(super) struct Keys(HashMap<(String, String), Asked>);

/// What a key is known for.
pub(super) enum Known {
    /// Nothing: it is new, or older than keys are kept.
    Nothing,
    /// The same request, which was answered so.
    Answered(u16, Value),
    /// The same request, which is not through.
    Running,
    /// Another request.
    Other,
}

struct Asked {
    digest: String,
    path: String,
    at: Duration,
    running: bool,
    answer: (u16, Value),
}

impl Keys {
    /// What the request's key is known for, `ttl` after which it is forgotten.
    pub(super) fn ask(&self, call: &Call<'_>, ttl: Duration) -> Known {
        let asked = place(call.head).and_then(|place| self.0.get(&place));
        let Some(asked) = asked.filter(|asked| call.around.now < asked.at + ttl) else {
            return Known::Nothing;
        };
        if asked.digest != call.digest || asked.path != call.path {
            return Known::Other;
        }
        if asked.running {
            return Known::Running;
        }
        let (status, body) = &asked.answer;
        Known::Answered(*status, body.clone())
    }

    /// Keeps the answer under the request's key, if it has one.
    pub(super) fn keep(&mut self, call: &Call<'_>, status: u16, body: &Value) {
        let Some(place) = place(call.head) else { return };
        let asked = Asked {
            digest: call.digest.to_owned(),
            path: call.path.to_owned(),
            at: call.around.now,
            running: call.around.lingers,
            answer: (status, body.clone()),
        };
        self.0.insert(place, asked);
    }

    /// Says that the request with this head is through.
    pub(super) fn ended(&mut self, head: &Head) {
        if let Some(asked) = place(head).and_then(|place| self.0.get_mut(&place)) {
            asked.running = false;
        }
    }
}

fn place(head: &Head) -> Option<(String, String)> {
    let key = head.field("idempotency-key")?;
    Some((credential(head).unwrap_or_default().to_owned(), key.to_owned()))
}

//! What the API creates: a job, and what is said of it to who asks again.

use serde_json::{Value, json};

use super::answer::Answer;
use super::api::Turn;

/// One effect.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) key: Option<String>,
    pub(crate) digest: String,
    /// The body of its request, where that is JSON.
    pub(crate) asked: Value,
    /// Its request is not through.
    pub(crate) running: bool,
}

impl Job {
    /// The job, the nth of its scenario.
    pub(crate) fn shown(&self, n: usize) -> Value {
        json!({"id": self.id, "key": self.key, "n": n, "state": "done"})
    }

    /// The answer to the same key once more.
    pub(crate) fn again(&self, n: usize, digest: &str) -> Answer {
        if self.digest != digest {
            return Answer::json(422, &json!({"error": {"code": "idempotency_key_reuse"}}));
        }
        if self.running {
            return Answer::json(409, &json!({"error": {"code": "request_in_progress"}}));
        }
        let mut answer = Answer::json(201, &self.shown(n));
        answer.headers.push(("Idempotent-Replayed".to_owned(), "true".to_owned()));
        answer
    }

    /// Ends the running of a job whose request is through.
    pub(crate) fn finish(&mut self, turn: &Turn) {
        if self.key.as_deref() == turn.head.field("idempotency-key") {
            self.running = false;
        }
    }
}

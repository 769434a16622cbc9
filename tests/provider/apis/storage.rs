//! Stores items and objects for whoever signs, as AWS does: no keys, and each write is one.
//!
//! ```text
//! POST /              an item, by the name of `X-Amz-Target`
//! PUT  /BUCKET/NAME   an object
//! ```

use serde_json::{Value, json};

use super::desk::{Desk, Effect};
use super::signature::checked;
use super::{Answer, Api, Call, with};

/// What one account has stored.
#[derive(Default)]
pub(super) struct Storage {
    stored: usize,
}

impl Api for Storage {
    fn serve(&mut self, call: &Call<'_>, desk: &mut Desk) -> Answer {
        let body = match checked(call.head, call.body) {
            Ok(body) => body,
            Err(why) => return refused(403, why),
        };
        let (method, words) = call.words();
        let answer = match (method, words.as_slice()) {
            ("POST", [] | [""]) if call.head.field("x-amz-target").is_some() => {
                Answer::json(200, &json!({}))
            }
            ("PUT", [_, _]) => with(Answer::empty(), "ETag", format!("\"{}\"", body.len())),
            _ => return refused(404, "no such operation"),
        };
        self.stored += 1;
        let (id, key) = (format!("stored-{}", self.stored), call.key().map(str::to_owned));
        desk.charge(Effect { id, key, event: String::new(), cost: 1 });
        answer
    }

    fn error(&self, status: u16) -> Answer {
        refused(status, "asked for by a script")
    }
}

fn refused(status: u16, why: &str) -> Answer {
    let kind = if status == 403 { "InvalidSignatureException" } else { "ServiceError" };
    let body: Value = json!({"__type": kind, "message": why});
    Answer::json(status, &body)
}

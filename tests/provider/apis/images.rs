//! Removes the background of images: an image in, an image out, and a credit spent.
//!
//! ```text
//! POST /v1/remove-background   multipart with `image_file`, or a form or JSON with `image_url`
//! GET  /account                {"credits": N}
//! ```
//!
//! There are no keys: each 200 costs a credit, and no two images are alike.

use serde_json::{Value, json};

use super::desk::{Desk, Effect};
use super::{Answer, Api, Call, bytes, opaque, text, with};

/// The images of one account.
#[derive(Default)]
pub(super) struct Images {
    made: usize,
}

impl Api for Images {
    fn serve(&mut self, call: &Call<'_>, desk: &mut Desk) -> Answer {
        if call.head.field("x-api-key").is_none() {
            return error(401, "auth_failed");
        }
        let standing = desk.admit(call);
        if standing.over {
            return with(error(429, "rate_limit_exceeded"), "Retry-After", standing.reset);
        }
        let (method, words) = call.words();
        match (method, words.as_slice()) {
            ("GET", ["account"]) => Answer::json(200, &json!({"credits": desk.left()})),
            ("POST", ["v1", "remove-background"]) => self.remove(call, desk),
            _ => error(404, "not_found"),
        }
    }

    fn error(&self, status: u16) -> Answer {
        let code = match status {
            429 => "rate_limit_exceeded",
            402 => "insufficient_credits",
            400..=499 => "invalid_request",
            _ => "internal_error",
        };
        error(status, code)
    }
}

impl Images {
    fn remove(&mut self, call: &Call<'_>, desk: &mut Desk) -> Answer {
        let Some(event) = image(call) else {
            return error(desk.terms().refusal_status, "missing_source");
        };
        let id = format!("image_{}", opaque("images", self.made, 12));
        let key = call.key().map(str::to_owned);
        if !desk.charge(Effect { id: id.clone(), key, event, cost: COST }) {
            return error(desk.terms().broke_status, "insufficient_credits");
        }
        self.made += 1;
        // No text: what is passed on or kept must be bytes.
        let image = [b"\x89PNG\r\n\x1a\n\0\xff".as_slice(), id.as_bytes()].concat();
        with(bytes("image/png", image), "X-Credits-Charged", COST)
    }
}

/// The image that is asked for: its file's name, or its URL.
fn image(call: &Call<'_>) -> Option<String> {
    let media = call.head.field("content-type").unwrap_or_default();
    if media.starts_with("multipart/form-data") {
        let body = String::from_utf8_lossy(call.body);
        let (_, boundary) = media.split_once("boundary=")?;
        let delimiter = format!("--{}", boundary.trim_matches('"'));
        let mut parts = body.split(&delimiter);
        let part = parts.find(|part| part.contains("name=\"image_file\""))?;
        let name = part.split("filename=\"").nth(1)?.split('"').next()?;
        return Some(name.to_owned());
    }
    let url = call.form("image_url").unwrap_or_else(|| text(&call.json(), "/image_url"));
    (!url.is_empty()).then_some(url)
}

fn error(status: u16, code: &str) -> Answer {
    let error: Value = json!({"title": code.replace('_', " "), "code": code});
    Answer::json(status, &json!({"errors": [error]}))
}

/// What an image costs.
const COST: u64 = 1;

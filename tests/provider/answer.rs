//! The provider's answers, and how a script bends them.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde_json::{Value, json};

use super::download;
use super::request::{Head, Received};
use super::script::{Cut, Shape, Step, Then};

/// A response, and how it is written.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) content: Content,
    pub(crate) shape: Shape,
    pub(crate) then: Then,
    /// The length that is told, where it may not be what is sent.
    pub(crate) told: Option<u64>,
    /// How it ends before its end.
    pub(crate) cut: Option<Cut>,
}

pub(crate) enum Content {
    Bytes(Bytes),
    /// This many zeros, made as they are sent.
    Zeros(u64),
    /// So many bytes of a file, made as they are sent.
    File {
        tag: String,
        first: u64,
        count: u64,
    },
}

impl Answer {
    pub(crate) fn empty() -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            content: Content::Bytes(Bytes::new()),
            shape: Shape::Whole,
            then: Then::Keep,
            told: None,
            cut: None,
        }
    }

    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self {
            status,
            headers: vec![("Content-Type".to_owned(), "application/json".to_owned())],
            content: Content::Bytes(Bytes::from(format!("{body}\n"))),
            ..Self::empty()
        }
    }

    pub(crate) fn from_step(status: u16, step: &Step) -> Self {
        let code = if status == 429 { "rate_limited" } else { "scripted" };
        Self::json(status, &json!({"error": {"code": code, "status": status}})).dressed(step)
    }

    pub(crate) fn echo(head: &Head, received: &Received) -> Self {
        let media = head.field("content-type").unwrap_or("application/octet-stream");
        Self {
            headers: vec![("Content-Type".to_owned(), media.to_owned())],
            content: Content::Bytes(received.kept.clone()),
            ..Self::json(200, &Value::Null)
        }
    }

    pub(crate) fn zeros(count: u64) -> Self {
        Self {
            headers: vec![("Content-Type".to_owned(), "application/octet-stream".to_owned())],
            content: Content::Zeros(count),
            ..Self::json(200, &Value::Null)
        }
    }

    /// With what the step adds to it.
    pub(crate) fn dressed(mut self, step: &Step) -> Self {
        (self.shape, self.then) = (step.shape, step.then);
        for (name, value) in &step.headers {
            self.headers.push((name.clone(), timed(value)));
        }
        if let Some(body) = &step.body {
            self.content = Content::Bytes(Bytes::from(body.clone()));
        }
        if let Content::Bytes(bytes) = &self.content
            && step.pad > 0
        {
            let padded = [bytes, " ".repeat(step.pad.min(PAD_MAX)).as_bytes()].concat();
            self.content = Content::Bytes(Bytes::from(padded));
        }
        step.bent.ended(self)
    }

    /// How the connection ends after this answer, if it does.
    pub(crate) fn end(&self) -> Option<Cut> {
        if self.cut.is_some() {
            return self.cut;
        }
        match (self.shape, self.then) {
            (Shape::TruncatedReset, _) | (_, Then::Reset) => Some(Cut::Reset),
            (Shape::Truncated | Shape::BadChunk | Shape::UntilClose, _)
            | (_, Then::Close | Then::Eof) => Some(Cut::Eof),
            (Shape::Whole | Shape::Chunked | Shape::Drip(_), Then::Keep) => None,
        }
    }

    /// The answer's own fields and those that every answer has.
    pub(crate) fn all_headers(&self) -> Vec<(String, String)> {
        let mut all = self.headers.clone();
        let date = httpdate::fmt_http_date(SystemTime::now());
        all.push(("Date".to_owned(), date));
        all.push(("Server".to_owned(), "flaky-provider".to_owned()));
        all
    }

    /// The length that its head tells.
    pub(crate) fn len(&self) -> u64 {
        if let Some(told) = self.told {
            return told;
        }
        match &self.content {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Zeros(count) | Content::File { count, .. } => *count,
        }
    }

    /// The body in the pieces in which it is written.
    pub(crate) fn pieces(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        let step = if matches!(self.shape, Shape::Drip(_)) { 1 } else { PIECE };
        match &self.content {
            Content::Bytes(bytes) => {
                let mut rest = bytes.clone();
                Box::new(std::iter::from_fn(move || {
                    let piece = rest.split_to(step.min(rest.len()));
                    (!piece.is_empty()).then_some(piece)
                }))
            }
            Content::File { tag, first, count } => Box::new(download::pieces(tag, *first, *count)),
            Content::Zeros(count) => {
                let zeros = Bytes::from_static(&[0; PIECE]);
                let mut left = *count;
                Box::new(std::iter::from_fn(move || {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(step);
                    left -= here as u64;
                    (here > 0).then(|| zeros.slice(..here))
                }))
            }
        }
    }
}

/// A field value, in which `date+N` is the HTTP date N seconds from now.
fn timed(value: &str) -> String {
    let seconds = value.strip_prefix("date+").and_then(|digits| digits.parse().ok());
    let date = |s| httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(s));
    seconds.map_or_else(|| value.to_owned(), date)
}

/// Larger than any answer that a store keeps.
const PAD_MAX: usize = 80 * 1024 * 1024;
/// How much of a body is written at once.
pub(crate) const PIECE: usize = 16 * 1024;

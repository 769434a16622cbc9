//! A request as it arrives at the provider, and as its books show it.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use super::apis::Name;
use super::script::Step;

/// One request as it arrived.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Seen {
    /// Since the provider's start.
    pub(crate) at_ms: u64,
    /// Counts the connections of all listeners.
    pub(crate) connection: u64,
    /// `HTTP/1.1`, `HTTP/2`, ...
    pub(crate) version: String,
    pub(crate) method: String,
    /// The request target, byte for byte.
    pub(crate) path: String,
    /// `Idempotency-Key`, where there is one.
    pub(crate) key: Option<String>,
    /// In the order and case of the wire; HTTP/2's `:authority` as such.
    pub(crate) headers: Vec<(String, String)>,
    /// The step of the script that it met.
    pub(crate) step: String,
    /// Whether its body came whole. False where it was not read.
    pub(crate) whole: bool,
    pub(crate) body_bytes: u64,
    /// BLAKE3 of the body, in hex.
    pub(crate) body_digest: String,
    /// The body's first 64 KiB, as text.
    pub(crate) body: String,
    pub(crate) trailers: Vec<(String, String)>,
}

/// The head of a request.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) connection: u64,
    /// The API whose port it came to.
    pub(crate) api: Option<Name>,
    pub(crate) version: String,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
}

/// The body of a request.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) bytes: u64,
    pub(crate) digest: String,
    /// All of it, or its first bytes where it went to `/sink`.
    pub(crate) kept: Bytes,
    pub(crate) trailers: Vec<(String, String)>,
}

impl Seen {
    pub(super) fn new(at: Duration, head: &Head, step: &Step) -> Self {
        Self {
            at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
            connection: head.connection,
            version: head.version.clone(),
            method: head.method.clone(),
            path: head.target.clone(),
            key: head.field("idempotency-key").map(str::to_owned),
            headers: head.headers.clone(),
            step: step.text.clone(),
            whole: false,
            body_bytes: 0,
            body_digest: String::new(),
            body: String::new(),
            trailers: Vec::new(),
        }
    }
}

impl Head {
    /// The scenario's name and the path below it: `/s/NAME/v1/jobs`; else the API's name,
    /// or `default`, and all.
    pub(super) fn split(&self) -> (&str, &str) {
        let named = self.target.strip_prefix("/s/").and_then(|rest| {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            rest.split_at_checked(end)
        });
        let own = self.api.map_or("default", Name::as_str);
        named.unwrap_or((own, &self.target))
    }

    /// The first value of a field, by its name in lower case.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.headers.iter();
        fields.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Whether the path ends in `/word`.
    pub(crate) fn is_for(&self, word: &str) -> bool {
        let (_, path) = self.split();
        path.split('?').next().and_then(|path| path.strip_prefix('/')) == Some(word)
    }
}

impl Received {
    pub(super) fn first(&self) -> &[u8] {
        self.kept.get(..SHOWN_MAX).unwrap_or(&self.kept)
    }
}

/// As much of a body as a test may want to look at.
const SHOWN_MAX: usize = 64 * 1024;

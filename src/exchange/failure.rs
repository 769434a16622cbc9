//! Every way an exchange can fail, as one closed list.
//!
//! `answer` gives each failure a response and `retry::outcome` gives it a class.
//! Neither match has a wildcard arm, so a new variant does not compile until
//! someone has decided both.

use std::time::Duration;

use http::StatusCode;

use crate::exchange::id::ExchangeId;

/// Why an exchange ended without an answer from the upstream.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// The request is malformed. Nothing was sent.
    #[error("{0}")]
    BadRequest(&'static str),

    /// The request's body does not fit the route's schema. Nothing was sent.
    #[error("{0}")]
    Unfit(String),

    /// The request's head is too large. Nothing was sent.
    #[error("the request's head is larger than this listener takes")]
    HeaderTooLarge,

    /// The client's own key cannot be one. Nothing was sent.
    #[error("{0}")]
    KeyInvalid(&'static str),

    /// The route wants an identity and the request has none. Nothing was sent.
    #[error("this route wants a key: send {0}, or Samekey-Key")]
    KeyMissing(String),

    /// The destination is one that `egress` forbids. Nothing was sent.
    #[error("egress does not allow {0}")]
    Forbidden(String),

    /// Nobody proved that they may use this listener. Nothing was sent.
    #[error("this proxy wants a name and a password")]
    ProxyAuth,

    /// Another exchange holds the claim. Nothing was sent.
    #[error("a request with this key is in progress")]
    InProgress {
        /// When asking again may help.
        retry_after: Duration,
    },

    /// What came of the key is not known. Nothing was sent by this exchange.
    #[error("what came of this key is not known; see exchange {0}")]
    OutcomeUnknown(ExchangeId),

    /// The request was answered before, and the answer is no longer here. Nothing was sent.
    #[error("this was answered before, in exchange {exchange}, and its answer is not kept")]
    NotRetained {
        /// The exchange that did it.
        exchange: ExchangeId,
        /// Ids that were taken from the answer, by the names that the route gives them.
        captured: Vec<(String, String)>,
    },

    /// The request is for another authority than the tunnel it came through. Nothing was sent.
    #[error("this tunnel leads to another authority")]
    Misdirected,

    /// The key came before, with another request. Nothing was sent.
    #[error("this key was used for another request")]
    KeyReused(StatusCode),

    /// No connection could be made. Nothing was sent.
    #[error("{detail}")]
    Unreachable {
        /// What went wrong, without anything that the request held.
        detail: String,
        /// The error type of RFC 9209, section 2.3.
        kind: &'static str,
    },

    /// The further proxy in front of the upstream does not let us through. Nothing was sent.
    #[error("{detail}")]
    Barred {
        /// What it said, and what would help.
        detail: String,
        /// The error type of RFC 9209, section 2.3.
        kind: &'static str,
    },

    /// The TLS handshake failed. Nothing was sent.
    #[error("{detail}")]
    Tls {
        /// Why, in the words of the TLS library.
        detail: String,
        /// Whether the upstream's certificate was refused, which no retry changes.
        verification: bool,
    },

    /// HTTP/2 proved that the request was not processed.
    #[error("the upstream refused the request unprocessed")]
    Refused,

    /// The connection broke, or what came was not HTTP. The request was sent.
    #[error("{detail}")]
    Protocol {
        /// What came instead of an answer.
        detail: String,
        /// Whether the connection broke, where otherwise nonsense came.
        broken: bool,
    },

    /// The client hung up while its request was on the way up. Part of it was sent.
    #[error("the client left before its request was complete")]
    ClientGone,

    /// No answer came in time. The request was sent, unless `sent` says otherwise.
    #[error("the upstream did not answer within {after:?}")]
    TimedOut {
        /// How long was waited.
        after: Duration,
        /// Whether anything was sent.
        sent: bool,
    },

    /// Too many wait already. Nothing was sent by this attempt.
    #[error("too many requests wait for this route")]
    Overloaded,

    /// The turn would come too late. Nothing was sent by this attempt.
    #[error("this route and credential must wait longer than limits.max_wait allows")]
    LimitWait {
        /// When the turn would come.
        retry_after: Duration,
    },

    /// There is no credit for it, by what the upstream said. Nothing was sent by this exchange.
    #[error("{detail}")]
    InsufficientCredits {
        /// What it said, without anything that the request held.
        detail: String,
        /// When asking again may help, where that is known.
        retry_after: Option<Duration>,
    },

    /// A claim could not be kept. Nothing was sent.
    #[error("the store cannot take another key: {0}")]
    StoreUnavailable(&'static str),

    /// The request would come back to this proxy. Nothing was sent.
    #[error("this request leads back to this proxy")]
    Loop,

    /// The upstream refused the credential lately, so its records rest. Nothing was sent.
    #[error("the upstream lately refused this credential, so its stored answers are held back")]
    ReplaySuspended,
}

//! What the end of a claim depends on, and what it is: words for the one verdict function.

use http::Method;

use crate::exchange::trail::{Attempt, End, Says};

/// All that the end of a claim depends on.
#[derive(Clone, Debug)]
pub struct History<'a> {
    /// An attempt before this exchange, under the same key, may have had an effect.
    pub ambiguous_before: bool,
    /// The attempts of this exchange, in order.
    pub attempts: &'a [Attempt],
    /// What the answer's body said about a good status (`failed_when`).
    pub says: Option<Says>,
    /// How the answer's body ended.
    pub body: BodyCame,
    /// Whether the answer is one that the route keeps, and fits.
    pub kept: Kept,
    /// Who can ask for the key again.
    pub asked_by: AskedBy,
    /// Whether the client hung up before it had its whole answer.
    pub client_gone: bool,
}

/// How an answer's body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BodyCame {
    /// With its last byte, or there was none.
    Whole,
    /// Before its last byte.
    Broken,
}

/// Whether an answer is one that the route keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kept {
    /// Its status is in `record`, and it fits.
    Yes,
    /// `record` leaves it out, or it is too large.
    No,
}

/// Who can ask for a key again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AskedBy {
    /// The client, which put the key where the upstream wants it and so vouches for it.
    Vouching,
    /// The client, by an identity that the key was derived from.
    Identity,
    /// Whoever asks the same, where the answer was not delivered: adoption is on.
    Orphan,
    /// Nobody: the key was random.
    Nobody,
}

/// How a claim ends, and what that means for whoever asks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The end state.
    pub end: End,
    /// Whether the store keeps it: somebody can still ask.
    pub stays: bool,
    /// Whether an equal request may take it over, since its answer was not delivered.
    pub adoptable: bool,
}

/// Whether a request whose outcome is unknown may be sent again under its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resend {
    /// No: it stays unknown until somebody resolves it.
    Never,
    /// Yes, while the upstream's promise holds (`upstream_ttl` less a tenth).
    WhilePromised,
    /// Yes.
    Always,
}

/// The functions that decide, handed to whoever carries out.
#[derive(Clone, Copy, Debug)]
pub struct Decide {
    /// How a claim ends.
    pub ending: fn(&History<'_>) -> Ending,
    /// Whether an unknown one may be sent again: by method, `upstream_dedupes`,
    /// `unsafe`, and who asks.
    pub resend: fn(&Method, Option<bool>, bool, AskedBy) -> Resend,
}

//! What a key is claimed with, found as, and ended with.

use crate::journal::Moment;
use crate::journal::bodies::Hash;
use crate::journal::row::{NewRow, State};

/// A key to be claimed.
#[derive(Clone, Debug)]
pub struct Reserve {
    /// The exchange that wants it.
    pub row: NewRow,
    /// What the key is found by.
    pub id: Hash,
    /// Which life of the key it would be.
    pub epoch: u64,
    /// What is asked, where that is known.
    pub fingerprint: Option<Hash>,
    /// Where an equal request may take the key over.
    pub scope: Option<Hash>,
    /// Where in the request the key stands, for the provider to be asked by.
    pub tag: Option<String>,
}

/// What has become of a key.
#[derive(Debug)]
pub enum Found {
    /// It was free, and is claimed now.
    Claimed,
    /// It was answered.
    Completed(Done),
    /// Nobody knows what came of it.
    Unknown(Open),
}

/// Whose a key is.
#[derive(Clone, Debug)]
pub struct Holder {
    /// The row that closes it.
    pub seq: u64,
    /// The second part of that exchange's name.
    pub instance: u32,
    /// Which life of the key it is.
    pub epoch: u64,
    /// The same in the store that replicas share.
    pub shared_epoch: Option<u64>,
    /// What was asked.
    pub fingerprint: Option<Hash>,
}

/// A key that was answered.
#[derive(Debug)]
pub struct Done {
    /// Whose it is.
    pub holder: Holder,
    /// The answer, where it is still kept.
    pub answer: Option<Answer>,
    /// Ids that were taken from the request and its answer: a JSON object.
    pub captured: Option<String>,
    /// When it was answered.
    pub ended: Moment,
    /// How long the answer is kept after that, in microseconds.
    pub ttl: i64,
    /// How long the key is.
    pub keep: i64,
}

/// A key whose outcome is unknown.
#[derive(Debug)]
pub struct Open {
    /// Whose it is.
    pub holder: Holder,
    /// When it first went upstream.
    pub began: Moment,
    /// When the last exchange under it ended.
    pub ended: Moment,
    /// Where in the request the key stands, for the provider to be asked by.
    pub tag: Option<String>,
}

/// An answer at rest.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status and fields.
    pub head: Vec<u8>,
    /// The body.
    pub body: At,
    /// Bytes that it counts for.
    pub size: u64,
}

/// Where a body is.
#[derive(Clone, Debug)]
pub enum At {
    /// In the row.
    Row(Vec<u8>),
    /// In the file of this name.
    File(Hash),
}

/// How a claim ends.
#[derive(Clone, Debug)]
pub struct Settle {
    /// What has become of it.
    pub state: State,
    /// Whether the key stays closed.
    pub holds: bool,
    /// The last status.
    pub status: Option<u16>,
    /// The attempts: JSON arrays, parted by commas.
    pub attempts: String,
    /// What was asked, as far as that is known.
    pub fingerprint: Option<Hash>,
    /// Ids that were taken from the request and its answer: a JSON object.
    pub captured: Option<String>,
    /// The answer, where it is kept.
    pub answer: Option<Answer>,
    /// How long the answer is kept, in microseconds.
    pub ttl: i64,
    /// How long the key is.
    pub keep: i64,
}

/// Whether something is to be written with the next commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Soon {
    /// It is.
    Yes,
    /// It may wait for a moment, in which it may become needless.
    No,
}

/// What came of ending a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It ended, and its answer is kept.
    WithAnswer,
    /// It ended, and no answer is kept.
    WithoutAnswer,
    /// It was no longer this owner's; nothing changed.
    Late,
}

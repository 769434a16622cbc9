//! One row: an exchange, what it asked, and what has become of it.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

use crate::journal::Moment;

/// What has become of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is under way.
    InFlight,
    /// It was answered.
    Completed,
    /// Nobody knows.
    Unknown,
    /// Nothing was done, and its key is free.
    Released,
    /// It had no key to free, and no good answer.
    Failed,
}

impl State {
    /// Every state, by the number that stands for it in the file.
    pub const ALL: [Self; 5] =
        [Self::InFlight, Self::Completed, Self::Unknown, Self::Released, Self::Failed];

    /// The word of the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InFlight => "in_flight",
            Self::Completed => "completed",
            Self::Unknown => "unknown",
            Self::Released => "released",
            Self::Failed => "failed",
        }
    }

    /// The state that a word stands for.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

impl ToSql for State {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(*self as i64))
    }
}

impl FromSql for State {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let number = value.as_i64()?;
        let state = usize::try_from(number).ok().and_then(|nth| Self::ALL.get(nth));
        state.copied().ok_or(FromSqlError::OutOfRange(number))
    }
}

/// What is known of an exchange as it begins.
#[derive(Clone, Debug)]
pub struct NewRow {
    /// The first part of its name, which orders all rows by time.
    pub seq: u64,
    /// The second part, which tells replicas apart.
    pub instance: u32,
    /// The key as it goes upstream.
    pub key: String,
    /// The name of the route.
    pub route: String,
    /// The method.
    pub method: String,
    /// The URL without its query's values.
    pub url: String,
    /// Ids that were taken from the request by then: a JSON object.
    pub captured: Option<String>,
    /// When it began.
    pub began: Moment,
}

/// What a key is found by in the index, whatever room it belongs to.
pub(crate) fn key_hash(key: &str) -> i64 {
    let digest = blake3::hash(key.as_bytes());
    digest.as_bytes().first_chunk().map_or(0, |first| i64::from_be_bytes(*first))
}

/// `SQLite` counts in signed numbers; names run on in both.
pub(crate) fn signed(number: u64) -> i64 {
    number.cast_signed()
}

//! Settles a key whose outcome is unknown by asking the provider.
//!
//! A [`Recipe`] says how: where the creating request names its key, which request lists
//! what was created, and where in that list the key would stand. `tag` names the key in
//! the request before it goes out; `target` writes the lookup, `page` reads one answer to
//! it, `reading` puts pages together; `course` decides what the readings come to, and
//! `follow` asks, by an `access`, and carries it out: at once for whoever repeats the
//! request, and in the background. `left` takes up what a crash left; `table` bounds all
//! of it.
//!
//! # Invariants
//!
//! - What is found was done, whatever else was read. What is not found was not done only
//!   where the request named its key in the place that is looked at, after `settle`, and
//!   in so many clean readings in a row.
//! - A reading is clean that saw everything: any other proves nothing, and begins anew.
//! - An end is written by comparing and setting the life of the key that was read of.
//! - Credentials stay in memory for as long as it takes, and in no text.

mod access;
mod course;
mod follow;
mod left;
mod page;
mod reading;
pub mod shape;
mod table;
mod tag;
pub mod target;

use std::fmt;
use std::num::NonZeroU32;

use http::{HeaderName, HeaderValue, StatusCode};

use crate::exchange::{Condition, Pointer};
use crate::idempotency::Carrier;
pub use course::Patience;
pub(super) use follow::{Asker, Follow};
pub use shape::Shape;
pub use table::{Lookups, Most};
pub(super) use tag::{Tagged, put};
pub use target::Target;

/// How a provider is asked what became of a key.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Where the key is put into the creating request; `None`: it carries the key itself.
    pub tag: Option<Pointer>,
    /// The request that lists what was created, or asks for one by its key.
    pub request: Target,
    /// Where the list stands in the answer; `None`: the answer is the one item.
    pub items: Option<Pointer>,
    /// Where in an item the key stands.
    pub wanted: Pointer,
    /// What a good answer says that is a failure all the same, and no list.
    pub failures: Vec<Condition>,
    /// How the next page is asked for.
    pub next: Next,
    /// Pages of one reading, at most.
    pub pages: NonZeroU32,
    /// What a found item becomes; `None`: itself.
    pub answer: Option<Shape>,
    /// The status of that answer.
    pub status: StatusCode,
    /// When absence counts.
    pub patience: Patience,
    /// With what it is asked on its own after a crash.
    pub credentials: Option<Credentials>,
}

/// How the next page is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// There is one page.
    Never,
    /// By numbers from this one on, until a page is empty.
    Page(u32),
    /// By how many items came before, until a page is empty. It is counted, and not
    /// reckoned from a size that was asked for: a provider may give less.
    Offset,
    /// By what stands here in the page before, until nothing does.
    Cursor(Pointer),
}

/// A header field that stands for the account.
#[derive(Clone)]
pub struct Credentials {
    /// The field.
    pub header: HeaderName,
    /// Its value.
    pub value: HeaderValue,
}

impl Recipe {
    /// Where in the request the key stands by this recipe.
    fn place(&self, carrier: &Carrier) -> String {
        match (&self.tag, carrier) {
            (Some(pointer), _) | (None, Carrier::Json(pointer)) => format!("json {pointer}"),
            (None, Carrier::Header(name)) => format!("header {name}"),
            (None, Carrier::Query(name)) => format!("query {name}"),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("header", &self.header).finish_non_exhaustive()
    }
}

/// What is asked for, and what an answer is that is made of it.
const JSON: HeaderValue = HeaderValue::from_static("application/json");

#[cfg(test)]
mod tests;

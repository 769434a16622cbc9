//! How far a client's body has come, for whoever cannot see the body itself.

use std::sync::atomic::{AtomicU8, Ordering};

/// How far a client's body has come.
#[derive(Debug, Default)]
pub struct Upload(AtomicU8);

impl Upload {
    pub(super) const COMPLETE: u8 = 1;
    pub(super) const LEFT: u8 = 2;
    pub(super) const MALFORMED: u8 = 3;

    /// Whether its last byte has been read.
    pub fn is_complete(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::COMPLETE
    }

    /// Whether the client left, or sent nonsense, before it was complete.
    pub fn is_broken(&self) -> bool {
        self.0.load(Ordering::Acquire) >= Self::LEFT
    }

    /// Whether the client sent what a body may not hold.
    pub fn is_malformed(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::MALFORMED
    }

    pub(super) fn note(&self, state: u8) {
        self.0.store(state, Ordering::Release);
    }
}

//! How far an attempt has come, for whoever cuts it short or tells of it.

use std::sync::atomic::{AtomicU8, Ordering};

use http::Version;

/// Whether a request is on a connection, and in which protocol.
#[derive(Debug, Default)]
pub(super) struct Sent(AtomicU8);

impl Sent {
    /// It is being written.
    pub(super) fn begin(&self, version: Version) {
        self.0.store(if version == Version::HTTP_2 { HTTP2 } else { HTTP1 }, Ordering::Release);
    }

    /// It was given back untouched.
    pub(super) fn take_back(&self) {
        self.0.store(NOTHING, Ordering::Release);
    }

    /// Whether anything may have been sent.
    pub(super) fn anything(&self) -> bool {
        self.version().is_some()
    }

    /// In what it is sent.
    pub(super) fn version(&self) -> Option<Version> {
        match self.0.load(Ordering::Acquire) {
            NOTHING => None,
            HTTP2 => Some(Version::HTTP_2),
            _ => Some(Version::HTTP_11),
        }
    }
}

const NOTHING: u8 = 0;
const HTTP1: u8 = 1;
const HTTP2: u8 = 2;

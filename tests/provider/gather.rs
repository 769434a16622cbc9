//! Takes in a request's body: all of it, or for an upload its size and digest.

use std::io;

use bytes::{Bytes, BytesMut};

use super::request::{Head, Received};

/// A body on its way in.
pub(crate) struct Gather {
    bytes: u64,
    digest: blake3::Hasher,
    kept: BytesMut,
    /// What is past this is only counted, or refused.
    kept_max: usize,
    refuses_more: bool,
}

impl Gather {
    pub(crate) fn new(head: &Head) -> Self {
        let counts_only = head.is_for("sink");
        Self {
            bytes: 0,
            digest: blake3::Hasher::new(),
            kept: BytesMut::new(),
            kept_max: if counts_only { 64 * 1024 } else { BODY_MAX },
            refuses_more: !counts_only,
        }
    }

    pub(crate) fn add(&mut self, piece: &[u8]) -> io::Result<()> {
        self.bytes += piece.len() as u64;
        self.digest.update(piece);
        let room = self.kept_max - self.kept.len();
        if piece.len() > room && self.refuses_more {
            return Err(io::Error::other("a body larger than this provider keeps"));
        }
        self.kept.extend_from_slice(piece.get(..room).unwrap_or(piece));
        Ok(())
    }

    pub(crate) fn done(self, trailers: Vec<(String, String)>) -> Received {
        Received {
            bytes: self.bytes,
            digest: self.digest.finalize().to_hex().to_string(),
            kept: Bytes::from(self.kept),
            trailers,
        }
    }
}

/// Larger than any body that a test needs back; uploads go to `/sink`.
const BODY_MAX: usize = 64 * 1024 * 1024;

//! The part of a held body that is too large for memory: a nameless file.

use std::fs::File;
use std::future::Future as _;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::task::JoinHandle;

/// A file without a name: it goes when the last handle does, whatever happens to us.
#[derive(Clone, Debug)]
pub(super) struct Spill {
    file: Arc<File>,
    length: u64,
}

/// One file operation under way on the blocking pool.
#[derive(Debug)]
pub(super) struct Pending<T>(JoinHandle<io::Result<T>>);

impl<T> Pending<T> {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let done = ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(done.unwrap_or_else(|lost| Err(io::Error::other(lost))))
    }
}

impl Spill {
    /// Makes the file in `dir`; nobody else can open it.
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        Ok(Self { file: Arc::new(tempfile::tempfile_in(dir)?), length: 0 })
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Writes behind what is there. The length counts from now on: a write that
    /// fails makes the whole copy worthless anyway.
    pub(super) fn append(&mut self, data: Bytes) -> Pending<()> {
        let (file, at) = (self.file.clone(), self.length);
        self.length += data.len() as u64;
        Pending(tokio::task::spawn_blocking(move || file.write_all_at(&data, at)))
    }

    /// Reads one piece from `at`, and nothing from `until` on.
    pub(super) fn read(&self, at: u64, until: u64) -> Pending<Bytes> {
        let left = until.saturating_sub(at).min(PIECE);
        let file = self.file.clone();
        Pending(tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; usize::try_from(left).unwrap_or(0)];
            file.read_exact_at(&mut piece, at)?;
            Ok(Bytes::from(piece))
        }))
    }
}

/// Large enough that the hop to the blocking pool is lost in the copy.
const PIECE: u64 = 128 * 1024;

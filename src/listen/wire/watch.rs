//! What the service of a connection learns from its wire, and tells it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use futures_util::task::AtomicWaker;

/// What is wrong with a request, though the server would take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where it is.
    pub part: Part,
    /// What the answer to it is.
    pub kind: Kind,
    /// What it is, in one clause.
    pub detail: &'static str,
}

/// The part of a request that a fault is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Request line and fields: it is known before the service is called.
    Head,
    /// Chunks and trailers: it is known before the piece it is in is handed out.
    Body,
}

/// What the answer to a fault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 400.
    Malformed,
    /// 431.
    TooLarge,
}

/// The view that the service of a connection has of its wire; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Watch(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The first fault, and the number of its request; there is no second.
    fault: OnceLock<(u64, Fault)>,
    /// Exchanges that the service began.
    begun: AtomicU64,
    /// Exchanges whose response is through.
    ended: AtomicU64,
    /// The connection speaks no HTTP any more.
    upgraded: AtomicBool,
    /// The read side, while it waits for the end of an exchange.
    reader: AtomicWaker,
    /// Bytes that the peer's socket took.
    written: AtomicU64,
    /// Part of a head has come, and part is still to come.
    mid_head: AtomicBool,
    /// One more than what was written when the client ended the connection; 0 before.
    ended_at: AtomicU64,
}

/// What a connection is doing; the number counts its exchanges so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Exchanges are under way.
    Busy,
    /// A head is arriving.
    Head(u64),
    /// Nothing is asked.
    Idle(u64),
}

/// One exchange of a connection: dropped with the last of its response's body.
///
/// A guard that outlives the body stops the wire from reading what follows a
/// request that asked for an upgrade.
#[derive(Debug)]
pub struct Exchange {
    nth: u64,
    watch: Watch,
}

/// What follows a request that asked for a tunnel or an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It was refused: the next request.
    Request,
    /// It was granted: bytes of another protocol.
    Anything,
}

impl Watch {
    /// Begins the next exchange; the service does this first, once for each call.
    pub fn begin(&self) -> Exchange {
        Exchange { nth: self.0.begun.fetch_add(1, Ordering::AcqRel), watch: self.clone() }
    }

    /// The fault that spoils the `nth` request of the connection, from 0.
    ///
    /// A fault spoils all that follows it too: where it ends is not known.
    pub fn fault_of(&self, nth: u64) -> Option<Fault> {
        self.0.fault.get().filter(|(faulty, _)| *faulty <= nth).map(|(_, fault)| *fault)
    }

    /// The bytes that the client's socket took so far.
    pub fn written(&self) -> u64 {
        self.0.written.load(Ordering::Relaxed)
    }

    /// Whether the client may have read all that was written: it had not ended the
    /// connection before the last of it went out.
    pub fn was_there_to_the_last(&self) -> bool {
        let ended_at = self.0.ended_at.load(Ordering::Acquire);
        ended_at == 0 || ended_at > self.written()
    }

    /// The client ended the connection.
    pub(super) fn end(&self) {
        // The first end counts, though it is read again; one task alone reads.
        if self.0.ended_at.load(Ordering::Acquire) == 0 {
            self.0.ended_at.store(self.written().saturating_add(1), Ordering::Release);
        }
    }

    /// What the connection is doing.
    pub fn phase(&self) -> Phase {
        match self.settled() {
            None => Phase::Busy,
            Some(count) if self.0.mid_head.load(Ordering::Relaxed) => Phase::Head(count),
            Some(count) => Phase::Idle(count),
        }
    }

    pub(super) fn mid_head(&self, mid_head: bool) {
        self.0.mid_head.store(mid_head, Ordering::Relaxed);
    }

    pub(super) fn flag(&self, nth: u64, fault: Fault) {
        self.0.fault.get_or_init(|| (nth, fault));
    }

    pub(super) fn count_written(&self, bytes: usize) {
        self.0.written.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How many exchanges there were, if none is in service.
    pub(super) fn settled(&self) -> Option<u64> {
        let begun = self.0.begun.load(Ordering::Acquire);
        let ended = self.0.ended.load(Ordering::Acquire);
        (begun == ended && !self.0.upgraded.load(Ordering::Acquire)).then_some(begun)
    }

    /// What follows the `nth` request, once it is decided; wakes `waker` then.
    pub(super) fn next(&self, nth: u64, waker: &Waker) -> Option<Next> {
        self.0.reader.register(waker);
        if self.0.upgraded.load(Ordering::Acquire) {
            return Some(Next::Anything);
        }
        (self.0.ended.load(Ordering::Acquire) > nth).then_some(Next::Request)
    }
}

impl Exchange {
    /// The fault that spoils this request, so far.
    ///
    /// Asked at the start it tells of the head, and after each piece of the body,
    /// its trailers included, of all up to it.
    pub fn fault(&self) -> Option<Fault> {
        self.watch.fault_of(self.nth)
    }

    /// Tells that the request is answered with 101, or 2xx to CONNECT: what
    /// follows on the connection is not HTTP.
    pub fn upgraded(&self) {
        self.watch.0.upgraded.store(true, Ordering::Release);
        self.watch.0.reader.wake();
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.watch.0.ended.fetch_add(1, Ordering::AcqRel);
        self.watch.0.reader.wake();
    }
}

//! A poll that is under way, and those who wait for what comes of it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use http::HeaderValue;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::exchange::traceparent::TraceContext;
use crate::exchange::trail::Presence;
use crate::exchange::{Failure, Record, Stop, Traced};
use crate::poll::board::Board;
use crate::poll::job::Job;

/// What those who wait are told.
#[derive(Clone, Debug)]
pub(super) enum Told {
    /// The answer.
    Answer(Answer),
    /// Why there is none, and why no attempt followed.
    Failure(Failure, Option<Stop>),
    /// That what came is not for sharing: each asks on its own.
    Apart,
}

/// An answer that several get.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) record: Record,
    /// When to come back: no record keeps it, and to those who wait it is news.
    pub(super) retry_after: Option<HeaderValue>,
    /// Why no attempt followed that was due.
    pub(super) stop: Option<Stop>,
}

/// What tells flights apart: a poll that asks for a single attempt is no company for
/// one that wants more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Aim {
    pub(super) job: Job,
    pub(super) single_attempt: bool,
}

/// A poll under way.
#[derive(Debug)]
pub(super) struct Flight {
    aim: Aim,
    /// How many wait for it, the one who began it too.
    seats: AtomicUsize,
    /// Whether anybody ever joined it.
    joined: AtomicBool,
    told: watch::Sender<Option<Told>>,
    /// The span of the one who began it, where that is traced.
    leader: OnceLock<TraceContext>,
    /// In the place of its clients: gone with the last of them.
    presence: Presence,
}

/// A place among those who wait; dropped, it is left.
#[derive(Debug)]
pub(super) struct Seat {
    board: Board,
    flight: Arc<Flight>,
}

/// The way of a flight to its end; dropped, nobody waits in vain.
#[derive(Debug)]
pub(super) struct Pilot {
    board: Board,
    flight: Arc<Flight>,
}

impl Flight {
    pub(super) fn new(aim: Aim) -> Arc<Self> {
        Arc::new(Self {
            aim,
            seats: AtomicUsize::new(0),
            joined: AtomicBool::new(false),
            told: watch::Sender::new(None),
            leader: OnceLock::new(),
            presence: Presence::default(),
        })
    }

    pub(super) fn aim(&self) -> &Aim {
        &self.aim
    }

    fn is_empty(&self) -> bool {
        self.seats.load(Ordering::Acquire) == 0
    }
}

impl Seat {
    /// Takes a place. The board's books are open: nobody closes the flight meanwhile.
    pub(super) fn take(board: &Board, flight: &Arc<Flight>) -> Self {
        if flight.seats.fetch_add(1, Ordering::AcqRel) > 0 {
            flight.joined.store(true, Ordering::Release);
        }
        Self { board: board.clone(), flight: flight.clone() }
    }

    /// The span of the one who began the flight, where that is traced.
    pub(super) fn leader(&self) -> Option<TraceContext> {
        self.flight.leader.get().copied()
    }

    /// Waits for what comes of the flight; `None`: nothing until then.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: whoever comes back later is told the same.
    pub(super) async fn told(&self, until: Instant) -> Option<Told> {
        let mut told = self.flight.told.subscribe();
        let told = timeout_at(until, told.wait_for(Option::is_some)).await.ok()?;
        // The sender is the flight's own, and lives as long as this.
        told.map_or(Some(Told::Apart), |told| told.clone())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.flight.seats.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        // Somebody may have sat down since, which only open books allow.
        self.board.close_if(&self.flight, Flight::is_empty, |flight| flight.presence.leave());
    }
}

impl Pilot {
    pub(super) fn of(board: &Board, flight: &Arc<Flight>) -> Self {
        Self { board: board.clone(), flight: flight.clone() }
    }

    /// Lets those who wait know the trace of the one who began it.
    pub(super) fn is_part_of(&self, traced: &Traced) {
        self.flight.leader.get_or_init(|| traced.context());
    }

    /// Who waits, as the stages below see it.
    pub(super) fn presence(&self) -> &Presence {
        &self.flight.presence
    }

    /// Lets nobody join any more.
    pub(super) fn close(&self) {
        self.board.close_if(&self.flight, |_| true, |_| {});
    }

    /// Whether anybody joined the one who began it, who may have left since.
    pub(super) fn has_company(&self) -> bool {
        self.flight.joined.load(Ordering::Acquire)
    }

    /// Tells those who wait, and those who came until now.
    pub(super) fn land(self, told: Told) {
        self.close();
        self.flight.told.send_replace(Some(told));
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        self.close();
        let untold = |told: &mut Option<Told>| {
            let untold = told.is_none();
            told.get_or_insert(Told::Apart);
            untold
        };
        self.flight.told.send_if_modified(untold);
    }
}

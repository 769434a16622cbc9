//! Where the answer to a poll comes from: the shelf, a poll under way, or the upstream.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::exchange::Record;
use crate::poll::flight::{Aim, Flight, Pilot, Seat};
use crate::poll::job::{Holder, Job};
use crate::poll::shelf::{Kept, Serves, Shelf};
use crate::poll::spacing::{Pace, spacing};
use crate::poll::{Most, Rules};

/// What is known of all polls of a process; a clone shares it. It outlives reloads.
#[derive(Clone, Debug)]
pub struct Board(Arc<Mutex<Books>>);

#[derive(Debug)]
struct Books {
    shelf: Shelf,
    /// Those that may still be joined.
    flights: HashMap<Aim, Arc<Flight>>,
}

/// Where a poll's answer comes from.
#[derive(Debug)]
pub(super) enum Place {
    /// From the shelf.
    Stored(Record, Serves),
    /// From a poll that is under way.
    Join(Seat),
    /// From the upstream: this poll asks for all that join it.
    Lead(Seat, Pilot),
}

/// An answer that may serve further polls.
#[derive(Debug)]
pub(super) struct Lesson<'a> {
    pub(super) record: &'a Record,
    /// When the poll began that got it.
    pub(super) asked: Instant,
    /// The bounds of its spacing, where the route spaces polls.
    pub(super) pace: Option<Pace>,
    /// When the upstream wants to be asked again.
    pub(super) hint: Option<Duration>,
    /// How long it is remembered that the job is over, if it is.
    pub(super) over_for: Option<Duration>,
}

impl Board {
    /// Nothing is known yet; so much will be at most.
    pub fn new(most: Most) -> Self {
        let books = Books { shelf: Shelf::new(most), flights: HashMap::new() };
        Self(Arc::new(Mutex::new(books)))
    }

    /// Says where the answer comes from, and takes the place that this means.
    pub(super) fn ask(&self, aim: Aim, rules: &Rules, now: Instant) -> Place {
        let mut books = self.books();
        let kept = books.shelf.get(&aim.job);
        if let Some((kept, why)) = kept.and_then(|kept| Some((kept, kept.serves(rules, now)?))) {
            return Place::Stored(kept.record.clone(), why);
        }
        if let Some(flight) = books.flights.get(&aim) {
            return Place::Join(Seat::take(self, flight));
        }
        let flight = Flight::new(aim);
        books.flights.insert(aim, flight.clone());
        Place::Lead(Seat::take(self, &flight), Pilot::of(self, &flight))
    }

    /// Remembers an answer, unless one is known that was asked for later.
    pub(super) fn learn(&self, job: Job, lesson: &Lesson<'_>, now: Instant) {
        let digest = digest(lesson.record);
        let mut books = self.books();
        let last = books.shelf.get(&job);
        if last.is_some_and(|last| last.asked > lesson.asked) {
            return;
        }
        let last = last.filter(|last| last.digest == digest).map(|last| last.spacing);
        let spacing = lesson.pace.map(|pace| spacing(pace, last, lesson.hint));
        if spacing.is_none() && lesson.over_for.is_none() {
            books.shelf.remove(&job); // what was known is no longer so
            return;
        }
        let kept = Kept {
            record: lesson.record.clone(),
            digest,
            asked: lesson.asked,
            spacing: spacing.unwrap_or_default(),
            over_until: lesson.over_for.map(|lasts| now + lasts),
        };
        books.shelf.put(job, kept);
    }

    /// Forgets what a caller knows from an upstream, which refused it.
    pub(super) fn forget(&self, holder: &Holder) {
        self.books().shelf.forget(holder);
    }

    /// Lets nobody join a flight any more, if that is so while the books are open.
    pub(super) fn close_if(
        &self,
        flight: &Arc<Flight>,
        closes: impl FnOnce(&Flight) -> bool,
        then: impl FnOnce(&Flight),
    ) {
        let mut books = self.books();
        if !closes(flight) {
            return;
        }
        let found = books.flights.get(flight.aim());
        if found.is_some_and(|found| Arc::ptr_eq(found, flight)) {
            books.flights.remove(flight.aim());
        }
        then(flight);
    }

    /// Forgets what is of no use any more; called every few seconds.
    pub fn sweep(&self, now: Instant) {
        self.books().shelf.sweep(now);
    }

    /// Held for a look into two maps.
    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digest(record: &Record) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&record.status().as_u16().to_be_bytes());
    hasher.update(record.body());
    *hasher.finalize().as_bytes()
}

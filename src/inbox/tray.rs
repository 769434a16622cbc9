//! What one route's two sides share: the one that takes in, and the one that delivers.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, OnceCell};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::exchange::{Failure, Origin, Request};
use crate::inbox::line::{Line, Most, Turn};
use crate::inbox::{Means, Store, Terms};
use crate::journal::Fault;
use crate::journal::deliveries::{Alike, NewDelivery, Taken, Waiting};
use crate::metrics::InboxEvent;

/// What waits on a route; it outlives reloads, and a clone shares it.
#[derive(Clone)]
pub struct Tray(Arc<Inner>);

struct Inner {
    route: String,
    store: Store,
    applications: Vec<Origin>,
    draining: CancellationToken,
    line: Mutex<Line>,
    /// Set once what the process before has left is in the line.
    restored: OnceCell<()>,
    /// What the route says; nothing while no route of this name has an inbox.
    terms: ArcSwapOption<Terms>,
    /// Told when there is something to look at.
    woken: Notify,
    /// Bodies that are being read. How many may be is the route's to say, and a reload's to
    /// change: no semaphore does the latter at once.
    reading: AtomicUsize,
}

/// Where a route takes deliveries in, by the terms that it was built with.
#[derive(Clone, Debug)]
pub struct Intake {
    pub(super) tray: Tray,
    pub(super) terms: Arc<Terms>,
}

/// A place to read one body in; dropped, another has it.
#[derive(Debug)]
pub(super) struct Place<'a>(&'a AtomicUsize);

impl Tray {
    pub(super) fn new(route: &str, means: &Means) -> Self {
        Self(Arc::new(Inner {
            route: route.to_owned(),
            store: means.store.clone(),
            applications: means.applications.clone(),
            draining: means.draining.clone(),
            line: Mutex::new(Line::new()),
            restored: OnceCell::new(),
            terms: ArcSwapOption::empty(),
            woken: Notify::new(),
            reading: AtomicUsize::new(0),
        }))
    }

    /// Puts terms in force, for what waits too; and opens the side that takes in.
    pub fn open(&self, terms: Terms) -> Intake {
        let terms = Arc::new(terms);
        self.0.terms.store(Some(terms.clone()));
        self.0.woken.notify_one();
        Intake { tray: self.clone(), terms }
    }

    /// Delivers nothing more until it is opened again; how many wait for that.
    pub(super) fn close(&self) -> u64 {
        self.0.terms.store(None);
        self.waiting()
    }

    pub(super) fn is_open(&self) -> bool {
        self.0.terms.load().is_some()
    }

    /// How many wait, those under way among them.
    pub(super) fn waiting(&self) -> u64 {
        self.with(|line| line.len())
    }

    pub(super) fn route(&self) -> &str {
        &self.0.route
    }

    /// Every application that listeners are in front of.
    pub fn applications(&self) -> &[Origin] {
        &self.0.applications
    }

    pub(super) fn store(&self) -> &Store {
        &self.0.store
    }

    pub(super) fn terms(&self) -> Option<Arc<Terms>> {
        self.0.terms.load_full()
    }

    /// Waits until there may be something to do.
    pub(super) async fn woken(&self) {
        self.0.woken.notified().await;
    }

    /// Whose turn it is, and by which terms.
    pub(super) fn next(&self) -> Option<(Turn, Arc<Terms>)> {
        let terms = self.terms()?;
        let now = Instant::now();
        let turn = self.with(|line| line.next(terms.concurrency.get(), now))?;
        Some((turn, terms))
    }

    pub(super) fn wakes_at(&self) -> Option<Instant> {
        let terms = self.is_open().then(Instant::now)?;
        self.with(|line| line.wakes_at(terms))
    }

    /// Takes up what the process before has left, once.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when it cannot be read; it is tried again the next time.
    pub(super) async fn restore(&self) -> Result<(), Fault> {
        let read = || async {
            let left = self.0.store.waiting(&self.0.route).await?;
            self.with(|line| line.restore(left));
            Ok(())
        };
        self.0.restored.get_or_try_init(read).await.map(|()| self.show())
    }

    /// Reads or changes the line. The lock is never held over a wait.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Line) -> T) -> T {
        act(&mut self.0.line.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Brings the gauge up to date, under the lock: the last word is the latest.
    pub(super) fn show(&self) {
        if let Some(terms) = &*self.0.terms.load() {
            self.with(|line| terms.metrics.waiting(line.len()));
        }
    }

    /// Whether what is taken in now would be lost.
    fn is_about_to_forget(&self) -> bool {
        self.0.draining.is_cancelled() && matches!(self.0.store, Store::Memory(_))
    }

    fn wake(&self) {
        self.0.woken.notify_one();
    }
}

impl Intake {
    /// Whether a request is a delivery. What only asks, such as a provider's challenge, is
    /// the application's to answer; and what the application itself sends elsewhere, through
    /// this proxy and under the same route, is none.
    pub(super) fn takes(&self, request: &Request) -> bool {
        !request.method.is_safe() && self.terms.applications.contains(&request.origin)
    }

    /// A place to read a body in.
    ///
    /// # Errors
    ///
    /// [`Failure::Overloaded`] where all are taken.
    pub(super) fn place(&self) -> Result<Place<'_>, Failure> {
        let (reading, most) = (&self.tray.0.reading, self.terms.rules.max_reading);
        let one_more = |taken: usize| (taken < most).then_some(taken + 1);
        // It guards nothing but their number.
        match reading.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_before) => Ok(Place(reading)),
            Err(_full) => Err(Failure::Overloaded),
        }
    }

    /// Takes a delivery in; whoever delivers it hears of it even if nobody waits here.
    ///
    /// # Errors
    ///
    /// A [`Failure`]: nothing of it is kept.
    ///
    /// # Cancel safety
    ///
    /// What was begun is finished.
    pub(super) async fn take_in(&self, new: NewDelivery) -> Result<(), Failure> {
        if self.tray.is_about_to_forget() {
            return Err(Failure::StoreUnavailable("it ends with this process, which ends"));
        }
        self.tray.restore().await.map_err(unavailable)?;
        let rules = &self.terms.rules;
        let most = Most { count: rules.max_waiting, bytes: rules.max_bytes };
        let size = new.size();
        if !self.tray.with(|line| line.take_room(size, most)) {
            return Err(Failure::Overloaded);
        }
        let (intake, id, came) = (self.clone(), new.id, new.came);
        let told = move |taken: &Result<Taken, Fault>| {
            intake.taken(taken, Waiting { seq: 0, id, size, attempts: 0, came });
        };
        self.tray.0.store.take_in(new, told).await.map(drop).map_err(unavailable)
    }

    fn taken(&self, taken: &Result<Taken, Fault>, waiting: Waiting) {
        let (route, metrics) = (self.tray.route(), &self.terms.metrics);
        match taken {
            Ok(Taken::New(seq)) => {
                metrics.count(InboxEvent::Accepted);
                self.tray.with(|line| line.join(Waiting { seq: *seq, ..waiting }));
                self.tray.wake();
            }
            Ok(Taken::Repeat(alike)) => {
                metrics.count(InboxEvent::Repeated);
                self.tray.with(|line| line.give_room_back(waiting.size));
                let delivery = crate::inbox::identity::DeliveryId(waiting.id);
                match alike {
                    Alike::Same => tracing::debug!(route, %delivery, "a repeat was dropped"),
                    Alike::Other => tracing::warn!(
                        route,
                        %delivery,
                        "a repeat was dropped whose body is not that of the first"
                    ),
                }
            }
            Err(_) => self.tray.with(|line| line.give_room_back(waiting.size)),
        }
        self.tray.show();
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a sender is told that is to try again.
fn unavailable(fault: Fault) -> Failure {
    Failure::StoreUnavailable(fault.as_str())
}

impl fmt::Debug for Tray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tray").field("route", &self.0.route).finish_non_exhaustive()
    }
}

//! The APIs that run: one site a scenario, a clock that can be put ahead, webhooks that go out.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::answer::Answer;
use super::super::request::{Head, Received};
use super::courier::Delivery;
use super::desk::{Books, Effect};
use super::{Around, Name, Site, Terms, credential};

/// All sites of a provider.
pub(crate) struct Sites {
    /// When the provider started, since 1970, and by the clock that never steps.
    since_1970: Duration,
    started: Instant,
    ahead_ms: AtomicU64,
    terms: Mutex<BTreeMap<Name, Terms>>,
    open: Mutex<BTreeMap<String, Open>>,
    outbox: mpsc::UnboundedSender<(String, Delivery)>,
}

struct Open {
    site: Site,
    name: Name,
    /// Those who ask now, by their credentials: each holds a clone.
    asking: HashMap<String, Arc<()>>,
}

/// One request to a site.
pub(crate) struct Visit<'a> {
    pub(crate) name: Name,
    pub(crate) scenario: &'a str,
    pub(crate) head: &'a Head,
}

/// A request under way, until it is dropped.
pub(crate) struct Asking(Arc<()>);

impl Sites {
    /// No site yet; webhooks go to `outbox`, with the scenario that they are of.
    pub(crate) fn new(outbox: mpsc::UnboundedSender<(String, Delivery)>) -> Self {
        Self {
            since_1970: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            started: Instant::now(),
            ahead_ms: AtomicU64::new(0),
            terms: Mutex::default(),
            open: Mutex::default(),
            outbox,
        }
    }

    /// Changes what accounts of an API may do, those that are open and those to come.
    ///
    /// # Panics
    ///
    /// When a change has no such name or form: the test is wrong then.
    pub(crate) fn terms(&self, name: Name, changes: &Value) {
        let mut all = self.terms.lock().expect("nothing panics over the terms");
        let terms = all.entry(name).or_insert_with(|| name.terms());
        *terms = terms.with(changes).expect("the changes are some of the terms");
        let terms = terms.clone();
        drop(all);
        let mut open = self.open();
        open.values_mut()
            .filter(|open| open.name == name)
            .for_each(|open| open.site.set(terms.clone()));
    }

    /// Puts the clock of all sites ahead.
    pub(crate) fn advance(&self, by: Duration) {
        let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.ahead_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// What a scenario's API has done; nothing where no API was asked.
    pub(crate) fn books(&self, scenario: &str) -> Books {
        self.open().get(scenario).map(|open| open.site.books()).unwrap_or_default()
    }

    /// How much that was.
    pub(crate) fn effects(&self, scenario: &str) -> usize {
        self.open().get(scenario).map_or(0, |open| open.site.effects().len())
    }

    /// Closes a scenario's site, which forgets what it did.
    pub(crate) fn close(&self, scenario: &str) {
        self.open().remove(scenario);
    }

    /// Closes every site.
    pub(crate) fn close_all(&self) {
        self.open().clear();
    }

    /// Counts a request among those of its credential until what is given back is dropped.
    pub(crate) fn begin(&self, visit: &Visit<'_>) -> Asking {
        let who = credential(visit.head).unwrap_or_default().to_owned();
        self.with(visit, |open| Asking(open.asking.entry(who).or_default().clone()))
    }

    /// Answers a request, and says what it did.
    pub(crate) fn serve(
        &self,
        visit: &Visit<'_>,
        (target, received): (&str, &Received),
        asking: &Asking,
        (lingers, forced): (bool, Option<u16>),
    ) -> (Answer, Vec<Effect>) {
        let ahead = Duration::from_millis(self.ahead_ms.load(Ordering::Relaxed));
        let now = self.since_1970 + self.started.elapsed() + ahead;
        // The site itself holds one of the clones.
        let at_once = Arc::strong_count(&asking.0) - 1;
        let around = Around { now, at_once, lingers, forced };
        let (answer, effects, due) = self.with(visit, |open| {
            let before = open.site.effects().len();
            let answer = open.site.serve(visit.head, target, received, around);
            let effects = open.site.effects().iter().skip(before).cloned().collect();
            (answer, effects, open.site.due())
        });
        for delivery in due {
            // Without a courier nothing is delivered: the provider has stopped.
            drop(self.outbox.send((visit.scenario.to_owned(), delivery)));
        }
        (answer, effects)
    }

    /// The answer that a script wants in place of the site's own.
    pub(crate) fn error(&self, visit: &Visit<'_>, status: u16) -> Answer {
        self.with(visit, |open| open.site.error(status))
    }

    /// Says that the answer to a request is ready.
    pub(crate) fn ended(&self, visit: &Visit<'_>) {
        self.with(visit, |open| open.site.ended(visit.head));
    }

    /// Notes what a webhook's receiver said.
    pub(crate) fn delivered(&self, scenario: &str, status: u16) {
        if let Some(open) = self.open().get_mut(scenario) {
            open.site.delivered(status);
        }
    }

    fn with<T>(&self, visit: &Visit<'_>, act: impl FnOnce(&mut Open) -> T) -> T {
        let terms = || {
            let all = self.terms.lock().expect("nothing panics over the terms");
            all.get(&visit.name).cloned().unwrap_or_else(|| visit.name.terms())
        };
        let fresh = || Open {
            site: Site::new(visit.name, terms()),
            name: visit.name,
            asking: HashMap::new(),
        };
        act(self.open().entry(visit.scenario.to_owned()).or_insert_with(fresh))
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<String, Open>> {
        self.open.lock().expect("nothing panics over the sites")
    }
}

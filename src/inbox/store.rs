//! Where deliveries wait: in the journal, or in memory where there is none.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::journal::bodies::Hash;
use crate::journal::deliveries::{Alike, Contents, Ended, NewDelivery, Taken, Waiting};
use crate::journal::{Clock, Fault, Journal, Moment};

/// Where deliveries wait; a clone is the same place.
#[derive(Clone, Debug)]
pub enum Store {
    /// In the journal: they outlive the process.
    Disk(Journal),
    /// In this process, for as long as it lives.
    Memory(Memory),
}

impl Store {
    /// The time, as deliveries are dated.
    pub fn now(&self) -> Moment {
        match self {
            Self::Disk(journal) => journal.now(),
            Self::Memory(memory) => memory.0.clock.now(0),
        }
    }

    /// Takes a delivery in, unless its identity came before; `then` is told, waited for
    /// or not.
    ///
    /// # Errors
    ///
    /// A [`Fault`]: nothing of it is kept.
    ///
    /// # Cancel safety
    ///
    /// It is done whether or not anybody waits for it.
    pub async fn take_in(
        &self,
        new: NewDelivery,
        then: impl FnOnce(&Result<Taken, Fault>) + Send + 'static,
    ) -> Result<Taken, Fault> {
        match self {
            Self::Disk(journal) => journal.take_in(new, then).await,
            Self::Memory(memory) => {
                let taken = Ok(memory.books().take_in(new));
                then(&taken);
                taken
            }
        }
    }

    /// What waits on a route, in the order of arrival.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when it cannot be read.
    pub async fn waiting(&self, route: &str) -> Result<Vec<Waiting>, Fault> {
        match self {
            Self::Disk(journal) => journal.waiting_deliveries(route.to_owned()).await,
            Self::Memory(memory) => Ok(memory.books().waiting(route)),
        }
    }

    /// What is in a delivery; `None` where it does not wait.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when it cannot be read.
    pub async fn contents(&self, seq: u64) -> Result<Option<Contents>, Fault> {
        match self {
            Self::Disk(journal) => journal.delivery(seq).await,
            Self::Memory(memory) => Ok(memory.books().contents(seq)),
        }
    }

    /// Notes how often a delivery was tried; nobody waits for it.
    pub fn note_tried(&self, seq: u64, attempts: u32) {
        match self {
            Self::Disk(journal) => journal.note_tried(seq, attempts),
            Self::Memory(memory) => memory.books().note_tried(seq, attempts),
        }
    }

    /// Ends a delivery, and remembers it for `keep` microseconds more; in memory it goes
    /// earlier where `most` of its route ended after it.
    ///
    /// # Errors
    ///
    /// A [`Fault`]: it waits as before.
    pub async fn end(
        &self,
        seq: u64,
        ended: Ended,
        (keep, most): (i64, usize),
    ) -> Result<(), Fault> {
        match self {
            Self::Disk(journal) => journal.end_delivery(seq, ended, keep).await,
            Self::Memory(memory) => {
                let now = self.now();
                memory.books().end(seq, ended, (now.wall.saturating_add(keep), most));
                Ok(())
            }
        }
    }

    /// Forgets what is past its time; the journal does so by itself.
    pub fn sweep(&self) {
        if let Self::Memory(memory) = self {
            memory.books().sweep(memory.0.clock.now(0).wall);
        }
    }
}

/// Deliveries that end with this process.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    newest: u64,
    /// Those that wait, and what is in them.
    waiting: BTreeMap<u64, (NewDelivery, u32)>,
    /// The digest of the body that came under each identity.
    known: HashMap<Hash, Hash>,
    /// Those that ended on each route, in that order, and until when they are remembered.
    ended: HashMap<String, VecDeque<(i64, Hash)>>,
}

impl Memory {
    /// Nothing waits in it yet.
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Inner { clock, books: Mutex::default() }))
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn take_in(&mut self, new: NewDelivery) -> Taken {
        match self.known.get(&new.id) {
            Some(digest) if *digest == new.digest => return Taken::Repeat(Alike::Same),
            Some(_) => return Taken::Repeat(Alike::Other),
            None => {}
        }
        self.newest += 1;
        self.known.insert(new.id, new.digest);
        self.waiting.insert(self.newest, (new, 0));
        Taken::New(self.newest)
    }

    fn waiting(&self, route: &str) -> Vec<Waiting> {
        let on_route = self.waiting.iter().filter(|(_, (new, _))| new.route == route);
        let row = |(seq, (new, attempts)): (&u64, &(NewDelivery, u32))| Waiting {
            seq: *seq,
            id: new.id,
            size: new.size(),
            attempts: *attempts,
            came: new.came,
        };
        on_route.map(row).collect()
    }

    fn contents(&self, seq: u64) -> Option<Contents> {
        let (new, _) = self.waiting.get(&seq)?;
        Some(Contents { head: new.head.clone(), body: new.body.to_vec() })
    }

    fn note_tried(&mut self, seq: u64, attempts: u32) {
        if let Some((_, tried)) = self.waiting.get_mut(&seq) {
            *tried = attempts;
        }
    }

    fn end(&mut self, seq: u64, ended: Ended, (until, most): (i64, usize)) {
        let Some((new, _)) = self.waiting.remove(&seq) else { return };
        match ended {
            Ended::GivenUp => drop(self.known.remove(&new.id)),
            Ended::Delivered => {
                let ended = self.ended.entry(new.route).or_default();
                ended.push_back((until, new.id));
                while ended.len() > most
                    && let Some((_, id)) = ended.pop_front()
                {
                    self.known.remove(&id);
                }
            }
        }
    }

    fn sweep(&mut self, now: i64) {
        // They ended in this order, and a reload that shortens `keep` may wait its turn.
        self.ended.retain(|_route, ended| {
            while let Some((until, id)) = ended.front().copied()
                && until <= now
            {
                ended.pop_front();
                self.known.remove(&id);
            }
            !ended.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use tokio::time::Instant;

    use super::*;
    use crate::journal::{Durability, Options};

    const START: Moment = Moment { wall: 1 << 50, boot: 0, up: 1 << 40 };

    fn clock() -> Clock {
        Clock::Steady(START, Instant::now())
    }

    /// Both kinds, and the folder that one of them is in.
    fn stores() -> (tempfile::TempDir, [Store; 2]) {
        let kept = tempfile::tempdir().expect("a folder");
        let options = Options {
            folder: kept.path().join("journal"),
            durability: Durability::Process,
            bytes_max: 1 << 30,
            ledger_micros: 1 << 50,
            clock: clock(),
        };
        let journal = Journal::open(options).expect("it is opened");
        (kept, [Store::Disk(journal), Store::Memory(Memory::new(clock()))])
    }

    async fn take(store: &Store, n: u8, body: &'static [u8]) -> Taken {
        let new = NewDelivery {
            route: "hooks".to_owned(),
            id: [n; 32],
            digest: *blake3::hash(body).as_bytes(),
            head: b"head".to_vec(),
            body: Bytes::from_static(body),
            came: store.now(),
        };
        let (tell, told) = std::sync::mpsc::channel();
        let taken = store.take_in(new, move |taken| tell.send(*taken).unwrap_or_default()).await;
        assert_eq!(told.recv(), Ok(taken));
        taken.expect("there is room")
    }

    async fn sweep(store: &Store) {
        store.sweep();
        if let Store::Disk(journal) = store {
            journal.sweep().await.expect("it is swept");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_store_keeps_what_waits_and_knows_what_came() {
        let (_kept, stores) = stores();
        for store in &stores {
            assert_eq!(take(store, 1, b"one").await, Taken::New(1));
            assert_eq!(take(store, 2, b"two").await, Taken::New(2));
            assert_eq!(take(store, 1, b"one").await, Taken::Repeat(Alike::Same));
            assert_eq!(take(store, 1, b"eins").await, Taken::Repeat(Alike::Other));
            store.note_tried(2, 5);
            let waiting = store.waiting("hooks").await.expect("it is read");
            let told: Vec<_> =
                waiting.iter().map(|row| (row.seq, row.id, row.size, row.attempts)).collect();
            assert_eq!(told, [(1, [1; 32], 7, 0), (2, [2; 32], 7, 5)]);
            assert!(store.waiting("other").await.expect("it is read").is_empty());
            let contents = Contents { head: b"head".to_vec(), body: b"two".to_vec() };
            assert_eq!(store.contents(2).await, Ok(Some(contents)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_store_remembers_what_was_delivered_for_its_time_and_not_what_was_given_up() {
        let (_kept, stores) = stores();
        for store in &stores {
            take(store, 1, b"one").await;
            take(store, 2, b"two").await;
            store.end(1, Ended::Delivered, (1_000_000, 9)).await.expect("it is written");
            store.end(2, Ended::GivenUp, (1_000_000, 9)).await.expect("it is written");
            assert_eq!(store.contents(1).await, Ok(None));
            assert!(matches!(take(store, 2, b"two").await, Taken::New(_)));
            for (passes, forgotten) in [(999, false), (1, true)] {
                tokio::time::advance(Duration::from_millis(passes)).await;
                sweep(store).await;
                let taken = take(store, 1, b"one").await;
                assert_eq!(matches!(taken, Taken::New(_)), forgotten, "{store:?}");
            }
        }
    }

    #[test]
    fn memory_remembers_so_many_of_a_route_and_forgets_the_oldest_first() {
        const MOST: usize = 3;
        for (count, first_is_known) in [(MOST - 1, true), (MOST, true), (MOST + 1, false)] {
            let mut books = Books::default();
            let mut end = |route: &str, n: usize| {
                let id = id(route, n);
                let new = NewDelivery {
                    route: route.to_owned(),
                    id,
                    digest: id,
                    head: Vec::new(),
                    body: Bytes::new(),
                    came: START,
                };
                assert!(matches!(books.take_in(new), Taken::New(_)));
                books.end(books.newest, Ended::Delivered, (1, MOST));
            };
            (0..MOST).for_each(|n| end("other", n));
            (0..count).for_each(|n| end("hooks", n));
            assert_eq!(books.known.contains_key(&id("hooks", 0)), first_is_known, "{count}");
            assert!(books.known.contains_key(&id("other", 0)), "each has room of its own");
            assert_eq!(books.known.len(), MOST + count.min(MOST));
            books.sweep(1);
            assert!(books.known.is_empty() && books.ended.is_empty());
        }
    }

    fn id(route: &str, n: usize) -> Hash {
        *blake3::hash(format!("{route} {n}").as_bytes()).as_bytes()
    }
}

//! Answers that serve further polls, so many and so large in all, the oldest out first.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use crate::exchange::Record;
use crate::poll::job::{Holder, Job};
use crate::poll::{Most, Rules};

/// What is remembered of each job.
#[derive(Debug)]
pub(super) struct Shelf {
    most: Most,
    holders: HashMap<Holder, HashMap<[u8; 32], Placed>>,
    /// The order in which they were put here.
    order: BTreeMap<u64, Job>,
    placed: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Placed {
    nth: u64,
    kept: Kept,
}

/// The last answer about a job.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// The answer.
    pub(super) record: Record,
    /// Of its status and body.
    pub(super) digest: [u8; 32],
    /// When the poll began that got it.
    pub(super) asked: Instant,
    /// How long after that it serves further polls; zero on a route without `interval`.
    pub(super) spacing: Duration,
    /// Until when it serves them since its job is over.
    pub(super) over_until: Option<Instant>,
}

/// Why an answer serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Serves {
    /// The next poll would come too soon.
    Recent,
    /// There is nothing more to come.
    Over,
}

impl Kept {
    /// Whether it serves a poll that comes now; the rules may be others since a reload.
    pub(super) fn serves(&self, rules: &Rules, now: Instant) -> Option<Serves> {
        if rules.terminal.is_some() && self.is_over(now) {
            return Some(Serves::Over);
        }
        (rules.interval.is_some() && self.is_recent(now)).then_some(Serves::Recent)
    }

    /// Whether it is of no use any more: it serves nobody, and as much time has passed
    /// again in which the next answer could have been compared with it.
    fn is_past(&self, now: Instant) -> bool {
        !self.is_over(now) && now >= self.asked + self.spacing * 2
    }

    fn is_over(&self, now: Instant) -> bool {
        self.over_until.is_some_and(|until| now < until)
    }

    fn is_recent(&self, now: Instant) -> bool {
        now < self.asked + self.spacing
    }
}

impl Shelf {
    /// An empty one.
    pub(super) fn new(most: Most) -> Self {
        let (holders, order) = (HashMap::new(), BTreeMap::new());
        Self { most, holders, order, placed: 0, bytes: 0 }
    }

    /// What is remembered of a job.
    pub(super) fn get(&self, job: &Job) -> Option<&Kept> {
        Some(&self.holders.get(&job.holder)?.get(&job.question)?.kept)
    }

    /// Remembers an answer in place of the one before, and forgets the oldest for it.
    pub(super) fn put(&mut self, job: Job, kept: Kept) {
        self.remove(&job);
        let size = kept.record.size();
        if size > self.most.bytes {
            return;
        }
        while self.order.len() >= self.most.jobs || self.bytes + size > self.most.bytes {
            let Some(oldest) = self.order.first_key_value().map(|(_, job)| *job) else { return };
            self.remove(&oldest);
        }
        self.placed += 1;
        self.order.insert(self.placed, job);
        self.bytes += size;
        let placed = Placed { nth: self.placed, kept };
        self.holders.entry(job.holder).or_default().insert(job.question, placed);
    }

    /// Forgets one job.
    pub(super) fn remove(&mut self, job: &Job) {
        let Some(jobs) = self.holders.get_mut(&job.holder) else { return };
        let removed = jobs.remove(&job.question);
        if jobs.is_empty() {
            self.holders.remove(&job.holder);
        }
        if let Some(placed) = removed {
            self.order.remove(&placed.nth);
            self.bytes -= placed.kept.record.size();
        }
    }

    /// Forgets all that a caller knows from an upstream.
    pub(super) fn forget(&mut self, holder: &Holder) {
        for placed in self.holders.remove(holder).into_iter().flat_map(HashMap::into_values) {
            self.order.remove(&placed.nth);
            self.bytes -= placed.kept.record.size();
        }
    }

    /// Forgets what is of no use any more.
    pub(super) fn sweep(&mut self, now: Instant) {
        let past = |job: &Job| self.get(job).is_none_or(|kept| kept.is_past(now));
        let past: Vec<Job> = self.order.values().copied().filter(past).collect();
        for job in &past {
            self.remove(job);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::exchange::{Condition, Pointer};
    use crate::poll::Terminal;

    const SECOND: Duration = Duration::from_secs(1);

    /// Rules by which answers may serve in both ways.
    fn both() -> Rules {
        let pointer = Pointer::parse("").expect("a pointer");
        let condition = Condition { pointer, values: Vec::new() };
        let terminal = Some(Terminal { condition, lasts: SECOND });
        Rules { interval: Some(SECOND), terminal }
    }

    fn job(holder: u8, question: u8) -> Job {
        Job { holder: [holder; 32], question: [question; 32] }
    }

    /// An answer whose record takes so many bytes.
    fn sized(size: usize) -> Kept {
        let record = |body: usize| {
            Record::new(StatusCode::OK, &HeaderMap::new(), Bytes::from(vec![b' '; body]))
        };
        let empty = usize::try_from(record(0).size()).expect("small");
        let record = record(size - empty);
        assert_eq!(record.size(), size as u64);
        let asked = Instant::now();
        Kept { record, digest: [0; 32], asked, spacing: SECOND, over_until: None }
    }

    /// Which of the holder's first questions are remembered.
    fn left(shelf: &Shelf) -> Vec<u8> {
        let sum: u64 = shelf
            .order
            .values()
            .filter_map(|job| shelf.get(job))
            .map(|kept| kept.record.size())
            .sum();
        assert_eq!(shelf.bytes, sum);
        let placed: usize = shelf.holders.values().map(HashMap::len).sum();
        assert_eq!(shelf.order.len(), placed);
        (0..10).filter(|question| shelf.get(&job(1, *question)).is_some()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_jobs_are_remembered_and_the_oldest_goes_first() {
        let mut shelf = Shelf::new(Most { jobs: 3, bytes: 10_000 });
        for (question, wanted) in
            [(0, &[0][..]), (1, &[0, 1]), (2, &[0, 1, 2]), (0, &[0, 1, 2]), (3, &[0, 2, 3])]
        {
            shelf.put(job(1, question), sized(200));
            assert_eq!(left(&shelf), wanted, "with {question}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_bytes_are_remembered() {
        let mut shelf = Shelf::new(Most { jobs: 100, bytes: 1_000 });
        for (question, size, wanted) in [
            (0, 400, &[0][..]),
            (1, 599, &[0, 1]), // under
            (1, 600, &[0, 1]), // at
            (1, 601, &[1]),    // over
            (2, 1_000, &[2]),
            (2, 1_001, &[]),
        ] {
            shelf.put(job(1, question), sized(size));
            assert_eq!(left(&shelf), wanted, "with {size} bytes of {question}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_loses_what_it_knew_and_no_other_does() {
        let mut shelf = Shelf::new(Most { jobs: 10, bytes: 10_000 });
        for holder in [1, 2] {
            for question in [0, 1] {
                shelf.put(job(holder, question), sized(200));
            }
        }
        shelf.forget(&[1; 32]);
        assert!(left(&shelf).is_empty());
        assert!(shelf.get(&job(2, 0)).is_some() && shelf.get(&job(2, 1)).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_serves_for_its_time_and_goes_some_time_after() {
        let mut shelf = Shelf::new(Most { jobs: 10, bytes: 10_000 });
        let began = Instant::now();
        let rules = both();
        shelf.put(job(1, 0), sized(200));
        shelf.put(job(1, 1), Kept { over_until: Some(began + SECOND * 5), ..sized(200) });
        let ms = Duration::from_millis;
        for (at, recent, over, wanted) in [
            (ms(0), Some(Serves::Recent), Some(Serves::Over), &[0, 1][..]),
            (ms(999), Some(Serves::Recent), Some(Serves::Over), &[0, 1]),
            (ms(1000), None, Some(Serves::Over), &[0, 1]),
            (ms(1999), None, Some(Serves::Over), &[0, 1]),
            (ms(2000), None, Some(Serves::Over), &[1]),
            (ms(4999), None, Some(Serves::Over), &[1]),
            (ms(5000), None, None, &[]),
        ] {
            let now = began + at;
            let serves =
                |question| shelf.get(&job(1, question)).and_then(|kept| kept.serves(&rules, now));
            assert_eq!((serves(0), serves(1)), (recent, over), "{at:?}");
            shelf.sweep(now);
            assert_eq!(left(&shelf), wanted, "{at:?}");
        }
    }
}

//! Whose turn it is: what waits on a route, in the order of arrival.
//!
//! One that failed steps aside until its time comes, so that those behind it go on. When
//! the application is not there at all, nothing goes until a wait is over, and then one
//! alone, which has been tried least often: one delivery that ties the application up
//! cannot be the only one that is ever tried.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::journal::deliveries::Waiting;

/// What waits on a route.
#[derive(Debug)]
pub(super) struct Line {
    /// Whose time has come, by arrival.
    ready: BTreeMap<u64, Waiting>,
    /// Who waits for a time.
    later: BTreeMap<(Instant, u64), Waiting>,
    /// Deliveries that are here, under way, or being written.
    count: u64,
    /// Bytes of them.
    bytes: u64,
    /// How many are under way.
    running: u32,
    /// How often in a row the application was not there.
    failures: u32,
    /// Until when nothing goes.
    held_until: Option<Instant>,
}

/// What may wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    pub(super) count: u64,
    pub(super) bytes: u64,
}

/// A delivery whose turn it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) waiting: Waiting,
    /// How often in a row the application had not been there when it went.
    pub(super) failures: u32,
}

impl Line {
    pub(super) fn new() -> Self {
        Self {
            ready: BTreeMap::new(),
            later: BTreeMap::new(),
            count: 0,
            bytes: 0,
            running: 0,
            failures: 0,
            held_until: None,
        }
    }

    /// Takes room for one that is being written, if there is any.
    pub(super) fn take_room(&mut self, size: u64, most: Most) -> bool {
        let bytes = self.bytes.saturating_add(size);
        let fits = self.count < most.count && bytes <= most.bytes;
        if fits {
            (self.count, self.bytes) = (self.count + 1, bytes);
        }
        fits
    }

    /// Gives room back.
    pub(super) fn give_room_back(&mut self, size: u64) {
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(size);
    }

    /// Takes up what the process before has left.
    pub(super) fn restore(&mut self, left: Vec<Waiting>) {
        for waiting in left {
            self.count += 1;
            self.bytes = self.bytes.saturating_add(waiting.size);
            self.ready.insert(waiting.seq, waiting);
        }
    }

    /// Adds one that has room already.
    pub(super) fn join(&mut self, waiting: Waiting) {
        self.ready.insert(waiting.seq, waiting);
    }

    /// Whose turn it is, where any may go; `most` go at one time.
    pub(super) fn next(&mut self, most: u32, now: Instant) -> Option<Turn> {
        let away = self.failures > 0;
        let held = self.held_until.is_some_and(|until| now < until);
        if held || self.running >= if away { 1 } else { most } {
            return None;
        }
        while let Some(entry) = self.later.first_entry()
            && entry.key().0 <= now
        {
            let waiting = entry.remove();
            self.ready.insert(waiting.seq, waiting);
        }
        let seq = if away {
            let least = self.ready.values().min_by_key(|waiting| (waiting.attempts, waiting.seq));
            least.map(|waiting| waiting.seq)
        } else {
            self.ready.keys().next().copied()
        };
        let waiting = self.ready.remove(&seq?)?;
        self.running += 1;
        Some(Turn { waiting, failures: self.failures })
    }

    /// When the next one's time comes that waits for a time; `None` where none does, or
    /// where it has come and one that is under way is waited for.
    pub(super) fn wakes_at(&self, now: Instant) -> Option<Instant> {
        let next = if self.ready.is_empty() {
            self.later.first_key_value().map(|((at, _), _)| *at)?
        } else {
            self.held_until?
        };
        Some(self.held_until.map_or(next, |until| until.max(next))).filter(|at| *at > now)
    }

    /// The application answered.
    pub(super) fn is_there(&mut self) {
        (self.failures, self.held_until) = (0, None);
    }

    /// The application was not there for one that went after so many failures: how many
    /// in a row that makes. Those that went together count as one.
    pub(super) fn is_away(&mut self, turn: &Turn) -> u32 {
        self.failures = self.failures.max(turn.failures.saturating_add(1));
        self.failures
    }

    /// One that failed steps aside for `after`, and all of them stop for `hold`.
    pub(super) fn step_aside(&mut self, waiting: Waiting, waits: Waits, now: Instant) {
        self.running = self.running.saturating_sub(1);
        self.later.insert((later(now, waits.after), waiting.seq), waiting);
        if !waits.hold.is_zero() {
            self.held_until = self.held_until.max(Some(later(now, waits.hold)));
        }
    }

    /// One ended.
    pub(super) fn leave(&mut self, waiting: &Waiting) {
        self.running = self.running.saturating_sub(1);
        self.give_room_back(waiting.size);
    }

    /// How many are here or under way.
    pub(super) fn len(&self) -> u64 {
        self.count
    }
}

/// How long one waits, and how long all do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waits {
    pub(super) after: Duration,
    pub(super) hold: Duration,
}

/// Some time from now; at most a year, which no clock overflows at.
fn later(now: Instant, wait: Duration) -> Instant {
    now + wait.min(Duration::from_hours(24 * 365))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Moment;

    const MOST: Most = Most { count: 1000, bytes: 1 << 20 };
    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn waiting(seq: u64) -> Waiting {
        let came = Moment { wall: 0, boot: 0, up: 0 };
        Waiting { seq, id: [0; 32], size: 10, attempts: 0, came }
    }

    fn of(seqs: &[u64]) -> Line {
        let mut line = Line::new();
        line.restore(seqs.iter().copied().map(waiting).collect());
        line
    }

    fn turn(line: &mut Line, most: u32, now: Instant) -> Option<u64> {
        line.next(most, now).map(|turn| turn.waiting.seq)
    }

    /// Has the one whose turn it is fail, and step aside.
    fn fail(line: &mut Line, now: Instant, after: u64, hold: u64) -> u64 {
        let turn = line.next(1, now).expect("a turn");
        if hold > 0 {
            line.is_away(&turn);
        }
        let waiting = Waiting { attempts: turn.waiting.attempts + 1, ..turn.waiting };
        line.step_aside(waiting, Waits { after: MS(after), hold: MS(hold) }, now);
        waiting.seq
    }

    #[test]
    fn first_come_is_first_sent_and_only_so_many_at_a_time() {
        let now = Instant::now();
        let mut line = of(&[3, 1, 2]);
        assert_eq!([1, 2, 3].map(|_| turn(&mut line, 2, now)), [Some(1), Some(2), None]);
        line.leave(&waiting(1));
        assert_eq!((turn(&mut line, 2, now), line.len()), (Some(3), 2));
    }

    #[test]
    fn one_that_fails_steps_aside_and_comes_before_those_behind_it_again() {
        let now = Instant::now();
        let mut line = of(&[1, 2, 3]);
        assert_eq!(fail(&mut line, now, 50, 0), 1);
        assert_eq!(turn(&mut line, 1, now), Some(2));
        line.leave(&waiting(2));
        assert_eq!(turn(&mut line, 1, now + MS(50)), Some(1), "its time has come");
        line.leave(&waiting(1));
        assert_eq!(turn(&mut line, 1, now), Some(3));
    }

    #[test]
    fn while_the_application_is_away_one_at_a_time_asks_and_never_the_same() {
        let now = Instant::now();
        let mut line = of(&[1, 2, 3]);
        assert_eq!(fail(&mut line, now, 1, 20), 1);
        assert_eq!(turn(&mut line, 4, now + MS(19)), None, "nobody goes");
        assert_eq!(line.wakes_at(now + MS(19)), Some(now + MS(20)));
        assert_eq!(fail(&mut line, now + MS(20), 1, 20), 2);
        assert_eq!(fail(&mut line, now + MS(40), 1, 20), 3);
        assert_eq!(turn(&mut line, 4, now + MS(60)), Some(1), "all were tried once");
        assert_eq!(turn(&mut line, 4, now + MS(60)), None, "and one alone");
        assert_eq!(line.wakes_at(now + MS(60)), None, "which the others wait for");
        line.is_there();
        line.leave(&waiting(1));
        assert_eq!(turn(&mut line, 4, now + MS(60)), Some(2));
        assert_eq!(turn(&mut line, 4, now + MS(60)), Some(3));
    }

    #[test]
    fn those_that_fail_together_count_as_one() {
        let now = Instant::now();
        let mut line = of(&[1, 2]);
        let turns = [line.next(2, now), line.next(2, now)].map(|turn| turn.expect("a turn"));
        assert_eq!(turns.each_ref().map(|turn| line.is_away(turn)), [1, 1]);
    }

    #[test]
    fn it_wakes_when_somebodys_time_comes_and_not_before() {
        let now = Instant::now();
        let mut line = of(&[1]);
        assert_eq!(line.wakes_at(now), None, "one can go now, or waits for a place");
        fail(&mut line, now, 30, 0);
        assert_eq!(line.wakes_at(now), Some(now + MS(30)));
        assert_eq!(turn(&mut line, 1, now + MS(29)), None);
        assert_eq!(turn(&mut line, 1, now + MS(30)), Some(1));
        assert_eq!(line.wakes_at(now), None);
    }

    #[test]
    fn there_is_room_up_to_a_count_and_up_to_a_size() {
        for (count, bytes, taken) in
            [(2, 1000, 2), (3, 1000, 3), (9, 29, 2), (9, 30, 3), (9, 31, 3)]
        {
            let mut line = Line::new();
            let most = Most { count, bytes };
            let fit = (0..9).filter(|_| line.take_room(10, most)).count();
            assert_eq!(fit, taken, "{most:?}");
            line.give_room_back(10);
            assert!(line.take_room(10, most), "what was given back is there");
        }
        let mut line = of(&[1, 2]);
        assert!(!line.take_room(10, Most { count: 2, ..MOST }), "what was left counts too");
    }
}

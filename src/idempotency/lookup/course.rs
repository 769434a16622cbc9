//! What readings of a provider's list come to: found, absent, or not yet known.
//!
//! Absence needs a settle delay and clean readings in a row: `semantics.md`, part two,
//! rule 46.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

/// When it counts that a key was not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Not before so long after the last attempt under it ended.
    pub settle: Duration,
    /// And so long after the reading that counted before.
    pub every: Duration,
    /// So many times in a row.
    pub readings: NonZeroU32,
}

/// What one reading saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The key.
    Found,
    /// All there is, and the key not among it.
    Absent,
    /// Less than all there is.
    Dirty,
}

/// Whether the request named its key where readings look for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    Yes,
    /// It did not, or nobody can say.
    No,
}

/// What the readings so far come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It was done.
    Found,
    /// It was not done: the key is free.
    Absent,
    /// It is not there as yet; nothing is to be learned before then.
    Wait(Instant),
    /// The reading proved nothing; another may from then on.
    Inconclusive(Instant),
    /// It is not there, which proves nothing: it may have been done without being named.
    Unproven,
}

/// The readings for one life of a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course {
    life: (u64, Option<u64>),
    /// Since when nothing is under way for the key, at the latest.
    quiet_since: Instant,
    /// Readings in a row that saw all, late enough, and not the key.
    clean: u32,
    /// When the last of those began.
    counted: Option<Instant>,
    /// Readings in a row that proved nothing.
    dirty: u32,
    /// When the last reading began.
    last: Option<Instant>,
    /// Whether this life has ended by what was read.
    settled: bool,
}

impl Course {
    /// No reading yet of the life `life`, under which nothing is under way since `quiet_since`.
    pub(super) fn new(life: (u64, Option<u64>), quiet_since: Instant) -> Self {
        Self { life, quiet_since, clean: 0, counted: None, dirty: 0, last: None, settled: false }
    }

    /// Begins anew where the key has gone on: what was read says nothing of that.
    pub(super) fn renew(&mut self, life: (u64, Option<u64>), quiet_since: Instant) {
        if self.life != life {
            *self = Self { last: self.last, ..Self::new(life, quiet_since) };
        }
    }

    /// When a reading is worth its while; whoever waits for an answer asks sooner.
    pub(super) fn due(&self, patience: &Patience) -> Option<Instant> {
        let last = self.last?;
        Some(if self.dirty > 0 { last + self.backoff(patience) } else { last + patience.every })
    }

    /// Notes that this life of the key is over.
    pub(super) fn settle(&mut self) {
        self.settled = true;
    }

    /// Whether it is.
    pub(super) fn is_settled(&self) -> bool {
        self.settled
    }

    /// Whether the last reading is too fresh for another, even for one who waits.
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        self.last.is_some_and(|last| now < last + FRESH_FOR)
    }

    /// Takes a reading that began at `began` into account.
    pub(super) fn note(
        &mut self,
        (began, seen): (Instant, Seen),
        named: Named,
        patience: &Patience,
    ) -> Decision {
        self.last = Some(began);
        match seen {
            Seen::Found => Decision::Found,
            Seen::Dirty => {
                (self.clean, self.counted) = (0, None);
                self.dirty = self.dirty.saturating_add(1);
                Decision::Inconclusive(began + self.backoff(patience))
            }
            Seen::Absent => {
                self.dirty = 0;
                self.absent(began, named, patience)
            }
        }
    }

    fn absent(&mut self, began: Instant, named: Named, patience: &Patience) -> Decision {
        let settled = self.quiet_since + patience.settle;
        if began < settled {
            return Decision::Wait(settled.max(began + FRESH_FOR));
        }
        let next = self.counted.map(|counted| counted + patience.every);
        if let Some(next) = next.filter(|next| began < *next) {
            return Decision::Wait(next);
        }
        (self.clean, self.counted) = (self.clean.saturating_add(1), Some(began));
        match (self.clean >= patience.readings.get(), named) {
            (false, _) => Decision::Wait(began + patience.every),
            (true, Named::Yes) => Decision::Absent,
            (true, Named::No) => Decision::Unproven,
        }
    }

    /// Twice as long after each reading that proved nothing.
    fn backoff(&self, patience: &Patience) -> Duration {
        let doublings = self.dirty.saturating_sub(1).min(16);
        patience.every.max(FRESH_FOR).saturating_mul(1 << doublings).min(BACKOFF_MAX)
    }
}

/// However many ask for a key: the provider is read for it once a second.
const FRESH_FOR: Duration = Duration::from_secs(1);
/// A provider that was away is asked again within the hour.
const BACKOFF_MAX: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Patience = Patience {
        settle: Duration::from_secs(30),
        every: Duration::from_secs(10),
        readings: NonZeroU32::new(2).expect("two"),
    };

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    /// What the last of these readings comes to: `f`ound, `a`bsent, or `.`, at a second each.
    fn decided(named: Named, readings: &[(u64, char)]) -> String {
        let start = Instant::now();
        let mut course = Course::new((1, None), start);
        let mut said = String::new();
        for (second, saw) in readings {
            let seen = match saw {
                'f' => Seen::Found,
                'a' => Seen::Absent,
                _ => Seen::Dirty,
            };
            said = match course.note((at(start, *second), seen), named, &PATIENCE) {
                Decision::Found => "found".to_owned(),
                Decision::Absent => "absent".to_owned(),
                Decision::Unproven => "unproven".to_owned(),
                Decision::Wait(until) => format!("wait {}", (until - start).as_secs()),
                Decision::Inconclusive(until) => format!("again {}", (until - start).as_secs()),
            };
        }
        said
    }

    #[test]
    fn readings_come_to_what_they_prove() {
        for (readings, wanted) in [
            (&[(0, 'f')][..], "found"),
            (&[(30, 'a'), (31, '.'), (32, 'f')], "found"),
            (&[(0, 'a')], "wait 30"),
            (&[(29, 'a')], "wait 30"),
            (&[(30, 'a')], "wait 40"),
            // What was read before it counts does not count afterwards.
            (&[(0, 'a'), (10, 'a'), (20, 'a'), (29, 'a')], "wait 30"),
            (&[(0, 'a'), (29, 'a'), (30, 'a')], "wait 40"),
            (&[(30, 'a'), (39, 'a')], "wait 40"),
            (&[(30, 'a'), (40, 'a')], "absent"),
            (&[(30, 'a'), (39, 'a'), (40, 'a')], "absent"),
            (&[(30, 'a'), (500, 'a')], "absent"),
            // Whatever proves nothing begins it anew.
            (&[(30, 'a'), (35, '.'), (40, 'a')], "wait 50"),
            (&[(30, 'a'), (35, '.'), (40, 'a'), (50, 'a')], "absent"),
            (&[(30, '.')], "again 40"),
            (&[(30, '.'), (40, '.')], "again 60"),
            (&[(30, '.'), (40, '.'), (60, '.')], "again 100"),
        ] {
            assert_eq!(decided(Named::Yes, readings), wanted, "{readings:?}");
        }
    }

    #[test]
    fn a_key_that_its_request_did_not_name_is_found_and_never_absent() {
        assert_eq!(decided(Named::No, &[(30, 'a'), (40, 'f')]), "found");
        assert_eq!(decided(Named::No, &[(30, 'a'), (40, 'a')]), "unproven");
        assert_eq!(decided(Named::No, &[(30, 'a'), (40, 'a'), (90, 'a')]), "unproven");
    }

    #[test]
    fn what_was_read_of_an_earlier_life_says_nothing_of_this_one() {
        let start = Instant::now();
        let mut course = Course::new((1, Some(1)), start);
        course.note((at(start, 30), Seen::Absent), Named::Yes, &PATIENCE);
        course.renew((1, Some(1)), at(start, 35));
        let decided = course.note((at(start, 40), Seen::Absent), Named::Yes, &PATIENCE);
        assert_eq!(decided, Decision::Absent, "it is the same");
        course.renew((1, Some(2)), at(start, 40));
        let decided = course.note((at(start, 60), Seen::Absent), Named::Yes, &PATIENCE);
        assert_eq!(decided, Decision::Wait(at(start, 70)));
        assert!(course.is_fresh(at(start, 60)) && !course.is_fresh(at(start, 61)));
    }

    #[test]
    fn a_provider_that_proves_nothing_is_asked_ever_less() {
        let start = Instant::now();
        let mut course = Course::new((1, None), start);
        assert_eq!(course.due(&PATIENCE), None);
        for _ in 0..40 {
            course.note((start, Seen::Dirty), Named::Yes, &PATIENCE);
        }
        assert_eq!(course.due(&PATIENCE), Some(start + BACKOFF_MAX));
        course.note((start, Seen::Absent), Named::Yes, &PATIENCE);
        assert_eq!(course.due(&PATIENCE), Some(at(start, 10)));
    }

    proptest! {
        /// Told by all the readings there were, and not as they come.
        #[test]
        fn absence_is_never_decided_early_nor_on_less_than_was_wanted(
            steps in prop::collection::vec((1_u64..15, 0_u8..10), 1..60),
            readings in 1_u32..5,
        ) {
            let patience =
                Patience { readings: NonZeroU32::new(readings).expect("one at least"), ..PATIENCE };
            let start = Instant::now();
            let mut course = Course::new((1, None), start);
            let (mut second, mut clean) = (0, Vec::new());
            for (gap, saw) in steps {
                second += gap;
                let seen = if saw == 0 { Seen::Dirty } else { Seen::Absent };
                let decision = course.note((at(start, second), seen), Named::Yes, &patience);
                if seen == Seen::Dirty {
                    clean.clear();
                    let again = matches!(decision, Decision::Inconclusive(_));
                    prop_assert!(again);
                    continue;
                }
                let spaced = clean.last().is_none_or(|last| second >= last + 10);
                if second >= 30 && spaced {
                    clean.push(second);
                }
                let enough = clean.len() >= readings as usize;
                let counted = clean.last() == Some(&second);
                let absent = decision == Decision::Absent;
                prop_assert!(!absent || enough, "{second}: {clean:?}");
                prop_assert!(absent || !(enough && counted), "{second}: {clean:?}");
            }
        }
    }
}

//! The time on two clocks: the wall's, which people set, and the boot's, which nobody does.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// A point in time, on both clocks, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Since 1970, by the wall clock.
    pub wall: i64,
    /// Which boot of the machine it is; a journal counts them.
    pub boot: i64,
    /// Since that boot, sleep included.
    pub up: i64,
}

/// What tells the time.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// The machine's clocks.
    System,
    /// A steady clock that shows these at this instant: for tests.
    Steady(Moment, Instant),
}

impl Clock {
    /// The time in boot number `boot`.
    pub fn now(&self, boot: i64) -> Moment {
        match self {
            Self::System => Moment { wall: micros_of(SystemTime::now()), boot, up: up() },
            Self::Steady(base, since) => {
                let passed = micros(since.elapsed());
                Moment { wall: base.wall + passed, boot: base.boot, up: base.up + passed }
            }
        }
    }
}

impl Moment {
    /// How long ago it was, at the least: whatever is kept for a time is kept that long.
    ///
    /// In one boot the boot's clock is right, whoever set the wall's; across boots the
    /// wall's is all there is, and one that was set back shows no time at all.
    pub fn least_age(&self, now: Self) -> i64 {
        let age = if self.boot == now.boot { now.up - self.up } else { now.wall - self.wall };
        age.max(0)
    }

    /// How long ago it was, at the most: a promise that lasts for a time is over by the
    /// later of both clocks (`design.md`, section 7). `None` where nobody can say: the
    /// wall clock of another boot is in the future.
    pub fn most_age(&self, now: Self) -> Option<i64> {
        let by_wall = now.wall - self.wall;
        if self.boot == now.boot {
            return Some(by_wall.max(now.up - self.up).max(0));
        }
        (by_wall >= 0).then_some(by_wall)
    }
}

/// In whole microseconds, as far as they can be counted.
pub fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX / 4)
}

/// Since 1970; zero for what was before.
pub fn micros_of(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, micros)
}

fn up() -> i64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec.saturating_mul(1_000_000).saturating_add(time.tv_nsec / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;

    fn at(wall: i64, boot: i64, up: i64) -> Moment {
        Moment { wall: wall * HOUR, boot, up: up * HOUR }
    }

    #[test]
    fn what_is_kept_for_a_time_is_kept_and_a_promise_is_not_stretched() {
        let then = at(100, 1, 10);
        for (now, least, most) in [
            (at(101, 1, 11), 1, Some(1)),
            // Set forward by a year: nothing is forgotten, and no promise believed.
            (at(8860, 1, 11), 1, Some(8760)),
            // Set back by a day.
            (at(77, 1, 11), 1, Some(1)),
            // The laptop slept, which the boot's clock knows.
            (at(124, 1, 34), 24, Some(24)),
            (at(124, 2, 1), 24, Some(24)),
            (at(99, 2, 1), 0, None),
        ] {
            assert_eq!(then.least_age(now), least * HOUR, "{now:?}");
            assert_eq!(then.most_age(now), most.map(|hours| hours * HOUR), "{now:?}");
        }
    }
}

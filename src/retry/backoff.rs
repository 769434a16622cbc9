//! How long to wait before a retry: with no word from the upstream, and with one.

use std::time::Duration;

/// The `backoff` of a route: where waits start, how they grow, how they scatter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// How the wait grows from one retry to the next.
    pub growth: Growth,
    /// The wait before the first retry, unscattered.
    pub initial: Duration,
    /// The longest wait.
    pub max: Duration,
    /// How much of a wait is left to chance.
    pub jitter: Jitter,
}

/// How the wait grows from one retry to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// It doubles.
    Exponential,
    /// It grows by `initial`.
    Linear,
    /// It stays.
    Constant,
}

/// How much of a wait is left to chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jitter {
    /// All of it: uniform in (0, wait].
    Full,
    /// One half: uniform in (wait/2, wait].
    Equal,
    /// Nothing.
    None,
}

impl Backoff {
    /// The wait before the `nth_retry`, from 0; `random` is uniform in [0, 1).
    ///
    /// It is never zero, so that a retry is never a hot loop, and never above `max`.
    pub fn wait(&self, nth_retry: u32, random: f64) -> Duration {
        let cap = self.cap(nth_retry);
        // From [0, 1) to (0, 1]: the cap can be drawn, zero cannot.
        let drawn = 1.0 - unit(random);
        let wait = match self.jitter {
            Jitter::Full => share(cap, drawn),
            Jitter::Equal => share(cap, f64::midpoint(1.0, drawn)),
            Jitter::None => cap,
        };
        wait.max(SHORTEST)
    }

    fn cap(&self, nth_retry: u32) -> Duration {
        let factor = match self.growth {
            Growth::Exponential => 1_u32.checked_shl(nth_retry).unwrap_or(u32::MAX),
            Growth::Linear => nth_retry.saturating_add(1),
            Growth::Constant => 1,
        };
        self.initial.saturating_mul(factor).min(self.max)
    }
}

/// The wait that obeys the upstream's `hint`; `random` is uniform in [0, 1).
///
/// The hint is a minimum: what is added scatters the callers that were told the
/// same, and is at most a tenth of it, but up to 250 ms of a short one and never
/// more than 5 s.
pub fn after_hint(hint: Duration, random: f64) -> Duration {
    let spread = (hint / 10).clamp(SPREAD_MIN, SPREAD_MAX);
    hint.saturating_add(share(spread, unit(random)))
}

/// `part` of `whole`, for a part from 0 to 1.
fn share(whole: Duration, part: f64) -> Duration {
    Duration::try_from_secs_f64(whole.as_secs_f64() * part).unwrap_or(whole).min(whole)
}

/// `random` as promised, whatever was given: not-a-number counts as 0.
fn unit(random: f64) -> f64 {
    if random.is_nan() { 0.0 } else { random.clamp(0.0, 1.0) }
}

/// What stands for zero: a timer rounds it up to its own resolution.
const SHORTEST: Duration = Duration::from_nanos(1);

/// Enough to scatter the callers of a hint of a second or less.
const SPREAD_MIN: Duration = Duration::from_millis(250);

/// No caller loses more than this to scattering.
const SPREAD_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn plain(growth: Growth) -> Backoff {
        Backoff { growth, initial: MS(200), max: MS(20_000), jitter: Jitter::None }
    }

    #[test]
    fn a_wait_grows_as_it_is_told_up_to_its_cap() {
        for (growth, nth, wanted) in [
            (Growth::Exponential, 0, 200),
            (Growth::Exponential, 1, 400),
            (Growth::Exponential, 6, 12_800),
            (Growth::Exponential, 7, 20_000),
            (Growth::Exponential, u32::MAX, 20_000),
            (Growth::Linear, 0, 200),
            (Growth::Linear, 2, 600),
            (Growth::Linear, u32::MAX, 20_000),
            (Growth::Constant, 0, 200),
            (Growth::Constant, u32::MAX, 200),
        ] {
            assert_eq!(plain(growth).wait(nth, 0.5), MS(wanted), "{growth:?} {nth}");
        }
    }

    #[test]
    fn whole_seconds_are_scattered_too() {
        // tower's backoff drops the seconds of its base before it scatters.
        let backoff =
            Backoff { initial: MS(1000), jitter: Jitter::Full, ..plain(Growth::Constant) };
        assert_eq!(backoff.wait(0, 0.0), MS(1000));
        assert_eq!(backoff.wait(0, 0.5), MS(500));
        assert_eq!(backoff.wait(0, 0.75), MS(250));
        let equal = Backoff { jitter: Jitter::Equal, ..backoff };
        assert_eq!(equal.wait(0, 0.0), MS(1000));
        assert_eq!(equal.wait(0, 0.5), MS(750));
    }

    #[test]
    fn a_hint_is_scattered_by_a_tenth_within_bounds() {
        for (hint, most) in [(100, 350), (2500, 2750), (10_000, 11_000), (120_000, 125_000)] {
            assert_eq!(after_hint(MS(hint), 0.0), MS(hint));
            assert_eq!(after_hint(MS(hint), 1.0), MS(most), "{hint}");
        }
        assert_eq!(after_hint(Duration::MAX, 0.9), Duration::MAX);
        assert_eq!(after_hint(MS(1), f64::NAN), MS(1));
    }

    fn durations() -> impl Strategy<Value = Duration> {
        let any = (any::<u64>(), 0_u32..1_000_000_000).prop_map(|(s, ns)| Duration::new(s, ns));
        prop_oneof![any, (1_u64..100_000).prop_map(Duration::from_millis)]
    }

    fn randoms() -> impl Strategy<Value = f64> {
        prop_oneof![0.0..1.0, Just(0.0), Just(1.0 - f64::EPSILON), any::<f64>()]
    }

    fn backoffs() -> impl Strategy<Value = Backoff> {
        use Growth::{Constant, Exponential, Linear};
        let growth = prop_oneof![Just(Exponential), Just(Linear), Just(Constant)];
        let jitter = prop_oneof![Just(Jitter::Full), Just(Jitter::Equal), Just(Jitter::None)];
        (growth, durations(), durations(), jitter)
            .prop_map(|(growth, initial, max, jitter)| Backoff { growth, initial, max, jitter })
    }

    proptest! {
        #[test]
        fn a_wait_is_never_zero_and_never_above_its_cap(
            backoff in backoffs(), nth in prop_oneof![0_u32..70, any::<u32>()], random in randoms(),
        ) {
            let wait = backoff.wait(nth, random);
            prop_assert!(wait > Duration::ZERO);
            prop_assert!(wait <= backoff.max.max(SHORTEST));
            prop_assert!(wait <= backoff.cap(nth).max(SHORTEST));
            if backoff.jitter == Jitter::Equal {
                prop_assert!(wait >= backoff.cap(nth) / 4);
            }
        }

        #[test]
        fn a_hint_is_never_undercut(hint in durations(), random in randoms()) {
            let wait = after_hint(hint, random);
            prop_assert!(wait >= hint);
            prop_assert!(wait <= hint.saturating_add(SPREAD_MAX));
        }
    }
}

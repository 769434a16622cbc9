//! How long one answer serves the polls of a job: one pure function.

use std::time::Duration;

/// What bounds the time between two polls.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The route's `interval`.
    pub interval: Duration,
    /// The longest hint that is obeyed: `retry_after_max`.
    pub hint_max: Duration,
}

/// How long after a poll began the next one of its job may go upstream.
///
/// `unchanged_after` is the spacing before, where the job shows what it showed then:
/// a job that does not move is asked less often, by half each time up to twice the
/// interval, and one that moves is asked at the interval again. A `hint` of the
/// upstream's is obeyed above that, up to `hint_max`.
pub fn spacing(pace: Pace, unchanged_after: Option<Duration>, hint: Option<Duration>) -> Duration {
    let Pace { interval, hint_max } = pace;
    let most = interval.saturating_mul(2);
    let grown = |last: Duration| last.saturating_add(last / 2).clamp(interval, most);
    let own = unchanged_after.map_or(interval, grown);
    own.max(hint.unwrap_or_default().min(hint_max))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_job_that_stands_still_is_asked_less_often_and_a_hint_is_obeyed() {
        let seconds = Duration::from_secs;
        let pace = Pace { interval: seconds(4), hint_max: seconds(60) };
        for (unchanged_after, hint, wanted) in [
            (None, None, 4),
            (Some(4), None, 6),
            (Some(6), None, 8),
            (Some(8), None, 8),
            // Below the interval since a reload.
            (Some(1), None, 4),
            (Some(40), None, 8),
            (None, Some(3), 4),
            (None, Some(5), 5),
            (Some(8), Some(5), 8),
            (Some(4), Some(30), 30),
            (None, Some(60), 60),
            (None, Some(61), 60),
        ] {
            let got = spacing(pace, unchanged_after.map(seconds), hint.map(seconds));
            assert_eq!(got, seconds(wanted), "{unchanged_after:?}, {hint:?}");
        }
    }

    proptest! {
        #[test]
        fn no_spacing_is_below_the_interval_or_above_what_bounds_it(
            interval in any::<u64>(),
            hint_max in any::<u64>(),
            hints in proptest::collection::vec(proptest::option::of(any::<u64>()), 1..20),
        ) {
            let millis = Duration::from_millis;
            let pace = Pace { interval: millis(interval), hint_max: millis(hint_max) };
            let most = pace.interval.saturating_mul(2).max(pace.hint_max);
            let mut last = None;
            for hint in hints {
                let got = spacing(pace, last, hint.map(millis));
                prop_assert!(got >= pace.interval && got <= most, "{got:?}");
                last = Some(got);
            }
        }
    }
}

//! What an attempt to deliver came to, and when the next one is.

use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

use crate::exchange::hint::{self, Hint};
use crate::exchange::{Failure, Response};

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// A 2xx: the application has it.
    Accepted,
    /// Another answer. It is about this delivery, and says nothing of the others.
    Refused,
    /// The application asks for fewer of them, or for a while without any.
    Throttled(Option<Duration>),
    /// No answer came, or a gateway's for it: the application is not there.
    Nothing,
    /// The route's limits held it back: nothing was tried.
    HeldBack,
}

/// What an attempt came to, by its answer.
///
/// No answer but a 2xx is final: what refuses today may be mended tomorrow, and whoever
/// sent the delivery was told that it has arrived.
pub fn came(result: &Result<Response, Failure>, now: SystemTime) -> Came {
    match result {
        Ok(response) if response.status.is_success() => Came::Accepted,
        Ok(response) => {
            let Response { status, headers, .. } = response;
            let told = match hint::wait(*status, headers, now) {
                Hint::Wait(wait) => Some(wait),
                Hint::Absent | Hint::Invalid => None,
            };
            match status.as_u16() {
                _ if hint::throttles(*status, headers) => Came::Throttled(told),
                502..=504 => Came::Nothing, // a gateway's word for it
                _ => Came::Refused,
            }
        }
        Err(Failure::Overloaded | Failure::LimitWait { .. }) => Came::HeldBack,
        Err(_) => Came::Nothing,
    }
}

/// What is known when an attempt has failed.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Attempts of this delivery, this one included.
    pub attempts: u32,
    /// How long ago it came.
    pub age: Duration,
    /// How often in a row the application was not there, this time included.
    pub failures: u32,
}

/// How far a route goes.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Attempts in all; `None`: as many as there is time for.
    pub attempts: Option<NonZeroU32>,
    /// How long after its arrival a delivery is given up.
    pub give_up_after: Duration,
}

/// What follows an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: it is delivered.
    Done,
    /// Another attempt, so much later; until `hold` has passed nothing else is sent either.
    Again {
        /// Of this delivery.
        after: Duration,
        /// Of any.
        hold: Duration,
    },
    /// Nothing: it is given up.
    GiveUp,
}

/// What follows an attempt; `wait` is the route's, `random` uniform in [0, 1).
pub fn next(
    came: Came,
    facts: &Facts,
    bounds: &Bounds,
    wait: &dyn Fn(Option<Duration>, u32, f64) -> Duration,
    random: f64,
) -> Next {
    let own = || wait(None, facts.attempts.saturating_sub(1), random);
    let (after, hold) = match came {
        Came::Accepted => return Next::Done,
        // It was not tried, so it is no older for that.
        Came::HeldBack => return Next::Again { after: HELD_BACK, hold: Duration::ZERO },
        Came::Refused => (own().max(patience(facts.age, random)), Duration::ZERO),
        Came::Throttled(hint) => {
            let hold = wait(hint, facts.failures.saturating_sub(1), random);
            (hold.max(own()), hold)
        }
        // The others are as good as this one to find out whether it is back.
        Came::Nothing => (own(), wait(None, facts.failures.saturating_sub(1), random)),
    };
    let spent = bounds.attempts.is_some_and(|most| facts.attempts >= most.get());
    let late = facts.age >= bounds.give_up_after;
    if spent || late { Next::GiveUp } else { Next::Again { after, hold } }
}

/// The least wait before what was refused is tried again: it grows with the delivery's
/// age, past what the route waits for an application that is away. One that is refused
/// for a week is tried some two hundred times, not a hundred thousand.
fn patience(age: Duration, random: f64) -> Duration {
    let least = (age / AGE_SHARE).min(PATIENCE_MAX);
    least.mul_f64(f64::midpoint(1.0, random.clamp(0.0, 1.0)))
}

/// A thirty-second of its age between two attempts: after a minute 2 s, after an hour 2 min.
const AGE_SHARE: u32 = 32;
/// Whoever mends the application sees the next attempt within the hour.
const PATIENCE_MAX: Duration = Duration::from_hours(1);
/// The limits said that there was no turn; they have waited already.
const HELD_BACK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Body;
    use crate::exchange::tests::response;

    const MS: fn(u64) -> Duration = Duration::from_millis;
    const BOUNDS: Bounds = Bounds { attempts: None, give_up_after: Duration::from_hours(168) };

    fn failure(timed_out: bool) -> Failure {
        if timed_out {
            Failure::TimedOut { after: MS(1), sent: true }
        } else {
            Failure::Unreachable { detail: String::new(), kind: "connection_refused" }
        }
    }

    #[test]
    fn a_2xx_alone_is_an_end() {
        let none: &[(&str, &str)] = &[];
        let hinted: &[(&str, &str)] = &[("retry-after", "3")];
        for (status, fields, wanted) in [
            (200, none, Came::Accepted),
            (202, none, Came::Accepted),
            (204, hinted, Came::Accepted),
            (301, none, Came::Refused),
            (400, none, Came::Refused),
            (401, none, Came::Refused),
            (404, none, Came::Refused),
            (408, none, Came::Refused),
            (409, none, Came::Refused),
            (410, none, Came::Refused),
            (425, none, Came::Refused),
            (429, none, Came::Throttled(None)),
            (429, hinted, Came::Throttled(Some(MS(3000)))),
            (500, none, Came::Refused),
            (502, none, Came::Nothing),
            (503, none, Came::Nothing),
            (504, none, Came::Nothing),
            (503, hinted, Came::Throttled(Some(MS(3000)))),
        ] {
            let answer = Ok(response(status, fields, Body::empty()));
            assert_eq!(came(&answer, SystemTime::now()), wanted, "{status} {fields:?}");
        }
        for (failure, wanted) in [
            (failure(false), Came::Nothing),
            (failure(true), Came::Nothing),
            (Failure::Loop, Came::Nothing),
            (Failure::Overloaded, Came::HeldBack),
            (Failure::LimitWait { retry_after: MS(1) }, Came::HeldBack),
        ] {
            let shown = failure.to_string();
            assert_eq!(came(&Err(failure), SystemTime::now()), wanted, "{shown}");
        }
    }

    /// Waits 100 ms, then 200 ms and so on; a hint as it is.
    fn told(came: Came, facts: Facts, bounds: Bounds) -> Next {
        let wait = |hint: Option<Duration>, nth: u32, _random: f64| {
            hint.unwrap_or_else(|| MS(100 * (u64::from(nth) + 1)))
        };
        next(came, &facts, &bounds, &wait, 1.0)
    }

    fn facts(attempts: u32, age: Duration, failures: u32) -> Facts {
        Facts { attempts, age, failures }
    }

    #[test]
    fn what_is_refused_waits_alone_and_longer_the_older_it_is() {
        for (attempts, age, after) in [
            (1, MS(0), MS(100)),
            (3, MS(0), MS(300)),
            (3, Duration::from_hours(1), Duration::from_hours(1) / 32),
            (3, Duration::from_hours(100), Duration::from_hours(1)),
        ] {
            let wanted = Next::Again { after, hold: MS(0) };
            assert_eq!(told(Came::Refused, facts(attempts, age, 0), BOUNDS), wanted);
        }
    }

    #[test]
    fn an_application_that_is_away_is_spared_all_of_them() {
        let away = told(Came::Nothing, facts(1, Duration::from_hours(100), 5), BOUNDS);
        assert_eq!(away, Next::Again { after: MS(100), hold: MS(500) });
        let throttled = told(Came::Throttled(Some(MS(7))), facts(2, MS(0), 1), BOUNDS);
        assert_eq!(throttled, Next::Again { after: MS(200), hold: MS(7) });
        let held = told(Came::HeldBack, facts(9, Duration::MAX, 9), BOUNDS);
        assert_eq!(held, Next::Again { after: HELD_BACK, hold: MS(0) });
    }

    #[test]
    fn it_is_given_up_after_its_time_or_its_attempts_and_never_once_delivered() {
        let (almost, week) = (MS(7 * 24 * 3_600_000 - 1), BOUNDS.give_up_after);
        let three = Bounds { attempts: NonZeroU32::new(3), ..BOUNDS };
        for (attempts, age, bounds, gives_up) in [
            (1_000_000, almost, BOUNDS, false),
            (1, week, BOUNDS, true),
            (1, week + MS(1), BOUNDS, true),
            (2, MS(0), three, false),
            (3, MS(0), three, true),
            (4, MS(0), three, true),
        ] {
            for came in [Came::Refused, Came::Nothing, Came::Throttled(None)] {
                let next = told(came, facts(attempts, age, 1), bounds);
                assert_eq!(next == Next::GiveUp, gives_up, "{attempts} {age:?} {came:?}");
            }
            assert_eq!(told(Came::Accepted, facts(attempts, age, 0), bounds), Next::Done);
        }
    }
}

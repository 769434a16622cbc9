//! Whether there is to be another attempt, and if not, why: one pure function.

use std::time::Duration;

use http::Method;
use tokio::time::Instant;

use crate::exchange::hint::{Hint, Instruction};
use crate::exchange::signature::Signed;
use crate::exchange::{Outcome, Standing, Stop};
use crate::metrics::{Asked, Reason};
use crate::retry::backoff;
use crate::retry::budget::Cost;
use crate::retry::outcome::Classified;
use crate::retry::policy::{Attempts, Policy};

/// What is known after an attempt.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each read by its name")]
pub struct Facts {
    /// What the attempt came to.
    pub attempt: Classified,
    /// Attempts made, this one included.
    pub made: u32,
    /// How many of them were never sent, or refused, before this one.
    pub free_used: u32,
    /// What the upstream said about when.
    pub hint: Hint,
    /// What the upstream said about whether.
    pub instructed: Option<Instruction>,
    /// Whether `never_when` matched the answer.
    pub permanent: bool,
    /// Whether `in_progress_when` matched the answer.
    pub in_progress: bool,
    /// Whether repeating it is harmless: [`repeatable`].
    pub repeatable: bool,
    /// Whether its body can still be sent.
    pub replayable: bool,
    /// Its signature, if it carries one, aged as of now.
    pub signed: Option<Signed>,
    /// Whether the client asked for a single attempt.
    pub off: bool,
    /// Whether it is an SDK's own retry of an earlier request.
    pub sdk_retry: bool,
    /// Now.
    pub now: Instant,
    /// When no further attempt starts.
    pub deadline: Instant,
}

/// What to do after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// There was nothing to retry: hand on what came.
    Pass,
    /// It looks retryable, and is handed on because of this.
    Stop(Stop),
    /// Try again, if the route can afford it.
    Retry {
        /// How long to wait first.
        wait: Duration,
        /// Who asked for that wait.
        asked: Asked,
        /// What it costs.
        cost: Cost,
        /// What made it necessary.
        reason: Reason,
    },
}

/// Decides, in the order of `design.md`, section 6; the budget, which comes last, is asked
/// by whoever carries the decision out. `random` is uniform in [0, 1).
pub fn decide(policy: &Policy, facts: &Facts, random: f64) -> Decision {
    if !is_eligible(policy, facts) {
        return Decision::Pass;
    }
    if let Some(stop) = forbidden(policy, facts) {
        return Decision::Stop(stop);
    }
    let (wait, asked) = wait(policy, facts, random);
    // Never sleep in vain, and never come earlier than asked.
    if wait >= facts.deadline.saturating_duration_since(facts.now) {
        return Decision::Stop(Stop::Deadline);
    }
    Decision::Retry { wait, asked, cost: cost(facts), reason: reason(facts) }
}

/// Whether a request may be sent again although an attempt may have had an effect.
///
/// RFC 9110, section 9.2.2: an idempotent method; or the upstream promises to
/// de-duplicate by the key that went with it, and the promise still holds; or the
/// operator accepts duplicates.
pub fn repeatable(method: &Method, standing: &Standing, policy: &Policy, now: Instant) -> bool {
    method.is_idempotent()
        || policy.repeat_unsafe
        || standing.dedupes_until.is_some_and(|until| now < until)
}

fn is_eligible(policy: &Policy, facts: &Facts) -> bool {
    let attempt = &facts.attempt;
    if attempt.hopeless {
        return false;
    }
    let told = facts.instructed == Some(Instruction::Retry);
    match attempt.outcome {
        Outcome::NotSent => policy.on.connect,
        Outcome::Refused | Outcome::Failed => true,
        Outcome::Throttled => {
            told || attempt.status.is_some_and(|status| policy.on.statuses.contains(status))
        }
        Outcome::Ambiguous if attempt.timed_out => policy.on.timeout,
        Outcome::Ambiguous => policy.on.reset,
        Outcome::Replayed => false,
        Outcome::Done => {
            (told || facts.in_progress)
                && attempt.status.is_some_and(|s| s.is_client_error() || s.is_server_error())
        }
    }
}

fn forbidden(policy: &Policy, facts: &Facts) -> Option<Stop> {
    let attempt = &facts.attempt;
    let unsent = matches!(attempt.outcome, Outcome::NotSent | Outcome::Refused);
    let refused = attempt.outcome == Outcome::Throttled
        && attempt.status.is_some_and(|status| policy.refused_by.contains(status));
    let too_long = matches!(facts.hint, Hint::Wait(hint) if hint > policy.retry_after_max);
    let stale = facts.signed.is_some_and(|signed| signed.single_use || signed.age > SIGNED_FOR);
    let checks = [
        (!(unsent || refused || facts.repeatable), Stop::Unsafe),
        (!facts.replayable, Stop::Body),
        (stale && !unsent, Stop::Signed),
        (facts.off, Stop::Off),
        (facts.instructed == Some(Instruction::Stop), Stop::UpstreamSaidNo),
        (facts.permanent, Stop::Permanent),
        (used_up(policy, facts), Stop::Attempts),
        (too_long, Stop::RetryAfter),
        (facts.now >= facts.deadline, Stop::Deadline),
    ];
    checks.into_iter().find_map(|(holds, stop)| holds.then_some(stop))
}

/// An SDK that retries on top of us gets one retry more, or attempts multiply:
/// `semantics.md`, rule 44.
fn used_up(policy: &Policy, facts: &Facts) -> bool {
    let most = match policy.attempts {
        Attempts::AtMost(most) => most.get(),
        Attempts::Unlimited => u32::MAX,
    };
    let most = if facts.sdk_retry { most.min(2) } else { most };
    facts.made >= most
}

fn wait(policy: &Policy, facts: &Facts, random: f64) -> (Duration, Asked) {
    let backoff = policy.backoff.wait(facts.made.saturating_sub(1), random);
    let Hint::Wait(hint) = facts.hint else { return (backoff, Asked::Backoff) };
    let told = backoff::after_hint(hint, random);
    if facts.attempt.outcome != Outcome::Throttled && backoff > told {
        return (backoff, Asked::Backoff); // a failing upstream's hint only ever raises the wait
    }
    // The jitter gives way to the deadline; the hint itself does not.
    let left = facts.deadline.saturating_duration_since(facts.now);
    let fits = left.saturating_sub(LEAST_ATTEMPT).max(hint);
    (told.min(fits), Asked::Server)
}

fn cost(facts: &Facts) -> Cost {
    match facts.attempt.outcome {
        Outcome::NotSent | Outcome::Refused if facts.free_used == 0 => Cost::Free,
        Outcome::Throttled if matches!(facts.hint, Hint::Wait(_)) => Cost::Third,
        Outcome::Ambiguous => Cost::Two,
        Outcome::NotSent
        | Outcome::Refused
        | Outcome::Throttled
        | Outcome::Failed
        | Outcome::Replayed
        | Outcome::Done => Cost::One,
    }
}

fn reason(facts: &Facts) -> Reason {
    match facts.attempt.outcome {
        Outcome::NotSent | Outcome::Refused => Reason::Connect,
        Outcome::Ambiguous if facts.attempt.timed_out => Reason::Timeout,
        Outcome::Ambiguous => Reason::Reset,
        Outcome::Throttled | Outcome::Failed | Outcome::Replayed | Outcome::Done => {
            let server = facts.attempt.status.is_none_or(|status| status.is_server_error());
            if server { Reason::Status5xx } else { Reason::Status429 }
        }
    }
}

/// AWS refuses a `SigV4` date that is five minutes off; one is kept for the way.
const SIGNED_FOR: Duration = Duration::from_mins(4);
/// What an attempt needs to have a chance: `semantics.md`, rule 34.
const LEAST_ATTEMPT: Duration = Duration::from_millis(50);

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

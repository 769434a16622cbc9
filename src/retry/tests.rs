//! The policy that this stage's tests start from: the documented defaults.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::exchange::Statuses;
use crate::retry::budget::Terms;
use crate::retry::{Attempts, Backoff, Deadline, Growth, Jitter, Policy, Triggers};

/// What a route without a `retry` block gets.
pub(crate) fn policy() -> Policy {
    let server_errors = Statuses::NONE.with_class(5).without(501).without(505);
    Policy {
        attempts: Attempts::AtMost(NonZeroU32::new(4).expect("four is not zero")),
        on: Triggers {
            statuses: server_errors.with(429),
            connect: true,
            reset: true,
            timeout: true,
        },
        never_when: Vec::new(),
        in_progress_when: Vec::new(),
        failed_when: Vec::new(),
        refused_by: Statuses::NONE.with(429),
        backoff: Backoff {
            growth: Growth::Exponential,
            initial: Duration::from_millis(200),
            max: Duration::from_secs(20),
            jitter: Jitter::Full,
        },
        retry_after_max: Duration::from_mins(2),
        attempt_timeout: None,
        deadline: Deadline { after: Duration::from_mins(5), cuts_attempts: false },
        body_idle_timeout: None,
        budget: Terms { ratio_milli: 200, per_second: 1, burst: 100 },
        repeat_unsafe: false,
    }
}

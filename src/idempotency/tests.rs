//! What this stage's tests start from: the documented defaults, and an empty store.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::HeaderName;
use tokio_util::task::TaskTracker;

use super::key::Secret;
use super::lookup::{Lookups, Most};
use super::orphans::Orphans;
use super::store::{Memory, Store};
use super::suspension::Suspensions;
use super::terms::Shared;
use super::{Captures, Carrier, Commons, Format, InProgress, Mismatch, Principal, Rules, Terms};
use crate::exchange::body::{Caps, Room};
use crate::exchange::ending::{Decide, Ending, Resend};
use crate::exchange::id::Names;
use crate::exchange::trail::End;
use crate::exchange::{Chance, Effects, Statuses};
use crate::journal::Clock;
use crate::metrics::Metrics;

/// What a route without an `idempotency` block gets.
pub(super) fn rules() -> Rules {
    Rules {
        carrier: Carrier::Header(HeaderName::from_static("idempotency-key")),
        inject: None,
        format: Format::Uuid,
        upstream_dedupes: None,
        upstream_ttl: Duration::from_hours(24),
        identity: None,
        adopt_orphans: Duration::ZERO,
        require: false,
        credentials: Vec::new(),
        principal: Principal::Credentials,
        join_wait: Duration::from_secs(30),
        ttl: Duration::from_hours(24),
        keep_key: Duration::from_hours(90 * 24),
        record: Statuses::NONE.with_class(2),
        in_progress: InProgress::Join,
        mismatch: Mismatch::Answer(http::StatusCode::UNPROCESSABLE_ENTITY),
        ignore: Vec::new(),
        capture: Captures::default(),
        pass_malformed_keys: false,
    }
}

/// A route with these rules, which holds bodies of up to 64 bytes.
pub(super) fn shared(rules: Rules) -> Shared {
    let metrics = Metrics::new();
    let terms = Terms {
        rules,
        effects: Effects::ByMethod,
        caps: Caps { memory: 64, disk: 1024 },
        repeat_unsafe: false,
        observes: false,
        metrics: metrics.route("r"),
        lookup: None,
        lookups: metrics.lookups("r"),
        cost: None,
        decide: Decide {
            ending: |_history| Ending { end: End::Unknown, stays: true, adoptable: false },
            resend: |_method, _dedupes, _unsafe, _asked_by| Resend::Never,
        },
    };
    let commons = Commons {
        store: Store::Memory(Memory::new(1 << 20, Clock::System)),
        orphans: Orphans::default(),
        suspensions: Suspensions::default(),
        secret: Secret::new([7; 32]),
        chance: Chance::new([1; 32]),
        names: Arc::new(Names::new(1, UNIX_EPOCH)),
        tasks: TaskTracker::new(),
        cut: tokio_util::sync::CancellationToken::new(),
        room: Room::new(std::env::temp_dir(), 1 << 20, 1 << 20),
        metrics,
        running: super::running::Running::default(),
        leading: crate::idempotency::leading::Leading::default(),
        lookups: Lookups::new(Most { followed: 100, turns: 3 }, TaskTracker::new()),
        ended: tokio::sync::broadcast::channel(1).0,
    };
    Shared { commons, terms }
}

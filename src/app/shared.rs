//! What replicas share: how it is reached, and the secret that is kept there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::app::StateFault;
use crate::app::state::Home;
use crate::config::{self, State};
use crate::exchange::BoxFuture;
use crate::idempotency::key::Secret;
use crate::idempotency::store::redis::{Options, Redis, Unavailable};
use crate::idempotency::store::{Shared, Store};
use crate::intercept::Roots;
use crate::limit::{Coordinate, Rate};
use crate::metrics::{Metrics, Operation};

/// Why a sidecar that shares its keys could not start.
#[derive(Debug, thiserror::Error)]
pub enum ShareFault {
    /// The secret is kept where nobody answers.
    #[error(
        "state.shared: {0}; it keeps the secret that derives keys, and without it two replicas \
             would make two orders of one: start it, or give state.secret_file"
    )]
    NoSecret(Unavailable),
    /// Another secret is kept there than the one under which this directory's keys were made.
    #[error("state.shared keeps another secret than {}, under which this state.dir has made keys: \
             with it, orders that were made would be made again. Give all replicas one \
             state.secret_file; or move {} aside, to begin anew without those keys",
            secret.display(), dir.display())]
    OtherSecret {
        /// The secret that was used here.
        secret: PathBuf,
        /// `state.dir`.
        dir: PathBuf,
    },
    /// The copy of the secret cannot be written.
    #[error(transparent)]
    State(#[from] StateFault),
}

/// Starts what keeps the connection alive.
pub(super) fn start(
    shared: &config::Shared,
    roots: &Roots,
    owner: [u8; 16],
    tasks: &TaskTracker,
) -> Redis {
    let options = Options {
        address: shared.address.clone(),
        roots: roots.pem(),
        lease: shared.lease,
        wait_replicas: shared.wait_replicas,
        owner,
    };
    Redis::start(options, tasks)
}

/// The secret: the operator's own, or the one that all replicas share. What was shared
/// once is kept here too, so that a start does not hang on another machine. Where the
/// store `has_keys`, they were made under the secret that is here.
pub(super) async fn secret(
    state: &State,
    home: &Home,
    redis: &Redis,
    has_keys: bool,
) -> Result<Secret, ShareFault> {
    if state.secret_file.is_some() {
        return Ok(home.secret(state.secret_file.as_deref())?);
    }
    home.secret(None)?; // one to offer
    let own = home.secret_file();
    let offered = fs::read(&own).map_err(|error| StateFault::unusable(&own, error))?;
    match redis.secret(offered.trim_ascii_end()).await {
        Ok(shared) if shared == offered.trim_ascii_end() => {}
        Ok(_other) if has_keys => {
            return Err(ShareFault::OtherSecret { secret: own, dir: state.dir.clone() });
        }
        Ok(shared) => replace(&own, &shared).map_err(|error| StateFault::unusable(&own, error))?,
        Err(_away) if home.shared_secret_is_known() => {}
        Err(away) => return Err(ShareFault::NoSecret(away)),
    }
    home.note_shared_secret()?;
    Ok(home.secret(None)?)
}

/// Says what of its settings can cost a key; nothing where it is away.
pub(super) async fn warn(redis: &Redis) {
    for warning in redis.warnings().await {
        tracing::warn!(warning, "state.shared can lose what it was told");
    }
}

/// The local store behind what is shared.
pub(super) fn before(
    local: Store,
    redis: &Redis,
    shared: &config::Shared,
    (tasks, metrics): (&TaskTracker, &Metrics),
) -> Store {
    let with = (tasks.clone(), metrics.clone());
    Store::Shared(Shared::new(local, redis.clone(), shared.on_failure, with))
}

/// What replicas share of limits.
struct SharedLimits {
    redis: Redis,
    tasks: TaskTracker,
    metrics: Metrics,
    /// Until when it is not asked again: a limit must not wait for what is away.
    away: Arc<Mutex<Option<Instant>>>,
}

/// How routes with `limits.shared` ask other replicas.
pub(super) fn limits(
    redis: &Redis,
    (tasks, metrics): (&TaskTracker, &Metrics),
) -> Arc<dyn Coordinate> {
    let (redis, tasks, metrics) = (redis.clone(), tasks.clone(), metrics.clone());
    Arc::new(SharedLimits { redis, tasks, metrics, away: Arc::default() })
}

impl SharedLimits {
    /// Asks, unless nobody answered lately.
    fn ask<T: Send + 'static>(
        &self,
        operation: Operation,
        asking: impl Future<Output = Result<T, Unavailable>> + Send + 'static,
    ) -> BoxFuture<Option<T>> {
        let (away, metrics) = (self.away.clone(), self.metrics.clone());
        Box::pin(async move {
            let lately = || away.lock().unwrap_or_else(PoisonError::into_inner);
            if lately().is_some_and(|until| Instant::now() < until) {
                return None;
            }
            let heard = asking.await;
            *lately() = heard.is_err().then(|| Instant::now() + AWAY_FOR);
            heard.inspect_err(|_away| metrics.store_error(operation)).ok()
        })
    }
}

impl Coordinate for SharedLimits {
    fn take(&self, scope: [u8; 32], rate: Rate) -> BoxFuture<Option<Result<(), Duration>>> {
        let redis = self.redis.clone();
        self.ask(Operation::SharedRate, async move {
            redis.take_rate(&scope, rate.count.get(), rate.per).await
        })
    }

    fn pause(&self, scope: [u8; 32], pause: Duration) {
        let redis = self.redis.clone();
        let telling =
            self.ask(Operation::SharedPause, async move { redis.pause(&scope, pause).await });
        self.tasks.spawn(async move { telling.await.unwrap_or_default() });
    }

    fn paused(&self, scope: [u8; 32]) -> BoxFuture<Option<Duration>> {
        let redis = self.redis.clone();
        let asking = self.ask(Operation::SharedPause, async move { redis.paused(&scope).await });
        Box::pin(async move { asking.await.flatten() })
    }
}

/// Written whole under another name first: a crash leaves one of the two.
fn replace(path: &Path, secret: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir)?; // mode 0600
    file.write_all(secret)?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    file.persist(path).map(drop).map_err(|failed| failed.error)
}

/// A limit asks at every attempt; one that is away is asked again after this.
const AWAY_FOR: Duration = Duration::from_secs(2);

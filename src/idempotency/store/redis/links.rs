//! Commands, each within its time, over one shared connection, or over one of its
//! own where it waits for replicas.
//!
//! `WAIT` holds up whatever comes after it on its connection, and counts the
//! replicas that have what this connection wrote. So a command that waits takes a
//! connection nobody else uses meanwhile, and goes in one pipeline with its `WAIT`;
//! everything else shares one connection and is never held up.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::Unavailable;
use super::link::{Connection, Dialer, Link};
use super::script::{By, Call};
use super::wire::Row;

/// The connections of one process.
pub(super) struct Links {
    pub(super) dialer: Dialer,
    shared: Link,
    /// Lanes nobody uses; the last one used is the next one taken.
    lanes: Mutex<Vec<Arc<Link>>>,
    permits: Semaphore,
    wait_replicas: u32,
}

/// What a command came to.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) row: Row,
    /// How many replicas are missing: set where fewer acknowledged than are wanted.
    pub(super) missed: Option<Unavailable>,
}

/// What is asked.
#[derive(Clone, Copy)]
enum Ask<'a> {
    Command(&'a Cmd),
    Script(&'a Call),
    /// So many replicas are to have what it writes.
    Replicated(&'a Call, u32),
}

/// A connection that is used by one command at a time.
struct Lane<'a> {
    links: &'a Links,
    link: Arc<Link>,
    is_clean: bool,
    _permit: SemaphorePermit<'a>,
}

impl Links {
    pub(super) fn new(dialer: Dialer, wait_replicas: u32) -> Self {
        Self {
            shared: Link::new(dialer.clone()),
            dialer,
            lanes: Mutex::default(),
            permits: Semaphore::new(LANES_MAX),
            wait_replicas,
        }
    }

    /// Runs a script.
    pub(super) async fn run(&self, call: &Call) -> Result<Row, Unavailable> {
        row(within(COMMAND_MAX, &self.shared, Ask::Script(call)).await?.0)
    }

    /// Runs a script, and waits for as many replicas as are wanted to have what it wrote.
    pub(super) async fn run_replicated(&self, call: &Call) -> Result<Heard, Unavailable> {
        let wanted = self.wait_replicas;
        if wanted == 0 {
            return Ok(Heard { row: self.run(call).await?, missed: None });
        }
        let most = COMMAND_MAX + WAIT_MAX;
        let free = timeout(most, self.lane()).await;
        let mut lane = free.map_err(|_elapsed| Unavailable::TimedOut(most))??;
        let ask = Ask::Replicated(call, wanted);
        let (value, acknowledged) = within(most, &lane.link, ask).await?;
        lane.is_clean = true;
        let missed =
            (acknowledged < wanted).then_some(Unavailable::NotReplicated { acknowledged, wanted });
        Ok(Heard { row: row(value)?, missed })
    }

    /// Runs a command of any kind.
    pub(super) async fn command(&self, command: &Cmd) -> Result<Value, Unavailable> {
        Ok(within(COMMAND_MAX, &self.shared, Ask::Command(command)).await?.0)
    }

    async fn lane(&self) -> Result<Lane<'_>, Unavailable> {
        let permit = self.permits.acquire().await.map_err(|_closed| Unavailable::Closed)?;
        let idle = self.lanes.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let link = idle.unwrap_or_else(|| Arc::new(Link::new(self.dialer.clone())));
        Ok(Lane { links: self, link, is_clean: false, _permit: permit })
    }
}

impl Drop for Lane<'_> {
    /// A lane on which an answer may still come is of no use to the next.
    fn drop(&mut self) {
        if !self.is_clean {
            self.link.reset();
        }
        let mut lanes = self.links.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.push(self.link.clone());
    }
}

impl Ask<'_> {
    /// The answer, and how many replicas have what it wrote.
    async fn over(self, link: &Link, used: &mut Option<u64>) -> RedisResult<(Value, u32)> {
        let (generation, mut connection) = link.connection().await?;
        *used = Some(generation);
        let first = match self {
            Self::Command(_) | Self::Script(_) => By::Digest,
            // A digest that the server does not know would wait for replicas all the same.
            Self::Replicated(..) => By::Text,
        };
        match self.by(first, &mut connection).await {
            Err(error) if is_unknown_script(&error) => self.by(By::Text, &mut connection).await,
            answered => answered,
        }
    }

    async fn by(self, by: By, connection: &mut Connection) -> RedisResult<(Value, u32)> {
        match self {
            Self::Command(command) => Ok((connection.ask(command).await?, 0)),
            Self::Script(call) => Ok((connection.ask(&call.command(by)).await?, 0)),
            Self::Replicated(call, wanted) => {
                let command = call.command(by);
                connection.ask_and_wait(command, call.routing_key(), (wanted, WAIT_MAX)).await
            }
        }
    }
}

/// Asks, and once more over a new connection where the old one turned out broken:
/// every script gives the same answer to the same caller's second asking.
async fn within(most: Duration, link: &Link, ask: Ask<'_>) -> Result<(Value, u32), Unavailable> {
    let mut used = None;
    let asked = timeout(most, async {
        match ask.over(link, &mut used).await {
            Err(error) if is_broken(&error) && used.is_some() => {
                drop_used(link, &mut used);
                ask.over(link, &mut used).await
            }
            answered => answered,
        }
    });
    match asked.await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => {
            if is_broken(&error) {
                drop_used(link, &mut used);
            }
            Err(error.into())
        }
        Err(_elapsed) => {
            // It may be gone for good, and another server be the master.
            drop_used(link, &mut used);
            Err(Unavailable::TimedOut(most))
        }
    }
}

fn drop_used(link: &Link, used: &mut Option<u64>) {
    if let Some(generation) = used.take() {
        link.drop_generation(generation);
    }
}

/// Whether another connection may do better: it broke, or leads to what is no master any more.
fn is_broken(error: &RedisError) -> bool {
    let demoted = matches!(
        error.kind(),
        ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
    );
    demoted || error.is_unrecoverable_error() || error.is_io_error()
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

fn row(value: Value) -> Result<Row, Unavailable> {
    let fields = redis::from_redis_value(value).map_err(|_value| Unavailable::Garbled)?;
    Ok(Row::new(fields))
}

/// A healthy Redis answers in a millisecond; a request waits for this one beside its upstream.
pub(super) const COMMAND_MAX: Duration = Duration::from_secs(1);
/// How long replicas get to acknowledge, on top of it.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Reservations that wait for replicas at one time; the next ones queue.
const LANES_MAX: usize = 32;

//! Asks as fast as the answers come, over so many connections, for so long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::yard::Fault;
use crate::yard::line::{Ask, Line, Way};
use crate::yard::process::Proxy;

/// What one round came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    /// Requests answered, or transfers made.
    pub(crate) done: u64,
    /// In this time.
    pub(crate) took: Duration,
    /// For so much of the proxy's CPU time.
    pub(crate) cpu: Duration,
}

impl Round {
    /// Answers a second.
    pub(crate) fn per_second(&self) -> f64 {
        count(self.done) / self.took.as_secs_f64()
    }

    /// Microseconds of the proxy's CPU time for each.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / count(self.done)
    }
}

#[derive(Default)]
struct Tally {
    done: AtomicU64,
    ready: AtomicU64,
    over: AtomicBool,
}

/// Asks over `connections` connections for `length`, once all of them are warm.
pub(crate) async fn rush(
    way: &Way,
    proxy: Option<&Proxy>,
    ask: &Ask,
    connections: u64,
    length: Duration,
) -> Result<Round, Fault> {
    let tally = Arc::new(Tally::default());
    let mut askers = JoinSet::new();
    for _ in 0..connections {
        askers.spawn(keep_asking(way.clone(), ask.clone(), tally.clone()));
    }
    let patience = Instant::now() + PATIENCE;
    while tally.ready.load(Ordering::Relaxed) < connections {
        if let Some(ended) = askers.try_join_next() {
            ended??;
        }
        if Instant::now() > patience {
            return Err("not all connections came about".into());
        }
        sleep(Duration::from_millis(1)).await;
    }
    sleep(WARM_UP).await;
    let (before, cpu, start) = (tally.done.load(Ordering::Relaxed), cpu(proxy)?, Instant::now());
    sleep(length).await;
    let (after, took) = (tally.done.load(Ordering::Relaxed), start.elapsed());
    let cpu = cpu_since(proxy, cpu)?;
    tally.over.store(true, Ordering::Relaxed);
    while let Some(ended) = timeout(PATIENCE, askers.join_next()).await? {
        ended??;
    }
    Ok(Round { done: after - before, took, cpu })
}

async fn keep_asking(way: Way, ask: Ask, tally: Arc<Tally>) -> Result<(), Fault> {
    let mut line = Line::open(&way).await?;
    let mut is_first = true;
    while is_first || !tally.over.load(Ordering::Relaxed) {
        line.ask(&ask).await?;
        tally.done.fetch_add(1, Ordering::Relaxed);
        if is_first {
            tally.ready.fetch_add(1, Ordering::Relaxed);
            is_first = false;
        }
    }
    Ok(())
}

/// Moves a large body so many times, over connections that have been used before.
pub(crate) async fn haul(
    way: &Way,
    proxy: Option<&Proxy>,
    ask: &Ask,
    times: u64,
) -> Result<Round, Fault> {
    let mut line = Line::open(way).await?;
    line.ask(&Ask::get()).await?;
    let (cpu, start) = (cpu(proxy)?, Instant::now());
    for _ in 0..times {
        line.ask(ask).await?;
    }
    Ok(Round { done: times, took: start.elapsed(), cpu: cpu_since(proxy, cpu)? })
}

/// Asks once.
pub(crate) async fn once(way: &Way, ask: &Ask) -> Result<(), Fault> {
    Line::open(way).await?.ask(ask).await.map(drop)
}

/// Opens connections, asks once on each, and leaves them open.
pub(crate) async fn hold(way: &Way, connections: usize) -> Result<Vec<Line>, Fault> {
    let mut lines = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut line = Line::open(way).await?;
        line.ask(&Ask::get()).await?;
        lines.push(line);
    }
    Ok(lines)
}

fn cpu(proxy: Option<&Proxy>) -> Result<Duration, Fault> {
    proxy.map_or(Ok(Duration::ZERO), Proxy::cpu)
}

fn cpu_since(proxy: Option<&Proxy>, before: Duration) -> Result<Duration, Fault> {
    Ok(cpu(proxy)?.saturating_sub(before))
}

/// A count as a number to divide by.
#[expect(clippy::cast_precision_loss, reason = "no count here comes near 2^53")]
pub(crate) fn count(number: u64) -> f64 {
    number as f64
}

/// Pools are filled and branches learnt within this.
const WARM_UP: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(30);

//! Waiting for the end of a claim that another replica holds.
//!
//! News arrive over pub/sub, which may lose any of them; so whoever waits also asks
//! every half second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use redis::aio::PubSub;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::claim::{State, taken};
use super::script::{self, NEWS};
use super::wire::{self, Row};
use super::{Inner, Redis, Unavailable};
use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::scope::RecordId;
use crate::idempotency::store::Record;

/// What came of one life of a claim.
#[derive(Clone, Debug)]
pub enum Told {
    /// Its exchange got this answer, whatever the status.
    Answer(Record),
    /// It was answered, and the answer is not to be had here.
    Completed {
        /// Ids that were taken from the answer.
        captured: Vec<(String, String)>,
        /// The process that keeps it, where it was only too large.
        at: Option<[u8; 16]>,
    },
    /// Nobody knows.
    Unknown,
    /// That life is over, and what it came to is not to be had: reserving the key says
    /// what it is now.
    Gone,
}

/// Who waits for news of which id.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<HashMap<RecordId, (Arc<Notify>, usize)>>);

/// A place on the board, given up when it is dropped.
struct Ear<'a> {
    board: &'a Board,
    id: RecordId,
    news: Arc<Notify>,
}

impl Redis {
    /// Waits for the end of the claim of `epoch`; `None` where that takes longer than `patience`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn told(&self, id: RecordId, epoch: u64, patience: Duration) -> Option<Told> {
        self.until(id, epoch, patience, |state, row| match state {
            "in_flight" => Ok(None),
            _ => read_told(state, row).map(Some),
        })
        .await
    }

    /// Waits until it is known what the claim of `epoch` asks; `None` where it ends
    /// before, or that takes longer than `patience`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn fingerprint(
        &self,
        id: RecordId,
        epoch: u64,
        patience: Duration,
    ) -> Option<Fingerprint> {
        let known = self.until(id, epoch, patience, |state, mut row| match state {
            "in_flight" => Ok(row.fingerprint()?.map(Some)),
            "answer" | "gone" => Ok(Some(None)),
            state => Ok(Some(taken(state, row)?.fingerprint)),
        });
        known.await.flatten()
    }

    /// Asks about a life of a claim whenever there is news, and every so often, until
    /// `read` makes something of it.
    async fn until<T>(
        &self,
        id: RecordId,
        epoch: u64,
        patience: Duration,
        read: impl Fn(&str, Row) -> Result<Option<T>, Unavailable>,
    ) -> Option<T> {
        let inner = &*self.0;
        let until = Instant::now() + patience;
        let ear = inner.board.listen(id);
        loop {
            // Whatever is told from here on is heard.
            let mut news = std::pin::pin!(ear.news.notified());
            news.as_mut().enable();
            let call = inner.call(&script::TOLD, &id).arg(epoch);
            let asked =
                timeout(until.saturating_duration_since(Instant::now()).max(ASK_MIN), async {
                    let mut row = inner.links.run(&call).await?;
                    let state = row.text()?;
                    read(&state, row)
                });
            match asked.await {
                Ok(Ok(Some(found))) => return Some(found),
                Ok(Ok(None)) => {}
                Ok(Err(error)) => tracing::debug!(%error, "redis does not say how a claim ended"),
                Err(_elapsed) => return None,
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            tokio::select! {
                () = news => {}
                () = sleep(left.min(POLL)) => {}
                () = inner.stop.cancelled() => return None,
            }
        }
    }
}

impl Board {
    fn listen(&self, id: RecordId) -> Ear<'_> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = waiting.entry(id).or_default();
        place.1 += 1;
        Ear { board: self, id, news: place.0.clone() }
    }

    fn call(&self, id: &RecordId) {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((news, _)) = waiting.get(id) {
            news.notify_waiters();
        }
    }

    /// Calls everybody: some news may have been missed.
    fn call_all(&self) {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.values().for_each(|(news, _)| news.notify_waiters());
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Drop for Ear<'_> {
    fn drop(&mut self) {
        let mut waiting = self.board.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = waiting.get_mut(&self.id) {
            place.1 -= 1;
            if place.1 == 0 {
                waiting.remove(&self.id);
            }
        }
    }
}

/// Passes the news on until the handle is closed.
pub(super) async fn listen(inner: Arc<Inner>) {
    let mut wait = RECONNECT_MIN;
    loop {
        let began = Instant::now();
        tokio::select! {
            () = inner.stop.cancelled() => return,
            ended = hear(&inner) => {
                tracing::debug!(error = ended.err().as_ref().map(tracing::field::display),
                    "redis tells no news; connecting again");
            }
        }
        // One that held for a while is no reason to hold back.
        wait = if began.elapsed() > RECONNECT_MAX { RECONNECT_MIN } else { wait };
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = sleep(wait) => wait = (wait * 2).min(RECONNECT_MAX),
        }
    }
}

/// Listens until the connection ends.
async fn hear(inner: &Inner) -> Result<(), Unavailable> {
    let mut listening: PubSub = inner.links.dialer.listen().await?;
    timeout(super::links::COMMAND_MAX, listening.subscribe(NEWS))
        .await
        .map_err(|_elapsed| Unavailable::TimedOut(super::links::COMMAND_MAX))??;
    inner.board.call_all();
    let mut news = listening.on_message();
    while let Some(message) = news.next().await {
        if let Some(id) = wire::id_from(message.get_payload_bytes()) {
            inner.board.call(&id);
        }
    }
    Ok(())
}

fn read_told(state: &str, mut row: Row) -> Result<Told, Unavailable> {
    match state {
        "answer" => row.record()?.map(Told::Answer).ok_or(Unavailable::Garbled),
        "gone" => Ok(Told::Gone),
        _ => Ok(match taken(state, row)?.state {
            State::Completed { record: Some(record), .. } => Told::Answer(record),
            State::Completed { record: None, captured, at } => Told::Completed { captured, at },
            State::Unknown | State::InFlight => Told::Unknown,
        }),
    }
}

/// How long an end goes unnoticed where its news got lost.
const POLL: Duration = Duration::from_millis(500);
/// Who has no patience still hears what is known now.
const ASK_MIN: Duration = Duration::from_millis(250);
const RECONNECT_MIN: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(2);

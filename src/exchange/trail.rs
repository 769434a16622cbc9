//! What an exchange has been through: its attempts, and what was made of them.

use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime};

use http::{HeaderValue, StatusCode};
use tokio::sync::Notify;

use crate::exchange::id::ExchangeId;
use crate::exchange::traceparent::TraceContext;

/// The class of one attempt: exactly one applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The request never left whole: DNS, connect, TLS, or a connection that
    /// died before the request was written.
    NotSent,
    /// HTTP/2 said that it was not processed: `REFUSED_STREAM`, or GOAWAY below it.
    Refused,
    /// The upstream asked for fewer requests.
    Throttled,
    /// A status of `retry.on`: seen, effect unknown.
    Failed,
    /// Bytes were sent and no status came.
    Ambiguous,
    /// The upstream said that this is a stored answer.
    Replayed,
    /// Everything else.
    Done,
}

impl Outcome {
    /// Every outcome, in the order of `design.md`, section 6.
    pub const ALL: [Self; 7] = [
        Self::NotSent,
        Self::Refused,
        Self::Throttled,
        Self::Failed,
        Self::Ambiguous,
        Self::Replayed,
        Self::Done,
    ];

    /// The word in metrics, logs and the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotSent => "not_sent",
            Self::Refused => "refused",
            Self::Throttled => "throttled",
            Self::Failed => "failed",
            Self::Ambiguous => "ambiguous",
            Self::Replayed => "replayed",
            Self::Done => "done",
        }
    }
}

/// Why a retryable response was passed on: the words of `Samekey-Stop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stop {
    /// The attempts are used up.
    Attempts,
    /// The next attempt would start after the deadline.
    Deadline,
    /// The route has not earned another retry.
    Budget,
    /// Repeating it could do the thing twice.
    Unsafe,
    /// Its body is no longer there to be sent again.
    Body,
    /// The answer says that no repetition will help.
    Permanent,
    /// The upstream asked for a longer wait than the route allows.
    RetryAfter,
    /// The upstream said not to retry.
    UpstreamSaidNo,
    /// Its signature would no longer be accepted.
    Signed,
    /// The client asked for a single attempt.
    Off,
}

impl Stop {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::Attempts,
        Self::Deadline,
        Self::Budget,
        Self::Unsafe,
        Self::Body,
        Self::Permanent,
        Self::RetryAfter,
        Self::UpstreamSaidNo,
        Self::Signed,
        Self::Off,
    ];

    /// The word in `Samekey-Stop`, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Attempts => "attempts",
            Self::Deadline => "deadline",
            Self::Budget => "budget",
            Self::Unsafe => "unsafe",
            Self::Body => "body",
            Self::Permanent => "permanent",
            Self::RetryAfter => "retry-after",
            Self::UpstreamSaidNo => "upstream-said-no",
            Self::Signed => "signed",
            Self::Off => "off",
        }
    }
}

/// How a claim ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// With an answer that is kept for whoever asks again.
    Completed,
    /// With an answer that is known to have come and is not kept.
    NotRetained,
    /// With nothing done: the key is free again.
    Released,
    /// With nobody knowing.
    Unknown,
}

/// Where the answer to a repeat came from: the words of `Samekey-Replay`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Replay {
    /// From a record.
    Stored,
    /// From the exchange that held the claim.
    Joined,
    /// From an exchange whose answer was never delivered.
    Adopted,
}

impl Replay {
    /// The word in `Samekey-Replay` and in the `source` label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Joined => "joined",
            Self::Adopted => "adopted",
        }
    }
}

/// One sending, and what came of it.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// Its class.
    pub outcome: Outcome,
    /// The status, where one came.
    pub status: Option<StatusCode>,
    /// Whether it is proved, or agreed in the trade, that nothing was done.
    pub did_nothing: bool,
    /// How long was waited before it.
    pub waited: Duration,
    /// When it began.
    pub at: SystemTime,
}

/// What the body of a good answer says about the request (`failed_when`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Says {
    /// Nothing was done.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// What the stages noted about one exchange.
#[derive(Debug, Default)]
pub struct Notes {
    /// Every attempt, in order.
    pub attempts: Vec<Attempt>,
    /// What the exchange is called, where it asked the store: answers made here name it.
    pub exchange: Option<ExchangeId>,
    /// Why a retryable response was passed on.
    pub stop: Option<Stop>,
    /// Where a repeat's answer came from.
    pub replay: Option<Replay>,
    /// The span of the exchange that was joined, where that is traced here.
    pub joined: Option<TraceContext>,
    /// What came of the last try to go on with a body that broke off.
    pub resume: Option<&'static str>,
    /// Who answered, where the answer is no failure.
    pub answered: Answered,
    /// Whether the idempotency stage answers for its row in the ledger.
    pub keyed: bool,
    /// The key as it went upstream.
    pub key: Option<HeaderValue>,
    /// Where the key came from, and a digest of it for the log.
    pub key_note: Option<KeyNote>,
    /// Ids that were taken from the request, by the names that the route gives them.
    pub captured: Vec<(String, String)>,
    /// What the last answer's body says about a good status.
    pub says: Option<Says>,
    /// How the exchange's claim ended.
    pub end: Option<End>,
    /// Whether the upstream is declared not to de-duplicate: `upstream_dedupes: false`.
    pub never_dedupes: bool,
    /// Who guards the key.
    pub guarded: Guarded,
    /// Where attempts are written down while the exchange goes on.
    pub diary: Option<Diary>,
    /// How many of the attempts are written there.
    pub written: usize,
    /// Whether an attempt is on a connection, and not yet among the attempts.
    pub attempting: Attempting,
}

/// Whether there may be more than what the attempts say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attempting {
    /// No: nothing is on a connection.
    #[default]
    Nothing,
    /// Yes: a request is, or may be, on its way.
    UnderWay,
}

/// Who answered, where the answer is no failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answered {
    /// The upstream, in this exchange or in an earlier one.
    #[default]
    ByUpstream,
    /// This proxy, for an application that is yet to see the request.
    Here,
}

/// Who guards a key against a second sending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Guarded {
    /// Whoever the config says.
    #[default]
    AsWanted,
    /// This replica alone, since what is shared did not answer: `on_failure: forward`.
    Alone,
}

/// Where attempts are written down that are not the last: should the process die in
/// the wait for the next, the ledger has them.
#[derive(Clone)]
pub struct Diary(Arc<Write>);

type Write = dyn Fn(&[Attempt]) + Send + Sync;

impl Diary {
    /// Writes by `write`, which must not wait.
    pub fn new(write: impl Fn(&[Attempt]) + Send + Sync + 'static) -> Self {
        Self(Arc::new(write))
    }
}

impl fmt::Debug for Diary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Diary")
    }
}

impl Notes {
    /// The attempts that are yet to be written down.
    pub fn unwritten(&self) -> &[Attempt] {
        self.attempts.get(self.written..).unwrap_or_default()
    }
}

/// What may be said about a key without saying the key.
#[derive(Clone, Debug)]
pub struct KeyNote {
    /// Where it came from.
    pub source: &'static str,
    /// Eight hexadecimal digits of its digest.
    pub digest: String,
}

/// The notes on one exchange, shared by the stages that write and those that read.
#[derive(Clone, Debug, Default)]
pub struct Trail(Arc<Mutex<Notes>>);

impl Trail {
    /// Reads or writes the notes. The lock is never held over a wait.
    pub fn with<T>(&self, act: impl FnOnce(&mut Notes) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes that another attempt follows: those before it are written down.
    pub fn another_follows(&self) {
        self.with(|notes| {
            if let Some(Diary(write)) = &notes.diary {
                write(notes.unwritten());
                notes.written = notes.attempts.len();
            }
        });
    }

    /// Notes whether an attempt is on a connection, from before its first byte on.
    pub fn attempting(&self, what: Attempting) {
        self.with(|notes| notes.attempting = what);
    }

    /// Whether what the attempts say is all that can have been sent.
    pub fn is_at_rest(&self) -> bool {
        self.with(|notes| notes.attempting == Attempting::Nothing)
    }

    /// How many attempts were made.
    pub fn attempts(&self) -> usize {
        self.with(|notes| notes.attempts.len())
    }
}

/// Whether the client is still there, and whether its answer reached it.
#[derive(Clone, Debug, Default)]
pub struct Presence(Arc<Fate>);

#[derive(Debug, Default)]
struct Fate {
    state: AtomicU8,
    changed: Notify,
}

const WAITING: u8 = 0;
const GONE: u8 = 1;
const SERVED: u8 = 2;

impl Presence {
    /// Notes that the client hung up before its answer was delivered whole.
    pub fn leave(&self) {
        self.settle(GONE);
    }

    /// Notes that the whole answer reached the client.
    pub fn serve(&self) {
        self.settle(SERVED);
    }

    /// Whether the client hung up without its answer.
    pub fn is_gone(&self) -> bool {
        self.0.state.load(Ordering::Acquire) == GONE
    }

    /// Whether the client has its whole answer.
    pub fn is_served(&self) -> bool {
        self.0.state.load(Ordering::Acquire) == SERVED
    }

    /// Waits until the client hung up; forever where it was served.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is consumed.
    pub async fn gone(&self) {
        loop {
            let changed = self.0.changed.notified();
            if self.is_gone() {
                return;
            }
            changed.await;
        }
    }

    /// Waits until it is known whether the client has its answer.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is consumed.
    pub async fn settled(&self) {
        loop {
            let changed = self.0.changed.notified();
            if self.0.state.load(Ordering::Acquire) != WAITING {
                return;
            }
            changed.await;
        }
    }

    /// The first word stands.
    fn settle(&self, fate: u8) {
        let first =
            self.0.state.compare_exchange(WAITING, fate, Ordering::AcqRel, Ordering::Acquire);
        if first.is_ok() {
            self.0.changed.notify_waiters();
        }
    }
}

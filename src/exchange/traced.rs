//! The trace of one exchange: what its attempts carry, and who is told of them.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, Version};
use tokio::time::Instant;

use crate::exchange::body::BodyEnd;
use crate::exchange::traceparent::{SpanId, TRACEPARENT, TRACESTATE, TraceContext, TraceId};
use crate::exchange::trail::Notes;
use crate::exchange::{Chance, Outcome};

/// The trace that an exchange is part of; a clone shares it.
#[derive(Clone, Debug)]
pub struct Traced(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    context: TraceContext,
    terms: Terms,
    begun: AtomicU32,
    /// An attempt that is over, until its outcome is known.
    over: Mutex<Option<Sending>>,
}

/// How an exchange is traced.
#[derive(Debug)]
pub struct Terms {
    /// What its attempts carry.
    pub carry: Carry,
    /// What span ids are drawn from.
    pub chance: Chance,
    /// Who is told; nobody, where the trace is not sampled.
    pub spans: Option<Box<dyn Spans>>,
}

/// What the attempts of an exchange carry upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carry {
    /// The client's trace, each attempt as a span of its own.
    Continued,
    /// A trace that begins here.
    Begun,
    /// The client's fields, byte for byte.
    AsItCame,
}

/// Learns of each attempt, and of the exchange, as it is over. Neither may wait.
pub trait Spans: fmt::Debug + Send + Sync {
    /// An attempt is over.
    fn attempt(&self, sending: &Sending);
    /// The exchange is over, though an attempt may go on for nobody.
    fn exchange(&self, context: TraceContext, over: &Over<'_>);
}

/// One attempt, as it was sent.
#[derive(Clone, Debug)]
pub struct Sending {
    /// What it is called in its trace.
    pub context: TraceContext,
    /// The span of its exchange.
    pub parent: SpanId,
    /// How many attempts were before it.
    pub resent: u32,
    /// When it began.
    pub began: SystemTime,
    /// When the head of its answer was there, or it failed.
    pub ended: SystemTime,
    /// In what it was sent, where it came to that.
    pub version: Option<Version>,
    /// The answer's status, or what went wrong: an error type of RFC 9209, or `cancelled`.
    pub result: Result<StatusCode, &'static str>,
    /// Its class, where a route retries.
    pub outcome: Option<Outcome>,
    /// How long was waited before it.
    pub waited: Duration,
}

/// An exchange, as it ended.
#[derive(Debug)]
pub struct Over<'a> {
    /// What the stages noted.
    pub notes: &'a Notes,
    /// The status that the client got; `None` where it left before there was one.
    pub status: Option<StatusCode>,
    /// What went wrong, where the answer was made here.
    pub failed: Option<&'static str>,
    /// Where the answer came from, in the word of the metrics.
    pub source: &'static str,
    /// How the answer's body ended.
    pub body: Option<BodyEnd>,
    /// How long it took.
    pub took: Duration,
}

impl Traced {
    /// The exchange's own span is `context`.
    pub fn new(context: TraceContext, terms: Terms) -> Self {
        let (begun, over) = (AtomicU32::new(0), Mutex::new(None));
        Self(Arc::new(Inner { context, terms, begun, over }))
    }

    /// The trace.
    pub fn trace(&self) -> TraceId {
        self.0.context.trace
    }

    /// Its own span in it.
    pub fn context(&self) -> TraceContext {
        self.0.context
    }

    /// An attempt begins: its fields are given their part of the trace. `None` where nobody
    /// wants to know how it ends.
    pub fn begin(&self, headers: &mut HeaderMap) -> Option<Underway> {
        let inner = &self.0;
        if inner.terms.carry == Carry::AsItCame && inner.terms.spans.is_none() {
            return None;
        }
        let context = inner.context.with_span(span(&inner.terms.chance));
        inner.carry(context, headers);
        inner.terms.spans.as_ref()?;
        let sending = Sending {
            context,
            parent: inner.context.span,
            resent: inner.begun.fetch_add(1, Ordering::Relaxed),
            began: SystemTime::now(),
            ended: SystemTime::UNIX_EPOCH,
            version: None,
            result: Err(CANCELLED),
            outcome: None,
            waited: Duration::ZERO,
        };
        Some(Underway { traced: self.clone(), sending: Some(sending), began: Instant::now() })
    }

    /// The class of the attempt that was over last, and how long was waited before it.
    pub fn classified(&self, outcome: Outcome, waited: Duration) {
        if let Some(mut sending) = self.0.take() {
            sending.outcome = Some(outcome);
            sending.waited = waited;
            self.0.tell(&sending);
        }
    }

    /// The exchange is over.
    pub fn ended(&self, over: &Over<'_>) {
        if let Some(spans) = &self.0.terms.spans {
            spans.exchange(self.0.context, over);
        }
    }
}

impl Inner {
    /// Writes the trace into an attempt's fields. What systems said of a trace that is not
    /// continued goes (W3C Trace Context, section 4.3).
    fn carry(&self, context: TraceContext, headers: &mut HeaderMap) {
        match self.terms.carry {
            Carry::AsItCame => return,
            Carry::Continued => {}
            Carry::Begun => drop(headers.remove(TRACESTATE)),
        }
        headers.insert(TRACEPARENT, context.header_value());
    }

    fn tell(&self, sending: &Sending) {
        if let Some(spans) = &self.terms.spans {
            spans.attempt(sending);
        }
    }

    fn take(&self) -> Option<Sending> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Nobody classified it: it matched no route, or its client left.
        if let Some(sending) = self.take() {
            self.tell(&sending);
        }
    }
}

/// An attempt under way; dropped, it was cancelled.
#[derive(Debug)]
pub struct Underway {
    traced: Traced,
    sending: Option<Sending>,
    began: Instant,
}

impl Underway {
    /// The attempt is over: its answer's status, or what went wrong.
    pub fn ended(mut self, version: Option<Version>, result: Result<StatusCode, &'static str>) {
        if let Some(sending) = &mut self.sending {
            (sending.version, sending.result) = (version, result);
        }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        let Some(mut sending) = self.sending.take() else { return };
        // By the clock that is never set.
        sending.ended = sending.began + self.began.elapsed();
        let mut over = self.traced.0.over.lock().unwrap_or_else(PoisonError::into_inner);
        let before = over.replace(sending);
        drop(over);
        if let Some(before) = before {
            self.traced.0.tell(&before);
        }
    }
}

/// A new span's name.
pub fn span(chance: &Chance) -> SpanId {
    loop {
        let bytes = chance.bytes();
        let half = bytes.first_chunk().copied().and_then(SpanId::new);
        if let Some(span) = half {
            return span;
        }
    }
}

/// The client left while an attempt was under way.
pub const CANCELLED: &str = "cancelled";

//! Spans that wait to be exported: so many and no more, and each that is lost is counted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter, SpanProcessor as _,
};

use crate::metrics::{Dropped, SpanMetrics};
use crate::trace::heard::Heard;
use crate::trace::settings;

/// Where spans wait; a clone shares it.
#[derive(Clone, Debug)]
pub(super) struct Queue(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    processor: BatchSpanProcessor,
    waiting: Arc<Waiting>,
}

/// How many wait. The processor has as much room, so it drops nothing that is let in:
/// it would tell nobody.
#[derive(Debug)]
struct Waiting {
    counts: Mutex<Counts>,
    max: usize,
    metrics: SpanMetrics,
}

/// Spans whose fate is open. Each is counted by whoever takes it out of here, and so once.
#[derive(Debug, Default)]
struct Counts {
    /// Those that wait for their batch.
    waiting: usize,
    /// Those of the batch that is being exported: one at a time.
    leaving: usize,
    closed: bool,
}

impl Queue {
    /// Exports through `exporter`, in a thread of the processor's own; what it does not tell
    /// is `heard`.
    pub(super) fn new<E>(
        exporter: E,
        heard: Heard,
        limits: settings::Queue,
        metrics: SpanMetrics,
    ) -> Self
    where
        E: SpanExporter + 'static,
    {
        metrics.show();
        let waiting =
            Arc::new(Waiting { counts: Mutex::default(), max: limits.spans_max, metrics });
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(limits.spans_max)
            .with_max_export_batch_size(limits.batch_max)
            .with_scheduled_delay(limits.delay)
            .build();
        let counted =
            Counted { exporter, waiting: waiting.clone(), heard, failing: AtomicBool::new(false) };
        let processor = BatchSpanProcessor::new(counted, config);
        Self(Arc::new(Inner { processor, waiting }))
    }

    /// Takes a span in, or drops it; never waits.
    pub(super) fn push(&self, span: SpanData) {
        match self.0.waiting.let_in() {
            Ok(()) => self.0.processor.on_end(span),
            Err(why) => self.0.waiting.metrics.dropped(why, 1),
        }
    }

    /// Exports what waits, for so long at most; what has not gone by then is lost.
    pub(super) fn close(&self, within: Duration) {
        let waiting = &self.0.waiting;
        waiting.lock().closed = true;
        let closed = self.0.processor.shutdown_with_timeout(within);
        let lost = waiting.give_up();
        waiting.metrics.dropped(Dropped::Shutdown, lost);
        if closed.is_err() || lost > 0 {
            tracing::warn!(lost, "spans were not exported before the end");
        }
    }
}

impl Waiting {
    fn let_in(&self) -> Result<(), Dropped> {
        let mut counts = self.lock();
        if counts.closed {
            return Err(Dropped::Shutdown);
        }
        if counts.waiting >= self.max {
            return Err(Dropped::QueueFull);
        }
        counts.waiting += 1;
        Ok(())
    }

    /// Notes that a batch leaves.
    fn leave(&self, spans: usize) {
        let mut counts = self.lock();
        // Of what was given up, nothing is left to be counted.
        counts.leaving = spans.min(counts.waiting);
        counts.waiting -= counts.leaving;
    }

    /// Takes out the batch that left: how many of it are still to be counted.
    fn arrive(&self) -> usize {
        std::mem::take(&mut self.lock().leaving)
    }

    /// Takes out all, those that are on their way too.
    fn give_up(&self) -> usize {
        let mut counts = self.lock();
        std::mem::take(&mut counts.waiting) + std::mem::take(&mut counts.leaving)
    }

    /// Held for an addition, and never while anything is exported.
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts what an exporter takes off the queue, and what comes of it.
#[derive(Debug)]
struct Counted<E> {
    exporter: E,
    waiting: Arc<Waiting>,
    heard: Heard,
    failing: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.waiting.leave(spans);
        let result = self.exporter.export(batch).await;
        if self.waiting.arrive() == 0 {
            return result; // the end did not wait for it, and has counted it
        }
        match &result {
            Ok(()) => {
                let rejected = self.heard.rejected(spans);
                self.waiting.metrics.exported(spans - rejected);
                self.waiting.metrics.dropped(Dropped::Refused, rejected);
            }
            Err(_) => self.waiting.metrics.dropped(Dropped::Refused, spans),
        }
        let was_failing = self.failing.swap(result.is_err(), Ordering::Relaxed);
        match (was_failing, &result) {
            (false, Err(error)) => {
                let cause = self.heard.cause();
                tracing::warn!(%error, cause, "spans are lost: the collector does not take them");
            }
            (true, Ok(())) => tracing::info!("the collector takes spans again"),
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::mpsc;

    use opentelemetry_sdk::error::OTelSdkError;

    use super::*;
    use crate::metrics::Metrics;

    /// An exporter that keeps what it is given.
    #[derive(Debug, Default)]
    pub(in crate::trace) struct Kept(Arc<Mutex<Vec<SpanData>>>);

    impl SpanExporter for Kept {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().expect("a lock").extend(batch);
            Ok(())
        }
    }

    /// An exporter that says that it is asked, and waits to be told what to answer.
    #[derive(Debug)]
    struct Told {
        asked: mpsc::Sender<usize>,
        answers: Mutex<mpsc::Receiver<bool>>,
    }

    impl SpanExporter for Told {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.asked.send(batch.len()).expect("somebody listens");
            let takes = self.answers.lock().expect("a lock").recv().expect("an answer");
            takes.then_some(()).ok_or_else(|| OTelSdkError::InternalFailure("no".to_owned()))
        }
    }

    pub(in crate::trace) fn limits(spans_max: usize, batch_max: usize) -> settings::Queue {
        settings::Queue { spans_max, batch_max, delay: Duration::from_hours(1) }
    }

    fn span() -> SpanData {
        use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status};
        SpanData {
            span_context: SpanContext::NONE,
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Server,
            name: "GET r".into(),
            start_time: std::time::SystemTime::UNIX_EPOCH,
            end_time: std::time::SystemTime::UNIX_EPOCH,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: opentelemetry_sdk::trace::SpanEvents::default(),
            links: opentelemetry_sdk::trace::SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: opentelemetry::InstrumentationScope::default(),
        }
    }

    fn check(metrics: &Metrics, exported: u32, dropped: [u32; 3]) {
        let text = metrics.text();
        let [full, refused, shutdown] = dropped;
        for line in [
            format!("samekey_spans_exported_total {exported}\n"),
            format!("samekey_spans_dropped_total{{reason=\"queue_full\"}} {full}\n"),
            format!("samekey_spans_dropped_total{{reason=\"refused\"}} {refused}\n"),
            format!("samekey_spans_dropped_total{{reason=\"shutdown\"}} {shutdown}\n"),
        ] {
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn what_waits_at_the_end_goes_and_what_comes_after_is_counted() {
        let (kept, metrics) = (Kept::default(), Metrics::new());
        let spans = kept.0.clone();
        let queue = Queue::new(kept, Heard::default(), limits(8, 8), metrics.spans());
        check(&metrics, 0, [0; 3]);
        for _ in 0..3 {
            queue.push(span());
        }
        queue.close(Duration::from_secs(10));
        assert_eq!(spans.lock().expect("a lock").len(), 3);
        queue.push(span());
        check(&metrics, 3, [0, 0, 1]);
    }

    #[test]
    fn so_many_wait_and_no_more() {
        let metrics = Metrics::new();
        let ((asked, is_asked), (answer, answers)) = (mpsc::channel(), mpsc::channel());
        let exporter = Told { asked, answers: Mutex::new(answers) };
        let queue = Queue::new(exporter, Heard::default(), limits(4, 2), metrics.spans());
        queue.push(span());
        queue.push(span());
        assert_eq!(is_asked.recv().expect("it is asked"), 2, "a batch is full");
        for _ in 0..4 {
            queue.push(span());
        }
        check(&metrics, 0, [0; 3]);
        queue.push(span());
        check(&metrics, 0, [1, 0, 0]);
        answer.send(false).expect("it waits");
        assert_eq!(is_asked.recv().expect("it is asked"), 2);
        check(&metrics, 0, [1, 2, 0]);
        answer.send(true).expect("it waits");
        assert_eq!(is_asked.recv().expect("it is asked"), 2);
        check(&metrics, 2, [1, 2, 0]);
        // There is room again.
        queue.push(span());
        check(&metrics, 2, [1, 2, 0]);
        answer.send(true).expect("it waits");
        answer.send(true).expect("it will");
        queue.close(Duration::from_secs(10));
        check(&metrics, 5, [1, 2, 0]);
    }

    #[test]
    fn the_end_waits_no_longer_than_it_may() {
        let metrics = Metrics::new();
        let ((asked, is_asked), (answer, answers)) = (mpsc::channel(), mpsc::channel());
        let exporter = Told { asked, answers: Mutex::new(answers) };
        let queue = Queue::new(exporter, Heard::default(), limits(4, 1), metrics.spans());
        queue.push(span());
        assert_eq!(is_asked.recv().expect("it is asked"), 1);
        queue.push(span());
        queue.close(Duration::from_millis(1));
        // The one that hangs in the exporter is lost as well.
        check(&metrics, 0, [0, 0, 2]);
        answer.send(true).expect("it waits");
        assert_eq!(is_asked.recv().expect("it is asked"), 1);
        answer.send(true).expect("it waits");
        assert!(is_asked.recv().is_err(), "it has ended");
        check(&metrics, 0, [0, 0, 2]);
    }
}

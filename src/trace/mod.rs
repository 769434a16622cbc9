//! Tells a collector of each exchange and each of its attempts, where somebody wants that.
//!
//! [`settings`] is what the standard `OTEL_*` variables say. A [`Tracer`] decides of each
//! exchange whether it is recorded, and what its attempts carry; `spans` makes spans of
//! what was noted anyway, `queue` has them wait for the SDK's exporter, and `wire` posts
//! them and notes what is `heard` of it. Without a tracer, `traceparent` and `tracestate`
//! are fields like any other.
//!
//! # Invariants
//!
//! - An exchange never waits for a span: what finds no room is dropped and counted.
//! - Nothing is exported through our own proxy, nor over TLS that is not verified.
//! - No key, no credential, no value of a query and no body is in a span.

mod heard;
mod queue;
pub mod settings;
mod spans;
mod state;
mod url;
mod wire;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::uri::PathAndQuery;
use http::{HeaderMap, Method};
use opentelemetry::trace::{SpanKind, TraceContextExt as _, TraceId as SdkTraceId, TraceState};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_otlp::{
    Compression, ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _,
    WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, ShouldSample, SpanExporter as _};
use tokio_util::task::TaskTracker;

use crate::exchange::traced::{Carry, Terms, span};
use crate::exchange::traceparent::{Sampled, TraceContext, TraceId};
use crate::exchange::{Chance, Origin, Traced, signature};
use crate::metrics::SpanMetrics;

use heard::Heard;
use queue::Queue;
pub use settings::Settings;
use settings::{Parent, Propagation, Root};
use spans::{Side, Subject, span_context};
use wire::Wire;

/// Traces exchanges; a clone shares everything.
#[derive(Clone, Debug)]
pub struct Tracer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    queue: Queue,
    sampler: Box<dyn ShouldSample>,
    propagation: Propagation,
    chance: Chance,
    scope: InstrumentationScope,
}

/// What a tracer works with.
#[derive(Debug)]
pub struct Means {
    /// What the collector's certificate is verified by.
    pub roots: rustls::RootCertStore,
    /// What ids are drawn from.
    pub chance: Chance,
    /// Where connections to the collector are driven.
    pub tasks: TaskTracker,
    /// Where spans are counted.
    pub metrics: SpanMetrics,
}

/// Why there is no tracer.
#[derive(Debug, thiserror::Error)]
pub enum TraceFault {
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// The exporter refuses what it was given.
    #[error(transparent)]
    Exporter(#[from] ExporterBuildError),
}

/// A request as it came in.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The method.
    pub method: &'a Method,
    /// Where it goes.
    pub origin: &'a Origin,
    /// Its path and query.
    pub target: &'a PathAndQuery,
    /// Its fields.
    pub headers: &'a HeaderMap,
    /// The route that it matched.
    pub route: &'a str,
    /// Whether fields of it may be changed on their way.
    pub sent: Sent,
}

/// Whether fields of a request may be changed on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// A route looks after it.
    Cared,
    /// It goes as it came.
    AsItCame,
}

impl Tracer {
    /// Exports as `settings` say.
    ///
    /// # Errors
    ///
    /// A [`TraceFault`]: then nothing is exported.
    pub fn new(settings: &Settings, means: Means) -> Result<Self, TraceFault> {
        let heard = Heard::default();
        let wire = Wire::new(means.roots, settings.timeout, means.tasks, heard.clone())?;
        let mut builder = SpanExporter::builder()
            .with_http()
            .with_shared_http_client(wire::shared(wire))
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&settings.endpoint)
            .with_timeout(settings.timeout);
        if settings.compression == settings::Compression::Gzip {
            builder = builder.with_compression(Compression::Gzip);
        }
        let mut exporter = builder.build()?;
        exporter.set_resource(&resource(&settings.resource));
        let queue = Queue::new(exporter, heard, settings.queue, means.metrics);
        Ok(Self(Arc::new(Inner {
            queue,
            sampler: sampler(settings.sampler),
            propagation: settings.propagation,
            chance: means.chance,
            scope: InstrumentationScope::builder("samekey")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        })))
    }

    /// Takes an exchange into its client's trace, or begins one for it.
    pub fn begin(&self, asked: &Asked<'_>) -> Traced {
        let inner = &self.0;
        let parent = match inner.propagation {
            Propagation::W3c => TraceContext::of(asked.headers),
            Propagation::None => None,
        };
        let own = span(&inner.chance);
        let context = match parent {
            Some(parent) => parent.with_span(own),
            None => TraceContext::new(trace(&inner.chance), own),
        };
        let name = spans::name(asked.method, asked.route);
        let sampled = inner.samples(parent, context.trace, &name);
        let context = context.with_sampled(sampled);
        let spans = (sampled == Sampled::Yes).then(|| {
            let subject = inner.subject(parent, asked);
            Box::new(subject) as Box<dyn crate::exchange::traced::Spans>
        });
        let carry = inner.carry(parent, asked);
        Traced::new(context, Terms { carry, chance: inner.chance.clone(), spans })
    }

    /// Exports what waits, for so long at most.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what was begun goes on.
    pub async fn close(&self, within: Duration) {
        let queue = self.0.queue.clone();
        let closed = tokio::task::spawn_blocking(move || queue.close(within)).await;
        if closed.is_err() {
            tracing::warn!("spans were not exported before the end");
        }
    }
}

impl Inner {
    fn samples(&self, parent: Option<TraceContext>, trace: TraceId, name: &str) -> Sampled {
        let parent = parent.map(|parent| {
            let parent = span_context(parent, TraceState::NONE, Side::Client);
            Context::new().with_remote_span_context(parent)
        });
        let trace = SdkTraceId::from_bytes(trace.bytes());
        let sampler = &self.sampler;
        let result =
            sampler.should_sample(parent.as_ref(), trace, name, &SpanKind::Server, &[], &[]);
        match result.decision {
            SamplingDecision::RecordAndSample => Sampled::Yes,
            SamplingDecision::Drop | SamplingDecision::RecordOnly => Sampled::No,
        }
    }

    /// `design.md`, section 6: of a signed request no field is added or changed; and what
    /// no route looks after, or a route only observes, goes as it came.
    fn carry(&self, parent: Option<TraceContext>, asked: &Asked<'_>) -> Carry {
        let signed = || {
            signature::signature(asked.headers, asked.target.query(), SystemTime::now()).is_some()
        };
        let untouched =
            asked.sent == Sent::AsItCame || self.propagation == Propagation::None || signed();
        match parent {
            _ if untouched => Carry::AsItCame,
            Some(_) => Carry::Continued,
            None => Carry::Begun,
        }
    }

    fn subject(&self, parent: Option<TraceContext>, asked: &Asked<'_>) -> Subject {
        Subject {
            queue: self.queue.clone(),
            scope: self.scope.clone(),
            method: asked.method.clone(),
            route: asked.route.to_owned(),
            origin: asked.origin.clone(),
            target: asked.target.clone(),
            state: parent.map_or(TraceState::NONE, |_| state::kept(asked.headers)),
            parent,
            began: SystemTime::now(),
        }
    }
}

fn trace(chance: &Chance) -> TraceId {
    loop {
        if let Some(trace) = TraceId::new(chance.bytes()) {
            return trace;
        }
    }
}

fn sampler(wanted: settings::Sampler) -> Box<dyn ShouldSample> {
    let root = match wanted.root {
        Root::On => Sampler::AlwaysOn,
        Root::Off => Sampler::AlwaysOff,
        Root::Ratio(ratio) => Sampler::TraceIdRatioBased(ratio),
    };
    match wanted.parent {
        Parent::Decides => Box::new(Sampler::ParentBased(Box::new(root))),
        Parent::Ignored => Box::new(root),
    }
}

fn resource(pairs: &[(String, String)]) -> Resource {
    let pairs = pairs.iter().map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
    Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes(pairs)
        .build()
}

#[cfg(test)]
mod tests;

//! How spans are exported, and which: what the standard variables say, as meant.

use std::path::PathBuf;
use std::time::Duration;

/// What is exported, where to, and how much of it may wait.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The URL that spans are posted to.
    pub endpoint: String,
    /// How long one export may take, with its retries: from 1 ms to an hour.
    pub timeout: Duration,
    /// Whether what is posted is compressed.
    pub compression: Compression,
    /// A file of PEM roots, added to the system's.
    pub certificate: Option<PathBuf>,
    /// Which traces are recorded.
    pub sampler: Sampler,
    /// Whether attempts carry the trace upstream.
    pub propagation: Propagation,
    /// How much may wait.
    pub queue: Queue,
    /// What the spans are said to come from: `service.name` and its like.
    pub resource: Vec<(String, String)>,
}

/// Whether what is posted is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// By gzip.
    Gzip,
}

/// Which traces are recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// How many of those about which the client has decided nothing.
    pub root: Root,
    /// Whether a client's decision stands.
    pub parent: Parent,
}

/// How many traces are recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Root {
    /// All.
    On,
    /// None.
    Off,
    /// This part of them, from 0 to 1, by their ids.
    Ratio(f64),
}

/// Whether a client's decision stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// It does.
    Decides,
    /// It is not asked for.
    Ignored,
}

/// Whether attempts carry the trace upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// In `traceparent` and `tracestate`.
    W3c,
    /// The client's fields pass untouched.
    None,
}

/// How many spans may wait for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Spans that wait, from 1 to 65,536; what comes on top is dropped and counted.
    pub spans_max: usize,
    /// Spans that go in one export, from 1 to `spans_max`.
    pub batch_max: usize,
    /// Until a batch that is not full goes: from 1 ms to an hour.
    pub delay: Duration,
}

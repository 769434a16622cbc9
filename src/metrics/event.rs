//! What is counted of an exchange on its route: closed sets, each a label.

/// Where an exchange's answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The upstream.
    Upstream,
    /// A record.
    Stored,
    /// The exchange that held the claim.
    Joined,
    /// An exchange whose answer was never delivered.
    Adopted,
    /// This proxy.
    Local,
}

impl Source {
    /// The word of the label, as spans have it too.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Stored => "stored",
            Self::Joined => "joined",
            Self::Adopted => "adopted",
            Self::Local => "local",
        }
    }
}

/// Why an exchange was retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A 429, or its kin.
    Status429,
    /// Another status.
    Status5xx,
    /// The request never left whole.
    Connect,
    /// The connection broke.
    Reset,
    /// No answer came in time.
    Timeout,
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyEvent {
    /// A random one was given to the request.
    Injected,
    /// The client brought one.
    Client,
    /// One was derived from an identity.
    Derived,
    /// A record answered.
    Replayed,
    /// An exchange in flight answered.
    Joined,
    /// An undelivered answer was taken over.
    Adopted,
    /// The key came before, with another request.
    Reused,
    /// A repeat was told to wait.
    InProgress,
    /// A claim ended with nobody knowing.
    Unknown,
    /// An answer was kept.
    Recorded,
    /// An answer was not kept.
    NotRecorded,
}

/// Whether a body fits a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It does.
    Fits,
    /// It does not.
    Misfits,
    /// It could not be judged.
    Unchecked,
}

/// Who asked for a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The route's backoff.
    Backoff,
    /// The upstream's hint.
    Server,
}

//! A message body: streamed, or held to be sent again; it carries guards to its last byte.

pub mod held;
mod peek;
mod room;
mod spill;
mod upload;
mod wait;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use crate::exchange::headers;

pub use held::{Filled, Held};
pub use peek::Peeked;
pub use room::Room;
pub use upload::Upload;

/// How much of one body is kept for sending it again, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// In memory.
    pub memory: u64,
    /// Then in a file.
    pub disk: u64,
}

/// A message body.
///
/// Dropping it before its end tells its watchers that it broke off.
pub struct Body {
    kind: Kind,
    /// Bytes still to come, where the length is known.
    left: Option<u64>,
    end: Option<BodyEnd>,
    /// How it broke off, told on the next poll.
    broke: Option<BodyError>,
    watchers: Vec<Box<dyn Watcher>>,
}

enum Kind {
    Empty,
    Full(Bytes),
    /// From the client, which may leave or send what it must not.
    Client(Incoming, Arc<Upload>),
    /// From the upstream, which may break off.
    /// With what is taken as long as its stream lasts.
    Upstream(Incoming, Option<Box<dyn Send>>),
    Replay(held::Reader),
    Other(Inner),
}

type Inner = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError> + Send>>;

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEnd {
    /// With its last byte handed on.
    Whole,
    /// With an error of its source.
    Broken,
    /// It was dropped by whoever read it.
    Dropped,
}

/// What learns how a body ended; dropping a guard is a watcher too.
pub trait Watcher: Send {
    /// Called once, when nothing more will come.
    fn ended(&mut self, end: BodyEnd);
}

/// Why a body broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The client's connection broke while it sent.
    #[error("the client left before its request was complete")]
    ClientLeft,
    /// The client sent what a body may not hold.
    #[error("{0}")]
    Malformed(&'static str),
    /// The upstream's connection broke while it sent, or its framing was wrong.
    #[error("the upstream's response broke off")]
    UpstreamBroke,
    /// The upstream sent nothing for too long.
    #[error("the upstream's response stood still for too long")]
    Idle,
    /// The copy that was kept could not be read back.
    #[error("the kept copy of the request's body could not be read")]
    CopyLost,
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self::of(Kind::Empty, Some(0))
    }

    /// These bytes.
    pub fn full(bytes: Bytes) -> Self {
        let left = bytes.len() as u64;
        if bytes.is_empty() { Self::empty() } else { Self::of(Kind::Full(bytes), Some(left)) }
    }

    /// What a client sends, and a handle on how far it has come.
    pub fn from_client(incoming: Incoming) -> (Self, Arc<Upload>) {
        let upload = Arc::new(Upload::default());
        if incoming.is_end_stream() {
            upload.note(Upload::COMPLETE);
            return (Self::empty(), upload);
        }
        let left = incoming.size_hint().exact();
        (Self::of(Kind::Client(incoming, upload.clone()), left), upload)
    }

    /// What an upstream sends.
    pub fn from_upstream(incoming: Incoming) -> Self {
        Self::received(incoming, None)
    }

    /// What an upstream sends on a stream of HTTP/2, which may end after the last byte, and
    /// `place` with it.
    pub fn from_stream(incoming: Incoming, place: impl Send + 'static) -> Self {
        Self::received(incoming, Some(Box::new(place)))
    }

    fn received(incoming: Incoming, place: Option<Box<dyn Send>>) -> Self {
        if incoming.is_end_stream() {
            return Self::empty();
        }
        let left = incoming.size_hint().exact();
        Self::of(Kind::Upstream(incoming, place), left)
    }

    /// A body of another make.
    pub fn wrap<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error = BodyError> + Send + 'static,
    {
        let left = body.size_hint().exact();
        Self::of(Kind::Other(Box::pin(body)), left)
    }

    fn replay(reader: held::Reader) -> Self {
        let left = reader.length();
        Self::of(Kind::Replay(reader), left)
    }

    fn of(kind: Kind, left: Option<u64>) -> Self {
        Self { kind, left, end: None, broke: None, watchers: Vec::new() }
    }

    /// Drops `guard` with the body, not before.
    #[must_use]
    pub fn holding<G: Send + 'static>(self, guard: G) -> Self {
        self.watched(Guard { _guard: guard })
    }

    /// Tells `watcher` how the body ends.
    #[must_use]
    pub fn watched(mut self, watcher: impl Watcher + 'static) -> Self {
        self.watchers.push(Box::new(watcher));
        self
    }

    /// Whether nothing will come: no data and no trailers.
    pub fn is_empty(&self) -> bool {
        matches!(self.kind, Kind::Empty)
    }

    /// The length, where it is known.
    pub fn length(&self) -> Option<u64> {
        self.left
    }

    /// The bytes, where they are all there.
    pub fn as_full(&self) -> Option<Bytes> {
        match &self.kind {
            Kind::Empty => Some(Bytes::new()),
            Kind::Full(bytes) => Some(bytes.clone()),
            _ => None,
        }
    }

    /// Reads at most `limit` bytes to the end; `None` where there are more, or it breaks off.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: what was read is lost.
    pub async fn read_whole(mut self, limit: usize) -> Option<Bytes> {
        if let Some(bytes) = self.as_full() {
            return (bytes.len() <= limit).then_some(bytes);
        }
        let mut read = bytes::BytesMut::new();
        while let Some(frame) = http_body_util::BodyExt::frame(&mut self).await {
            if let Ok(data) = frame.ok()?.into_data() {
                if read.len().saturating_add(data.len()) > limit {
                    return None;
                }
                read.extend_from_slice(&data);
            }
        }
        Some(read.freeze())
    }

    fn note_end(&mut self, end: BodyEnd) {
        if self.end.is_none() {
            self.end = Some(end);
            for watcher in &mut self.watchers {
                watcher.ended(end);
            }
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(broke) = this.broke.take() {
            this.note_end(BodyEnd::Broken);
            return Poll::Ready(Some(Err(broke)));
        }
        let frame = ready!(poll_kind(&mut this.kind, cx));
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(left), Some(data)) = (this.left.as_mut(), frame.data_ref()) {
                    *left = left.saturating_sub(data.len() as u64);
                }
            }
            Some(Err(broke)) => {
                // hyper drops what it has not written yet with the error, the head too.
                // It writes when a body makes it wait: so what came before reaches the client.
                this.broke = Some(*broke);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            None => this.note_end(BodyEnd::Whole),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(bytes) => bytes.is_empty(),
            Kind::Client(incoming, _) | Kind::Upstream(incoming, _) => incoming.is_end_stream(),
            Kind::Replay(reader) => reader.is_at_end(),
            Kind::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

fn poll_kind(
    kind: &mut Kind,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
    match kind {
        Kind::Empty => Poll::Ready(None),
        Kind::Full(bytes) => {
            let bytes = std::mem::take(bytes);
            Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
        }
        Kind::Client(incoming, upload) => {
            let frame = checked(ready!(Pin::new(&mut *incoming).poll_frame(cx)), upload);
            // With a known length nobody polls past the last byte.
            if matches!(frame, Some(Ok(_))) && incoming.is_end_stream() {
                upload.note(Upload::COMPLETE);
            }
            Poll::Ready(frame)
        }
        Kind::Upstream(incoming, _) => {
            let frame = ready!(Pin::new(incoming).poll_frame(cx));
            Poll::Ready(frame.map(|frame| frame.map_err(|_broke| BodyError::UpstreamBroke)))
        }
        Kind::Replay(reader) => reader.poll_frame(cx),
        Kind::Other(body) => body.as_mut().poll_frame(cx),
    }
}

/// Notes how far the upload came, and refuses trailers that RFC 9110, section 6.5.1, forbids.
fn checked(
    frame: Option<Result<Frame<Bytes>, hyper::Error>>,
    upload: &Upload,
) -> Option<Result<Frame<Bytes>, BodyError>> {
    match frame {
        None => {
            upload.note(Upload::COMPLETE);
            None
        }
        Some(Err(error)) => {
            let malformed = error.is_parse() || malformed_chunk(&error);
            upload.note(if malformed { Upload::MALFORMED } else { Upload::LEFT });
            let why = "the request's body is not what its framing says";
            Some(Err(if malformed { BodyError::Malformed(why) } else { BodyError::ClientLeft }))
        }
        Some(Ok(frame)) => {
            let Some(trailers) = frame.trailers_ref() else { return Some(Ok(frame)) };
            if !trailers.keys().all(headers::may_trail) {
                upload.note(Upload::MALFORMED);
                let why = "a trailer field that may not be a trailer (RFC 9110, 6.5.1)";
                return Some(Err(BodyError::Malformed(why)));
            }
            upload.note(Upload::COMPLETE); // nothing follows a trailer section
            Some(Ok(frame))
        }
    }
}

/// hyper reports a chunk that it cannot read as an I/O error of this kind.
fn malformed_chunk(error: &hyper::Error) -> bool {
    use std::error::Error as _;
    use std::io::{Error, ErrorKind};
    let source = error.source().and_then(|source| source.downcast_ref::<Error>());
    source.is_some_and(|io| matches!(io.kind(), ErrorKind::InvalidInput | ErrorKind::InvalidData))
}

impl Drop for Body {
    fn drop(&mut self) {
        if self.left == Some(0)
            && let Kind::Upstream(incoming, _) = &self.kind
            && !incoming.is_end_stream()
            && let Kind::Upstream(incoming, place) = std::mem::replace(&mut self.kind, Kind::Empty)
        {
            wait::for_end(incoming, place);
        }
        if self.watchers.is_empty() {
            return;
        }
        // hyper does not poll past a length that it knows: the last byte was the end.
        let whole = self.left == Some(0) || self.is_end_stream();
        self.note_end(if whole { BodyEnd::Whole } else { BodyEnd::Dropped });
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Empty => "empty",
            Kind::Full(_) => "full",
            Kind::Client(..) => "client",
            Kind::Upstream(..) => "upstream",
            Kind::Replay(_) => "replay",
            Kind::Other(_) => "other",
        };
        f.debug_struct("Body")
            .field("kind", &kind)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

struct Guard<G> {
    _guard: G,
}

impl<G: Send> Watcher for Guard<G> {
    fn ended(&mut self, _end: BodyEnd) {}
}

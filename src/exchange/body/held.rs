//! A request's body, copied while it streams up, so that it can be sent again.
//!
//! The copy is in memory up to a cap, then in a nameless file up to another. Past
//! both it is dropped and the attempt under way goes on without it. Readers come
//! one after another: a new one takes over from the one before, replays what was
//! copied and then goes on with what the client still sends.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, Frame};

use crate::exchange::body::spill::{Pending, Spill};
use crate::exchange::body::{Body, BodyError, Caps, Room};

/// A body that can be read more than once.
#[derive(Clone, Debug)]
pub struct Held(Kept);

#[derive(Clone)]
enum Kept {
    Full(Bytes),
    Copied(Arc<Mutex<Copied>>),
}

struct Copied {
    source: Body,
    caps: Caps,
    room: Room,
    memory: Vec<Bytes>,
    memory_len: u64,
    spill: Option<Spill>,
    writing: Option<(Pending<()>, Bytes)>,
    trailers: Option<HeaderMap>,
    /// The source gave its last frame.
    ended: bool,
    failed: Option<BodyError>,
    /// The copy is whole up to here; once it is not, what is there of it goes
    /// when its reader has caught up.
    intact: bool,
    /// The only reader that can go on: the copy is gone.
    sole: Option<u64>,
    length: Option<u64>,
    /// The reader that may read; an older one is told that it was superseded.
    reader: u64,
    /// Who waits for the source: woken when superseded, or it waits, and holds all this, for ever.
    waiting: Option<Waker>,
}

/// What came of reading a body to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filled {
    /// All of it, in one piece.
    Whole(Bytes),
    /// It is larger than the cap in memory; what was read is kept.
    TooLarge,
}

impl Held {
    /// Begins to hold a body.
    pub fn new(mut body: Body, caps: Caps, room: &Room) -> Self {
        if let Some(bytes) = body.as_full() {
            return Self(Kept::Full(bytes));
        }
        // A body that is held already keeps its copy: it is not copied twice.
        if let super::Kind::Replay(reader) = &mut body.kind {
            return Self(Kept::Copied(reader.copied.clone()));
        }
        let length = body.length();
        // What cannot be kept whole is not begun.
        let intact = length.is_none_or(|length| length <= caps.memory.saturating_add(caps.disk));
        Self(Kept::Copied(Arc::new(Mutex::new(Copied {
            source: body,
            caps,
            room: room.clone(),
            memory: Vec::new(),
            memory_len: 0,
            spill: None,
            writing: None,
            trailers: None,
            ended: false,
            failed: None,
            intact,
            sole: None,
            length,
            reader: 0,
            waiting: None,
        }))))
    }

    /// A body that reads from the start; the reader before it stops.
    pub fn reader(&self) -> Body {
        match &self.0 {
            Kept::Full(bytes) => Body::full(bytes.clone()),
            Kept::Copied(copied) => {
                let mut inner = lock(copied);
                inner.reader += 1;
                let (nth, length) = (inner.reader, inner.length);
                let superseded = inner.waiting.take();
                drop(inner);
                if let Some(superseded) = superseded {
                    superseded.wake();
                }
                let copied = copied.clone();
                Body::replay(Reader {
                    copied,
                    nth,
                    length,
                    piece: 0,
                    at: 0,
                    reading: None,
                    done: false,
                })
            }
        }
    }

    /// Whether it can be sent again from its start.
    pub fn is_replayable(&self) -> bool {
        match &self.0 {
            Kept::Full(_) => true,
            Kept::Copied(copied) => {
                let inner = lock(copied);
                inner.intact && inner.failed.is_none()
            }
        }
    }

    /// Whether all of `body` is there: nothing has to come from the client any more.
    pub fn is_at_hand(body: &Body) -> bool {
        match &body.kind {
            super::Kind::Empty | super::Kind::Full(_) => true,
            super::Kind::Replay(reader) => {
                let inner = lock(&reader.copied);
                inner.intact && inner.failed.is_none()
            }
            super::Kind::Client(..) | super::Kind::Upstream(..) | super::Kind::Other(_) => false,
        }
    }

    /// Reads the source until its end or the cap in memory.
    ///
    /// # Errors
    ///
    /// The client left, or sent what a body may not hold.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what was read is kept.
    pub async fn fill(&self) -> Result<Filled, BodyError> {
        let copied = match &self.0 {
            Kept::Full(bytes) => return Ok(Filled::Whole(bytes.clone())),
            Kept::Copied(copied) => copied,
        };
        std::future::poll_fn(|cx| lock(copied).poll_fill(cx)).await
    }
}

impl Copied {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Filled, BodyError>> {
        loop {
            if let Some(error) = self.failed {
                return Poll::Ready(Err(error));
            }
            let too_large = self.length.is_some_and(|length| length > self.caps.memory);
            if too_large || self.spill.is_some() || !self.intact {
                return Poll::Ready(Ok(Filled::TooLarge));
            }
            if self.ended {
                return Poll::Ready(Ok(Filled::Whole(self.joined())));
            }
            let piece = ready!(self.poll_more(cx))?.and_then(|frame| frame.into_data().ok());
            // Nobody reads yet: the piece that found no room is not to be lost, and a
            // file that could not be written holds it alone.
            if let Some(piece) = piece.filter(|_| !self.intact) {
                let unwritten = self.spill.take().map_or(0, |spill| spill.length());
                self.room.give_back(0, unwritten);
                self.memory.push(piece);
            }
        }
    }

    /// Reads one more frame from the source into the copy, and gives it.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, BodyError>> {
        if let Some((pending, _)) = &mut self.writing {
            let written = ready!(pending.poll(cx));
            let data = self.writing.take().map(|(_, data)| data).unwrap_or_default();
            if written.is_err() {
                self.intact = false; // a full disk costs the copy, not the exchange
            }
            return Poll::Ready(Ok(Some(Frame::data(data))));
        }
        let frame = ready!(std::pin::Pin::new(&mut self.source).poll_frame(cx));
        match frame {
            None => {
                self.ended = true;
                Poll::Ready(Ok(None))
            }
            Some(Err(error)) => {
                self.failed = Some(error);
                Poll::Ready(Err(error))
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => self.keep(data, cx),
                Err(frame) => {
                    self.ended = true; // nothing follows a trailer section
                    self.trailers = frame.into_trailers().ok();
                    Poll::Ready(Ok(self.trailers.clone().map(Frame::trailers)))
                }
            },
        }
    }

    /// Copies one piece of data, as far as there is room.
    fn keep(
        &mut self,
        data: Bytes,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Frame<Bytes>>, BodyError>> {
        let size = data.len() as u64;
        if self.intact && self.spill.is_none() {
            let fits = self.memory_len.saturating_add(size) <= self.caps.memory;
            if fits && self.room.take_memory(size) {
                self.memory_len += size;
                self.memory.push(data.clone());
                return Poll::Ready(Ok(Some(Frame::data(data))));
            }
        }
        if self.intact
            && self.spill_has_room(size)
            && let Some(spill) = &mut self.spill
        {
            self.writing = Some((spill.append(data.clone()), data));
            return self.poll_more(cx);
        }
        self.intact = false;
        Poll::Ready(Ok(Some(Frame::data(data))))
    }

    /// Makes the file where there is none yet, and takes `size` bytes of the room on disk.
    fn spill_has_room(&mut self, size: u64) -> bool {
        let used = self.spill.as_ref().map_or(0, Spill::length);
        if used.saturating_add(size) > self.caps.disk {
            return false;
        }
        if self.spill.is_none() {
            // Making the file is one system call; it is not worth a hop to another thread.
            self.spill = Spill::new(self.room.dir()).ok();
        }
        self.spill.is_some() && self.room.take_disk(size)
    }

    /// Drops the copy; the reader that has caught up with it goes on alone.
    fn forget(&mut self, reader: u64) {
        self.sole = Some(reader);
        self.give_back();
        self.memory.clear();
        self.spill = None;
    }

    fn give_back(&mut self) {
        let spilled = self.spill.as_ref().map_or(0, Spill::length);
        self.room.give_back(std::mem::take(&mut self.memory_len), spilled);
    }

    fn joined(&self) -> Bytes {
        if let [only] = self.memory.as_slice() {
            return only.clone();
        }
        let mut whole = BytesMut::with_capacity(usize::try_from(self.memory_len).unwrap_or(0));
        self.memory.iter().for_each(|piece| whole.extend_from_slice(piece));
        whole.freeze()
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Reads a held body from its start.
pub(super) struct Reader {
    copied: Arc<Mutex<Copied>>,
    nth: u64,
    length: Option<u64>,
    /// The next piece in memory.
    piece: usize,
    /// The next byte in the file.
    at: u64,
    reading: Option<Pending<Bytes>>,
    done: bool,
}

impl Reader {
    pub(super) fn length(&self) -> Option<u64> {
        self.length
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.done
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let copied = self.copied.clone();
        let mut inner = lock(&copied);
        if self.done {
            return Poll::Ready(None);
        }
        if inner.reader != self.nth || inner.sole.is_some_and(|sole| sole != self.nth) {
            return Poll::Ready(Some(Err(BodyError::CopyLost)));
        }
        if let Some(copy) = ready!(self.poll_copy(&inner, cx)) {
            return Poll::Ready(Some(copy.map(Frame::data)));
        }
        if let Some(error) = inner.failed {
            return Poll::Ready(Some(Err(error)));
        }
        if inner.ended {
            self.done = true;
            let again = inner.trailers.clone(); // they came before, and come again
            return Poll::Ready(again.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        self.poll_source(&mut inner, cx)
    }

    /// The next piece of the copy; `None` when the reader has caught up.
    fn poll_copy(
        &mut self,
        inner: &Copied,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, BodyError>>> {
        if let Some(piece) = inner.memory.get(self.piece) {
            self.piece += 1;
            return Poll::Ready(Some(Ok(piece.clone())));
        }
        let Some(spill) = &inner.spill else { return Poll::Ready(None) };
        // What is being written now is handed on by whoever waits for the write.
        let written =
            spill.length() - inner.writing.as_ref().map_or(0, |(_, data)| data.len() as u64);
        if self.at >= written && self.reading.is_none() {
            return Poll::Ready(None);
        }
        let at = self.at;
        let reading = self.reading.get_or_insert_with(|| spill.read(at, written));
        let piece = ready!(reading.poll(cx));
        self.reading = None;
        Poll::Ready(Some(match piece {
            Ok(bytes) => {
                self.at += bytes.len() as u64;
                Ok(bytes)
            }
            Err(_unreadable) => Err(BodyError::CopyLost),
        }))
    }

    fn poll_source(
        &mut self,
        inner: &mut MutexGuard<'_, Copied>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = inner.poll_more(cx);
        inner.waiting = polled.is_pending().then(|| cx.waker().clone());
        let frame = match ready!(polled) {
            Ok(frame) => frame,
            Err(error) => return Poll::Ready(Some(Err(error))),
        };
        if !inner.intact {
            inner.forget(self.nth);
        }
        // What was just copied is not to be read from the copy as well.
        self.piece = inner.memory.len();
        self.at = inner.spill.as_ref().map_or(0, Spill::length);
        self.done = frame.as_ref().is_none_or(Frame::is_trailers);
        Poll::Ready(frame.map(Ok))
    }
}

fn lock(copied: &Mutex<Copied>) -> MutexGuard<'_, Copied> {
    copied.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full",
            Self::Copied(_) => "Copied",
        })
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::exchange::tests::{
        Piece, data, fed, full, measured, next, rest, streamed, trailers,
    };

    fn room(memory_max: u64, disk_max: u64) -> (Room, TempDir) {
        let dir = tempfile::tempdir().expect("a directory");
        (Room::new(dir.path().to_owned(), memory_max, disk_max), dir)
    }

    fn caps(memory: u64, disk: u64) -> Caps {
        Caps { memory, disk }
    }

    fn pieces(texts: &[&'static str]) -> Body {
        streamed(texts.iter().map(|text| data(text)))
    }

    #[tokio::test]
    async fn a_body_is_read_again_from_memory_and_gives_its_room_back() {
        let (room, _dir) = room(100, 0);
        let held = Held::new(pieces(&["ab", "cd"]), caps(8, 0), &room);
        let mut reader = held.reader();
        assert_eq!(next(&mut reader).await.as_deref(), Some("ab"));
        assert_eq!(room.used(), (2, 0), "it is copied as it comes, and no faster");
        assert_eq!(rest(&mut reader).await, "cd");
        for _again in 0..2 {
            assert!(held.is_replayable());
            reader = held.reader();
            assert_eq!(rest(&mut reader).await, "abcd");
        }
        assert_eq!(room.used(), (4, 0));
        drop(held);
        drop(reader);
        assert_eq!(room.used(), (0, 0));
    }

    #[tokio::test]
    async fn what_memory_cannot_hold_is_read_back_from_a_nameless_file() {
        let (room, dir) = room(100, 100);
        let held = Held::new(pieces(&["abc", "def", "g"]), caps(4, 8), &room);
        for _again in 0..3 {
            assert_eq!(rest(&mut held.reader()).await, "abcdefg");
        }
        assert_eq!(room.used(), (3, 4));
        let files = std::fs::read_dir(dir.path()).expect("the directory is there");
        assert_eq!(files.count(), 0);
        drop(held);
        assert_eq!(room.used(), (0, 0));
    }

    #[tokio::test]
    async fn a_copy_is_kept_up_to_each_cap_and_costs_its_reader_nothing_past_it() {
        const ROOMY: (u64, u64) = (100, 100);
        for (caps, most, texts, used) in [
            (caps(4, 0), ROOMY, &["abc"][..], Some((3, 0))),
            (caps(4, 0), ROOMY, &["abcd"], Some((4, 0))),
            (caps(4, 0), ROOMY, &["ab", "cd"], Some((4, 0))),
            (caps(4, 0), ROOMY, &["abcde"], None),
            (caps(4, 0), ROOMY, &["ab", "cde", "fg"], None),
            (caps(2, 4), ROOMY, &["ab", "cde"], Some((2, 3))),
            (caps(2, 4), ROOMY, &["ab", "cdef"], Some((2, 4))),
            (caps(2, 4), ROOMY, &["ab", "cd", "ef"], Some((2, 4))),
            (caps(2, 4), ROOMY, &["ab", "cdefg"], None),
            (caps(2, 4), ROOMY, &["ab", "cdef", "g", "h"], None),
            // The same, where all bodies together have used up their room.
            (caps(9, 9), (4, 0), &["abcd"], Some((4, 0))),
            (caps(9, 9), (4, 0), &["abcd", "e"], None),
            (caps(9, 9), (4, 2), &["abcd", "ef"], Some((4, 2))),
            (caps(9, 9), (4, 2), &["abcd", "ef", "g"], None),
            (caps(9, 9), (0, 0), &["a"], None),
            (caps(0, 0), ROOMY, &["a"], None),
        ] {
            let (room, _dir) = room(most.0, most.1);
            let held = Held::new(pieces(texts), caps, &room);
            let mut reader = held.reader();
            assert_eq!(rest(&mut reader).await, texts.concat(), "{caps:?} {most:?}");
            assert_eq!(held.is_replayable(), used.is_some(), "{caps:?} {most:?} {texts:?}");
            assert_eq!(room.used(), used.unwrap_or_default(), "{caps:?} {most:?} {texts:?}");
        }
    }

    #[tokio::test]
    async fn what_is_known_not_to_fit_is_not_begun() {
        let (room, _dir) = room(100, 100);
        for (caps, replayable) in [(caps(2, 2), true), (caps(2, 1), false), (caps(0, 0), false)] {
            let held = Held::new(measured(&["ab", "cd"]), caps, &room);
            assert_eq!(held.is_replayable(), replayable);
            let mut reader = held.reader();
            assert_eq!(reader.length(), Some(4));
            assert_eq!(next(&mut reader).await.as_deref(), Some("ab"));
            assert_eq!(room.used().0, if replayable { 2 } else { 0 });
            assert_eq!(rest(&mut reader).await, "cd");
        }
    }

    #[tokio::test]
    async fn a_full_disk_costs_the_copy_and_not_the_exchange() {
        let nowhere = Room::new("/nonexistent/spill".into(), 100, 100);
        let held = Held::new(pieces(&["ab", "cd"]), caps(2, 100), &nowhere);
        assert_eq!(rest(&mut held.reader()).await, "abcd");
        assert!(!held.is_replayable());
        assert_eq!(nowhere.used(), (0, 0));
    }

    #[tokio::test]
    async fn a_second_reader_takes_over_and_goes_on_with_what_still_comes() {
        let (room, _dir) = room(100, 100);
        for caps in [caps(100, 0), caps(0, 100), caps(2, 100)] {
            let (client, body) = fed();
            let held = Held::new(body, caps, &room);
            let send = |piece: Piece| client.send(piece).expect("it is being read");
            let (mut first, mut second) = (held.reader(), Body::empty());
            send(data("ab"));
            assert_eq!(next(&mut first).await.as_deref(), Some("ab"));
            send(data("cd"));
            for _each in 0..2 {
                second = held.reader();
                assert_eq!(next(&mut second).await.as_deref(), Some("ab"), "from the start");
            }
            assert_eq!(next(&mut first).await.as_deref(), Some("!"), "it was superseded");
            assert_eq!(next(&mut second).await.as_deref(), Some("cd"));
            send(data("ef"));
            drop(client);
            assert_eq!(rest(&mut second).await, "ef");
            assert_eq!(rest(&mut held.reader()).await, "abcdef");
        }
    }

    #[tokio::test]
    async fn a_reader_that_takes_over_during_a_write_loses_nothing() {
        let (room, _dir) = room(100, 100);
        let held = Held::new(pieces(&["abc", "def"]), caps(0, 100), &room);
        let mut first = held.reader();
        let begun = std::future::poll_fn(|cx| {
            let polled = std::pin::Pin::new(&mut first).poll_frame(cx);
            Poll::Ready(polled.is_pending())
        });
        assert!(begun.await, "the write is under way");
        assert_eq!(rest(&mut held.reader()).await, "abcdef");
        assert_eq!(rest(&mut held.reader()).await, "abcdef");
    }

    #[tokio::test]
    async fn trailers_and_breaks_come_again() {
        let (room, _dir) = room(100, 0);
        let broken = || Err(BodyError::ClientLeft);
        for (body, wanted, replayable) in [
            (streamed([data("ab"), trailers("x-sum")]), "ab*", true),
            (streamed([trailers("x-sum")]), "*", true),
            (streamed([data("ab"), broken()]), "ab!", false),
            (full("ab"), "ab", true),
            (Body::empty(), "", true),
        ] {
            let held = Held::new(body, caps(8, 0), &room);
            assert_eq!(rest(&mut held.reader()).await, wanted);
            assert_eq!(held.is_replayable(), replayable, "{wanted}");
            assert_eq!(rest(&mut held.reader()).await, wanted);
        }
    }

    #[tokio::test]
    async fn a_body_is_filled_up_to_the_cap_in_memory_and_stays_whole() {
        let (room, _dir) = room(100, 100);
        let whole = |text: &'static str| Ok(Filled::Whole(Bytes::from_static(text.as_bytes())));
        for (body, wanted, text) in [
            (full("abcdefgh"), whole("abcdefgh"), "abcdefgh"), // it is there in any case
            (pieces(&["abc", "d"]), whole("abcd"), "abcd"),
            (pieces(&["abcd"]), whole("abcd"), "abcd"),
            (pieces(&[]), whole(""), ""),
            (pieces(&["abc", "de", "f"]), Ok(Filled::TooLarge), "abcdef"),
            (measured(&["abc", "d"]), whole("abcd"), "abcd"),
            (measured(&["abc", "de"]), Ok(Filled::TooLarge), "abcde"),
            (streamed([data("a"), Err(BodyError::ClientLeft)]), Err(BodyError::ClientLeft), "a!"),
        ] {
            let held = Held::new(body, caps(4, 100), &room);
            assert_eq!(held.fill().await, wanted, "{text}");
            assert_eq!(held.fill().await, wanted, "{text}");
            assert_eq!(rest(&mut held.reader()).await, text);
            assert_eq!(rest(&mut held.reader()).await, text);
        }
    }

    #[tokio::test]
    async fn a_fill_that_finds_no_room_loses_nothing() {
        const ROOMY: (u64, u64) = (100, 100);
        for (body, caps, most) in [
            (pieces(&["abc", "de", "f"]), caps(4, 0), ROOMY),
            (pieces(&["abcdef"]), caps(4, 0), ROOMY),
            (pieces(&["abc", "def"]), caps(100, 100), (3, 0)),
            (pieces(&["abc", "def"]), caps(100, 100), (0, 0)),
            (measured(&["abc", "def"]), caps(100, 0), (3, 100)),
            (pieces(&["abc", "de", "f"]), caps(4, 2), ROOMY),
        ] {
            let (room, _dir) = room(most.0, most.1);
            let held = Held::new(body, caps, &room);
            assert_eq!(held.fill().await, Ok(Filled::TooLarge));
            assert_eq!(held.fill().await, Ok(Filled::TooLarge));
            assert_eq!(rest(&mut held.reader()).await, "abcdef", "{caps:?} {most:?}");
            assert!(!held.is_replayable());
            assert_eq!(room.used(), (0, 0));
        }
    }

    #[tokio::test]
    async fn what_is_gone_is_never_passed_for_the_whole() {
        let (room, _dir) = room(100, 0);
        for (body, caps) in [
            (pieces(&["ab", "cd", "e"]), caps(2, 0)),
            (pieces(&["ab", "cd", "e"]), caps(0, 0)),
            (measured(&["ab", "cd", "e"]), caps(2, 0)),
        ] {
            let held = Held::new(body, caps, &room);
            let mut first = held.reader();
            assert_eq!(next(&mut first).await.as_deref(), Some("ab"));
            assert_eq!(next(&mut first).await.as_deref(), Some("cd"));
            assert_eq!(rest(&mut held.reader()).await, "!", "neither its middle");
            assert_eq!(rest(&mut held.reader()).await, "!", "nor nothing");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_waits_is_told_that_it_was_superseded() {
        let (room, _dir) = room(100, 100);
        let (client, body) = fed();
        let held = Held::new(body, Caps { memory: 100, disk: 0 }, &room);
        let mut first = held.reader();
        let waits = tokio::task::LocalSet::new();
        let told = waits.spawn_local(async move {
            let frame = http_body_util::BodyExt::frame(&mut first).await;
            frame.is_some_and(|frame| frame.is_err())
        });
        waits
            .run_until(async {
                tokio::task::yield_now().await;
                let _second = held.reader();
                assert!(told.await.expect("it ends"), "the copy is another's now");
            })
            .await;
        drop(client);
    }

    #[tokio::test]
    async fn a_held_body_is_not_copied_twice() {
        let (room, _dir) = room(100, 0);
        let held = Held::new(pieces(&["ab"]), caps(8, 0), &room);
        assert!(matches!(held.fill().await, Ok(Filled::Whole(_))));
        let reader = held.reader();
        assert!(Held::is_at_hand(&reader));
        let again = Held::new(reader, caps(0, 0), &room);
        drop(held);
        assert_eq!(room.used(), (2, 0));
        assert!(again.is_replayable());
        assert_eq!(rest(&mut again.reader()).await, "ab");
    }
}

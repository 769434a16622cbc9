//! Reads a multipart body of any size by its parts, in bounded memory.
//!
//! What is made of the parts is the sink's: a digest, or some of their values. The
//! boundary, which clients draw anew for each try, does not count. The reader
//! takes what clients write (RFC 2046, section 5.1, and RFC 7578) and nothing
//! around it: with a preamble, an epilogue, folded lines or padding the body is
//! not read as parts at all, since an upstream may read it in another way.

use memchr::memmem::{self, Finder};

use super::media;
use crate::idempotency::key::frame;

/// Reads parts as their bytes come in.
pub(in crate::idempotency) struct Parts<S> {
    /// The line that ends a part, with the line break before it.
    delimiter: Finder<'static>,
    /// What was fed and is not yet read, from `at` on.
    pending: Vec<u8>,
    at: usize,
    stage: Stage,
    sink: S,
}

/// What is made of parts.
pub(in crate::idempotency) trait Sink {
    /// A part begins.
    fn begin(&mut self, head: &Head);

    /// Some of its bytes.
    fn take(&mut self, piece: &[u8]);

    /// It is complete.
    fn end(&mut self);
}

/// Digests parts.
#[derive(Default)]
pub(super) struct Digest {
    /// The part that is being read.
    body: blake3::Hasher,
    /// All that were read.
    whole: blake3::Hasher,
}

impl Digest {
    pub(super) fn finish(&self) -> blake3::Hash {
        self.whole.finalize()
    }
}

impl Sink for Digest {
    fn begin(&mut self, head: &Head) {
        for field in head.fields() {
            frame(&mut self.whole, &[u8::from(field.is_some())]);
            frame(&mut self.whole, field.unwrap_or_default());
        }
    }

    fn take(&mut self, piece: &[u8]) {
        self.body.update(piece);
    }

    fn end(&mut self) {
        self.whole.update(self.body.finalize().as_bytes());
        self.body.reset();
    }
}

/// What is expected next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The first delimiter, with nothing before it.
    Opening,
    /// What follows a delimiter: a line break, or the two dashes of the last one.
    Delimited,
    /// The fields of a part.
    Head,
    /// The bytes of a part.
    Body,
    /// Nothing but a last line break.
    End,
    /// Nothing: these are no parts.
    Broken,
}

impl<S: Sink> Parts<S> {
    pub(in crate::idempotency) fn new(boundary: &[u8], sink: S) -> Self {
        let delimiter = [b"\r\n--", boundary].concat();
        Self {
            delimiter: Finder::new(&delimiter).into_owned(),
            // The first delimiter has no line break before it; with one that is
            // made up it looks like all others.
            pending: b"\r\n".to_vec(),
            at: 0,
            stage: Stage::Opening,
            sink,
        }
    }

    pub(in crate::idempotency) fn feed(&mut self, piece: &[u8]) {
        // In steps, so that what is pending stays small however large the piece.
        for step in piece.chunks(STEP) {
            if self.stage == Stage::Broken {
                return;
            }
            self.pending.extend_from_slice(step);
            while let Some(next) = self.advance() {
                self.stage = next;
            }
            self.pending.drain(..self.at);
            self.at = 0;
        }
    }

    /// What was made of all parts; none where the bytes were not parts, or not all of them.
    pub(in crate::idempotency) fn finish(self) -> Option<S> {
        let complete = self.stage == Stage::End && matches!(self.rest(), b"" | b"\r\n");
        complete.then_some(self.sink)
    }

    /// What was made of the parts that came so far; none where the bytes were not parts.
    pub(in crate::idempotency) fn so_far(self) -> Option<S> {
        (self.stage != Stage::Broken).then_some(self.sink)
    }

    /// Reads on to the next stage, if enough has come in.
    fn advance(&mut self) -> Option<Stage> {
        match self.stage {
            Stage::Opening => self.opening(),
            Stage::Delimited => self.delimited(),
            Stage::Head => self.head(),
            Stage::Body => self.body(),
            Stage::End => (self.rest().len() > 2).then_some(Stage::Broken),
            Stage::Broken => None,
        }
    }

    fn opening(&mut self) -> Option<Stage> {
        let length = self.delimiter.needle().len();
        let first = self.rest().get(..length)?;
        if first != self.delimiter.needle() {
            return Some(Stage::Broken);
        }
        self.at += length;
        Some(Stage::Delimited)
    }

    fn delimited(&mut self) -> Option<Stage> {
        let next = match self.rest().get(..2)? {
            b"\r\n" => Stage::Head,
            b"--" => Stage::End,
            _ => return Some(Stage::Broken),
        };
        self.at += 2;
        Some(next)
    }

    fn head(&mut self) -> Option<Stage> {
        let rest = self.rest();
        let (head, length) = if rest.get(..2)? == b"\r\n" {
            (Head::default(), 2)
        } else if let Some(end) = memmem::find(rest, b"\r\n\r\n").filter(|end| *end <= HEAD_MAX) {
            let Some(head) = rest.get(..end).and_then(Head::read) else {
                return Some(Stage::Broken);
            };
            (head, end + 4)
        } else {
            // However much more came, the end would be found too late.
            return (rest.len() >= HEAD_MAX + 4).then_some(Stage::Broken);
        };
        self.sink.begin(&head);
        self.at += length;
        Some(Stage::Body)
    }

    fn body(&mut self) -> Option<Stage> {
        let rest = self.pending.get(self.at..).unwrap_or_default();
        let length = self.delimiter.needle().len();
        let Some(end) = self.delimiter.find(rest) else {
            // The last bytes may be the beginning of a delimiter.
            let sure = rest.len().saturating_sub(length - 1);
            self.sink.take(rest.get(..sure).unwrap_or_default());
            self.at += sure;
            return None;
        };
        self.sink.take(rest.get(..end).unwrap_or_default());
        self.sink.end();
        self.at += end + length;
        Some(Stage::Delimited)
    }

    fn rest(&self) -> &[u8] {
        self.pending.get(self.at..).unwrap_or_default()
    }
}

/// What counts of the fields of a part.
#[derive(Default)]
pub(in crate::idempotency) struct Head {
    pub(in crate::idempotency) name: Option<Vec<u8>>,
    pub(in crate::idempotency) filename: Option<Vec<u8>>,
    pub(in crate::idempotency) extended_filename: Option<Vec<u8>>,
    content_type: Option<Vec<u8>>,
}

impl Head {
    /// Reads `Name: value` lines; none where one is not, or one that counts is there twice.
    fn read(text: &[u8]) -> Option<Self> {
        let mut head = Self::default();
        let mut disposed = false;
        let mut start = 0;
        let ends = memmem::find_iter(text, b"\r\n").chain([text.len()]);
        for end in ends {
            let line = text.get(start..end)?;
            start = end + 2;
            let colon = line.iter().position(|byte| *byte == b':')?;
            let (name, value) = line.split_at_checked(colon)?;
            let value = value.get(1..)?.trim_ascii();
            if name.is_empty() || name.iter().any(u8::is_ascii_whitespace) {
                return None;
            }
            if name.eq_ignore_ascii_case(b"content-type") {
                let before = head.content_type.replace(value.to_vec());
                before.is_none().then_some(())?;
            } else if name.eq_ignore_ascii_case(b"content-disposition") {
                (!disposed).then_some(())?;
                disposed = true;
                let found = media::parameters(value)?;
                let one = |name| media::value_of(&found, name).map(<[u8]>::to_vec);
                head.name = one("name");
                head.filename = one("filename");
                head.extended_filename = one("filename*");
            }
        }
        Some(head)
    }

    fn fields(&self) -> [Option<&[u8]>; 4] {
        [&self.name, &self.filename, &self.extended_filename, &self.content_type]
            .map(Option::as_deref)
    }
}

/// Fields of a part: a name, a file name, a type. Apache and PHP stop at 8 KiB too.
const HEAD_MAX: usize = 8 * 1024;

/// As large as the reads that bodies come in.
const STEP: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Option<blake3::Hash> {
        let mut parts = Parts::new(b"b", Digest::default());
        for piece in pieces {
            parts.feed(piece);
        }
        parts.finish().map(|digest| digest.finish())
    }

    #[test]
    fn what_is_not_parts_beyond_doubt_is_not_read_as_parts() {
        for (body, is_read) in [
            ("--b--", true),
            ("--b--\r\n", true),
            ("--b\r\n\r\nx\r\n--b--\r\n", true),
            ("--b\r\n\r\n\r\n--b--\r\n", true),
            ("--b\r\nA: b\r\nContent-Type: x\r\n\r\nx\r\n--b--", true),
            ("", false),
            ("--b\r\n", false),
            ("--b\r\n\r\nx", false),
            ("--b\r\n\r\nx\r\n--b", false),
            ("--b\r\n\r\nx\r\n--b-", false),
            ("--b\r\n\r\nx\r\n--bc\r\n", false),
            ("--b \r\n\r\nx\r\n--b--", false),
            ("preamble\r\n--b--", false),
            ("--b--\r\nepilogue", false),
            ("--b--\n", false),
            ("--b\r\nA\r\n\r\nx\r\n--b--", false),
            ("--b\r\nA: b\r\n folded\r\n\r\nx\r\n--b--", false),
            ("--b\r\nContent-Type: x\r\nContent-Type: y\r\n\r\nx\r\n--b--", false),
            ("--b\r\nContent-Disposition: x; name=a; name=b\r\n\r\nx\r\n--b--", false),
        ] {
            assert_eq!(read(&[body.as_bytes()]).is_some(), is_read, "{body:?}");
        }
    }

    #[test]
    fn the_fields_of_a_part_have_a_limit() {
        for (length, is_read) in [(HEAD_MAX - 1, true), (HEAD_MAX, true), (HEAD_MAX + 1, false)] {
            let field = format!("A: {}", "x".repeat(length - 3));
            let body = format!("--b\r\n{field}\r\n\r\nx\r\n--b--");
            assert_eq!(read(&[body.as_bytes()]).is_some(), is_read, "{length}");
            let bytes: Vec<&[u8]> = body.as_bytes().chunks(1).collect();
            assert_eq!(read(&bytes).is_some(), is_read, "{length}, byte by byte");
        }
    }

    #[test]
    fn little_is_pending_however_large_the_part() {
        let mut parts = Parts::new(b"b", Digest::default());
        parts.feed(b"--b\r\n\r\n");
        parts.feed(&vec![b'x'; 3 * STEP + 7]);
        assert!(parts.pending.len() < parts.delimiter.needle().len());
        assert!(parts.pending.capacity() <= 4 * STEP);
        parts.feed(b"\r\n--b--");
        assert!(parts.finish().is_some());
    }
}

//! Takes ids from a request's body while it streams up: from JSON, a form, or parts.
//!
//! Only the first bytes are looked at, as many as the route holds in memory. Of a
//! multipart body none are kept but the values that are wanted; of JSON and forms the
//! pieces are, which whoever sends them shares.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use percent_encoding::percent_decode;

use crate::exchange::coding;
use crate::idempotency::capture::{Captures, ID_MAX, Ids, Place};
use crate::idempotency::fingerprint::canonical::pairs;
use crate::idempotency::fingerprint::lines;
use crate::idempotency::fingerprint::media::Media;
use crate::idempotency::fingerprint::multipart::{Head, Parts, Sink};
use crate::idempotency::tee::Listener;

/// Takes ids from a body.
pub(super) struct Gatherer {
    wanted: Captures,
    /// How many bytes are still looked at.
    left: usize,
    limit: usize,
    reading: Reading,
}

enum Reading {
    /// It has to be read as a whole.
    Whole(Media, String, Vec<Bytes>),
    /// Parts, read as they come.
    Parts(Box<Parts<Values>>),
    /// It is too long to be read as a whole.
    Lost,
}

impl Gatherer {
    /// Listens for what is wanted of a body with these header fields, in its first
    /// `limit` bytes; none where nothing is.
    pub(super) fn of(wanted: &Captures, headers: &HeaderMap, limit: usize) -> Option<Self> {
        let json = wanted.iter().any(|(_, place)| matches!(place, Place::Request(_)));
        let parts = wanted.iter().any(|(_, place)| matches!(place, Place::RequestPart(_)));
        if !json && !parts {
            return None;
        }
        let (media, _) = Media::read(&lines(headers, &CONTENT_TYPE));
        let codings = lines(headers, &CONTENT_ENCODING);
        let is_plain = matches!(codings.trim(), "" | "identity");
        let reading = match media {
            Media::Multipart(boundary) if parts && is_plain => {
                Reading::Parts(Box::new(Parts::new(&boundary, Values::of(wanted))))
            }
            Media::Json if json => Reading::Whole(media, codings, Vec::new()),
            Media::Form | Media::Multipart(_) if parts => {
                Reading::Whole(media, codings, Vec::new())
            }
            Media::Json | Media::Form | Media::Multipart(_) | Media::Bytes => return None,
        };
        Some(Self { wanted: wanted.clone(), left: limit, limit, reading })
    }
}

impl Listener for Gatherer {
    type Heard = Ids;

    fn hear(&mut self, piece: &Bytes) {
        let first = piece.get(..piece.len().min(self.left)).unwrap_or_default();
        match &mut self.reading {
            Reading::Whole(..) if piece.len() > self.left => self.reading = Reading::Lost,
            Reading::Whole(_, _, pieces) => pieces.push(piece.clone()),
            Reading::Parts(parts) => parts.feed(first),
            Reading::Lost => {}
        }
        self.left -= first.len();
    }

    fn heard(self) -> Ids {
        let is_whole = self.left > 0;
        match self.reading {
            Reading::Whole(media, codings, pieces) => {
                let body = joined(pieces);
                let text = coding::decode(Some(&codings), &body, self.limit);
                text.map(|text| read(&self.wanted, &media, &text)).unwrap_or_default()
            }
            Reading::Parts(parts) => {
                let values = if is_whole { parts.finish() } else { parts.so_far() };
                values.map(|values| values.ids(&self.wanted)).unwrap_or_default()
            }
            Reading::Lost => Vec::new(),
        }
    }
}

fn joined(mut pieces: Vec<Bytes>) -> Bytes {
    match pieces.len() {
        0 | 1 => pieces.pop().unwrap_or_default(),
        _ => {
            let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
            for piece in &pieces {
                whole.extend_from_slice(piece);
            }
            whole.freeze()
        }
    }
}

fn read(wanted: &Captures, media: &Media, text: &[u8]) -> Ids {
    match media {
        Media::Json => wanted.of_json(text),
        Media::Form => {
            let mut values = Values::of(wanted);
            for (name, value) in pairs(text) {
                values.note(&name, &value);
            }
            values.ids(wanted)
        }
        Media::Multipart(boundary) => {
            let mut parts = Parts::new(boundary, Values::of(wanted));
            parts.feed(text);
            parts.finish().map(|values| values.ids(wanted)).unwrap_or_default()
        }
        Media::Bytes => Vec::new(),
    }
}

/// The values of the fields that are wanted.
struct Values {
    fields: Vec<(String, Seen)>,
    /// The wanted field whose bytes are being read, and what of them came.
    current: Option<(String, Vec<u8>)>,
}

/// What was seen of a field.
enum Seen {
    Never,
    /// Its value, where that is text.
    Once(Option<String>),
    /// Nobody can say which is meant.
    Twice,
}

impl Values {
    fn of(wanted: &Captures) -> Self {
        let names = wanted.iter().filter_map(|(_, place)| match place {
            Place::RequestPart(name) => Some((name.clone(), Seen::Never)),
            _ => None,
        });
        Self { fields: names.collect(), current: None }
    }

    fn wants(&self, name: &[u8]) -> bool {
        self.fields.iter().any(|(own, _)| own.as_bytes() == name)
    }

    fn note(&mut self, name: &[u8], value: &[u8]) {
        let value = std::str::from_utf8(value).ok().map(str::to_owned);
        for (_, seen) in self.fields.iter_mut().filter(|(own, _)| own.as_bytes() == name) {
            *seen = match seen {
                Seen::Never => Seen::Once(value.clone()),
                Seen::Once(_) | Seen::Twice => Seen::Twice,
            };
        }
    }

    fn ids(&self, wanted: &Captures) -> Ids {
        wanted.taken(|place| {
            let Place::RequestPart(name) = place else { return None };
            let (_, seen) = self.fields.iter().find(|(own, _)| own == name)?;
            let Seen::Once(Some(value)) = seen else { return None };
            Some(Cow::Borrowed(value.as_str()))
        })
    }
}

impl Sink for Values {
    fn begin(&mut self, head: &Head) {
        let Some(name) = head.name.as_deref().filter(|name| self.wants(name)) else { return };
        let plain = head.filename.clone();
        let file = plain.or_else(|| head.extended_filename.as_deref().map(extended));
        if let Some(file) = file {
            self.note(name, &file);
        } else {
            let name = String::from_utf8_lossy(name).into_owned();
            self.current = Some((name, Vec::new()));
        }
    }

    fn take(&mut self, piece: &[u8]) {
        if let Some((_, value)) = &mut self.current {
            // One byte more than an id has says that it is none.
            let room = (ID_MAX + 1).saturating_sub(value.len());
            value.extend_from_slice(piece.get(..piece.len().min(room)).unwrap_or_default());
        }
    }

    fn end(&mut self) {
        if let Some((name, value)) = self.current.take() {
            self.note(name.as_bytes(), &value);
        }
    }
}

/// `UTF-8''caf%C3%A9.png` (RFC 8187, section 3.2.1).
fn extended(written: &[u8]) -> Vec<u8> {
    let mut parts = written.splitn(3, |byte| *byte == b'\'');
    let value = parts.nth(2).unwrap_or_default();
    percent_decode(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Pointer;
    use crate::exchange::tests::headers;

    const JSON: &str = "application/vnd.x+json; charset=utf-8";
    const FORM: &str = "application/x-www-form-urlencoded";
    const UPLOAD: &str = "multipart/form-data; boundary=b";
    /// A text, a file, and another text.
    const PARTS: &str = "--b\r\nContent-Disposition: form-data; name=user\r\n\r\nu-1\r\n\
        --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"in tro.png\"\r\n\
        Content-Type: image/png\r\n\r\n\x01\x02--b\r\n\
        --b\r\nContent-Disposition: form-data; name=model\r\n\r\nm\r\n--b--\r\n";

    fn wanted() -> Captures {
        let part = |name: &str| (name.to_owned(), Place::RequestPart(name.to_owned()));
        let pointer = Pointer::parse("/job/user").expect("a pointer");
        let json = ("json".to_owned(), Place::Request(pointer));
        Captures::new(vec![part("user"), part("file"), part("model"), json])
    }

    /// What is taken from a body that comes in pieces of so many bytes.
    fn gathered(fields: &[(&'static str, &str)], body: &[u8], limit: usize, cut: usize) -> String {
        let Some(mut gatherer) = Gatherer::of(&wanted(), &headers(fields), limit) else {
            return "nothing is wanted".to_owned();
        };
        body.chunks(cut).for_each(|piece| gatherer.hear(&Bytes::copy_from_slice(piece)));
        let ids = gatherer.heard().into_iter().map(|(name, value)| format!("{name}={value}"));
        ids.collect::<Vec<_>>().join(" ")
    }

    fn check(media: &str, body: &str, ids: &str) {
        for cut in [1, 7, 4096] {
            let found = gathered(&[("content-type", media)], body.as_bytes(), 4096, cut);
            assert_eq!(found, ids, "{media} in pieces of {cut}: {body}");
        }
    }

    #[test]
    fn ids_are_taken_from_json_forms_and_parts() {
        check(JSON, r#"{"job":{"user":7}}"#, "json=7");
        check(JSON, r#"{"job":{"user":{}}}"#, "");
        check(JSON, "user=1", "");
        check(FORM, "user=u+1%2F&model=m&x=y", "user=u 1/ model=m");
        check(FORM, "user=1&user=2&model=m", "model=m");
        check(FORM, "user=%ff&model=", "");
        check(UPLOAD, PARTS, "user=u-1 file=in tro.png model=m");
        check(UPLOAD, &PARTS.replace("model", "user"), "file=in tro.png");
        check(UPLOAD, &PARTS.replace("--b--", "--b"), "");
        let extended = PARTS.replace("filename=\"in tro.png\"", "filename*=UTF-8''caf%C3%A9.png");
        check(UPLOAD, &extended, "user=u-1 file=caf\u{e9}.png model=m");
        check(UPLOAD, &PARTS.replace("in tro.png", ""), "user=u-1 model=m");
        check("text/plain", "user=u-1", "nothing is wanted");
    }

    #[test]
    fn codings_are_undone() {
        use std::io::Write as _;
        for (media, body, ids) in [
            (JSON, r#"{"job":{"user":"u"}}"#, "json=u"),
            (FORM, "user=u", "user=u"),
            (UPLOAD, PARTS, "user=u-1 file=in tro.png model=m"),
        ] {
            let level = flate2::Compression::default();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(body.as_bytes()).expect("a vector takes all");
            let coded = encoder.finish().expect("a vector takes all");
            let fields = [("content-type", media), ("content-encoding", "gzip")];
            assert_eq!(gathered(&fields, &coded, 4096, 9), ids, "{media}");
            assert_eq!(gathered(&fields, b"no such coding", 4096, 9), "", "{media}");
        }
    }

    #[test]
    fn only_the_first_bytes_are_looked_at() {
        let json = r#"{"job":{"user":7}}"#;
        for (limit, ids) in
            [(json.len() + 1, "json=7"), (json.len(), "json=7"), (json.len() - 1, "")]
        {
            for cut in [1, 4096] {
                let found = gathered(&[("content-type", JSON)], json.as_bytes(), limit, cut);
                assert_eq!(found, ids, "{limit}");
            }
        }
        // A part counts once it is complete.
        let user = PARTS.find("--b\r\nContent-Disposition: form-data; name=\"f").expect("a file");
        let first = user + "--b".len();
        for (limit, ids) in [
            (PARTS.len(), "user=u-1 file=in tro.png model=m"),
            (first, "user=u-1"),
            (first - 1, ""),
        ] {
            for cut in [1, 4096] {
                let found = gathered(&[("content-type", UPLOAD)], PARTS.as_bytes(), limit, cut);
                assert_eq!(found, ids, "{limit}");
            }
        }
    }

    #[test]
    fn a_large_part_is_not_kept() {
        let mut values = Values::of(&wanted());
        values.current = Some(("user".to_owned(), Vec::new()));
        values.take(&vec![b'x'; 100_000]);
        assert_eq!(values.current.as_ref().map(|(_, value)| value.len()), Some(ID_MAX + 1));
        values.end();
        assert_eq!(values.ids(&wanted()), []);
    }
}

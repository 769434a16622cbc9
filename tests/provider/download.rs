//! Files to download, whose bytes follow from their tag and place, and ways to bend them.
//!
//! `GET /files/NAME?size=N&etag=TAG` serves ranges by RFC 9110, under a strong tag. A step
//! bends it: `cut_at=N` ends the answer before the file's byte N (`cut_by=reset`, `hang`,
//! `failed_stream`), `tag=B` has another file stand there, and `lie=WORD` has the answer say
//! what is not so.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::answer::{Answer, Content, PIECE};
use super::request::Head;
use super::script::{Cut, Shape, Step};

/// What a step does to a download.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bent {
    /// The byte of the file before which the answer ends.
    cut_at: Option<u64>,
    cut_by: Option<Cut>,
    tag: Option<String>,
    lie: Option<Lie>,
}

/// What an answer says that is not so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// The range is not served: 200, and all of it.
    Whole,
    /// The range begins one byte early.
    Early,
    /// The range begins one byte late.
    Late,
    /// The range ends one byte early.
    Short,
    /// The file is one byte longer than it was.
    Total,
    /// No `Content-Range`.
    NoRange,
    /// Two of them.
    TwoRanges,
    /// More bytes than the range has, in chunks.
    Surplus,
    /// One byte more than the range has, by `Content-Length` too.
    Longer,
    /// A tag that is weak.
    Weak,
    /// No tag.
    NoTag,
    /// A coding that the bytes are not in.
    Coded,
    /// A type that says that there are many ranges.
    Multipart,
    /// `Accept-Ranges: none`.
    NoRanges,
    /// 412, whatever was asked.
    Failed,
    /// 416, whatever was asked.
    Unsatisfiable,
}

impl Bent {
    /// Takes an option of a step; false where it is none of a download.
    pub(crate) fn option(&mut self, word: &str) -> bool {
        match word.split_once('=').unwrap_or((word, "")) {
            ("cut_at", at) => self.cut_at = at.parse().ok(),
            ("cut_by", "reset") => self.cut_by = Some(Cut::Reset),
            ("cut_by", "hang") => self.cut_by = Some(Cut::Hang),
            ("cut_by", "failed_stream") => self.cut_by = Some(Cut::FailedStream),
            ("tag", tag) => self.tag = Some(tag.to_owned()),
            ("lie", word) => {
                self.lie = LIES.iter().find(|(known, _)| *known == word).map(|(_, lie)| *lie);
                return self.lie.is_some();
            }
            _ => return false,
        }
        true
    }

    /// An answer of bytes, ended where the step ends the file that they are of.
    pub(crate) fn ended(&self, mut answer: Answer) -> Answer {
        let (Content::Bytes(bytes), Some(at)) = (&answer.content, self.cut_at) else {
            return answer;
        };
        let range = answer.headers.iter().find(|(name, _)| name == "Content-Range");
        let first = range.and_then(|(_, range)| range.strip_prefix("bytes ")?.split('-').next());
        let first: u64 = first.and_then(|first| first.parse().ok()).unwrap_or(0);
        let sent = usize::try_from(at.saturating_sub(first)).unwrap_or(usize::MAX);
        let (whole, sent) = (bytes.len(), bytes.slice(..sent.min(bytes.len())));
        answer.told = Some(whole as u64);
        answer.content = Content::Bytes(sent);
        answer.cut = Some(self.cut_by.unwrap_or(Cut::Eof));
        answer
    }
}

/// Answers a `GET` or `HEAD` of a file.
pub(crate) fn answer(head: &Head, step: &Step) -> Answer {
    let query = |name: &str| {
        let (_, query) = head.target.split_once('?')?;
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
    };
    let bent = &step.bent;
    let size: u64 = query("size").and_then(|size| size.parse().ok()).unwrap_or(0);
    let tag = bent.tag.clone().or_else(|| query("etag")).unwrap_or_else(|| "a".to_owned());
    let etag = match bent.lie {
        Some(Lie::Weak) => format!("W/\"{tag}\""),
        _ => format!("\"{tag}\""),
    };
    if head.field("if-none-match").is_some_and(|held| held.trim_start_matches("W/") == etag) {
        return bare(304, &etag, size);
    }
    match bent.lie {
        Some(Lie::Failed) => return bare(412, &etag, size),
        Some(Lie::Unsatisfiable) => return bare(416, &etag, size),
        _ => {}
    }
    let same = head.field("if-range").is_none_or(|held| held == etag);
    let asked = head.field("range").filter(|_| same && bent.lie != Some(Lie::Whole));
    let range = match asked.map(|asked| range(asked, size)) {
        None | Some(Asked::Nothing) => None,
        Some(Asked::Range(first, last)) => Some((first, last)),
        Some(Asked::Unsatisfiable) => return bare(416, &etag, size),
    };
    served(step, &etag, size, range, &tag)
}

fn served(step: &Step, etag: &str, size: u64, range: Option<(u64, u64)>, tag: &str) -> Answer {
    let bent = &step.bent;
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let media = match bent.lie {
        Some(Lie::Multipart) => "multipart/byteranges; boundary=x",
        _ => "application/octet-stream",
    };
    let mut headers = vec![field("Content-Type", media)];
    if bent.lie != Some(Lie::NoTag) {
        headers.push(field("ETag", etag));
    }
    let ranges = if bent.lie == Some(Lie::NoRanges) { "none" } else { "bytes" };
    headers.push(field("Accept-Ranges", ranges));
    let (mut first, mut end) = range.map_or((0, size), |(first, last)| (first, last + 1));
    let mut total = size;
    match bent.lie {
        Some(Lie::Early) if range.is_some() => first -= 1,
        Some(Lie::Late) if range.is_some() => first += 1,
        Some(Lie::Short) => end -= 1,
        Some(Lie::Total) => total += 1,
        Some(Lie::Coded) => headers.push(field("Content-Encoding", "gzip")),
        _ => {}
    }
    if range.is_some() {
        let times = match bent.lie {
            Some(Lie::NoRange) => 0,
            Some(Lie::TwoRanges) => 2,
            _ => 1,
        };
        let span = field("Content-Range", &format!("bytes {first}-{}/{total}", end - 1));
        headers.extend(std::iter::repeat_n(span, times));
    }
    match bent.lie {
        Some(Lie::Surplus) => end += 10,
        Some(Lie::Longer) => end += 1,
        _ => {}
    }
    let sent = bent.cut_at.map_or(end, |at| at.clamp(first, end));
    let cut = (sent < end || bent.cut_at == Some(end)).then(|| bent.cut_by.unwrap_or(Cut::Eof));
    Answer {
        status: if range.is_some() { 206 } else { 200 },
        headers,
        content: Content::File { tag: tag.to_owned(), first, count: sent - first },
        told: Some(end - first),
        cut,
        ..Answer::empty()
    }
}

/// An answer without content; of a 416 it says how long the file is.
fn bare(status: u16, etag: &str, size: u64) -> Answer {
    let mut headers = vec![("ETag".to_owned(), etag.to_owned())];
    if status == 416 {
        headers.push(("Content-Range".to_owned(), format!("bytes */{size}")));
    }
    Answer { status, headers, shape: Shape::Whole, ..Answer::empty() }
}

enum Asked {
    Range(u64, u64),
    Unsatisfiable,
    /// Many ranges, or nonsense: then all of it is served.
    Nothing,
}

/// RFC 9110, section 14.1.2.
fn range(asked: &str, size: u64) -> Asked {
    let Some((first, last)) = asked.strip_prefix("bytes=").and_then(|it| it.split_once('-')) else {
        return Asked::Nothing;
    };
    let (first, last) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => (first, last.min(size.saturating_sub(1))),
        (Ok(first), Err(_)) if last.is_empty() => (first, size.saturating_sub(1)),
        (Err(_), Ok(count)) if first.is_empty() && count > 0 => {
            (size.saturating_sub(count), size.saturating_sub(1))
        }
        _ => return Asked::Nothing,
    };
    if first < size { Asked::Range(first, last) } else { Asked::Unsatisfiable }
}

/// The bytes of the file that stands under `tag`, from `first` on, in pieces.
pub(crate) fn pieces(
    tag: &str,
    first: u64,
    count: u64,
) -> impl Iterator<Item = Bytes> + Send + use<> {
    let seed = tag.bytes().fold(1, |seed, byte| mix(seed ^ u64::from(byte)));
    let (mut at, end) = (first, first + count);
    std::iter::from_fn(move || {
        let count = usize::try_from(end - at).unwrap_or(usize::MAX).min(PIECE);
        let skipped = usize::try_from(at % 8).unwrap_or_default();
        let mut words = BytesMut::with_capacity(count + 16);
        while words.len() < skipped + count {
            words.put_u64(mix(seed ^ (at / 8 + words.len() as u64 / 8)));
        }
        at += count as u64;
        let piece = words.freeze().slice(skipped..skipped + count);
        (!piece.is_empty()).then_some(piece)
    })
}

/// Scatters a number: the finisher of `splitmix64`.
pub(crate) fn mix(seed: u64) -> u64 {
    let mut word = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

const LIES: [(&str, Lie); 16] = [
    ("whole", Lie::Whole),
    ("early", Lie::Early),
    ("late", Lie::Late),
    ("short", Lie::Short),
    ("total", Lie::Total),
    ("no_range", Lie::NoRange),
    ("two_ranges", Lie::TwoRanges),
    ("surplus", Lie::Surplus),
    ("longer", Lie::Longer),
    ("weak", Lie::Weak),
    ("no_tag", Lie::NoTag),
    ("coded", Lie::Coded),
    ("multipart", Lie::Multipart),
    ("no_ranges", Lie::NoRanges),
    ("failed", Lie::Failed),
    ("unsatisfiable", Lie::Unsatisfiable),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn all(first: u64, count: u64) -> Vec<u8> {
        pieces("a", first, count).flatten().collect()
    }

    #[test]
    fn a_part_of_a_file_is_what_stands_there_in_the_whole() {
        let whole = all(0, 40_000);
        assert_eq!(whole.len(), 40_000);
        for (first, count) in [(0, 1), (7, 9), (16_383, 2), (1, 39_999), (39_999, 1), (5, 0)] {
            let part = whole.iter().skip(first).take(count).copied();
            let found = all(first as u64, count as u64);
            assert!(part.eq(found), "{first} {count}");
        }
        assert_ne!(pieces("b", 0, 64).next(), pieces("a", 0, 64).next());
    }

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        for (asked, wanted) in [
            ("bytes=0-0", Some((0, 0))),
            ("bytes=5-", Some((5, 9))),
            ("bytes=5-99", Some((5, 9))),
            ("bytes=-3", Some((7, 9))),
            ("bytes=-99", Some((0, 9))),
        ] {
            let Asked::Range(first, last) = range(asked, 10) else { panic!("{asked}") };
            assert_eq!(Some((first, last)), wanted, "{asked}");
        }
        for asked in ["bytes=0-1,3-4", "items=0-1", "bytes=5-4", "bytes=-", "bytes=-0"] {
            assert!(matches!(range(asked, 10), Asked::Nothing), "{asked}");
        }
        assert!(matches!(range("bytes=10-", 10), Asked::Unsatisfiable));
    }
}

//! Undoes content codings, never past a limit (RFC 9110, section 8.4).

use std::borrow::Cow;
use std::io::Read;

use brotli_decompressor::reader::StandardAlloc;
use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState};
use flate2::bufread::{DeflateDecoder, GzDecoder, ZlibDecoder};
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// The body without its codings; `encoding` is the value of `Content-Encoding`.
///
/// None where a coding is not known, the bytes are not of that coding from the
/// first to the last, or a step has more than `limit` bytes. A body without a
/// coding has no limit: it is there already.
pub fn decode<'a>(encoding: Option<&str>, body: &'a [u8], limit: usize) -> Option<Cow<'a, [u8]>> {
    let codings: Vec<_> = encoding
        .unwrap_or_default()
        .split(',')
        .map(|coding| coding.trim().to_ascii_lowercase())
        .filter(|coding| !coding.is_empty() && coding != "identity")
        .collect();
    if codings.len() > CODINGS_MAX {
        return None;
    }
    // They are listed in the order in which they were applied.
    codings.iter().rev().try_fold(Cow::Borrowed(body), |body, coding| {
        decode_one(coding, &body, limit).map(Cow::Owned)
    })
}

fn decode_one(coding: &str, body: &[u8], limit: usize) -> Option<Vec<u8>> {
    match coding {
        "gzip" | "x-gzip" => gzip(body, limit),
        "deflate" => zlib(body, limit).or_else(|| deflate(body, limit)),
        "br" => brotli(body, limit),
        "zstd" => zstd(body, limit),
        _ => None,
    }
}

/// One member after another (RFC 1952, section 2.2), and nothing behind the last.
fn gzip(body: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut rest = body;
    let mut plain = Vec::new();
    loop {
        let room = limit.checked_sub(plain.len())?;
        let mut decoder = GzDecoder::new(rest);
        plain.extend(read_up_to(&mut decoder, room)?);
        rest = decoder.into_inner();
        if rest.is_empty() {
            return Some(plain);
        }
    }
}

/// What RFC 9110, section 8.4.1.2, calls `deflate`.
fn zlib(body: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut decoder = ZlibDecoder::new(body);
    let plain = read_up_to(&mut decoder, limit)?;
    decoder.into_inner().is_empty().then_some(plain)
}

/// What some senders call `deflate`, as the note there says.
fn deflate(body: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut decoder = DeflateDecoder::new(body);
    let plain = read_up_to(&mut decoder, limit)?;
    decoder.into_inner().is_empty().then_some(plain)
}

fn read_up_to(decoder: &mut impl Read, limit: usize) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let beyond = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    decoder.take(beyond).read_to_end(&mut plain).ok()?;
    (plain.len() <= limit).then_some(plain)
}

/// RFC 7932: a strict state, whose window is at most 16 MiB.
fn brotli(body: &[u8], limit: usize) -> Option<Vec<u8>> {
    let alloc = StandardAlloc::default;
    let mut state = BrotliState::new_strict(alloc(), alloc(), alloc());
    let mut plain = Vec::new();
    let mut piece = vec![0; PIECE];
    let (mut unread, mut at, mut total) = (body.len(), 0, 0);
    loop {
        let (mut room, mut written) = (piece.len(), 0);
        let result = BrotliDecompressStream(
            &mut unread,
            &mut at,
            body,
            &mut room,
            &mut written,
            &mut piece,
            &mut total,
            &mut state,
        );
        plain.extend_from_slice(piece.get(..written)?);
        if plain.len() > limit {
            return None;
        }
        match result {
            BrotliResult::NeedsMoreOutput => {}
            BrotliResult::ResultSuccess => return (unread == 0).then_some(plain),
            BrotliResult::NeedsMoreInput | BrotliResult::ResultFailure => return None,
        }
    }
}

/// Frames and skippable frames, one after another (RFC 8878, section 3.1).
fn zstd(body: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut rest = body;
    let mut plain = Vec::new();
    while !rest.is_empty() {
        // A new one for each frame: a used one reserves the window that the next
        // frame claims to need.
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(ZSTD_WINDOW_MAX);
        match decoder.init(&mut rest) {
            Ok(()) => frame(&mut decoder, &mut rest, &mut plain, limit)?,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length,
                ..
            })) => rest = rest.get(usize::try_from(length).ok()?..)?,
            Err(_) => return None,
        }
    }
    Some(plain)
}

/// One block at a time, which is at most 128 KiB: no further past the limit than that.
fn frame(
    decoder: &mut FrameDecoder,
    rest: &mut &[u8],
    plain: &mut Vec<u8>,
    limit: usize,
) -> Option<()> {
    while !decoder.is_finished() {
        decoder.decode_blocks(&mut *rest, BlockDecodingStrategy::UptoBlocks(1)).ok()?;
        plain.extend(decoder.collect().unwrap_or_default());
        if plain.len() > limit {
            return None;
        }
    }
    Some(())
}

/// Nobody codes a body three times; each step may cost as much as the limit allows.
const CODINGS_MAX: usize = 2;

/// What is unpacked between two looks at the limit.
const PIECE: usize = 16 * 1024;

/// The window that RFC 9659, section 3, allows in a content coding.
const ZSTD_WINDOW_MAX: u64 = 8 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::exchange::tests::encoded;

    /// 100,000 times `x`.
    const BROTLI_BOMB: [u8; 14] = [91, 159, 134, 129, 95, 2, 47, 30, 11, 4, 178, 252, 2, 0];

    fn check(encoding: &str, body: &[u8], wanted: Option<&[u8]>) {
        assert_eq!(decode(Some(encoding), body, 1000).as_deref(), wanted, "{encoding}");
    }

    #[test]
    fn every_coding_is_undone() {
        check("", b"x", Some(b"x"));
        check(" identity ,, Identity", b"x", Some(b"x"));
        check("gzip", &encoded("gzip", b"x"), Some(b"x"));
        check(" X-GZip", &encoded("gzip", b"x"), Some(b"x"));
        check("deflate", &encoded("deflate", b"x"), Some(b"x"));
        check("deflate", &encoded("raw deflate", b"x"), Some(b"x"));
        check("zstd", &encoded("zstd", b"x"), Some(b"x"));
        check("br", b"\x8f\x02\x80hello\n\x03", Some(b"hello\n"));
        check("deflate, gzip", &encoded("gzip", &encoded("deflate", b"x")), Some(b"x"));
        check("gzip, gzip, gzip", b"", None);
        check("compress", b"x", None);
        assert!(matches!(decode(None, b"x", 0), Some(Cow::Borrowed(b"x"))));
    }

    #[test]
    fn several_members_and_frames_are_one_body() {
        let gzip = [encoded("gzip", b"a"), encoded("gzip", b"b")].concat();
        check("gzip", &gzip, Some(b"ab"));
        let skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec();
        let zstd = [encoded("zstd", b"a"), skippable, encoded("zstd", b"b")].concat();
        check("zstd", &zstd, Some(b"ab"));
    }

    #[test]
    fn what_is_cut_or_followed_by_something_is_broken() {
        let brotli = b"\x8f\x02\x80hello\n\x03".to_vec();
        let coded = |coding: &str| (coding.to_owned(), encoded(coding, b"hello, hello, hello"));
        let all = [coded("gzip"), coded("deflate"), coded("zstd"), ("br".to_owned(), brotli)];
        for (coding, body) in &all {
            check(coding, &body[..body.len() - 1], None);
            check(coding, &[body, b"!".as_slice()].concat(), None);
            check(coding, b"neither", None);
        }
    }

    #[test]
    fn a_body_is_decoded_up_to_the_limit() {
        for coding in ["gzip", "deflate", "zstd"] {
            for (length, is_read) in [(999, true), (1000, true), (1001, false), (1 << 20, false)] {
                let body = vec![b'x'; length];
                let wanted = is_read.then_some(body.as_slice());
                check(coding, &encoded(coding, &body), wanted);
            }
        }
        for (limit, is_read) in [(99_999, false), (100_000, true), (100_001, true)] {
            let decoded = decode(Some("br"), &BROTLI_BOMB, limit);
            assert_eq!(decoded.is_some_and(|body| body.len() == 100_000), is_read, "{limit}");
        }
    }

    #[test]
    fn a_zstd_block_never_unpacks_to_more_than_a_block_holds() {
        // One raw block of 8 bytes, then one with 100 matches of 65,539 bytes each.
        let mut bomb = b"\x28\xb5\x2f\xfd\x00\x58\x40\0\0abcdefgh".to_vec();
        let mut block = vec![0, 100, 0x54, 0, 0, 52];
        block.extend([0; 200]);
        block.push(1);
        let header = u32::try_from(block.len()).expect("a short block") << 3 | 0b101;
        bomb.extend_from_slice(&header.to_le_bytes()[..3]);
        bomb.extend(block);
        assert_eq!(decode(Some("zstd"), &bomb, 1 << 24), None);
    }

    #[test]
    fn a_zstd_window_has_a_limit() {
        // 8 MiB is exponent 13, and one eighth more is over.
        for (window, is_read) in [(13 << 3, true), ((13 << 3) + 1, false)] {
            let frame = [b"\x28\xb5\x2f\xfd\x00".as_slice(), &[window], b"\x09\0\0x"].concat();
            check("zstd", &frame, is_read.then_some(b"x".as_slice()));
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_a_decoder_panic(
            coding in prop_oneof![Just("gzip"), Just("deflate"), Just("br"), Just("zstd")],
            at in any::<proptest::sample::Index>(),
            byte in any::<u8>(),
            noise in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut body = encoded(coding, b"hello, hello, hello, hello, and then something else");
            let length = body.len();
            body[at.index(length)] = byte;
            for body in [body, noise] {
                let decoded = decode(Some(coding), &body, 1000);
                prop_assert!(decoded.is_none_or(|decoded| decoded.len() <= 1000));
            }
        }
    }
}

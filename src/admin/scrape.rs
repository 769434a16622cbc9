//! What a scraper is answered: in the format that it likes best, packed where it may be.

use std::io::Write as _;

use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use axum::response::{IntoResponse as _, Response};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::metrics::{Format, Metrics};

pub(super) fn answer(metrics: &Metrics, headers: &HeaderMap) -> Response {
    // A list may come in several fields (RFC 9110, section 5.3).
    let listed = |name| {
        let fields = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        fields.collect::<Vec<_>>().join(",")
    };
    let format = Format::wanted(&listed(ACCEPT));
    let fields = [(CONTENT_TYPE, format.content_type()), (VARY, "accept, accept-encoding")];
    let shown = metrics.text_as(format);
    if takes_gzip(&listed(ACCEPT_ENCODING))
        && let Ok(packed) = packed(&shown)
    {
        return (fields, [(CONTENT_ENCODING, "gzip")], packed).into_response();
    }
    (fields, shown).into_response()
}

/// Whether gzip is named, and not refused (RFC 9110, section 12.5.3).
fn takes_gzip(accepted: &str) -> bool {
    accepted.split(',').any(|each| {
        let (coding, parameter) = each.split_once(';').unwrap_or((each, "q=1"));
        let quality = parameter.trim().strip_prefix("q=").map(str::trim);
        let refused = quality.is_none_or(|quality| !quality.parse().is_ok_and(|q: f32| q > 0.0));
        coding.trim().eq_ignore_ascii_case("gzip") && !refused
    })
}

fn packed(text: &str) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes())?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn gzip_is_taken_by_whoever_says_so() {
        for (accepted, wanted) in [
            ("gzip", true),
            ("GZIP", true),
            ("br, gzip;q=0.5", true),
            ("gzip; q=1", true),
            ("deflate,gzip", true),
            ("identity", false),
            ("", false),
            ("gzip;q=0", false),
            ("gzip;q=0.000", false),
            ("gzip;q=nonsense", false),
            ("gzip;level=9", false),
            ("*", false),
        ] {
            assert_eq!(takes_gzip(accepted), wanted, "{accepted}");
        }
    }

    #[test]
    fn what_is_packed_is_the_same_text() {
        let text = "a\n".repeat(100_000);
        let packed = packed(&text).expect("into memory");
        assert!(packed.len() < text.len() / 10);
        let mut unpacked = String::new();
        flate2::read::GzDecoder::new(&*packed).read_to_string(&mut unpacked).expect("gzip");
        assert_eq!(unpacked, text);
    }
}

//! A URL as a span may show it: nothing that a query says, and not without end.

use http::uri::PathAndQuery;

use crate::exchange::Origin;

/// `url.full`: of a query the names alone, as the semantic conventions for HTTP spans want
/// secrets treated. Which values are none, nobody told us.
pub(super) fn full(origin: &Origin, target: &PathAndQuery) -> String {
    let mut url = format!("{origin}{}", target.path());
    if let Some(query) = target.query() {
        let mut sign = '?';
        for pair in query.split('&') {
            url.push(sign);
            sign = '&';
            match pair.split_once('=') {
                Some((name, _)) => {
                    url.push_str(name);
                    url.push_str("=REDACTED");
                }
                // What is no pair may be a value itself.
                None if pair.is_empty() => {}
                None => url.push_str("REDACTED"),
            }
        }
    }
    short(url)
}

/// `url.path`.
pub(super) fn path(target: &PathAndQuery) -> String {
    short(target.path().to_owned())
}

/// `server.address`.
pub(super) fn host(origin: &Origin) -> String {
    cut(origin.host.to_string(), HOST_MAX)
}

fn short(text: String) -> String {
    cut(text, LENGTH_MAX)
}

fn cut(mut text: String, max: usize) -> String {
    let end = (0..=max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.truncate(end.min(text.len()));
    text
}

/// As much as the ledger shows.
const LENGTH_MAX: usize = 2048;
/// No name that resolves is longer (RFC 1035, section 2.3.4); a client may write any.
const HOST_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_of_a_query_is_shown() {
        let origin = Origin::parse("https://api.test:8443").expect("an origin");
        for (target, wanted) in [
            ("/v1/jobs", "/v1/jobs"),
            ("/", "/"),
            ("/a?token=secret", "/a?token=REDACTED"),
            ("/a?x=1&sig=a=b&y=", "/a?x=REDACTED&sig=REDACTED&y=REDACTED"),
            ("/a?secret", "/a?REDACTED"),
            ("/a?", "/a?"),
            ("/a?&b=2", "/a?&b=REDACTED"),
        ] {
            let target: PathAndQuery = target.parse().expect("a target");
            assert_eq!(full(&origin, &target), format!("https://api.test:8443{wanted}"));
        }
    }

    #[test]
    fn what_is_long_is_cut() {
        let origin = Origin::parse("https://api.test").expect("an origin");
        for (long, wanted) in [(2047, 2047), (2048, 2048), (2049, 2048)] {
            let target = format!("/{}", "a".repeat(long - 1)).parse().expect("a target");
            assert_eq!(path(&target).len(), wanted);
            assert_eq!(full(&origin, &target).len(), 2048, "the origin is a part of it");
        }
        for (long, wanted) in [(254, 254), (255, 255), (256, 255)] {
            let origin = Origin::parse(&format!("https://{}", "a".repeat(long)));
            assert_eq!(host(&origin.expect("an origin")).len(), wanted);
        }
    }
}

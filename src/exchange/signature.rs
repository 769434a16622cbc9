//! Signatures that a request carries: what may not be changed, and how long they hold.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{AUTHORIZATION, DATE};

use crate::exchange::query;

/// A request is signed: no header and no byte of its body may be added or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed {
    /// How old the signature is; zero where it does not say, or is from the future.
    pub age: Duration,
    /// It holds a nonce, so an upstream that saw it once refuses it the second time.
    pub single_use: bool,
}

/// How a request is signed, if it is.
///
/// Knows AWS and Google signatures, in the header or the URL (`AWS4-…`,
/// `X-Amz-Signature`), HTTP message signatures (RFC 9421, and the draft before
/// it), `Tl-Signature`, OAuth 1.0 (RFC 5849) and `DPoP` (RFC 9449). Where there is
/// more than one, the oldest counts.
pub fn signature(headers: &HeaderMap, query: Option<&str>, now: SystemTime) -> Option<Signed> {
    let found = [in_url(query), in_authorization(headers), in_message(headers), in_token(headers)];
    let oldest = found.into_iter().flatten().reduce(|one, other| Stamp {
        made: one.made.into_iter().chain(other.made).min(),
        single_use: one.single_use || other.single_use,
    })?;
    let age = oldest.made.and_then(|made| now.duration_since(made).ok()).unwrap_or_default();
    Some(Signed { age, single_use: oldest.single_use })
}

/// Whether a digest of the body goes with it, so that no byte of it may change.
///
/// `Content-Digest` and `Repr-Digest` (RFC 9530), and what came before them.
pub fn body_is_bound(headers: &HeaderMap) -> bool {
    ["content-digest", "repr-digest", "digest", "content-md5"]
        .into_iter()
        .any(|name| headers.contains_key(name))
}

/// What one signature says of itself.
struct Stamp {
    made: Option<SystemTime>,
    single_use: bool,
}

fn in_url(query: Option<&str>) -> Option<Stamp> {
    let value = |name| query::values(query, name).next();
    value("X-Amz-Signature").or_else(|| value("X-Goog-Signature"))?;
    let date = value("X-Amz-Date").or_else(|| value("X-Goog-Date"));
    let made = date.and_then(|date| basic_time(std::str::from_utf8(&date).ok()?));
    Some(Stamp { made, single_use: false })
}

fn in_authorization(headers: &HeaderMap) -> Option<Stamp> {
    let mut lines = headers.get_all(AUTHORIZATION).iter().filter_map(|line| line.to_str().ok());
    lines.find_map(|line| of_scheme(line, headers))
}

fn of_scheme(line: &str, headers: &HeaderMap) -> Option<Stamp> {
    let (scheme, rest) = line.split_once(' ')?;
    let cloud = scheme.starts_with("AWS4-") || scheme.starts_with("GOOG4-");
    if cloud {
        let date = text(headers, "x-amz-date").or_else(|| text(headers, "x-goog-date"));
        let made = date.and_then(basic_time).or_else(|| sent(headers));
        return Some(Stamp { made, single_use: false });
    }
    if scheme.eq_ignore_ascii_case("signature") {
        let made = seconds(rest, "created=").or_else(|| sent(headers));
        return Some(Stamp { made, single_use: false });
    }
    // `OAuth TOKEN`, as some use it, signs nothing.
    let signed = scheme.eq_ignore_ascii_case("oauth") && rest.contains("oauth_signature=");
    signed.then(|| Stamp { made: seconds(rest, "oauth_timestamp="), single_use: true })
}

fn in_message(headers: &HeaderMap) -> Option<Stamp> {
    let input = headers.get("signature-input").or_else(|| headers.get("signature"))?;
    let input = input.to_str().unwrap_or_default();
    let nonce = words(input).any(|word| word.starts_with("nonce="));
    Some(Stamp { made: seconds(input, "created="), single_use: nonce })
}

fn in_token(headers: &HeaderMap) -> Option<Stamp> {
    let proof = headers.get("dpop");
    if proof.is_none() && !headers.contains_key("tl-signature") {
        return None;
    }
    Some(Stamp { made: None, single_use: proof.is_some() })
}

/// The earliest of the times called `name`, as in `;created=1618884473`.
fn seconds(parameters: &str, name: &str) -> Option<SystemTime> {
    let written = words(parameters).filter_map(|word| word.strip_prefix(name));
    let earliest = written.filter_map(|text| text.trim_matches('"').parse().ok()).min()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(earliest))
}

fn words(parameters: &str) -> impl Iterator<Item = &str> {
    parameters.split([';', ',', ' ']).filter(|word| !word.is_empty())
}

fn sent(headers: &HeaderMap) -> Option<SystemTime> {
    text(headers, DATE.as_str()).and_then(|date| httpdate::parse_http_date(date).ok())
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// `20260102T030405Z`, as AWS and Google write it.
fn basic_time(written: &str) -> Option<SystemTime> {
    let (day, time) = written.strip_suffix('Z')?.split_once('T')?;
    if (day.len(), time.len()) != (8, 6) {
        return None;
    }
    let part = |text: &str, from: usize, to: usize| -> Option<u64> {
        let digits = text.get(from..to).filter(|part| part.bytes().all(|b| b.is_ascii_digit()));
        digits?.parse().ok()
    };
    let (year, month, day) = (part(day, 0, 4)?, part(day, 4, 6)?, part(day, 6, 8)?);
    let (hour, minute, second) = (part(time, 0, 2)?, part(time, 2, 4)?, part(time, 4, 6)?);
    let in_range = year >= 1970
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (hour, minute, second) < (24, 0, 0)
        && minute < 60
        && second < 61;
    let days = in_range.then(|| days_to(year, month) + day - 1)?;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Days from 1970 to the first of a month.
fn days_to(year: u64, month: u64) -> u64 {
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    let is_leap = leap_days(year) > leap_days(year - 1);
    let days = [31, if is_leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30];
    let in_years = (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969);
    in_years + days.iter().zip(1..month).map(|(days, _)| days).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    const NOW: u64 = 1_767_323_105; // 2026-01-02T03:05:05Z

    fn check(lines: &[(&'static str, &'static str)], query: Option<&str>) -> Option<(u64, bool)> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
        signature(&headers, query, now).map(|signed| (signed.age.as_secs(), signed.single_use))
    }

    #[test]
    fn a_signature_is_found_and_its_age_read() {
        let aws = ("authorization", "AWS4-HMAC-SHA256 Credential=A/b, Signature=c");
        let table: &[(&[_], Option<&str>, _)] = &[
            (&[], None, None),
            (&[("authorization", "Bearer x"), ("content-digest", "x")], Some("a=1"), None),
            (&[("authorization", "OAuth token")], None, None),
            (&[aws, ("x-amz-date", "20260102T030405Z")], None, Some((60, false))),
            (&[aws, ("x-amz-date", "20260102T040405Z")], None, Some((0, false))),
            (&[aws, ("x-amz-date", "2026")], None, Some((0, false))),
            (&[aws, ("date", "Fri, 02 Jan 2026 03:04:35 GMT")], None, Some((30, false))),
            (&[], Some("X-Amz-Signature=1&X-Amz-Date=20260101T030505Z"), Some((86_400, false))),
            (&[("tl-signature", "x")], None, Some((0, false))),
            (&[("dpop", "x")], None, Some((0, true))),
            (
                &[("signature-input", r#"a=("@method");created=1767323095;keyid="k""#)],
                None,
                Some((10, false)),
            ),
            (
                &[(
                    "signature-input",
                    "a=();created=1767323095, b=();created=1767323005;nonce=\"n\"",
                )],
                None,
                Some((100, true)),
            ),
            (
                &[("authorization", r#"Signature keyId="k",created=1767323104,signature="s""#)],
                None,
                Some((1, false)),
            ),
            (
                &[("authorization", r#"OAuth oauth_timestamp="1767323103", oauth_signature="s""#)],
                None,
                Some((2, true)),
            ),
        ];
        for (lines, query, wanted) in table {
            assert_eq!(check(lines, *query), *wanted, "{lines:?} {query:?}");
        }
    }

    #[test]
    fn a_basic_time_is_read_like_an_http_date() {
        for (basic, http) in [
            ("19700101T000000Z", "Thu, 01 Jan 1970 00:00:00 GMT"),
            ("20000229T235959Z", "Tue, 29 Feb 2000 23:59:59 GMT"),
            ("20240301T000000Z", "Fri, 01 Mar 2024 00:00:00 GMT"),
            ("20251231T120000Z", "Wed, 31 Dec 2025 12:00:00 GMT"),
            ("21000301T000000Z", "Mon, 01 Mar 2100 00:00:00 GMT"),
        ] {
            assert_eq!(basic_time(basic), httpdate::parse_http_date(http).ok(), "{basic}");
        }
        for bad in
            ["", "20260102T0304Z", "20261302T030405Z", "20260102T250000Z", "+0260102T030405Z"]
        {
            assert_eq!(basic_time(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_digest_binds_the_body() {
        let headers = |name: &'static str| {
            HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static("x"))])
        };
        for name in ["digest", "content-digest", "repr-digest", "content-md5"] {
            assert!(body_is_bound(&headers(name)), "{name}");
        }
        assert!(!body_is_bound(&headers("content-type")));
    }
}

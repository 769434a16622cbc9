//! Whether a download that broke off may go on where it stopped, and with which answer.
//!
//! Bytes of two answers make one body only where the upstream vouches that both are of
//! the same representation: by a strong entity tag (RFC 9110, section 8.8.1), before and
//! after. Without that a resumed download would be a guess, and a guess corrupts files. The
//! rules are those of `semantics.md`, B8.

use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::exchange::{Response, headers};

/// What it takes to go on with a download, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumption {
    /// Strong, as it came.
    etag: HeaderValue,
    /// How the bytes are coded: a range is one of coded bytes.
    codings: Vec<HeaderValue>,
    /// The byte that is to come next.
    next: u64,
    /// One past the last byte that is to come, where that is known.
    end: Option<u64>,
    /// The length of the whole representation, where it is known.
    total: Option<u64>,
}

/// Why an answer cannot be the rest of a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The upstream says that another representation stands there by now.
    Changed,
    /// It is not the range that was asked for, or does not prove to be.
    Refused,
}

/// One `Content-Range`: from `first` up to `end`, which is one past its last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    first: u64,
    end: u64,
    total: Option<u64>,
}

/// What it takes to go on with the download that `response` begins, should it break
/// off; `None` where nothing could prove that the rest belongs to it.
///
/// `asked` holds the fields of the request that it answers: a 200, or a 206 to a single
/// range.
pub fn may_resume(asked: &HeaderMap, response: &Response) -> Option<Resumption> {
    let headers = &response.headers;
    let etag = strong_etag(headers)?;
    if !serves_ranges(headers) || is_multipart(headers) {
        return None;
    }
    let length = response.body.length();
    let (next, end, total) = match response.status {
        StatusCode::OK => (0, length, length),
        StatusCode::PARTIAL_CONTENT if asks_one_range(asked) => {
            let span = span(headers)?;
            (span.first, Some(span.end), span.total)
        }
        _ => return None,
    };
    // An answer that contradicts itself proves nothing.
    if length.is_some_and(|length| end != next.checked_add(length)) {
        return None;
    }
    Some(Resumption { etag: etag.clone(), codings: codings(headers), next, end, total })
}

impl Resumption {
    /// Notes that so many bytes were handed on.
    pub fn advance(&mut self, bytes: usize) {
        self.next = self.next.saturating_add(bytes as u64);
    }

    /// How many bytes are still to come, where that is known.
    pub fn left(&self) -> Option<u64> {
        self.end.map(|end| end.saturating_sub(self.next))
    }

    /// Makes the fields of a request ask for the rest, if it is still the same: RFC 9110,
    /// section 13.1.5.
    ///
    /// The client's own conditions spoke about the whole answer, which it has begun to
    /// get: `If-None-Match` would be met by it. `If-Match` holds as it did, and stays.
    pub fn ask(&self, headers: &mut HeaderMap) {
        let range = match self.end.and_then(|end| end.checked_sub(1)) {
            Some(last) => format!("bytes={}-{last}", self.next),
            None => format!("bytes={}-", self.next),
        };
        if let Ok(range) = HeaderValue::try_from(range) {
            headers.insert(RANGE, range);
        }
        headers.insert(IF_RANGE, self.etag.clone());
        headers.remove(IF_NONE_MATCH);
        headers.remove(IF_MODIFIED_SINCE);
    }

    /// Whether `response` is the rest that was asked for, to the byte.
    ///
    /// # Errors
    ///
    /// [`Refusal`] where it is anything else: nothing of it may reach the client.
    pub fn accepts(&self, response: &Response) -> Result<Span, Refusal> {
        let headers = &response.headers;
        let same = match strong_etag(headers) {
            Some(etag) if *etag == self.etag => true,
            Some(_another) => return Err(Refusal::Changed),
            None => false,
        };
        match response.status {
            StatusCode::PARTIAL_CONTENT if same => self.fits(response).ok_or(Refusal::Refused),
            // `If-Range` did not hold; under the same tag the range was only not served.
            StatusCode::OK if !same => Err(Refusal::Changed),
            StatusCode::PRECONDITION_FAILED => Err(Refusal::Changed),
            _ => Err(Refusal::Refused),
        }
    }

    /// Goes by what an accepted answer says of the whole.
    pub fn learn(&mut self, span: Span) {
        self.end = Some(span.end);
        self.total = self.total.or(span.total);
    }

    fn fits(&self, response: &Response) -> Option<Span> {
        let headers = &response.headers;
        let span = span(headers)?;
        let same_total = match (self.total, span.total) {
            (Some(known), Some(told)) => known == told,
            (Some(_), None) => true,
            // Where nobody said where it ends, this answer has to, and to go up to there.
            (None, total) => self.end.is_some() || total == Some(span.end),
        };
        let length = span.end - span.first; // a span ends after it begins
        let fits = span.first == self.next
            && same_total
            && self.end.is_none_or(|end| end == span.end)
            && response.body.length().is_none_or(|told| told == length)
            && codings(headers) == self.codings
            && !is_multipart(headers);
        fits.then_some(span)
    }
}

/// The one entity tag, where it is a strong one: `"` stands at both ends and nowhere else.
fn strong_etag(headers: &HeaderMap) -> Option<&HeaderValue> {
    let etag = only(headers, &ETAG)?;
    let inner = etag.as_bytes().strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let is_etagc = |byte: &u8| *byte > b' ' && *byte != b'"' && *byte != 0x7f;
    inner.iter().all(is_etagc).then_some(etag)
}

/// `Accept-Ranges` names bytes, or is not there: then asking costs one answer.
fn serves_ranges(headers: &HeaderMap) -> bool {
    !headers.contains_key(ACCEPT_RANGES)
        || headers::tokens(headers, &ACCEPT_RANGES).any(|unit| unit == "bytes")
}

fn asks_one_range(headers: &HeaderMap) -> bool {
    let asked = only(headers, &RANGE).and_then(|value| value.to_str().ok());
    asked.is_some_and(|asked| !asked.contains(','))
}

fn is_multipart(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let prefix = b"multipart/byteranges";
    kind.get(..prefix.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(prefix))
}

fn codings(headers: &HeaderMap) -> Vec<HeaderValue> {
    headers.get_all(CONTENT_ENCODING).iter().cloned().collect()
}

/// The one `Content-Range`: `bytes 100-199/1000`, or `/*`.
fn span(headers: &HeaderMap) -> Option<Span> {
    let text = only(headers, &CONTENT_RANGE)?.to_str().ok()?;
    let (unit, rest) = text.split_once(' ')?;
    let (range, total) = rest.trim_start().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, end) = (number(first)?, number(last)?.checked_add(1)?);
    let total = if total == "*" { None } else { Some(number(total)?) };
    let sound =
        unit.eq_ignore_ascii_case("bytes") && first < end && total.is_none_or(|total| end <= total);
    sound.then_some(Span { first, end, total })
}

/// Digits and nothing else; `parse` alone would take a sign.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests;

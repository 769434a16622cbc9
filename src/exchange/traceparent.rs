//! Which trace a request belongs to, as its fields say: W3C Trace Context.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The name of a trace; never all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

/// The name of a span within its trace; never all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId([u8; 8]);

/// What a `traceparent` says: a trace, the span in it that sent the request, and flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace: TraceId,
    /// The span whose children are made on receipt.
    pub span: SpanId,
    flags: u8,
}

impl TraceContext {
    /// A context without any flag.
    pub fn new(trace: TraceId, span: SpanId) -> Self {
        Self { trace, span, flags: 0 }
    }

    /// What a request's fields say; `None` where there is no valid `traceparent`, or more
    /// than one: a new trace begins then (section 4.3).
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut fields = headers.get_all(&TRACEPARENT).iter();
        let only = fields.next()?;
        if fields.next().is_some() {
            return None;
        }
        Self::parse(only.as_bytes())
    }

    /// Reads a `traceparent` (section 3.2). Of a later version than 00, which may say more,
    /// is read what this version knows; 255 is no version.
    pub fn parse(written: &[u8]) -> Option<Self> {
        let (head, rest) = written.split_first_chunk::<LENGTH>()?;
        let mut parts = head.split(|byte| *byte == b'-');
        let version = hex::<1>(parts.next()?)?;
        let whole = match version {
            [0] => rest.is_empty(),
            [255] => false,
            _ => rest.first().is_none_or(|byte| *byte == b'-'),
        };
        let trace = TraceId::new(hex(parts.next()?)?)?;
        let span = SpanId::new(hex(parts.next()?)?)?;
        let [flags] = hex::<1>(parts.next()?)?;
        (whole && parts.next().is_none()).then_some(Self { trace, span, flags: flags & KNOWN })
    }

    /// The same trace as another span of it hands it on.
    #[must_use]
    pub fn with_span(self, span: SpanId) -> Self {
        Self { span, ..self }
    }

    /// The same, sampled or not.
    #[must_use]
    pub fn with_sampled(self, sampled: Sampled) -> Self {
        let flags = match sampled {
            Sampled::Yes => self.flags | SAMPLED,
            Sampled::No => self.flags & !SAMPLED,
        };
        Self { flags, ..self }
    }

    /// Whether the caller may have recorded it.
    pub fn sampled(self) -> Sampled {
        if self.flags & SAMPLED == 0 { Sampled::No } else { Sampled::Yes }
    }

    /// The flags that this version knows.
    pub fn flags(self) -> u8 {
        self.flags
    }

    /// The field, as version 00 writes it.
    pub fn header_value(self) -> HeaderValue {
        let text = self.to_string();
        HeaderValue::try_from(text).unwrap_or_else(|_never| HeaderValue::from_static(""))
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, self.flags)
    }
}

/// Whether a trace is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampled {
    /// It is.
    Yes,
    /// It is not.
    No,
}

impl TraceId {
    /// `None` for zeros, which name no trace.
    pub fn new(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    /// Its bytes.
    pub fn bytes(self) -> [u8; 16] {
        self.0
    }
}

impl SpanId {
    /// `None` for zeros, which name no span.
    pub fn new(bytes: [u8; 8]) -> Option<Self> {
        (bytes != [0; 8]).then_some(Self(bytes))
    }

    /// Its bytes.
    pub fn bytes(self) -> [u8; 8] {
        self.0
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

/// So many bytes of so many pairs of digits; upper case is no digit here (section 3.2).
fn hex<const BYTES: usize>(written: &[u8]) -> Option<[u8; BYTES]> {
    let (pairs, []) = written.as_chunks::<2>() else { return None };
    let mut bytes = [0; BYTES];
    if pairs.len() != BYTES {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

fn digit(written: u8) -> Option<u8> {
    match written {
        b'0'..=b'9' => Some(written - b'0'),
        b'a'..=b'f' => Some(written - b'a' + 10),
        _ => None,
    }
}

/// The field of version 00; a later one begins with as many bytes.
const LENGTH: usize = 55;
const SAMPLED: u8 = 1;
/// Sampled, and Level 2's random; what else there is must be sent as zero (section 3.2.2.5).
const KNOWN: u8 = SAMPLED | 2;

/// Where a request says which trace it belongs to.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What tracing systems say of that trace to each other.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-12345678901234567890123456789012-1234567890123456-01";

    /// As the tests of the W3C working group have them.
    #[test]
    fn a_traceparent_is_read_by_the_rules_of_its_version() {
        let ids = "12345678901234567890123456789012-1234567890123456";
        let same = Some(GOOD.to_owned());
        for (written, wanted) in [
            (GOOD.to_owned(), same.clone()),
            (format!("00-{ids}-00"), Some(format!("00-{ids}-00"))),
            (format!("00-{ids}-03"), Some(format!("00-{ids}-03"))),
            (format!("00-{ids}-ff"), Some(format!("00-{ids}-03"))),
            (format!("00-{ids}-04"), Some(format!("00-{ids}-00"))),
            // A later version.
            (format!("cc-{ids}-01"), same.clone()),
            (format!("cc-{ids}-01-what-the-future-will-be-like"), same.clone()),
            (format!("fe-{ids}-01-"), same),
            (format!("cc-{ids}-01.what-the-future-will-not-be-like"), None),
            (format!("cc-{ids}-011"), None),
            (format!("ff-{ids}-01"), None),
            (format!("ff-{ids}-01-what"), None),
            // Too much, too little.
            (format!("00-{ids}-01-"), None),
            (format!("00-{ids}-01-extra"), None),
            (format!("00-{ids}-011"), None),
            (format!("00-{ids}-1"), None),
            (format!("00-{ids}"), None),
            (format!("0-{ids}-01"), None),
            (format!("000-{ids}-01"), None),
            (String::new(), None),
            // No digits.
            (format!(".0-{ids}-01"), None),
            (format!("0.-{ids}-01"), None),
            (format!("00-{ids}-.0"), None),
            (format!("00-{ids}-0."), None),
            (format!("0A-{ids}-01"), None),
            ("00-.2345678901234567890123456789012-1234567890123456-01".to_owned(), None),
            ("00-1234567890123456789012345678901.-1234567890123456-01".to_owned(), None),
            ("00-12345678901234567890123456789012-.234567890123456-01".to_owned(), None),
            ("00-12345678901234567890123456789012-123456789012345.-01".to_owned(), None),
            ("00-ABCDEF78901234567890123456789012-1234567890123456-01".to_owned(), None),
            ("00-12345678901234567890123456789012-ABCDEF7890123456-01".to_owned(), None),
            // Zeros, and ids of other lengths.
            ("00-00000000000000000000000000000000-1234567890123456-01".to_owned(), None),
            ("00-12345678901234567890123456789012-0000000000000000-01".to_owned(), None),
            ("00-1234567890123456789012345678901-1234567890123456-001".to_owned(), None),
            ("00-123456789012345678901234567890123-123456789012345-01".to_owned(), None),
            ("00_12345678901234567890123456789012_1234567890123456_01".to_owned(), None),
            (format!(" 0-{ids}-01"), None),
        ] {
            let read = TraceContext::parse(written.as_bytes());
            assert_eq!(read.map(|read| read.to_string()), wanted, "{written}");
        }
    }

    #[test]
    fn two_fields_are_none() {
        let mut headers = HeaderMap::new();
        assert_eq!(TraceContext::of(&headers), None);
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        let read = TraceContext::of(&headers).expect("one");
        assert_eq!(read.header_value(), GOOD);
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert_eq!(TraceContext::of(&headers), None);
    }

    #[test]
    fn another_span_hands_on_the_trace_and_what_was_decided() {
        let read = TraceContext::parse(GOOD.as_bytes()).expect("valid");
        let span = SpanId::new([0xab; 8]).expect("no zeros");
        let handed_on = read.with_span(span).with_sampled(Sampled::No);
        let wanted = "00-12345678901234567890123456789012-abababababababab-00";
        assert_eq!((handed_on.to_string().as_str(), handed_on.sampled()), (wanted, Sampled::No));
        assert_eq!(handed_on.with_sampled(Sampled::Yes).with_span(read.span), read);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(trace: [u8; 16], span: [u8; 8], flags in 0u8..=3) {
            let (Some(trace), Some(span)) = (TraceId::new(trace), SpanId::new(span)) else {
                return Ok(());
            };
            let context = TraceContext { trace, span, flags };
            let field = context.header_value();
            prop_assert_eq!(TraceContext::parse(field.as_bytes()), Some(context));
            let later = context.to_string().replacen("00-", "01-", 1) + "-more";
            prop_assert_eq!(TraceContext::parse(later.as_bytes()), Some(context));
        }

        #[test]
        fn nothing_that_is_sent_is_taken_for_another_trace(written: Vec<u8>, at in 0usize..55, byte: u8) {
            prop_assert_eq!(TraceContext::parse(&written), None);
            let mut damaged = GOOD.as_bytes().to_vec();
            damaged[at] = byte;
            if let Some(read) = TraceContext::parse(&damaged) {
                // What is read is what is written there, but for a version and flags of later.
                let again = read.to_string();
                prop_assert_eq!(&again.as_bytes()[3..52], &damaged[3..52]);
            }
        }
    }
}

//! Proves that a body was signed with the secret that was agreed: HMAC-SHA256 (RFC 2104).

use std::fmt;
use std::time::Duration;

use aws_lc_rs::{constant_time, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName};

/// Where a signature stands, how it is written, and what it is made with.
#[derive(Clone, Debug)]
pub struct Signature {
    /// The field that it stands in.
    pub header: HeaderName,
    /// What it is made with.
    pub secret: Secret,
    /// How its bytes are written.
    pub format: Format,
    /// What stands before them: `sha256=`.
    pub prefix: String,
    /// What it covers.
    pub signed: Signed,
}

/// What a signature covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signed {
    /// The raw body.
    Body,
    /// The time of signing, a dot, and the raw body. The field is `t=SECONDS,v1=SIGNATURE`,
    /// with [`Signature::prefix`] in place of `v1=`.
    Timestamped {
        /// How far that time may be from ours: a delivery that somebody recorded is no use later.
        tolerance: Duration,
    },
}

/// How the bytes of a signature are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As hexadecimal digits.
    Hex,
    /// In base64 with its padding.
    Base64,
}

/// What a provider signs with; it is shown nowhere.
#[derive(Clone)]
pub struct Secret(hmac::Key);

impl Secret {
    /// The secret that these bytes are.
    pub fn new(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Why a body proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unproved {
    /// It is not signed with the secret.
    Unsigned,
    /// It is, but at another time than now.
    Untimely,
}

impl Signature {
    /// Whether a body carries its signature, at `now`, in seconds since 1970.
    ///
    /// A field may come more than once, and hold several parted by commas, as while a
    /// secret is changed: one that is right is enough. The comparison takes the same time
    /// wherever it fails.
    ///
    /// # Errors
    ///
    /// Says why nothing is proved.
    pub fn verify(&self, headers: &HeaderMap, body: &[u8], now: i64) -> Result<(), Unproved> {
        let mut values =
            headers.get_all(&self.header).iter().filter_map(|value| value.to_str().ok());
        match self.signed {
            Signed::Body => {
                let mut tags = values.flat_map(|value| value.split(',')).take(TAGS_MAX);
                let good = tags.any(|tag| self.tags(tag.trim(), &[body]));
                good.then_some(()).ok_or(Unproved::Unsigned)
            }
            Signed::Timestamped { tolerance } => {
                let stamp = values.find_map(|value| self.stamp(value, body));
                let stamp = stamp.ok_or(Unproved::Unsigned)?;
                let off = now.abs_diff(stamp);
                (off <= tolerance.as_secs()).then_some(()).ok_or(Unproved::Untimely)
            }
        }
    }

    /// The time that stands in a value, and is signed with the body.
    fn stamp(&self, value: &str, body: &[u8]) -> Option<i64> {
        let mut stamps = value.split(',').filter_map(|part| part.trim().strip_prefix("t="));
        let (stamp, another) = (stamps.next()?, stamps.next());
        if another.is_some() || !stamp.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let tags = value.split(',').map(str::trim).filter(|part| part.starts_with(&self.prefix));
        let mut tags = tags.take(TAGS_MAX);
        let good = tags.any(|tag| self.tags(tag, &[stamp.as_bytes(), b".", body]));
        good.then(|| stamp.parse().ok()).flatten()
    }

    /// Whether this is the signature of these, one after the other.
    fn tags(&self, tag: &str, signed: &[&[u8]]) -> bool {
        let Some(tag) = tag.strip_prefix(&self.prefix).and_then(|tag| self.bytes(tag)) else {
            return false;
        };
        let mut context = hmac::Context::with_key(&self.secret.0);
        for part in signed {
            context.update(part);
        }
        constant_time::verify_slices_are_equal(context.sign().as_ref(), &tag).is_ok()
    }

    fn bytes(&self, text: &str) -> Option<Vec<u8>> {
        match self.format {
            Format::Hex => hex(text),
            Format::Base64 => STANDARD.decode(text).ok(),
        }
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || text.len() > HEX_MAX {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    text.as_bytes().chunks(2).map(pair).collect()
}

/// Two secrets in force at one time are the most that providers send signatures of.
const TAGS_MAX: usize = 4;
/// SHA-256 has 32 bytes; what is longer is none.
const HEX_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn signature(secret: &[u8], format: Format, prefix: &str) -> Signature {
        let header = HeaderName::from_static("x-signature");
        let (secret, prefix) = (Secret::new(secret), prefix.to_owned());
        Signature { header, secret, format, prefix, signed: Signed::Body }
    }

    fn verifies(signature: &Signature, values: &[&str], body: &[u8]) -> bool {
        verified(signature, values, body, 0).is_ok()
    }

    fn verified(
        signature: &Signature,
        values: &[&str],
        body: &[u8],
        now: i64,
    ) -> Result<(), Unproved> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("x-signature", HeaderValue::from_str(value).expect("a value"));
        }
        signature.verify(&headers, body, now)
    }

    /// RFC 4231, sections 4.2 to 4.8 but for 4.6, whose output is cut short.
    #[test]
    fn what_rfc_4231_signs_is_signed() {
        let counted: Vec<u8> = (1..=25).collect();
        let long = "This is a test using a larger than block-size key and a larger than \
                    block-size data. The key needs to be hashed before being used by the HMAC \
                    algorithm.";
        for (key, body, tag) in [
            (
                &[0x0b; 20][..],
                &b"Hi There"[..],
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                &[0xaa; 20],
                &[0xdd; 50],
                "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
            ),
            (
                &counted,
                &[0xcd; 50],
                "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
            ),
            (
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
            (
                &[0xaa; 131],
                long.as_bytes(),
                "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
            ),
        ] {
            let plain = signature(key, Format::Hex, "");
            assert!(verifies(&plain, &[tag], body), "{tag}");
            assert!(verifies(&plain, &[&tag.to_uppercase()], body));
            let base64 = STANDARD.encode(hex(tag).expect("digits"));
            assert!(verifies(&signature(key, Format::Base64, ""), &[&base64], body));
            let other = body.split_last().map_or(&b"x"[..], |(_, rest)| rest);
            assert!(!verifies(&plain, &[tag], other), "a byte is missing");
            assert!(!verifies(&signature(b"another", Format::Hex, ""), &[tag], body));
        }
    }

    #[test]
    fn what_is_no_signature_proves_nothing() {
        let tag = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let body = b"what do ya want for nothing?";
        let prefixed = format!("sha256={tag}");
        let both = format!("sha256={}, {prefixed}", "0".repeat(64));
        let many = format!("{}{prefixed}", "sha256=00,".repeat(TAGS_MAX));
        let signature = signature(b"Jefe", Format::Hex, "sha256=");
        for (values, proves) in [
            (&[prefixed.as_str()][..], true),
            (&[both.as_str()], true),
            (&["sha256=00", prefixed.as_str()], true),
            (&[many.as_str()], false),
            (&[], false),
            (&[""], false),
            (&["sha256="], false),
            (&[tag], false),
            (&["SHA256=5bdc"], false),
            (&["sha256=5bdcc146bf60754e6a042426089575c7"], false),
            (&["sha256=5"], false),
            (&["sha256=zz"], false),
            (&["sha256=+5"], false),
        ] {
            assert_eq!(verifies(&signature, values, body), proves, "{values:?}");
        }
        assert_eq!(format!("{:?}", signature.secret), "Secret");
    }

    fn timestamped(tolerance: u64) -> Signature {
        let signed = Signed::Timestamped { tolerance: Duration::from_secs(tolerance) };
        Signature { signed, ..signature(b"whsec_5f2c", Format::Hex, "v1=") }
    }

    /// Of `1717243200.{"request_id":"req-1"}`, with the secret above; and with `whsec_old`.
    const GOOD: &str = "v1=cfc9a2ee5ec5f69338c84d0e5a6a35c46e6a009212c46724ad3d475324dc428f";
    const OLD: &str = "v1=063c090ad654c487e910b09516eee8d4ec8158a18cb5929565f500ad37484a28";
    const EVENT: &[u8] = br#"{"request_id":"req-1"}"#;
    const SIGNED_AT: i64 = 1_717_243_200;

    #[test]
    fn a_time_is_signed_with_the_body() {
        let bare = GOOD.trim_start_matches("v1=");
        let many = format!("t=1717243200,{}{GOOD}", "v1=00,".repeat(TAGS_MAX));
        let just = format!("t=1717243200,{}{GOOD}", "v1=00,".repeat(TAGS_MAX - 1));
        for (values, proves) in [
            (&[format!("t=1717243200,{GOOD}")][..], true),
            (&[format!("t=1717243200, {GOOD}")], true),
            (&[format!("{GOOD},t=1717243200")], true),
            (&[format!("t=1717243200,v0={bare},{GOOD}")], true),
            // While a secret is changed, both sign.
            (&[format!("t=1717243200,{OLD},{GOOD}")], true),
            (&["t=1,v1=00".to_owned(), format!("t=1717243200,{GOOD}")], true),
            (&[just], true),
            (&[many], false),
            (&[format!("t=1717243200,{OLD}")], false),
            (&[format!("t=1717243200,{bare}")], false),
            (&[format!("t=1717243200,v0={bare}")], false),
            (&[GOOD.to_owned()], false),
            (&[format!("t=,{GOOD}")], false),
            (&["t=1717243200".to_owned()], false),
            // The time of one field says nothing of another's signature.
            (&["t=1717243200".to_owned(), GOOD.to_owned()], false),
            // Which of two would count?
            (&[format!("t=1717243200,t=1717243200,{GOOD}")], false),
            (&[format!("t=1717243201,{GOOD}")], false),
            (&[format!("t=01717243200,{GOOD}")], false),
            (&[format!("t=+1717243200,{GOOD}")], false),
            (&[format!("t=1717243200.0,{GOOD}")], false),
            (&[String::new()], false),
            (&[], false),
        ] {
            let values: Vec<_> = values.iter().map(String::as_str).collect();
            let told = verified(&timestamped(300), &values, EVENT, SIGNED_AT);
            let wanted = if proves { Ok(()) } else { Err(Unproved::Unsigned) };
            assert_eq!(told, wanted, "{values:?}");
        }
        let good = format!("t=1717243200,{GOOD}");
        let told = verified(&timestamped(300), &[&good], b"{}", SIGNED_AT);
        assert_eq!(told, Err(Unproved::Unsigned), "another body");
    }

    #[test]
    fn a_time_that_is_too_far_from_now_proves_nothing() {
        let good = format!("t=1717243200,{GOOD}");
        for (tolerance, off, wanted) in [
            (300, 0, Ok(())),
            (300, 299, Ok(())),
            (300, 300, Ok(())),
            (300, 301, Err(Unproved::Untimely)),
            // A clock may be behind, by no more.
            (300, -300, Ok(())),
            (300, -301, Err(Unproved::Untimely)),
            (1, 1, Ok(())),
            (1, 2, Err(Unproved::Untimely)),
        ] {
            let told = verified(&timestamped(tolerance), &[&good], EVENT, SIGNED_AT + off);
            assert_eq!(told, wanted, "{off} of {tolerance}");
        }
        let told = verified(&timestamped(300), &[&good], EVENT, i64::MIN);
        assert_eq!(told, Err(Unproved::Untimely));
    }

    #[test]
    fn a_time_past_all_numbers_proves_nothing() {
        let stamp = "9".repeat(40);
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"whsec_5f2c");
        let tag = hmac::sign(&key, format!("{stamp}.{{}}").as_bytes());
        let digits: Vec<String> = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let value = format!("t={stamp},v1={}", digits.concat());
        let told = verified(&timestamped(300), &[&value], b"{}", SIGNED_AT);
        assert_eq!(told, Err(Unproved::Unsigned));
    }
}

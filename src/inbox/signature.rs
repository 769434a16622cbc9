//! Proves that a body was signed with the secret that was agreed: HMAC-SHA256 (RFC 2104).

use std::fmt;

use aws_lc_rs::hmac;
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

impl Signature {
    /// Whether a body carries its signature.
    ///
    /// A field may come more than once, and hold several parted by commas, as while a
    /// secret is changed: one that is right is enough. The comparison takes the same time
    /// wherever it fails.
    pub fn verifies(&self, headers: &HeaderMap, body: &[u8]) -> bool {
        let values = headers.get_all(&self.header).iter().filter_map(|value| value.to_str().ok());
        let mut tags = values.flat_map(|value| value.split(',')).take(TAGS_MAX);
        tags.any(|tag| {
            let tag = tag.trim().strip_prefix(&self.prefix).and_then(|tag| self.bytes(tag));
            tag.is_some_and(|tag| hmac::verify(&self.secret.0, body, &tag).is_ok())
        })
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
        Signature { header, secret: Secret::new(secret), format, prefix: prefix.to_owned() }
    }

    fn verifies(signature: &Signature, values: &[&str], body: &[u8]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("x-signature", HeaderValue::from_str(value).expect("a value"));
        }
        signature.verifies(&headers, body)
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
}

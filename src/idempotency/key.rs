//! The key that travels upstream: the client's own, derived from an identity, or random.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;

use super::Format;
use super::scope::Target;
use super::template::Identity;

/// A key: 1 to 255 visible ASCII characters.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key(String);

/// Why what a client sent is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// It is there, with nothing in it.
    #[error("the key is empty")]
    Empty,
    /// It is longer than 255.
    #[error("the key is longer than 255 characters")]
    TooLong,
    /// It holds a space, a control character, or something beyond ASCII.
    #[error("the key holds something other than visible ASCII")]
    NotVisible,
    /// It is there more than once, and which one the upstream reads is not known.
    #[error("there is more than one key")]
    Several,
    /// The JSON member that carries it is neither a string nor a number.
    #[error("the key is neither a string nor a number")]
    NotText,
}

/// Where a key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The client put it where the upstream wants it.
    Client,
    /// Derived from the client's `Samekey-Key`.
    Header,
    /// Derived from the route's `identity`.
    Identity,
    /// Derived from the invocation id that an SDK gives to all its retries.
    Invocation,
    /// Made up for one exchange.
    Random,
}

/// The secret that keys are derived with, and credentials are digested under.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl Key {
    /// Reads a key that somebody else made.
    ///
    /// # Errors
    ///
    /// A [`KeyFault`] when it is empty, longer than 255, or not visible ASCII.
    pub fn parse(written: &[u8]) -> Result<Self, KeyFault> {
        if written.is_empty() {
            return Err(KeyFault::Empty);
        }
        if written.len() > LENGTH_MAX {
            return Err(KeyFault::TooLong);
        }
        let visible = written.iter().all(u8::is_ascii_graphic);
        let text = std::str::from_utf8(written).ok().filter(|_| visible);
        text.map(|text| Self(text.to_owned())).ok_or(KeyFault::NotVisible)
    }

    /// The key as it travels: never quoted.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Eight hexadecimal digits of its digest under `secret`: enough to tell keys apart
    /// in a log, of no use to whoever guesses one and wants to know.
    pub fn digest(&self, secret: &Secret) -> String {
        let mut hasher = secret.hasher("samekey log v1");
        frame(&mut hasher, self.0.as_bytes());
        short(hasher.finalize().as_bytes())
    }

    /// The key as a field value.
    ///
    /// # Panics
    ///
    /// Never: visible ASCII is a field value.
    pub fn header_value(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("a key is visible ASCII")
    }
}

impl fmt::Debug for Key {
    /// A digest: whoever reads a log must not be able to use the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", short(blake3::hash(self.0.as_bytes()).as_bytes()))
    }
}

impl Source {
    /// The word for the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Header => "samekey-key",
            Self::Identity => "identity",
            Self::Invocation => "invocation",
            Self::Random => "random",
        }
    }

    /// Whether the client itself knows the identity, so that it can ask for the answer.
    pub fn is_known_to_client(self) -> bool {
        match self {
            Self::Client | Self::Header | Self::Identity => true,
            Self::Invocation | Self::Random => false,
        }
    }
}

impl Secret {
    /// A secret of 32 bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A digest under this secret that no other use of it can collide with.
    pub(super) fn hasher(&self, label: &str) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        frame(&mut hasher, label.as_bytes());
        hasher
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A key nobody can ask for again, made from 16 random bytes.
pub fn random(format: Format, bytes: [u8; 16]) -> Key {
    Key(match format {
        Format::Uuid => uuid::Builder::from_random_bytes(bytes).into_uuid().to_string(),
        Format::Hex32 => hex(&bytes),
        Format::Token => URL_SAFE_NO_PAD.encode(bytes),
    })
}

/// The key of a business event: the same whenever, and by whichever replica, it is made.
///
/// The credential is not part of it, so that rotating one does not make a new
/// order; and it tells nothing of the identity to those without the secret.
pub fn derived(secret: &Secret, target: &Target<'_>, identity: &Identity, format: Format) -> Key {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &secret.0);
    let mut signing = hmac::Context::with_key(&key);
    let port = target.origin.port.to_be_bytes();
    let fields: [&[u8]; 8] = [
        KEY_LABEL.as_bytes(),
        target.origin.scheme.as_str().as_bytes(),
        target.origin.host.as_bytes(),
        &port,
        target.method.as_str().as_bytes(),
        target.path.as_bytes(),
        identity.kind().as_bytes(),
        identity.as_bytes(),
    ];
    for field in fields {
        signing.update(&length(field));
        signing.update(field);
    }
    let tag = signing.sign();
    let mut half = [0; 16];
    half.iter_mut().zip(tag.as_ref()).for_each(|(byte, signed)| *byte = *signed);
    random(format, half)
}

/// Adds a field to a digest so that no two lists of fields make the same bytes.
pub(super) fn frame(hasher: &mut blake3::Hasher, field: &[u8]) {
    hasher.update(&length(field));
    hasher.update(field);
}

/// The first four bytes, for a log: enough to tell digests apart, not to be of use.
pub(super) fn short(digest: &[u8; 32]) -> String {
    hex(digest.first_chunk::<4>().expect("32 bytes hold four"))
}

pub(super) fn length(field: &[u8]) -> [u8; 8] {
    // A usize is at most 64 bits wide wherever this is built.
    u64::try_from(field.len()).unwrap_or(u64::MAX).to_be_bytes()
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// What providers with the tightest published limits take, and design asks.
const LENGTH_MAX: usize = 255;

/// A change to how keys are derived changes this, and with it every key.
const KEY_LABEL: &str = "samekey key v1";

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::exchange::Origin;

    fn identity(text: &'static str) -> Identity {
        Identity::asked(&HeaderValue::from_static(text)).expect("an identity")
    }

    fn derive(secret: u8, origin: &str, path: &str, identity: &Identity, format: Format) -> Key {
        let origin = Origin::parse(origin).expect("an origin");
        let target = Target { origin: &origin, method: &Method::POST, path };
        derived(&Secret::new([secret; 32]), &target, identity, format)
    }

    #[test]
    fn a_key_is_one_to_255_visible_ascii_characters() {
        let longest = [b'~'; 255];
        for (written, fault) in [
            (b"!".as_slice(), None),
            (b"\"quoted\"", None),
            (&longest, None),
            (&[b'a'; 256], Some(KeyFault::TooLong)),
            (b"", Some(KeyFault::Empty)),
            (b"a b", Some(KeyFault::NotVisible)),
            (b"a\x7f", Some(KeyFault::NotVisible)),
            ("é".as_bytes(), Some(KeyFault::NotVisible)),
            (b"\xff", Some(KeyFault::NotVisible)),
        ] {
            let key = Key::parse(written);
            assert_eq!(key.as_ref().err().copied(), fault, "{written:?}");
            assert!(key.is_err() || key.is_ok_and(|key| key.as_str().as_bytes() == written));
        }
    }

    #[test]
    fn neither_a_key_nor_a_secret_shows_in_a_log() {
        let shown = format!("{:?} {:?}", Key::parse(b"order-1"), Secret::new([1; 32]));
        assert!(!shown.contains("order"), "{shown}");
        assert!(shown.ends_with("Secret(..)"), "{shown}");
    }

    #[test]
    fn a_random_key_has_the_shape_asked_for() {
        for (format, wanted) in [
            (Format::Uuid, "ffffffff-ffff-4fff-bfff-ffffffffffff"),
            (Format::Hex32, "ffffffffffffffffffffffffffffffff"),
            (Format::Token, "_____________________w"),
        ] {
            assert_eq!(random(format, [0xff; 16]).as_str(), wanted);
        }
    }

    #[test]
    fn a_derived_key_never_changes() {
        let derive = |format| derive(7, "https://a.test", "/v1", &identity("order-1"), format);
        assert_eq!(derive(Format::Hex32).as_str(), "f08d7f530e4ca56094171e4b0123bfff");
        assert_eq!(derive(Format::Uuid).as_str(), "f08d7f53-0e4c-4560-9417-1e4b0123bfff");
    }

    #[test]
    fn a_derived_key_depends_on_all_it_is_derived_from() {
        let base = |identity| derive(7, "https://a.test", "/v1", identity, Format::Token);
        let headers = http::HeaderMap::from_iter([(
            http::HeaderName::from_static("amz-sdk-invocation-id"),
            HeaderValue::from_static("1"),
        )]);
        let invocation = Identity::invocation(&headers).expect("an identity");
        let one = identity("1");
        let all = [
            base(&one),
            base(&identity("2")),
            base(&invocation),
            derive(8, "https://a.test", "/v1", &one, Format::Token),
            derive(7, "http://a.test:443", "/v1", &one, Format::Token),
            derive(7, "https://b.test", "/v1", &one, Format::Token),
            derive(7, "https://a.test:444", "/v1", &one, Format::Token),
            derive(7, "https://a.test", "/v11", &one, Format::Token),
        ];
        for (nth, key) in all.iter().enumerate() {
            assert_eq!(all.iter().position(|other| other == key), Some(nth));
        }
    }

    #[test]
    fn a_client_knows_the_identities_that_it_gave() {
        use Source::{Client, Header, Identity, Invocation, Random};
        let known = [Client, Header, Identity, Invocation, Random].map(Source::is_known_to_client);
        assert_eq!(known, [true, true, true, false, false]);
    }
}

//! Checks a signature of AWS, version 4, over the bytes that came.
//!
//! The rules: "Create a signed AWS API request" in the IAM user guide; for bodies in signed
//! pieces, "Transferring payload in multiple chunks" in that of S3.

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;

use super::super::request::Head;

/// What an `Authorization` of this kind says.
struct Claim<'a> {
    /// `DATE/REGION/SERVICE/aws4_request`.
    scope: &'a str,
    signed: &'a str,
    signature: &'a str,
}

/// The body that was signed, out of its pieces; or why the request is not what was signed.
pub(super) fn checked(head: &Head, body: &Bytes) -> Result<Bytes, &'static str> {
    let claim = claim(head.field("authorization").unwrap_or_default()).ok_or("not signed")?;
    let told = head.field("x-amz-content-sha256");
    let payload = told.map_or_else(|| hex(sha256(body).as_ref()), str::to_owned);
    let when = head.field("x-amz-date").ok_or("no date")?;
    let canonical = canonical(head, claim.signed, &payload)?;
    let digest = hex(sha256(canonical.as_bytes()).as_ref());
    let to_sign = format!("{ALGORITHM}\n{when}\n{}\n{digest}", claim.scope);
    if hex(hmac::sign(&key(claim.scope), to_sign.as_bytes()).as_ref()) != claim.signature {
        return Err("another head was signed");
    }
    match payload.as_str() {
        UNSIGNED => Ok(body.clone()),
        IN_PIECES => joined(head, body),
        digest if digest == hex(sha256(body).as_ref()) => Ok(body.clone()),
        _ => Err("another body was signed"),
    }
}

fn claim(field: &str) -> Option<Claim<'_>> {
    let parts: Vec<_> = field.strip_prefix(ALGORITHM)?.split(',').map(str::trim).collect();
    let part = |name: &str| parts.iter().find_map(|part| part.strip_prefix(name));
    let (who, scope) = part("Credential=")?.split_once('/')?;
    let claim = Claim { scope, signed: part("SignedHeaders=")?, signature: part("Signature=")? };
    (who == ACCESS_KEY).then_some(claim)
}

/// What was signed, as far as the head goes. Paths hold nothing that services but S3
/// would encode twice.
fn canonical(head: &Head, signed: &str, payload: &str) -> Result<String, &'static str> {
    let (path, query) = head.target.split_once('?').unwrap_or((&head.target, ""));
    let mut pairs: Vec<_> = query.split('&').filter(|pair| !pair.is_empty()).collect();
    pairs.sort_unstable();
    let line = |name| value(head, name).map(|value| format!("{name}:{value}\n"));
    let fields: Option<String> = signed.split(';').map(line).collect();
    let fields = fields.ok_or("a field that was signed is missing")?;
    let query = pairs.join("&");
    Ok(format!("{}\n{path}\n{query}\n{fields}\n{signed}\n{payload}", head.method))
}

/// All values of a field; HTTP/2 has the host under another name.
fn value(head: &Head, name: &str) -> Option<String> {
    let is =
        |field: &str| field.eq_ignore_ascii_case(name) || (name == "host" && field == ":authority");
    let values = head.headers.iter().filter(|(field, _)| is(field));
    let values: Vec<_> =
        values.map(|(_, value)| value.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    (!values.is_empty()).then(|| values.join(","))
}

fn key(scope: &str) -> hmac::Key {
    let first = hmac::Key::new(hmac::HMAC_SHA256, format!("AWS4{SECRET}").as_bytes());
    scope.split('/').fold(first, |key, part| {
        let next = hmac::sign(&key, part.as_bytes());
        hmac::Key::new(hmac::HMAC_SHA256, next.as_ref())
    })
}

/// A body that came as `SIZE CRLF BYTES CRLF`, closed by an empty piece and a checksum.
fn joined(head: &Head, body: &[u8]) -> Result<Bytes, &'static str> {
    let mut whole = Vec::new();
    let mut rest = body;
    loop {
        let (size, after) = line(rest).ok_or("a piece has no size")?;
        let size = usize::from_str_radix(size, 16).ok().ok_or("a size is no number")?;
        if size == 0 {
            rest = after;
            break;
        }
        let (piece, after) = after.split_at_checked(size).ok_or("a piece is short")?;
        whole.extend_from_slice(piece);
        rest = after.strip_prefix(b"\r\n").ok_or("a piece is long")?;
    }
    let length = head.field("x-amz-decoded-content-length").and_then(|text| text.parse().ok());
    let mut sum = flate2::Crc::new();
    sum.update(&whole);
    let sum = BASE64_STANDARD.encode(sum.sum().to_be_bytes());
    let told = line(rest).map(|(text, _)| text.trim());
    match () {
        () if length != Some(whole.len()) => Err("another length was signed"),
        () if told != Some(&format!("x-amz-checksum-crc32:{sum}")) => Err("another checksum came"),
        () => Ok(whole.into()),
    }
}

fn line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let (line, rest) = bytes.split_at_checked(end)?;
    Some((std::str::from_utf8(line).ok()?, rest.get(2..)?))
}

fn sha256(bytes: &[u8]) -> digest::Digest {
    digest::digest(&digest::SHA256, bytes)
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// The access key that AWS's own examples sign with, and its secret.
const ACCESS_KEY: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// The body comes in pieces, and its checksum behind it.
const IN_PIECES: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

#[cfg(test)]
mod tests {
    use super::*;

    const WHEN: &str = "20150830T123600Z";

    fn head(method: &str, signature: &str, more: &[(&str, &str)]) -> Head {
        let signed = "SignedHeaders=host;x-amz-date, Signature=";
        let scope = "20150830/us-east-1/service/aws4_request";
        let claim = format!("{ALGORITHM} Credential={ACCESS_KEY}/{scope}, {signed}{signature}");
        let fields = [
            ("Host", "example.amazonaws.com"),
            ("X-Amz-Date", WHEN),
            ("Authorization", claim.as_str()),
        ];
        let fields = fields.iter().chain(more).map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        Head {
            connection: 0,
            api: None,
            version: "HTTP/1.1".to_owned(),
            method: method.to_owned(),
            target: "/".to_owned(),
            headers: fields.collect(),
        }
    }

    /// `get-vanilla` and `post-vanilla` of AWS's own suite for signers.
    #[test]
    fn aws_own_examples_are_signed_and_nothing_else_is() {
        let get = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
        let post = "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b";
        for (method, signature, bytes, good) in [
            ("GET", get, &b""[..], true),
            ("POST", post, b"", true),
            ("POST", get, b"", false),
            ("POST", post, b"x", false),
        ] {
            let checked = checked(&head(method, signature, &[]), &Bytes::from_static(bytes));
            assert_eq!(checked.is_ok(), good, "{method} {checked:?}");
        }
        let mut moved = head("POST", post, &[]);
        moved.target = "/?a=b".to_owned();
        assert!(checked(&moved, &Bytes::new()).is_err());
    }

    #[test]
    fn pieces_are_joined_and_their_sum_is_checked() {
        let head = head("PUT", "", &[("x-amz-decoded-content-length", "9")]);
        for (bytes, wanted) in [
            (&b"4\r\n1234\r\n5\r\n56789\r\n0\r\nx-amz-checksum-crc32:y/Q5Jg==\r\n\r\n"[..], true),
            (b"4\r\n1234\r\n5\r\n56780\r\n0\r\nx-amz-checksum-crc32:y/Q5Jg==\r\n\r\n", false),
            (b"9\r\n123456789\r\n0\r\n\r\n", false),
            (b"8\r\n12345678\r\n0\r\nx-amz-checksum-crc32:y/Q5Jg==\r\n\r\n", false),
            (b"9\r\n1234", false),
        ] {
            assert_eq!(joined(&head, bytes).is_ok(), wanted, "{bytes:?}");
        }
    }
}

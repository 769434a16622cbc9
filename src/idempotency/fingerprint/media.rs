//! What a body is, by its `Content-Type`.

/// How the bytes of a body are to be read.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::idempotency) enum Media {
    /// `application/json`, or anything `+json` (RFC 6839, section 3.1).
    Json,
    /// `application/x-www-form-urlencoded`.
    Form,
    /// `multipart/…`, with its boundary.
    Multipart(Vec<u8>),
    /// Something else, or nothing that can be told.
    Bytes,
}

impl Media {
    /// Reads a `Content-Type`; the essence is type and subtype, lower case.
    ///
    /// Parameters do not count: `charset` means nothing to JSON (RFC 8259, section
    /// 11), and a boundary is drawn anew each time.
    pub(in crate::idempotency) fn read(content_type: &str) -> (Self, String) {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let essence = essence.to_ascii_lowercase();
        let media = match essence.as_str() {
            "application/json" => Self::Json,
            "application/x-www-form-urlencoded" => Self::Form,
            other if other.ends_with("+json") => Self::Json,
            other if other.starts_with("multipart/") => {
                let boundary =
                    parameters(content_type.as_bytes()).and_then(|found| boundary(&found));
                boundary.map_or(Self::Bytes, Self::Multipart)
            }
            _ => Self::Bytes,
        };
        (media, essence)
    }
}

/// The parameters behind the first `;`: names in lower case, values without quotes.
///
/// Values keep their backslashes: browsers do not escape with them, so `C:\x` is
/// not `C:x`. None where the syntax of RFC 9110, section 5.6.6, is left, a name
/// occurs twice, or there are more than anybody sends.
pub(super) fn parameters(value: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    let mut rest = after(value, b';');
    while !rest.is_empty() {
        rest = rest.trim_ascii_start();
        if let Some(next) = rest.strip_prefix(b";") {
            rest = next;
            continue;
        }
        if rest.is_empty() {
            break;
        }
        let equals = rest.iter().position(|byte| *byte == b'=')?;
        let (name, behind) = rest.split_at_checked(equals)?;
        let name = std::str::from_utf8(name).ok()?.trim().to_ascii_lowercase();
        let (value, behind) = one_value(behind.strip_prefix(b"=")?)?;
        if found.len() == PARAMETERS_MAX || value_of(&found, &name).is_some() {
            return None;
        }
        found.push((name, value.to_vec()));
        let behind = behind.trim_ascii_start();
        if !behind.is_empty() && !behind.starts_with(b";") {
            return None;
        }
        rest = behind;
    }
    Some(found)
}

/// The value of a parameter.
pub(super) fn value_of<'a>(found: &'a [(String, Vec<u8>)], name: &str) -> Option<&'a [u8]> {
    found.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_slice())
}

fn boundary(found: &[(String, Vec<u8>)]) -> Option<Vec<u8>> {
    let boundary = value_of(found, "boundary")?;
    (1..=BOUNDARY_MAX).contains(&boundary.len()).then(|| boundary.to_vec())
}

/// A token, or what stands between quotes, and what follows it.
fn one_value(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let end = text.iter().position(|byte| *byte == b';').unwrap_or(text.len());
        let (value, behind) = text.split_at_checked(end)?;
        return Some((value.trim_ascii(), behind));
    };
    let mut escaped = false;
    let end = quoted.iter().position(|byte| {
        let closes = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        closes
    })?;
    Some((quoted.get(..end)?, quoted.get(end + 1..)?))
}

fn after(text: &[u8], sign: u8) -> &[u8] {
    let at = text.iter().position(|byte| *byte == sign).unwrap_or(text.len());
    text.get(at..).unwrap_or_default()
}

/// Each is compared with all before it, so a long list would cost its square.
const PARAMETERS_MAX: usize = 16;

/// The length that RFC 2046, section 5.1.1, allows.
const BOUNDARY_MAX: usize = 70;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_type_says_how_to_read_a_body() {
        for (written, media, essence) in [
            ("application/json", Media::Json, "application/json"),
            ("Application/JSON; charset=UTF-8", Media::Json, "application/json"),
            ("application/vnd.x+json", Media::Json, "application/vnd.x+json"),
            ("application/x-ndjson", Media::Bytes, "application/x-ndjson"),
            (
                "application/x-www-form-urlencoded;charset=a",
                Media::Form,
                "application/x-www-form-urlencoded",
            ),
            ("multipart/form-data", Media::Bytes, "multipart/form-data"),
            ("multipart/form-data; boundary=", Media::Bytes, "multipart/form-data"),
            ("multipart/form-data; boundary=a; boundary=b", Media::Bytes, "multipart/form-data"),
            (
                "multipart/form-data; Boundary=\"a b;c\"; x=y",
                Media::Multipart(b"a b;c".to_vec()),
                "multipart/form-data",
            ),
            ("multipart/mixed;; boundary=a ;", Media::Multipart(b"a".to_vec()), "multipart/mixed"),
            ("application/json, text/plain", Media::Bytes, "application/json, text/plain"),
            ("", Media::Bytes, ""),
        ] {
            assert_eq!(Media::read(written), (media, essence.to_owned()), "{written}");
        }
    }

    #[test]
    fn a_boundary_has_at_most_seventy_signs() {
        for (length, is_one) in [(69, true), (70, true), (71, false)] {
            let written = format!("multipart/mixed; boundary={}", "b".repeat(length));
            assert_eq!(Media::read(&written).0 != Media::Bytes, is_one, "{length}");
        }
    }

    #[test]
    fn a_quoted_value_ends_at_its_quote() {
        let found =
            parameters(br#"form-data; name="a;b=\"c"; filename="C:\x""#).expect("parameters");
        assert_eq!(value_of(&found, "name"), Some(br#"a;b=\"c"#.as_slice()));
        assert_eq!(value_of(&found, "filename"), Some(br"C:\x".as_slice()));
        for bad in [r#"x; a="b"#, r#"x; a="b" c"#, "x; a", "x; a=b; A=c"] {
            assert_eq!(parameters(bad.as_bytes()), None, "{bad}");
        }
    }
}

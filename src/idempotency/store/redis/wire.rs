//! How ids, answers and captured values look while Redis keeps them.

use std::time::Duration;

use bytes::Bytes;

use super::Unavailable;
use crate::exchange::id::ExchangeId;
use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::scope::RecordId;
use crate::idempotency::store::Record;

/// The reply of a script: a row of byte strings, read from the front.
#[derive(Debug)]
pub(super) struct Row(std::vec::IntoIter<Vec<u8>>);

impl Row {
    pub(super) fn new(fields: Vec<Vec<u8>>) -> Self {
        Self(fields.into_iter())
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, Unavailable> {
        self.0.next().ok_or(Unavailable::Garbled)
    }

    pub(super) fn text(&mut self) -> Result<String, Unavailable> {
        String::from_utf8(self.bytes()?).map_err(|_text| Unavailable::Garbled)
    }

    /// Whether a transition was made.
    pub(super) fn flag(&mut self) -> Result<bool, Unavailable> {
        Ok(self.bytes()? == b"1")
    }

    pub(super) fn number(&mut self) -> Result<u64, Unavailable> {
        self.text()?.parse().map_err(|_number| Unavailable::Garbled)
    }

    /// A number of which zero and nothing say that there is none.
    pub(super) fn some_number(&mut self) -> Result<Option<u64>, Unavailable> {
        let text = self.text()?;
        if text.is_empty() {
            return Ok(None);
        }
        let number: u64 = text.parse().map_err(|_number| Unavailable::Garbled)?;
        Ok((number > 0).then_some(number))
    }

    pub(super) fn exchange(&mut self) -> Result<ExchangeId, Unavailable> {
        exchange_from(&self.text()?).ok_or(Unavailable::Garbled)
    }

    pub(super) fn fingerprint(&mut self) -> Result<Option<Fingerprint>, Unavailable> {
        let bytes = self.bytes()?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let digest = bytes.try_into().map_err(|_bytes| Unavailable::Garbled)?;
        Ok(Some(Fingerprint(digest)))
    }

    pub(super) fn captured(&mut self) -> Result<Vec<(String, String)>, Unavailable> {
        let bytes = self.bytes()?;
        if bytes.is_empty() {
            return Ok(Vec::new());
        }
        serde_json::from_slice(&bytes).map_err(|_json| Unavailable::Garbled)
    }

    /// The owner that something belongs to.
    pub(super) fn owner(&mut self) -> Result<[u8; 16], Unavailable> {
        self.bytes()?.try_into().map_err(|_bytes| Unavailable::Garbled)
    }

    pub(super) fn some_owner(&mut self) -> Result<Option<[u8; 16]>, Unavailable> {
        let bytes = self.bytes()?;
        if bytes.is_empty() {
            return Ok(None);
        }
        bytes.try_into().map(Some).map_err(|_bytes| Unavailable::Garbled)
    }

    pub(super) fn record(&mut self) -> Result<Option<Record>, Unavailable> {
        let bytes = self.bytes()?;
        if bytes.is_empty() {
            return Ok(None);
        }
        record_from(&Bytes::from(bytes)).map(Some).ok_or(Unavailable::Garbled)
    }
}

/// An exchange as an operator reads it.
pub(super) fn exchange_to(exchange: ExchangeId) -> String {
    exchange.to_string()
}

fn exchange_from(text: &str) -> Option<ExchangeId> {
    let (at, instance) = text.split_at_checked(text.len().checked_sub(8)?)?;
    let parts = (u64::from_str_radix(at, 16).ok()?, u32::from_str_radix(instance, 16).ok()?);
    Some(ExchangeId::from_parts(parts.0, parts.1))
}

pub(super) fn fingerprint_to(fingerprint: Option<Fingerprint>) -> Vec<u8> {
    fingerprint.map(|Fingerprint(digest)| digest.to_vec()).unwrap_or_default()
}

pub(super) fn captured_to(captured: &[(String, String)]) -> Vec<u8> {
    if captured.is_empty() {
        return Vec::new();
    }
    // Pairs of strings are always JSON.
    serde_json::to_vec(captured).unwrap_or_default()
}

/// Head, framed by its length, and body.
pub(super) fn record_to(record: &Record) -> Vec<u8> {
    let head = record.pack();
    let length = u32::try_from(head.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(4 + head.len() + record.body().len());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(record.body());
    bytes
}

fn record_from(bytes: &Bytes) -> Option<Record> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let head = rest.get(..length)?;
    Record::unpack(head, bytes.slice(4 + length..))
}

/// An id as it stands in names of keys and in news.
pub(super) fn id_to(RecordId(digest): &RecordId) -> String {
    hex(digest)
}

pub(super) fn id_from(text: &[u8]) -> Option<RecordId> {
    let text = std::str::from_utf8(text).ok()?;
    let mut digest = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(RecordId(digest))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// A time to live; what is beyond a century is as good as one.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).min(CENTURY_MS)
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).min(CENTURY_MS * 1000)
}

const CENTURY_MS: u64 = 100 * 365 * 24 * 3600 * 1000;

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, StatusCode};

    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let exchange = ExchangeId::from_parts(u64::MAX, 7);
        assert_eq!(exchange_from(&exchange_to(exchange)), Some(exchange));
        let exchange = ExchangeId::from_parts(1_700_000_000_000_000, u32::MAX);
        assert_eq!(exchange_from(&exchange_to(exchange)), Some(exchange));
        let id = RecordId(std::array::from_fn(|at| u8::try_from(at * 7 % 256).expect("a byte")));
        assert_eq!(id_from(id_to(&id).as_bytes()), Some(id));
        let captured = vec![("job".to_owned(), "\"j\n1".to_owned())];
        let mut row = Row::new(vec![captured_to(&captured), captured_to(&[])]);
        assert_eq!(row.captured().expect("pairs"), captured);
        assert!(row.captured().expect("none").is_empty());

        let mut headers = HeaderMap::new();
        headers.insert("etag", HeaderValue::from_static("e"));
        let record = Record::new(StatusCode::CREATED, &headers, Bytes::from_static(b"body"));
        let again = record_from(&Bytes::from(record_to(&record))).expect("a record");
        assert_eq!((again.pack(), again.body()), (record.pack(), record.body()));
    }

    #[test]
    fn what_somebody_else_wrote_is_no_reason_to_panic() {
        for text in ["", "1", "1234567", "zzzzzzzzzzzzzzzzzzzzz", "ä2345678"] {
            assert!(exchange_from(text).is_none() && id_from(text.as_bytes()).is_none(), "{text}");
        }
        for bytes in [&b""[..], b"abc", b"\xff\xff\xff\xffab", b"\0\0\0\x01"] {
            assert!(record_from(&Bytes::copy_from_slice(bytes)).is_none());
        }
        let mut row = Row::new(vec![b"x".to_vec(); 5]);
        assert!(row.number().is_err() && row.exchange().is_err() && row.fingerprint().is_err());
        assert!(row.captured().is_err() && row.owner().is_err() && row.bytes().is_err());
    }
}

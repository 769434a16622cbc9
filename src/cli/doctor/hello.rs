//! What a client's TLS records tell without reading what is in them: did it accept the
//! certificate that it was shown?
//!
//! A client that accepts sends its `Finished` (RFC 8446, section 4.4.4), one that refuses an
//! alert (section 6.2) or nothing. In TLS 1.3 both are inside a record of the same type, and
//! told apart by their length: an alert takes 2 bytes, its type 1, the tag of every cipher
//! suite 16 (section 5.2); a `Finished` takes 36 bytes at least before type and tag.

/// How far a client has come with TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tls {
    /// It has not begun.
    #[default]
    None,
    /// It said hello.
    Begun,
    /// It accepted the certificate, and asked for nothing since.
    Agreed,
    /// It accepted the certificate, and went on.
    Used,
    /// It said that it refuses.
    Refused,
}

/// Reads the records that a client sends.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// A record's head of which not all has come.
    head: Vec<u8>,
    /// What of a record's body is still to come.
    left: usize,
    tls: Tls,
    /// Whether a `ChangeCipherSpec` came: what follows in TLS 1.2 is encrypted.
    changed: bool,
}

impl Records {
    /// Takes what came next.
    pub(super) fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let (_body, rest) = bytes.split_at(self.left.min(bytes.len()));
                self.left -= bytes.len() - rest.len();
                bytes = rest;
                continue;
            }
            let (head, rest) = bytes.split_at((HEAD - self.head.len()).min(bytes.len()));
            self.head.extend_from_slice(head);
            bytes = rest;
            if let [kind, _major, _minor, high, low] = *self.head {
                self.left = usize::from(u16::from_be_bytes([high, low]));
                self.head.clear();
                self.tls = self.after(kind, self.left);
                self.changed |= kind == CHANGE;
            }
        }
    }

    pub(super) fn tls(&self) -> Tls {
        self.tls
    }

    fn after(&self, kind: u8, length: usize) -> Tls {
        match (self.tls, kind) {
            (Tls::None, HANDSHAKE) => Tls::Begun,
            (Tls::Begun, ALERT) => Tls::Refused,
            (Tls::Begun, DATA) if length == ALERT_1_3 => Tls::Refused,
            (Tls::Begun, DATA) => Tls::Agreed,
            // TLS 1.2: what is encrypted of a handshake is the `Finished`. In TLS 1.3 a
            // second hello may come here (RFC 8446, section 4.1.4), and is never as short.
            (Tls::Begun, HANDSHAKE) if self.changed && length < HELLO_MIN => Tls::Agreed,
            // Goodbye: an alert too.
            (Tls::Agreed, DATA) if length == ALERT_1_3 => Tls::Agreed,
            (Tls::Agreed, DATA) => Tls::Used,
            (before, _) => before,
        }
    }
}

const HEAD: usize = 5;
const CHANGE: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;
/// More than an encrypted `Finished` of TLS 1.2 takes (RFC 5246, section 6.2.3.2: 96 bytes with
/// CBC and SHA-384), less than a hello that offers TLS 1.3.
const HELLO_MIN: usize = 100;
/// An encrypted alert of TLS 1.3: level, description, the type inside, the tag.
const ALERT_1_3: usize = 2 + 1 + 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, length: usize) -> Vec<u8> {
        let [high, low] = u16::try_from(length).expect("small").to_be_bytes();
        [vec![kind, 3, 3, high, low], vec![0xff; length]].concat()
    }

    /// What these records of a client tell, however they are cut.
    fn check(name: &str, records: &[(u8, usize)], wanted: Tls) {
        let bytes: Vec<u8> =
            records.iter().flat_map(|(kind, length)| record(*kind, *length)).collect();
        for piece in [1, 2, 3, 7, 64, bytes.len().max(1)] {
            let mut read = Records::default();
            bytes.chunks(piece).for_each(|bytes| read.take(bytes));
            assert_eq!(read.tls(), wanted, "{name} in pieces of {piece}");
        }
    }

    #[test]
    fn records_tell_whether_a_certificate_was_accepted() {
        for (name, records, wanted) in [
            ("nothing", &[][..], Tls::None),
            ("a hello", &[(22, 517)], Tls::Begun),
            ("1.3, used", &[(22, 517), (20, 1), (23, 53), (23, 100)], Tls::Used),
            ("1.3 with SHA-384, used", &[(22, 517), (23, 69), (23, 19), (23, 40)], Tls::Used),
            ("1.3, agreed and left", &[(22, 517), (20, 1), (23, 53), (23, 19)], Tls::Agreed),
            ("1.3, refused inside", &[(22, 517), (20, 1), (23, 19)], Tls::Refused),
            ("1.3, refused in the clear", &[(22, 517), (20, 1), (21, 2)], Tls::Refused),
            ("1.3, asked to say hello again", &[(22, 517), (20, 1), (22, 517)], Tls::Begun),
            ("1.3, and then used", &[(22, 517), (20, 1), (22, 517), (23, 53), (23, 99)], Tls::Used),
            ("1.2, used", &[(22, 517), (22, 37), (20, 1), (22, 40), (23, 64)], Tls::Used),
            (
                "1.2, agreed and left",
                &[(22, 200), (22, 37), (20, 1), (22, 40), (21, 26)],
                Tls::Agreed,
            ),
            ("1.2, refused", &[(22, 200), (21, 2)], Tls::Refused),
            ("no TLS", &[(71, 17)], Tls::None),
        ] {
            check(name, records, wanted);
        }
    }
}

//! Leaf certificates, written and signed in the name of a CA.
//!
//! They are written in DER here, because a leaf must repeat its issuer's name to
//! the bit: rcgen keeps a name as a map, which loses the second `DC` of
//! `DC=corp,DC=example`, and with it every chain under such a CA.

use std::net::IpAddr;

use aws_lc_rs::{digest, rand};
use rcgen::{KeyPair, PublicKeyData as _, SignatureAlgorithm, SigningKey as _};
use rustls::pki_types::{CertificateDer, ServerName};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::time::ASN1Time;

/// Why no certificate could be made for a host.
#[derive(Debug, thiserror::Error)]
pub enum MintFault {
    /// Neither a DNS name nor an address.
    #[error("{0:?} is neither a DNS name nor an address")]
    Name(String),

    /// The CA ran out while the process was running.
    #[error("the CA has expired")]
    Expired,

    /// The clock shows a year that a certificate cannot hold.
    #[error("the clock shows a time that no certificate can hold")]
    Clock,

    /// The system gave no random number.
    #[error("no random number to be had")]
    Random,

    /// The CA's key did not sign.
    #[error("could not sign a certificate")]
    Signing(#[source] rcgen::Error),
}

/// From when until when, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: i64,
    pub(super) not_after: i64,
}

/// What a CA needs to sign.
pub(super) struct Issuer {
    /// Its name, as its own certificate has it.
    subject: Vec<u8>,
    key_id: Vec<u8>,
    key: KeyPair,
    /// How its signatures are named, an `AlgorithmIdentifier`.
    algorithm: &'static [u8],
}

impl Issuer {
    /// Takes the name and key id of `cert`; `None`: a key of this kind is not known here.
    pub(super) fn new(cert: &X509Certificate<'_>, key: KeyPair) -> Option<Self> {
        let algorithm = algorithm(key.algorithm())?;
        let key_id = cert.iter_extensions().find_map(|ext| match ext.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        // A CA without a key id of its own is matched by name; ours only has to be stable.
        let key_id = key_id.unwrap_or_else(|| key_id_of(&key));
        Some(Self { subject: cert.subject().as_raw().to_vec(), key_id, key, algorithm })
    }

    /// Signs a server certificate for `name` and the key whose public half is `spki`.
    pub(super) fn sign(
        &self,
        name: &ServerName<'_>,
        spki: &[u8],
        valid: Validity,
    ) -> Result<CertificateDer<'static>, MintFault> {
        let shown = name.to_str();
        // X.520 ends a common name at 64 characters. Without one, the subject is
        // empty and the alternative name is what counts, so it becomes critical.
        let subject = if shown.len() <= 64 { common_name(&shown) } else { tlv(SEQUENCE, &[]) };
        let extensions = [
            extension(AUTHORITY_KEY_ID, false, &[&tlv(SEQUENCE, &[&tlv(0x80, &[&self.key_id])])]),
            extension(ALT_NAME, shown.len() > 64, &[&tlv(SEQUENCE, &[&alt_name(name)])]),
            extension(BASIC_CONSTRAINTS, true, &[&tlv(SEQUENCE, &[])]),
            extension(KEY_USAGE, true, &[DIGITAL_SIGNATURE]),
            extension(EXTENDED_KEY_USAGE, false, &[&tlv(SEQUENCE, &[SERVER_AUTH])]),
        ];
        let body = tlv(
            SEQUENCE,
            &[
                VERSION_3,
                &tlv(INTEGER, &[&serial()?]),
                self.algorithm,
                &self.subject,
                &tlv(SEQUENCE, &[&time(valid.not_before)?, &time(valid.not_after)?]),
                &subject,
                spki,
                &tlv(0xA3, &[&tlv(SEQUENCE, &extensions.each_ref().map(Vec::as_slice))]),
            ],
        );
        let signature = self.key.sign(&body).map_err(MintFault::Signing)?;
        let signature = tlv(BIT_STRING, &[&[0], &signature]);
        Ok(tlv(SEQUENCE, &[&body, self.algorithm, &signature]).into())
    }
}

/// A random serial number: positive, 16 bytes, its first never zero.
pub(super) fn serial() -> Result<[u8; 16], MintFault> {
    let mut serial = [0; 16];
    rand::fill(&mut serial).or(Err(MintFault::Random))?;
    serial[0] = serial[0] & 0x7F | 0x40;
    Ok(serial)
}

/// The usual key id of a key: the head of a digest of its public half.
fn key_id_of(key: &KeyPair) -> Vec<u8> {
    let digest = digest::digest(&digest::SHA256, &key.subject_public_key_info());
    digest.as_ref().iter().take(20).copied().collect()
}

fn algorithm(algorithm: &SignatureAlgorithm) -> Option<&'static [u8]> {
    let known: [(&SignatureAlgorithm, &'static [u8]); 5] = [
        (&rcgen::PKCS_ECDSA_P256_SHA256, b"\x30\x0A\x06\x08\x2A\x86\x48\xCE\x3D\x04\x03\x02"),
        (&rcgen::PKCS_ECDSA_P384_SHA384, b"\x30\x0A\x06\x08\x2A\x86\x48\xCE\x3D\x04\x03\x03"),
        (&rcgen::PKCS_ECDSA_P521_SHA512, b"\x30\x0A\x06\x08\x2A\x86\x48\xCE\x3D\x04\x03\x04"),
        (&rcgen::PKCS_RSA_SHA256, b"\x30\x0D\x06\x09\x2A\x86\x48\x86\xF7\x0D\x01\x01\x0B\x05\x00"),
        (&rcgen::PKCS_ED25519, b"\x30\x05\x06\x03\x2B\x65\x70"),
    ];
    known.into_iter().find(|(one, _)| *one == algorithm).map(|(_, name)| name)
}

fn common_name(name: &str) -> Vec<u8> {
    let attribute = tlv(SEQUENCE, &[COMMON_NAME, &tlv(UTF8_STRING, &[name.as_bytes()])]);
    tlv(SEQUENCE, &[&tlv(SET, &[&attribute])])
}

fn alt_name(name: &ServerName<'_>) -> Vec<u8> {
    match name {
        ServerName::IpAddress(address) => match IpAddr::from(*address) {
            IpAddr::V4(address) => tlv(0x87, &[&address.octets()]),
            IpAddr::V6(address) => tlv(0x87, &[&address.octets()]),
        },
        name => tlv(0x82, &[name.to_str().as_bytes()]),
    }
}

/// RFC 5280 wants two digits for the years before 2050, and four from then on.
fn time(seconds: i64) -> Result<Vec<u8>, MintFault> {
    let at = ASN1Time::from_timestamp(seconds).or(Err(MintFault::Clock))?.to_datetime();
    let (year, month) = (at.year(), u8::from(at.month()));
    let (day, hour, minute, second) = (at.day(), at.hour(), at.minute(), at.second());
    let rest = format!("{month:02}{day:02}{hour:02}{minute:02}{second:02}Z");
    Ok(match year {
        1950..2050 => tlv(UTC_TIME, &[format!("{:02}{rest}", year % 100).as_bytes()]),
        _ => tlv(GENERALIZED_TIME, &[format!("{year:04}{rest}").as_bytes()]),
    })
}

fn extension(id: &[u8], critical: bool, value: &[&[u8]]) -> Vec<u8> {
    let critical: &[u8] = if critical { TRUE } else { &[] };
    tlv(SEQUENCE, &[id, critical, &tlv(OCTET_STRING, value)])
}

/// One DER element: its tag, its length, its parts one after another.
fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let bytes = length.to_be_bytes();
    let bytes = bytes.iter().skip_while(|byte| **byte == 0).copied();
    let mut element = vec![tag];
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => element.push(short),
        _ => {
            let count = bytes.clone().fold(0x80, |count, _| count + 1);
            element.push(count);
            element.extend(bytes);
        }
    }
    element.extend(parts.concat());
    element
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const UTF8_STRING: u8 = 0x0C;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

const TRUE: &[u8] = b"\x01\x01\xFF";
const VERSION_3: &[u8] = b"\xA0\x03\x02\x01\x02";
const DIGITAL_SIGNATURE: &[u8] = b"\x03\x02\x07\x80";
/// 2.5.4.3
const COMMON_NAME: &[u8] = b"\x06\x03\x55\x04\x03";
/// 2.5.29.15
const KEY_USAGE: &[u8] = b"\x06\x03\x55\x1D\x0F";
/// 2.5.29.17
const ALT_NAME: &[u8] = b"\x06\x03\x55\x1D\x11";
/// 2.5.29.19
const BASIC_CONSTRAINTS: &[u8] = b"\x06\x03\x55\x1D\x13";
/// 2.5.29.35
const AUTHORITY_KEY_ID: &[u8] = b"\x06\x03\x55\x1D\x23";
/// 2.5.29.37
const EXTENDED_KEY_USAGE: &[u8] = b"\x06\x03\x55\x1D\x25";
/// 1.3.6.1.5.5.7.3.1
const SERVER_AUTH: &[u8] = b"\x06\x08\x2B\x06\x01\x05\x05\x07\x03\x01";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_in_the_fewest_bytes() {
        for (length, head) in [
            (0, &b"\x04\x00"[..]),
            (127, b"\x04\x7F"),
            (128, b"\x04\x81\x80"),
            (255, b"\x04\x81\xFF"),
            (256, b"\x04\x82\x01\x00"),
            (65_536, b"\x04\x83\x01\x00\x00"),
        ] {
            let element = tlv(OCTET_STRING, &[&vec![7; length]]);
            assert_eq!(&element[..head.len()], head);
            assert_eq!(element.len(), head.len() + length);
        }
    }

    #[test]
    fn times_turn_to_four_digits_in_2050() {
        for (seconds, wanted) in [
            (0, &b"\x17\x0D700101000000Z"[..]),
            (951_782_399, b"\x17\x0D000228235959Z"),
            (2_524_607_999, b"\x17\x0D491231235959Z"),
            (2_524_608_000, b"\x18\x0F20500101000000Z"),
        ] {
            assert_eq!(time(seconds).unwrap(), wanted);
        }
        assert!(matches!(time(i64::MAX), Err(MintFault::Clock)));
    }
}

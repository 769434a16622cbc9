//! The trusted certificates as the PKCS#12 file that Java reads.
//!
//! Nothing in it is secret, so nothing is encrypted: its password, which Java asks
//! for, only seals it (RFC 7292, section 4). Each certificate carries the attribute
//! without which Java takes it for one of somebody's chain and trusts nothing.

use aws_lc_rs::{digest, hmac};
use rustls::pki_types::CertificateDer;
use yasna::models::ObjectIdentifier;
use yasna::{DERWriter, Tag, construct_der};

/// The password that Java's own truststore has, and whoever opens this one gives.
pub const PASSWORD: &str = "changeit";

/// A truststore of certificates, each under its alias.
pub(super) fn pkcs12(certs: &[(String, CertificateDer<'_>)]) -> Vec<u8> {
    let bags = construct_der(|writer| {
        writer.write_sequence(|writer| {
            for (alias, cert) in certs {
                bag(writer.next(), alias, cert);
            }
        });
    });
    let safes = construct_der(|writer| {
        writer.write_sequence(|writer| content(writer.next(), &bags));
    });
    construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_u8(VERSION);
            content(writer.next(), &safes);
            seal(writer.next(), &safes);
        });
    })
}

/// `ContentInfo` of type data.
fn content(writer: DERWriter<'_>, bytes: &[u8]) {
    writer.write_sequence(|writer| {
        oid(writer.next(), DATA);
        writer.next().write_tagged(Tag::context(0), |writer| writer.write_bytes(bytes));
    });
}

/// `SafeBag` with a certificate that is trusted for every use.
fn bag(writer: DERWriter<'_>, alias: &str, cert: &CertificateDer<'_>) {
    writer.write_sequence(|writer| {
        oid(writer.next(), CERT_BAG);
        writer.next().write_tagged(Tag::context(0), |writer| {
            writer.write_sequence(|writer| {
                oid(writer.next(), X509);
                writer.next().write_tagged(Tag::context(0), |writer| writer.write_bytes(cert));
            });
        });
        writer.next().write_set_of(|writer| {
            attribute(writer.next(), FRIENDLY_NAME, |writer| writer.write_bmp_string(alias));
            attribute(writer.next(), TRUSTED_FOR, |writer| oid(writer, ANY_USE));
        });
    });
}

fn attribute(writer: DERWriter<'_>, name: &[u64], value: impl FnOnce(DERWriter<'_>)) {
    writer.write_sequence(|writer| {
        oid(writer.next(), name);
        writer.next().write_set_of(|writer| value(writer.next()));
    });
}

/// `MacData`: HMAC-SHA256 over the safes, as Java writes it since 8u301.
fn seal(writer: DERWriter<'_>, safes: &[u8]) {
    // What is public needs no salt of its own; made of the content, it makes equal
    // stores equal files.
    let salt = digest::digest(&digest::SHA256, safes);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &mac_key(PASSWORD, salt.as_ref()));
    let mac = hmac::sign(&key, safes);
    writer.write_sequence(|writer| {
        writer.next().write_sequence(|writer| {
            writer.next().write_sequence(|writer| {
                oid(writer.next(), SHA256);
                writer.next().write_null();
            });
            writer.next().write_bytes(mac.as_ref());
        });
        writer.next().write_bytes(salt.as_ref());
        writer.next().write_u32(ITERATIONS);
    });
}

/// The key of the seal: RFC 7292, appendix B.2, of which one block is enough here.
fn mac_key(password: &str, salt: &[u8]) -> Vec<u8> {
    let wide = password.encode_utf16().chain([0]).flat_map(u16::to_be_bytes);
    let mut block = vec![MAC_KEY; BLOCK];
    block.extend(filled(salt.iter().copied()));
    block.extend(filled(wide));
    let mut key = digest::digest(&digest::SHA256, &block);
    for _ in 1..ITERATIONS {
        key = digest::digest(&digest::SHA256, key.as_ref());
    }
    key.as_ref().to_vec()
}

/// Repeated until it fills whole blocks.
fn filled(bytes: impl Iterator<Item = u8> + Clone) -> impl Iterator<Item = u8> {
    let length = bytes.clone().count().next_multiple_of(BLOCK);
    bytes.cycle().take(length)
}

fn oid(writer: DERWriter<'_>, arcs: &[u64]) {
    writer.write_oid(&ObjectIdentifier::from_slice(arcs));
}

const VERSION: u8 = 3;
/// The purpose of a key that seals: RFC 7292, appendix B.3.
const MAC_KEY: u8 = 3;
/// Bytes that SHA-256 works on at a time.
const BLOCK: usize = 64;
/// They slow down who guesses the password, which is known: few are enough.
const ITERATIONS: u32 = 1024;

const DATA: &[u64] = &[1, 2, 840, 113_549, 1, 7, 1];
const CERT_BAG: &[u64] = &[1, 2, 840, 113_549, 1, 12, 10, 1, 3];
const X509: &[u64] = &[1, 2, 840, 113_549, 1, 9, 22, 1];
const FRIENDLY_NAME: &[u64] = &[1, 2, 840, 113_549, 1, 9, 20];
/// Oracle's `trustedKeyUsage`.
const TRUSTED_FOR: &[u64] = &[2, 16, 840, 1, 113_894, 746_875, 1, 1];
/// `anyExtendedKeyUsage`: RFC 5280, section 4.2.1.12.
const ANY_USE: &[u64] = &[2, 5, 29, 37, 0];
const SHA256: &[u64] = &[2, 16, 840, 1, 101, 3, 4, 2, 1];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_certificates_make_the_same_file() {
        let certs = |alias: &str| [(alias.to_owned(), CertificateDer::from(vec![1, 2, 3]))];
        assert_eq!(pkcs12(&certs("a")), pkcs12(&certs("a")));
        assert_ne!(pkcs12(&certs("a")), pkcs12(&certs("b")));
    }

    #[test]
    fn a_block_is_filled_with_whole_repetitions_and_a_piece() {
        for (length, wanted) in [(0, 0), (1, 64), (64, 64), (65, 128)] {
            assert_eq!(filled(std::iter::repeat_n(7, length)).count(), wanted, "{length}");
        }
    }
}

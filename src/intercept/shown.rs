//! Certificates as others see them: which they are, and until when.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

/// A certificate of a PEM file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its SHA-256, in hex.
    pub digest: String,
    /// From when on it counts.
    pub begins: SystemTime,
    /// When it ends.
    pub ends: SystemTime,
}

/// The certificates of a PEM file, in order; what is none is left out.
pub fn shown(pem: &[u8]) -> Vec<Shown> {
    let read = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
    read.filter_map(|der| {
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        let valid = certificate.validity();
        let at = |seconds: i64| {
            SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
        };
        let (begins, ends) = (at(valid.not_before.timestamp()), at(valid.not_after.timestamp()));
        Some(Shown { digest: digest(&der), begins, ends })
    })
    .collect()
}

/// The SHA-256 of a certificate, in hex.
pub(super) fn digest(der: &CertificateDer<'_>) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    digest.as_ref().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intercept::Authority;

    #[test]
    fn a_file_shows_its_certificates_and_nothing_else() {
        let authority = Authority::load_or_make(tempfile::tempdir().unwrap().path(), 1).unwrap();
        let pem = format!(
            "text\n{}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            authority.cert_pem()
        );
        let found = shown(pem.as_bytes());
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0].digest, found[0].digest.len()), (&authority.digest(), 64));
        assert_eq!(found[0].ends, authority.expires());
        assert!(found[0].begins < SystemTime::now());
        assert_eq!(shown(b"no certificate"), []);
    }
}

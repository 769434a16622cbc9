//! The CA's two files: read with every check, or made once.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa};
use rcgen::{KeyPair, KeyUsagePurpose, SerialNumber};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;

use super::files;
use super::leaf::{self, Issuer, MintFault, Validity};

/// Why there is no CA to start with.
#[derive(Debug, thiserror::Error)]
pub enum CaFault {
    /// One of the two files is there, and the other is not.
    #[error(
        "{} is there, but {} is not: put it back, or remove the first for a new CA",
        there.display(), missing.display()
    )]
    Half {
        /// The file that is there.
        there: PathBuf,
        /// The file that is not.
        missing: PathBuf,
    },

    /// A file or folder cannot be read or written.
    #[error("{}: must be readable, and writable where a CA is to be made", .0.display())]
    File(PathBuf, #[source] io::Error),

    /// The file holds no PEM certificate that can be read.
    #[error("{}: must hold a PEM certificate", .0.display())]
    NotACertificate(PathBuf),

    /// The file holds no private key that can be read.
    #[error(
        "{}: must hold an unencrypted PEM key: EC (P-256, P-384, P-521), RSA or Ed25519",
        .0.display()
    )]
    NotAKey(PathBuf),

    /// The key is another certificate's.
    #[error("{}: must be the key of the first certificate in {}", key.display(), cert.display())]
    Mismatch {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
    },

    /// The certificate may not sign others.
    #[error("{}: must be a CA that may sign certificates (CA:TRUE, keyCertSign)", .0.display())]
    NotACa(PathBuf),

    /// The certificate's time is over.
    #[error(
        "{}: must be in force, but expired on {ended}; remove both files for a new CA",
        file.display()
    )]
    Expired {
        /// The certificate.
        file: PathBuf,
        /// Its last second.
        ended: String,
    },

    /// The certificate's time has not come.
    #[error("{}: must be in force, but begins on {begins}; is the clock right?", file.display())]
    Early {
        /// The certificate.
        file: PathBuf,
        /// Its first second.
        begins: String,
    },

    /// No key or certificate could be made.
    #[error("could not make a CA")]
    Making(#[source] rcgen::Error),

    /// No name or serial number could be made up.
    #[error("could not make a CA")]
    Naming(#[source] MintFault),

    /// The TLS library refused the leaf key.
    #[error("could not set up TLS")]
    Tls(#[source] rustls::Error),
}

/// A CA that may sign now.
pub(super) struct Ca {
    pub(super) cert: CertificateDer<'static>,
    /// What the file holds but for roots; this CA among them, if it is none.
    pub(super) intermediates: Vec<CertificateDer<'static>>,
    /// All certificates of the file, and nothing else of it.
    pub(super) pem: String,
    pub(super) valid: Validity,
    pub(super) issuer: Issuer,
}

/// Loads the pair in `dir`, made before if neither half was there.
///
/// Making holds a lock, and looks again under it: who comes second finds the pair.
pub(super) fn load_or_make(dir: &Path, now: SystemTime) -> Result<Ca, CaFault> {
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    if !(cert.exists() && key.exists()) {
        let _lock = lock(dir)?;
        match (cert.exists(), key.exists()) {
            (true, true) => (),
            (false, false) => make(&cert, &key, now)?,
            (true, false) => return Err(CaFault::Half { there: cert, missing: key }),
            (false, true) => return Err(CaFault::Half { there: key, missing: cert }),
        }
    }
    load(&cert, &key, now)
}

/// Loads a CA and its key.
pub(super) fn load(cert: &Path, key: &Path, now: SystemTime) -> Result<Ca, CaFault> {
    let signer = read_key(key)?;
    let written = read(cert)?;
    let no_certificate = || CaFault::NotACertificate(cert.to_owned());
    let certs: Vec<_> = CertificateDer::pem_slice_iter(&written)
        .collect::<Result<_, _>>()
        .ok()
        .ok_or_else(no_certificate)?;
    let der = certs.first().ok_or_else(no_certificate)?;
    let (_, parsed) = X509Certificate::from_der(der).ok().ok_or_else(no_certificate)?;

    let valid = in_force(cert, &parsed, now)?;
    if !may_sign(&parsed) {
        return Err(CaFault::NotACa(cert.to_owned()));
    }
    if parsed.public_key().subject_public_key.data != signer.public_key_raw() {
        return Err(CaFault::Mismatch { cert: cert.to_owned(), key: key.to_owned() });
    }
    let issuer = Issuer::new(&parsed, signer).ok_or_else(|| CaFault::NotAKey(key.to_owned()))?;
    Ok(Ca {
        cert: der.clone(),
        intermediates: certs.iter().filter(|cert| !is_root(cert)).cloned().collect(),
        pem: certs.iter().map(|cert| pem(cert)).collect(),
        valid,
        issuer,
    })
}

/// One certificate as PEM.
pub(super) fn pem(cert: &CertificateDer<'_>) -> String {
    let encoded = BASE64_STANDARD.encode(cert);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for (at, sign) in encoded.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            pem.push('\n');
        }
        pem.push(sign);
    }
    pem.push_str("\n-----END CERTIFICATE-----\n");
    pem
}

/// Seconds since 1970.
pub(super) fn seconds(at: SystemTime) -> i64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(since).unwrap_or(i64::MAX)
}

fn in_force(file: &Path, cert: &X509Certificate<'_>, now: SystemTime) -> Result<Validity, CaFault> {
    let (begins, ends) = (cert.validity().not_before, cert.validity().not_after);
    let valid = Validity { not_before: begins.timestamp(), not_after: ends.timestamp() };
    let now = seconds(now);
    if valid.not_after <= now {
        return Err(CaFault::Expired { file: file.to_owned(), ended: ends.to_string() });
    }
    if now < valid.not_before {
        return Err(CaFault::Early { file: file.to_owned(), begins: begins.to_string() });
    }
    if valid.not_after - now < 30 * DAY {
        tracing::warn!(file = %file.display(), expires = %ends, "the CA expires soon");
    }
    Ok(valid)
}

fn may_sign(cert: &X509Certificate<'_>) -> bool {
    let ca = matches!(cert.basic_constraints(), Ok(Some(constraints)) if constraints.value.ca);
    let signs = match cert.key_usage() {
        Ok(None) => true,
        Ok(Some(usage)) => usage.value.key_cert_sign(),
        Err(_) => false,
    };
    ca && signs
}

/// Whether a client has it or cannot use it: no use in sending it.
fn is_root(cert: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(cert)
        .is_ok_and(|(_, cert)| cert.subject().as_raw() == cert.issuer().as_raw())
}

fn read(file: &Path) -> Result<Vec<u8>, CaFault> {
    fs::read(file).map_err(|error| CaFault::File(file.to_owned(), error))
}

fn read_key(file: &Path) -> Result<KeyPair, CaFault> {
    let written = read(file)?;
    let mode = fs::metadata(file).map_or(0, |found| found.permissions().mode());
    // The group is left out: a mounted Kubernetes secret belongs to the pod's group.
    if mode & 0o007 != 0 {
        tracing::warn!(file = %file.display(), "the CA's key can be read by other users");
    }
    PrivateKeyDer::from_pem_slice(&written)
        .ok()
        .and_then(|key| KeyPair::try_from(&key).ok())
        .ok_or_else(|| CaFault::NotAKey(file.to_owned()))
}

fn lock(dir: &Path) -> Result<File, CaFault> {
    let named = |path: &Path| {
        let path = path.to_owned();
        move |error| CaFault::File(path, error)
    };
    // The folders above stay passable: clients read `public`, which is beside `ca`.
    if let Some(above) = dir.parent().filter(|above| !above.as_os_str().is_empty())
        && !above.is_dir()
    {
        files::folder(above, 0o711).map_err(named(above))?;
    }
    files::folder(dir, 0o700).map_err(named(dir))?;
    let path = dir.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(named(&path))?;
    file.lock().map_err(named(&path))?;
    Ok(file)
}

/// Makes a CA of one's own and writes both halves, the key first.
fn make(cert: &Path, key: &Path, now: SystemTime) -> Result<(), CaFault> {
    let signer = KeyPair::generate().map_err(CaFault::Making)?;
    let made = params(seconds(now))?.self_signed(&signer).map_err(CaFault::Making)?;
    for (path, mode, pem) in [(key, 0o600, signer.serialize_pem()), (cert, 0o644, pem(made.der()))]
    {
        files::replace(path, mode, pem.as_bytes())
            .map_err(|error| CaFault::File(path.to_owned(), error))?;
    }
    tracing::info!(file = %cert.display(), "made a CA");
    Ok(())
}

fn params(now: i64) -> Result<CertificateParams, CaFault> {
    let serial = leaf::serial().map_err(CaFault::Naming)?;
    let name = leaf::serial().map_err(CaFault::Naming)?;
    let time = |seconds| {
        let at = ASN1Time::from_timestamp(seconds).or(Err(CaFault::Naming(MintFault::Clock)));
        at.map(|at| at.to_datetime())
    };
    let [.., a, b, c, d] = name;
    let mut params = CertificateParams::default();
    params.not_before = time(now - DAY)?;
    params.not_after = time(now + LIFE)?;
    params.serial_number = Some(SerialNumber::from(serial.to_vec()));
    params.distinguished_name = DistinguishedName::new();
    // The number tells the CAs of two machines apart in a store that has both.
    let name = format!("samekey CA {a:02x}{b:02x}{c:02x}{d:02x}");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

const DAY: i64 = 24 * 60 * 60;
/// Ten years: the CA is in every client's store, and outlives what it serves.
const LIFE: i64 = 3652 * DAY;

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::Barrier;
    use std::thread;
    use std::time::Duration;

    use tempfile::{TempDir, tempdir};

    use super::*;

    /// A CA and its key as files, made by `change`d parameters.
    fn files(change: impl FnOnce(&mut CertificateParams)) -> (TempDir, PathBuf, PathBuf) {
        let dir = tempdir().unwrap();
        let (cert, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
        let signer = KeyPair::generate().unwrap();
        let mut params = params(seconds(SystemTime::now())).unwrap();
        change(&mut params);
        fs::write(&cert, params.self_signed(&signer).unwrap().pem()).unwrap();
        fs::write(&key, signer.serialize_pem()).unwrap();
        (dir, cert, key)
    }

    fn fault(cert: &Path, key: &Path) -> String {
        load(cert, key, SystemTime::now()).err().expect("is refused").to_string()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_was_made_is_found_again_and_is_private() {
        let state = tempdir().unwrap();
        let dir = state.path().join("state/ca");
        let now = SystemTime::now();
        let made = load_or_make(&dir, now).unwrap();
        assert_eq!(load_or_make(&dir, now).unwrap().cert, made.cert);
        assert_eq!((mode(&dir), mode(&dir.join("key.pem"))), (0o700, 0o600));
        assert_eq!(mode(&state.path().join("state")), 0o711);
        assert!(made.intermediates.is_empty());
        assert_eq!(made.pem, fs::read_to_string(dir.join("cert.pem")).unwrap());
        assert!(!made.pem.contains("KEY"));
    }

    #[test]
    fn a_made_ca_is_what_strict_clients_want() {
        let dir = tempdir().unwrap();
        let made = load_or_make(dir.path(), SystemTime::now()).unwrap();
        let (_, cert) = X509Certificate::from_der(&made.cert).unwrap();
        let constraints = cert.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, Some(0));
        let usage = cert.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
        assert_eq!(usage.value.flags.count_ones(), 2);
        let name = cert.subject().to_string();
        let number = name.strip_prefix("CN=samekey CA ").unwrap();
        assert!(number.len() == 8 && number.chars().all(|sign| sign.is_ascii_hexdigit()));
        assert_eq!(made.valid.not_after - made.valid.not_before, LIFE + DAY);
    }

    #[test]
    fn those_who_start_at_once_have_one_ca() {
        let dir = tempdir().unwrap();
        let (gate, now) = (Barrier::new(8), SystemTime::now());
        let certs: Vec<_> = thread::scope(|scope| {
            let start = || {
                gate.wait();
                load_or_make(dir.path(), now).unwrap().cert
            };
            let starts: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        assert!(certs.windows(2).all(|pair| pair[0] == pair[1]));
    }

    #[test]
    fn half_a_ca_is_not_completed() {
        for (gone, there) in [("key.pem", "cert.pem"), ("cert.pem", "key.pem")] {
            let dir = tempdir().unwrap();
            load_or_make(dir.path(), SystemTime::now()).unwrap();
            fs::remove_file(dir.path().join(gone)).unwrap();
            let fault = load_or_make(dir.path(), SystemTime::now()).err().unwrap().to_string();
            assert!(fault.contains(&format!("{there} is there, but")), "{fault}");
            assert!(fault.contains(&format!("{gone} is not")), "{fault}");
        }
    }

    #[test]
    fn a_fault_names_the_file_and_what_is_wanted() {
        let (_dir, cert, key) = files(|_| ());
        let (_other, _, other_key) = files(|_| ());
        assert!(load(&cert, &key, SystemTime::now()).is_ok());
        for (fault, file, wish) in [
            (fault(&cert, &other_key), "k.pem", "must be the key of the first certificate in"),
            (fault(&cert, &cert), "c.pem", "must hold an unencrypted PEM key"),
            (fault(&key, &key), "k.pem", "must hold a PEM certificate"),
            (fault(&cert.join("x"), &key), "c.pem/x", "must be readable"),
            (fault(&cert, &key.join("x")), "k.pem/x", "must be readable"),
        ] {
            assert!(fault.contains(file) && fault.contains(wish), "{fault}");
            assert!(!fault.contains('\n'));
        }
        fs::write(&cert, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        assert!(fault(&cert, &key).contains("must hold a PEM certificate"));
    }

    #[test]
    fn only_a_ca_may_sign() {
        let (_dir, cert, key) = files(|params| params.is_ca = IsCa::ExplicitNoCa);
        assert!(fault(&cert, &key).contains("c.pem: must be a CA"));
        let signs_nothing = vec![KeyUsagePurpose::DigitalSignature];
        let (_dir, cert, key) = files(|params| params.key_usages = signs_nothing);
        assert!(fault(&cert, &key).contains("c.pem: must be a CA"));
        let (_dir, cert, key) = files(|params| params.key_usages = Vec::new());
        assert!(load(&cert, &key, SystemTime::now()).is_ok());
    }

    #[test]
    fn a_ca_is_in_force_from_its_first_second_and_not_in_its_last() {
        let (_dir, cert, key) = files(|_| ());
        let valid = load(&cert, &key, SystemTime::now()).unwrap().valid;
        let at = |seconds: i64| {
            let seconds = Duration::from_secs(u64::try_from(seconds).unwrap());
            load(&cert, &key, SystemTime::UNIX_EPOCH + seconds)
        };
        assert!(matches!(at(valid.not_before - 1), Err(CaFault::Early { .. })));
        assert!(at(valid.not_before).is_ok());
        assert!(at(valid.not_after - 1).is_ok());
        assert!(matches!(at(valid.not_after), Err(CaFault::Expired { .. })));
    }

    #[test]
    fn keys_of_every_usual_kind_are_read() {
        let kinds = [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ECDSA_P521_SHA512,
            &rcgen::PKCS_RSA_SHA256,
            &rcgen::PKCS_ED25519,
        ];
        for kind in kinds {
            let (_dir, cert, key) = files(|_| ());
            let signer = KeyPair::generate_for(kind).unwrap();
            let params = params(seconds(SystemTime::now())).unwrap();
            fs::write(&cert, params.self_signed(&signer).unwrap().pem()).unwrap();
            fs::write(&key, signer.serialize_pem()).unwrap();
            assert!(load(&cert, &key, SystemTime::now()).is_ok(), "{kind:?}");
        }
    }

    #[test]
    fn a_key_beside_the_certificate_is_not_passed_on() {
        let (_dir, cert, key) = files(|_| ());
        let both = fs::read_to_string(&key).unwrap() + &fs::read_to_string(&cert).unwrap();
        fs::write(&cert, both).unwrap();
        assert!(!load(&cert, &cert, SystemTime::now()).unwrap().pem.contains("KEY"));
    }

    #[test]
    fn both_key_formats_of_openssl_are_read() {
        let (_dir, cert, key) = files(|_| ());
        for (pass, head) in [("cat", "EC PARAMETERS"), ("openssl pkcs8 -topk8 -nocrypt", "PRIVATE")]
        {
            let script = format!(
                "openssl ecparam -name prime256v1 -genkey | {pass} > {key} && \
                 openssl req -x509 -new -key {key} -days 9 -subj /CN=x -out {cert}",
                key = key.display(),
                cert = cert.display(),
            );
            if Command::new("sh").args(["-c", &script]).output().unwrap().status.success() {
                let first = format!("-----BEGIN {head}");
                assert!(fs::read_to_string(&key).unwrap().starts_with(&first));
                assert!(load(&cert, &key, SystemTime::now()).is_ok());
            }
        }
    }
}

//! Whom we trust upstream, and what lets clients trust us.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, TrustAnchor};

use super::authority::Authority;
use super::environment::{Environment, Format, Own, without_user};
use super::truststore::pkcs12;
use super::{ca, files};

/// The roots of this system, or those that Mozilla trusts where it has none.
///
/// They are read from the usual places and never from where `SSL_CERT_FILE` points:
/// that is the bundle that holds our own CA.
#[derive(Clone, Debug)]
pub struct Roots {
    certs: Vec<CertificateDer<'static>>,
    file: Option<PathBuf>,
}

/// Why there are no roots to trust.
#[derive(Debug, thiserror::Error)]
pub enum RootsFault {
    /// The file of extra roots cannot be read.
    #[error("{}: must be readable", .0.display())]
    File(PathBuf, #[source] io::Error),

    /// The file of extra roots holds none, or one that is not a certificate.
    #[error("{}: must hold PEM certificates and nothing that fails to be one", .0.display())]
    NotCertificates(PathBuf),
}

impl Roots {
    /// Reads the first of the usual bundles that holds a certificate.
    pub fn system() -> Self {
        Self::first_of(BUNDLES)
    }

    fn first_of(files: &[&str]) -> Self {
        let found = files.iter().find_map(|file| {
            let written = fs::read(file).ok()?;
            let certs: Vec<_> = certificates(&written).filter_map(Result::ok).collect();
            (!certs.is_empty()).then(|| Self { certs, file: Some(PathBuf::from(file)) })
        });
        found.unwrap_or(Self { certs: Vec::new(), file: None })
    }

    /// The bundle that was read; `None`: the built-in roots are used.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The roots as PEM; `None` where the system has none.
    pub fn pem(&self) -> Option<Vec<u8>> {
        let text: String = self.certs.iter().map(ca::pem).collect();
        (!text.is_empty()).then(|| text.into_bytes())
    }

    /// These roots and those of the file `extra`, but never `own`, the CA that signs our leaves.
    ///
    /// # Errors
    ///
    /// `extra` cannot be read, or is not made of certificates.
    pub fn store(
        &self,
        extra: Option<&Path>,
        own: &CertificateDer<'_>,
    ) -> Result<RootCertStore, RootsFault> {
        let mut store = RootCertStore::empty();
        if self.certs.is_empty() {
            store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        // Systems ship a root or two that webpki cannot read; the others still count.
        store.add_parsable_certificates(self.certs.iter().cloned());
        if let Some(file) = extra {
            add(&mut store, file)?;
        }
        let mut ours = RootCertStore::empty();
        ours.add_parsable_certificates([own.clone()]);
        let (before, same) = (store.len(), |root: &TrustAnchor<'_>| {
            let mut ours = ours.roots.iter();
            ours.any(|own| {
                own.subject == root.subject
                    && own.subject_public_key_info == root.subject_public_key_info
            })
        });
        store.roots.retain(|root| !same(root));
        if store.len() < before {
            tracing::warn!("the roots hold our own CA, which is not trusted upstream");
        }
        Ok(store)
    }
}

/// Writes into `dir` what clients need: `ca.pem`, `bundle.pem`, `truststore.p12`, `env.sh`,
/// and `wgetrc` and `samekey.ini` for wget and PHP, which know no variable for roots.
///
/// The files are for everyone to read; a password in `proxy_url` is left out of them.
///
/// # Errors
///
/// The folder or a file cannot be written.
pub fn publish(
    dir: &Path,
    authority: &Authority,
    roots: &Roots,
    proxy_url: &str,
) -> io::Result<()> {
    files::folder(dir, 0o755)?;
    if roots.certs.is_empty() {
        tracing::warn!(
            folder = %dir.display(),
            "no root certificates found on this system: bundle.pem holds our CA alone, and what uses it reaches only opened hosts",
        );
    }
    let environment = Environment::new(&without_user(proxy_url), dir, Own::default());
    let write = |name: &str, contents: &[u8]| files::replace(&dir.join(name), 0o644, contents);
    write("ca.pem", authority.cert_pem().as_bytes())?;
    write("bundle.pem", &bundle(authority, roots))?;
    write("truststore.p12", &truststore(authority, roots))?;
    write("wgetrc", environment.wgetrc(&for_all(Path::new(WGETRC))).as_bytes())?;
    write("samekey.ini", environment.php_ini().as_bytes())?;
    write("env.sh", environment.written(Format::Shell).as_bytes())
}

/// A text that everybody may read; empty where it is not there, or not for everybody.
fn for_all(path: &Path) -> String {
    let open = fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o004 != 0);
    open.then(|| fs::read_to_string(path).ok()).flatten().unwrap_or_default()
}

/// What one of the files in `dir` holds, as clients read it.
///
/// # Errors
///
/// The file cannot be read.
pub async fn published(dir: &Path, name: &str) -> io::Result<Vec<u8>> {
    tokio::fs::read(dir.join(name)).await
}

/// The roots and our CA as one PEM, for clients whose setting replaces their store.
pub fn bundle(authority: &Authority, roots: &Roots) -> Vec<u8> {
    let mut bundle: String = roots.certs.iter().map(ca::pem).collect();
    bundle.push_str(authority.cert_pem());
    bundle.into_bytes()
}

/// What Java trusts: its setting, too, replaces its own store.
pub fn truststore(authority: &Authority, roots: &Roots) -> Vec<u8> {
    let roots = roots.certs.iter().enumerate();
    let roots = roots.map(|(n, cert)| (format!("root-{n}"), cert.clone()));
    let own = std::iter::once(("samekey".to_owned(), authority.cert_der().clone()));
    pkcs12(&own.chain(roots).collect::<Vec<_>>())
}

fn add(store: &mut RootCertStore, file: &Path) -> Result<(), RootsFault> {
    let written = fs::read(file).map_err(|error| RootsFault::File(file.to_owned(), error))?;
    let before = store.len();
    for cert in certificates(&written) {
        cert.ok()
            .and_then(|cert| store.add(cert).ok())
            .ok_or_else(|| RootsFault::NotCertificates(file.to_owned()))?;
    }
    if store.len() == before {
        return Err(RootsFault::NotCertificates(file.to_owned()));
    }
    Ok(())
}

fn certificates(
    written: &[u8],
) -> impl Iterator<Item = Result<CertificateDer<'static>, rustls::pki_types::pem::Error>> {
    CertificateDer::pem_slice_iter(written)
}

/// Where wget is set up for a whole machine.
const WGETRC: &str = "/etc/wgetrc";

/// Where systems keep their roots as one PEM file.
const BUNDLES: &[&str] = &[
    // Debian, Ubuntu, Gentoo, Arch, Alpine, NixOS
    "/etc/ssl/certs/ca-certificates.crt",
    // Fedora, RHEL, Amazon Linux
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    // SUSE
    "/etc/ssl/ca-bundle.pem",
    "/var/lib/ca-certificates/ca-bundle.pem",
    // Arch
    "/etc/ca-certificates/extracted/tls-ca-bundle.pem",
    // Alpine, macOS, OpenBSD, FreeBSD
    "/etc/ssl/cert.pem",
    "/usr/local/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
    // NetBSD
    "/etc/openssl/certs/ca-certificates.crt",
];

#[cfg(test)]
mod tests {
    use tempfile::tempdir;

    use super::*;

    fn authority(dir: &Path) -> Authority {
        Authority::load_or_make(&dir.join("ca"), 1).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    /// A system whose bundle holds these CAs.
    fn roots(dir: &Path, cas: &[&Authority]) -> Roots {
        let file = dir.join("system.pem");
        let pem: String = cas.iter().map(|ca| ca.cert_pem()).collect();
        fs::write(&file, pem).unwrap();
        Roots::first_of(&["/nowhere.pem", file.to_str().unwrap()])
    }

    #[test]
    fn the_first_bundle_with_a_certificate_is_read() {
        let dir = tempdir().unwrap();
        let (one, two) = (authority(&dir.path().join("1")), authority(&dir.path().join("2")));
        let empty = dir.path().join("empty.pem");
        fs::write(&empty, "nothing here").unwrap();
        let full = roots(dir.path(), &[&one, &two]);
        let (empty, found) = (empty.to_str().unwrap(), full.file().unwrap().to_str().unwrap());
        let read = Roots::first_of(&[empty, found]);
        assert_eq!((read.certs.len(), read.file()), (2, full.file()));
        assert_eq!(Roots::first_of(&[empty]).file(), None);
    }

    #[test]
    fn our_own_ca_is_never_trusted_upstream() {
        let dir = tempdir().unwrap();
        let (own, other) = (authority(&dir.path().join("1")), authority(&dir.path().join("2")));
        let system = roots(dir.path(), &[&own, &other]);
        let extra = dir.path().join("extra.pem");
        fs::write(&extra, own.cert_pem()).unwrap();
        assert_eq!(system.store(None, own.cert_der()).unwrap().len(), 1);
        assert_eq!(system.store(Some(&extra), own.cert_der()).unwrap().len(), 1);
        fs::write(&extra, other.cert_pem()).unwrap();
        assert_eq!(system.store(Some(&extra), own.cert_der()).unwrap().len(), 2);
    }

    #[test]
    fn a_system_without_a_bundle_has_the_built_in_roots() {
        let dir = tempdir().unwrap();
        let own = authority(dir.path());
        let store = Roots::first_of(&[]).store(None, own.cert_der()).unwrap();
        assert_eq!(store.len(), webpki_roots::TLS_SERVER_ROOTS.len());
    }

    #[test]
    fn extra_roots_are_read_whole_or_refused() {
        let dir = tempdir().unwrap();
        let own = authority(dir.path());
        let extra = dir.path().join("extra.pem");
        let system = Roots::first_of(&[]);
        let fault = || system.store(Some(&extra), own.cert_der()).unwrap_err().to_string();
        assert!(fault().contains("extra.pem: must be readable"));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for written in ["", "text", broken, &format!("{}{broken}", own.cert_pem())] {
            fs::write(&extra, written).unwrap();
            assert!(fault().contains("extra.pem: must hold PEM certificates"), "{written}");
        }
    }

    #[test]
    fn what_clients_need_is_theirs_to_read_and_new_at_each_start() {
        let dir = tempdir().unwrap();
        let (own, other) = (authority(&dir.path().join("1")), authority(&dir.path().join("2")));
        let public = dir.path().join("deep/public");
        let system = roots(dir.path(), &[&other]);
        publish(&public, &other, &system, "http://127.0.0.1:1").unwrap();
        publish(&public, &own, &system, "http://u:secret@127.0.0.1:2").unwrap();
        assert_eq!(mode(&public), 0o755);
        let read = |name: &str| fs::read_to_string(public.join(name)).unwrap();
        for name in ["ca.pem", "bundle.pem", "env.sh", "wgetrc", "samekey.ini"] {
            assert_eq!(mode(&public.join(name)), 0o644);
            assert!(!read(name).contains("secret") && !read(name).contains("KEY"));
        }
        assert_eq!(mode(&public.join("truststore.p12")), 0o644);
        assert_eq!(fs::read_dir(&public).unwrap().count(), 6);
        assert_eq!(read("ca.pem"), own.cert_pem());
        assert_eq!(read("bundle.pem"), format!("{}{}", other.cert_pem(), own.cert_pem()));
        assert!(read("env.sh").contains("export HTTPS_PROXY='http://127.0.0.1:2'\n"));
        for name in ["env.sh", "wgetrc", "samekey.ini"] {
            assert!(read(name).contains(public.join("bundle.pem").to_str().unwrap()), "{name}");
        }
    }

    #[test]
    fn what_is_not_for_everybody_is_not_published() {
        let dir = tempdir().unwrap();
        let file = dir.path().join("wgetrc");
        assert_eq!(for_all(&file), "");
        fs::write(&file, "quiet = on\n").unwrap();
        for (mode, wanted) in [(0o644, "quiet = on\n"), (0o640, "")] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(for_all(&file), wanted);
        }
    }
}

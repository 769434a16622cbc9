//! Two throw-away authorities: the origin's, and the one that proxies sign leaves with.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{CipherSuite, ClientConfig, RootCertStore, ServerConfig};

use crate::yard::{Fault, HOST};

/// The certificates of one run.
pub(crate) struct Pki {
    /// How the origin shows itself.
    pub(crate) origin: Arc<ServerConfig>,
    /// What the load trusts: both authorities.
    pub(crate) client: Arc<ClientConfig>,
    /// What the proxies are told.
    pub(crate) files: Files,
}

/// The files that the proxies read.
#[derive(Clone)]
pub(crate) struct Files {
    /// The origin's authority.
    pub(crate) roots: PathBuf,
    /// The authority that signs leaves.
    pub(crate) ca: PathBuf,
    /// Its key.
    pub(crate) ca_key: PathBuf,
}

impl Pki {
    /// Makes both authorities and writes them into `folder`.
    pub(crate) fn make(folder: &Path) -> Result<Self, Fault> {
        let (upstream, upstream_pem, _) = authority(UPSTREAM)?;
        let (_, ca_pem, ca_key) = authority(INTERCEPTION)?;
        let files = Files {
            roots: folder.join("roots.pem"),
            ca: folder.join("ca.pem"),
            ca_key: folder.join("ca.key"),
        };
        fs::write(&files.roots, &upstream_pem)?;
        fs::write(&files.ca, &ca_pem)?;
        let mut private = OpenOptions::new();
        private.write(true).create_new(true).mode(0o600);
        private.open(&files.ca_key)?.write_all(ca_key.as_bytes())?;
        let origin = Arc::new(server(HOST, &KeyPair::generate()?, &upstream)?);
        let client = client(&[&files.roots, &files.ca])?;
        Ok(Self { origin, client, files })
    }
}

impl Files {
    /// The authority that signs leaves.
    pub(crate) fn issuer(&self) -> Result<Issuer<'static, KeyPair>, Fault> {
        let key = KeyPair::from_pem(&fs::read_to_string(&self.ca_key)?)?;
        Ok(Issuer::new(params(INTERCEPTION), key))
    }
}

/// Shows a leaf for `host` that `issuer` signs; no tickets, as samekey has none.
pub(crate) fn server(
    host: &str,
    key: &KeyPair,
    issuer: &Issuer<'_, KeyPair>,
) -> Result<ServerConfig, Fault> {
    let mut leaf = CertificateParams::new(vec![host.to_owned()])?;
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = leaf.signed_by(key, issuer)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Trusts the authorities in `roots`.
pub(crate) fn client(roots: &[&Path]) -> Result<Arc<ClientConfig>, Fault> {
    let mut store = RootCertStore::empty();
    for file in roots {
        for certificate in CertificateDer::pem_file_iter(file)? {
            store.add(certificate?)?;
        }
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The cipher suite that samekey prefers: a cheaper or dearer one would hide what policy costs.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    let first = CipherSuite::TLS13_AES_128_GCM_SHA256;
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != first);
    Arc::new(provider)
}

fn authority(name: &str) -> Result<(Issuer<'static, KeyPair>, String, String), Fault> {
    let (key, params) = (KeyPair::generate()?, params(name));
    let certificate = params.self_signed(&key)?.pem();
    let key_pem = key.serialize_pem();
    Ok((Issuer::new(params, key), certificate, key_pem))
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

const UPSTREAM: &str = "bench upstream";
const INTERCEPTION: &str = "bench interception";

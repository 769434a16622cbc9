//! The CA: loaded or made, and a leaf for every host that is opened.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::{KeyPair, PublicKeyData as _};
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};

use super::ca::{self, Ca, CaFault};
use super::cache::{Cache, held};
use super::leaf::{MintFault, Validity};

/// The CA in force, and the leaves it has signed.
#[derive(Clone)]
pub struct Authority(Arc<Inner>);

struct Inner {
    ca: Ca,
    /// One key for all leaves, as long as the process lives: making one costs more than a leaf.
    leaf_key: Arc<dyn SigningKey>,
    leaf_spki: Vec<u8>,
    /// What all leaves have in common.
    common: ServerConfig,
    leaves: Cache<Leaf>,
    minted: AtomicU64,
}

struct Leaf {
    config: Arc<ServerConfig>,
    renewed_from: i64,
}

impl Authority {
    /// Loads `cert.pem` and `key.pem` of `dir`, and makes both when neither is there.
    ///
    /// Of two processes that start at once, one makes them and both have them.
    /// At most `leaf_cache` leaves are kept.
    ///
    /// # Errors
    ///
    /// One half is missing, a file cannot be read or written, or they are not a
    /// CA in force and its key.
    pub fn load_or_make(dir: &Path, leaf_cache: usize) -> Result<Self, CaFault> {
        Self::new(ca::load_or_make(dir, SystemTime::now())?, leaf_cache)
    }

    /// Loads the operator's CA; what else `cert` holds is sent along as intermediates.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or they are not a CA in force and its key.
    pub fn load(cert: &Path, key: &Path, leaf_cache: usize) -> Result<Self, CaFault> {
        Self::new(ca::load(cert, key, SystemTime::now())?, leaf_cache)
    }

    fn new(ca: Ca, leaf_cache: usize) -> Result<Self, CaFault> {
        let leaf = KeyPair::generate().map_err(CaFault::Making)?;
        let leaf_spki = leaf.subject_public_key_info();
        let leaf_key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(leaf.serialize_der()));
        let provider = Arc::new(provider());
        let leaf_key = provider.key_provider.load_private_key(leaf_key).map_err(CaFault::Tls)?;
        let common = common(provider, &leaf_key).map_err(CaFault::Tls)?;
        let (leaves, minted) = (Cache::new(leaf_cache), AtomicU64::new(0));
        Ok(Self(Arc::new(Inner { ca, leaf_key, leaf_spki, common, leaves, minted })))
    }

    /// How TLS is accepted for `host`, a DNS name or an address, in any case, a final dot or none.
    ///
    /// The leaf is signed when the host is new or half of its leaf's life is over, and once however
    /// many ask; the others wait for it, some 25 us with an EC key.
    ///
    /// # Errors
    ///
    /// The host can have no certificate, the CA has expired, or signing failed.
    pub fn server_config(&self, host: &str) -> Result<Arc<ServerConfig>, MintFault> {
        self.server_config_at(host, SystemTime::now())
    }

    fn server_config_at(
        &self,
        host: &str,
        now: SystemTime,
    ) -> Result<Arc<ServerConfig>, MintFault> {
        let (name, now) = (name_of(host)?, ca::seconds(now));
        let slot = self.0.leaves.slot(&name.to_str());
        let mut slot = held(&slot);
        if let Some(leaf) = slot.as_ref().filter(|leaf| now < leaf.renewed_from) {
            return Ok(Arc::clone(&leaf.config));
        }
        let leaf = self.0.mint(&name, now)?;
        Ok(Arc::clone(&slot.insert(leaf).config))
    }

    /// What a client must trust, PEM: the CA, and what the operator's file holds beside it.
    pub fn cert_pem(&self) -> &str {
        &self.0.ca.pem
    }

    /// The certificate that signs leaves.
    pub fn cert_der(&self) -> &CertificateDer<'static> {
        &self.0.ca.cert
    }

    /// The SHA-256 of the certificate that signs leaves, in hex.
    pub fn digest(&self) -> String {
        super::shown::digest(self.cert_der())
    }

    /// When the CA ends, and every leaf with it.
    pub fn expires(&self) -> SystemTime {
        let seconds = u64::try_from(self.0.ca.valid.not_after).unwrap_or(0);
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Leaves signed since the start.
    pub fn minted(&self) -> u64 {
        self.0.minted.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minted = self.minted();
        f.debug_struct("Authority").field("minted", &minted).finish_non_exhaustive()
    }
}

impl Inner {
    fn mint(&self, name: &ServerName<'_>, now: i64) -> Result<Leaf, MintFault> {
        let valid = Validity {
            not_before: (now - CLOCK_SKEW).max(self.ca.valid.not_before),
            not_after: (now + LEAF_LIFE).min(self.ca.valid.not_after),
        };
        if valid.not_after <= now {
            return Err(MintFault::Expired);
        }
        let leaf = self.ca.issuer.sign(name, &self.leaf_spki, valid)?;
        self.minted.fetch_add(1, Ordering::Relaxed);
        let chain = std::iter::once(leaf).chain(self.ca.intermediates.iter().cloned()).collect();
        let mut config = self.common.clone();
        config.cert_resolver = resolver(chain, &self.leaf_key);
        let renewed_from = now + (valid.not_after - now) / 2;
        Ok(Leaf { config: Arc::new(config), renewed_from })
    }
}

/// Starts AWS-LC's random generator: 40 ms, which the first request would pay.
///
/// To be called before listening; once is enough, further threads take 20 us each.
///
/// # Errors
///
/// The system gives no random numbers.
pub fn warm() -> Result<(), MintFault> {
    super::leaf::serial().map(drop)
}

fn name_of(host: &str) -> Result<ServerName<'static>, MintFault> {
    let bare = host.strip_suffix('.').unwrap_or(host);
    let bare = bare.strip_prefix('[').and_then(|bare| bare.strip_suffix(']')).unwrap_or(bare);
    ServerName::try_from(bare.to_ascii_lowercase())
        .ok()
        .ok_or_else(|| MintFault::Name(host.to_owned()))
}

fn common(
    provider: Arc<CryptoProvider>,
    key: &Arc<dyn SigningKey>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(resolver(Vec::new(), key));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ignore_client_order = true;
    // The client is next door: a whole handshake costs it little, while tickets cost
    // every connection, and a session store in each host's config costs memory.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// The cheapest of the safe: AES-128 before AES-256 with its SHA-384 makes 1.2 times
/// the connections a second. Post-quantum exchanges are for what crosses a network, the
/// upstream leg; offered here, every client of today would pick one.
fn provider() -> CryptoProvider {
    use aws_lc_rs::{cipher_suite as suite, kx_group};
    let first = [suite::TLS13_AES_128_GCM_SHA256, suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256];
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| !first.contains(suite));
    provider.kx_groups = vec![kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
    provider
}

fn resolver(
    chain: Vec<CertificateDer<'static>>,
    key: &Arc<dyn SigningKey>,
) -> Arc<dyn ResolvesServerCert> {
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, Arc::clone(key))))
}

const DAY: i64 = 24 * 60 * 60;
/// A client's clock may be slow, or in the wrong time zone, by that much.
const CLOCK_SKEW: i64 = 2 * DAY;
/// Apple's and Chrome's limit is 398 days for public CAs; no process needs a tenth.
const LEAF_LIFE: i64 = 90 * DAY;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::process::Command;
    use std::sync::Barrier;
    use std::thread;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer};
    use tempfile::tempdir;
    use x509_parser::certificate::X509Certificate;
    use x509_parser::extensions::{GeneralName, ParsedExtension};
    use x509_parser::prelude::FromDer as _;

    use super::*;

    fn authority(leaf_cache: usize) -> Authority {
        Authority::load_or_make(tempdir().unwrap().path(), leaf_cache).unwrap()
    }

    /// What is shown to a client of `host`, the leaf first.
    fn chain(authority: &Authority, host: &str, now: SystemTime) -> Vec<CertificateDer<'static>> {
        let (name, now) = (name_of(host).unwrap(), ca::seconds(now));
        let ca = &authority.0.ca;
        let valid =
            Validity { not_before: now - DAY, not_after: ca.valid.not_after.min(now + DAY) };
        let leaf = ca.issuer.sign(&name, &authority.0.leaf_spki, valid).unwrap();
        std::iter::once(leaf).chain(ca.intermediates.iter().cloned()).collect()
    }

    #[test]
    fn a_leaf_is_what_strict_clients_want() {
        let authority = authority(1);
        let long = format!("{}.example", ["abcdefghijklmnopqrstuvwxyz"; 9].join("."));
        let (_, ca) = X509Certificate::from_der(authority.cert_der()).unwrap();
        for (host, address) in [
            ("api.example.com", &[][..]),
            ("under_score.example", &[]),
            (&long, &[]),
            ("127.0.0.1", &[127, 0, 0, 1]),
            ("::1", &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        ] {
            let der = chain(&authority, host, SystemTime::now()).remove(0);
            let (rest, leaf) = X509Certificate::from_der(&der).unwrap();
            assert!(rest.is_empty());
            assert_eq!(leaf.issuer().as_raw(), ca.subject().as_raw());
            assert_ne!(leaf.raw_serial(), ca.raw_serial());
            let shown = if host.len() > 64 { String::new() } else { format!("CN={host}") };
            assert_eq!(leaf.subject().to_string(), shown);
            let names = leaf.subject_alternative_name().unwrap().unwrap();
            assert_eq!(names.critical, host.len() > 64);
            let wanted = match address {
                [] => GeneralName::DNSName(host),
                address => GeneralName::IPAddress(address),
            };
            assert_eq!(names.value.general_names, [wanted]);
            let constraints = leaf.basic_constraints().unwrap().unwrap();
            assert!(constraints.critical && !constraints.value.ca);
            let usage = leaf.key_usage().unwrap().unwrap();
            assert!(usage.critical && usage.value.digital_signature());
            let purpose = leaf.extended_key_usage().unwrap().unwrap().value;
            assert!(purpose.server_auth && !purpose.any && !purpose.client_auth);
        }
    }

    #[test]
    fn a_leaf_names_the_key_of_its_ca() {
        let authority = authority(1);
        let der = chain(&authority, "a.b", SystemTime::now()).remove(0);
        let (_, ca) = X509Certificate::from_der(authority.cert_der()).unwrap();
        let (_, leaf) = X509Certificate::from_der(&der).unwrap();
        let own = ca.iter_extensions().find_map(|ext| match ext.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
            _ => None,
        });
        let named = leaf.iter_extensions().find_map(|ext| match ext.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                id.key_identifier.as_ref().map(|id| id.0)
            }
            _ => None,
        });
        assert!(own.is_some());
        assert_eq!(own, named);
    }

    #[test]
    fn one_host_is_signed_for_once_however_many_ask() {
        let (authority, gate) = (authority(8), Barrier::new(100));
        let configs: Vec<_> = thread::scope(|scope| {
            let ask = || {
                gate.wait();
                authority.server_config("a.b").unwrap()
            };
            let asked: Vec<_> = (0..100).map(|_| scope.spawn(ask)).collect();
            asked.into_iter().map(|asked| asked.join().unwrap()).collect()
        });
        assert!(configs.iter().all(|config| Arc::ptr_eq(config, &configs[0])));
        assert_eq!(authority.minted(), 1);
    }

    #[test]
    fn a_name_is_one_however_it_is_written() {
        let authority = authority(8);
        for (host, minted) in
            [("a.b", 1), ("A.B", 1), ("a.b.", 1), ("::1", 2), ("[::1]", 2), ("0:0::0:1", 2)]
        {
            authority.server_config(host).unwrap();
            assert_eq!(authority.minted(), minted, "{host}");
        }
    }

    #[test]
    fn what_is_no_host_gets_no_certificate() {
        let (authority, long) = (authority(8), "a.".repeat(126) + "aa");
        let label = "a".repeat(64);
        for host in ["", ".", "a..b", "a b", "*.a.b", "a/b", "é.b", "[a.b]x", "a\0b", &label, &long]
        {
            let fault = authority.server_config(host).unwrap_err();
            assert!(matches!(fault, MintFault::Name(_)), "{host}");
        }
        assert!(authority.server_config(long.trim_start_matches('a')).is_err());
        assert!(authority.server_config(long.strip_prefix("a.").unwrap()).is_ok());
        assert_eq!(authority.minted(), 1);
    }

    #[test]
    fn a_leaf_is_signed_anew_at_half_its_life_and_never_outlives_the_ca() {
        let authority = authority(8);
        let now = SystemTime::now();
        let days = |days: u64| now + Duration::from_secs(days * 24 * 60 * 60);
        let last = 3651;
        for (day, minted) in [(0, 1), (44, 1), (45, 2), (89, 2), (90, 3), (last, 4), (last, 4)] {
            authority.server_config_at("a.b", days(day)).unwrap();
            assert_eq!(authority.minted(), minted, "day {day}");
        }
        let fault = authority.server_config_at("a.b", days(last + 2)).unwrap_err();
        assert!(matches!(fault, MintFault::Expired));
        assert!(authority.expires() > days(last) && authority.expires() < days(last + 2));
    }

    #[test]
    fn what_left_the_cache_is_signed_for_again() {
        let authority = authority(2);
        for (host, minted) in [("a", 1), ("b", 2), ("a", 2), ("c", 3), ("a", 3), ("b", 4)] {
            authority.server_config(host).unwrap();
            assert_eq!(authority.minted(), minted, "{host}");
        }
    }

    #[test]
    fn the_key_shows_in_no_debug_text() {
        assert!(!format!("{:?}", authority(1)).contains("key"));
    }

    /// Whether OpenSSL accepts the chain of `host` under `root`; `None` where there is no OpenSSL.
    fn openssl_accepts(authority: &Authority, host: &str, root: &str) -> Option<bool> {
        let dir = tempdir().unwrap();
        let chain = chain(authority, host, SystemTime::now());
        let file = |name: &str, text: &str| {
            fs::write(dir.path().join(name), text).unwrap();
            dir.path().join(name)
        };
        let rest: String = chain[1..].iter().map(ca::pem).collect();
        let (leaf, rest) = (file("leaf", &ca::pem(&chain[0])), file("rest", &rest));
        let name = if host.contains(':') { "-verify_ip" } else { "-verify_hostname" };
        let mut openssl = Command::new("openssl");
        openssl.args(["verify", "-x509_strict", "-purpose", "sslserver", name, host]);
        openssl.arg("-CAfile").arg(file("root", root));
        if chain.len() > 1 {
            openssl.arg("-untrusted").arg(rest);
        }
        let output = openssl.arg(leaf).output().ok()?;
        Some(output.status.success())
    }

    #[test]
    fn openssl_accepts_our_leaves_strictly() {
        let authority = authority(1);
        for host in ["api.example.com", "::1", &["abcdefghijklmnopqrstuvwxyz"; 9].join(".")] {
            assert_ne!(openssl_accepts(&authority, host, authority.cert_pem()), Some(false));
        }
    }

    #[test]
    fn an_operators_intermediate_is_sent_along_and_its_root_is_not() {
        let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let ca = |name: &str| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
            params.use_authority_key_identifier_extension = true;
            params
        };
        let root = ca("root").self_signed(&root_key).unwrap();
        let middle = ca("middle").signed_by(&key, &Issuer::new(ca("root"), root_key)).unwrap();
        let dir = tempdir().unwrap();
        let (cert, key_file) = (dir.path().join("cert"), dir.path().join("key"));
        fs::write(&cert, middle.pem() + &root.pem()).unwrap();
        fs::write(&key_file, key.serialize_pem()).unwrap();
        let authority = Authority::load(&cert, &key_file, 1).unwrap();
        assert_eq!(chain(&authority, "a.b", SystemTime::now())[1..], [middle.der().clone()]);
        assert_eq!(authority.cert_pem(), middle.pem() + &root.pem());
        assert_ne!(openssl_accepts(&authority, "a.b", &root.pem()), Some(false));
    }

    #[test]
    fn an_operators_name_is_repeated_to_the_bit() {
        let dir = tempdir().unwrap();
        let file = |name: &str| -> PathBuf { dir.path().join(name) };
        let script = "openssl req -x509 -newkey rsa:2048 -nodes -days 9 -keyout k -out c \
                      -subj '/DC=com/DC=example/O=Ex+OU=Two/CN=Corp CA' \
                      -addext keyUsage=critical,keyCertSign";
        let made =
            Command::new("sh").args(["-c", script]).current_dir(dir.path()).output().unwrap();
        if made.status.success() {
            let authority = Authority::load(&file("c"), &file("k"), 1).unwrap();
            assert_eq!(openssl_accepts(&authority, "a.b", authority.cert_pem()), Some(true));
        }
    }
}

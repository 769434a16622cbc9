//! Makes a connection: resolve, check, connect, TLS, HTTP. `way` says where to.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::task::TaskTracker;

use crate::exchange::{Failure, Origin, Scheme};
use crate::metrics::{Handshake, Metrics};
use crate::upstream::connection::{self, Connection};
use crate::upstream::line::Line;
use crate::upstream::ourselves::{Call, Ourselves};
use crate::upstream::race::unreachable;
use crate::upstream::way::{Errand, Reached, Road};
use crate::upstream::{Egress, Options};

/// Makes connections; a clone shares everything.
#[derive(Clone)]
pub struct Dialer {
    inner: Arc<Inner>,
}

struct Inner {
    any: TlsConnector,
    only_http1: TlsConnector,
    connect_timeout: ArcSwap<Duration>,
    egress: ArcSwap<Egress>,
    road: ArcSwap<Road>,
    ourselves: Ourselves,
    tasks: TaskTracker,
    metrics: Metrics,
}

/// Which protocols an exchange can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    Any,
    /// A protocol switch is an HTTP/1.1 matter.
    Http1Only,
}

impl Dialer {
    /// Trusts what `roots` holds and nothing else.
    ///
    /// # Errors
    ///
    /// When the TLS library finds no usable cipher suite or protocol version.
    pub fn new(
        roots: rustls::RootCertStore,
        egress: Egress,
        options: &Options,
        ourselves: Ourselves,
        (tasks, metrics): (TaskTracker, Metrics),
    ) -> Result<Self, rustls::Error> {
        let roots = Arc::new(roots);
        let any = client_config(roots.clone(), &[b"h2", b"http/1.1"])?;
        let only_http1 = client_config(roots, &[b"http/1.1"])?;
        let inner = Inner {
            any: TlsConnector::from(Arc::new(any)),
            only_http1: TlsConnector::from(Arc::new(only_http1)),
            connect_timeout: ArcSwap::from_pointee(options.connect_timeout),
            egress: ArcSwap::from_pointee(egress),
            road: ArcSwap::from_pointee(Road::new(options.proxy.clone(), 0)),
            ourselves,
            tasks,
            metrics,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Takes over what a reload changed.
    pub fn reconfigure(&self, egress: Egress, options: &Options) {
        self.inner.egress.store(Arc::new(egress));
        self.inner.connect_timeout.store(Arc::new(options.connect_timeout));
        if let Some(road) = self.road().changed(options.proxy.clone()) {
            self.inner.road.store(Arc::new(road));
        }
    }

    /// Opens a TCP connection, for a tunnel.
    ///
    /// # Errors
    ///
    /// [`Failure::Unreachable`], [`Failure::Barred`], [`Failure::Forbidden`] or
    /// [`Failure::Loop`]; nothing was sent.
    pub async fn tcp(&self, origin: &Origin) -> Result<Line, Failure> {
        let limit = self.connect_timeout();
        let connected = timeout(limit, self.connect(origin, Errand::Tunnel)).await;
        let reached = connected.unwrap_or_else(|_elapsed| Err(too_slow(&origin.host, limit)));
        reached.map(|reached| reached.line)
    }

    /// Whether a connection that came `from` there, meant for `to`, is a call of our own.
    pub fn made(&self, from: SocketAddr, to: SocketAddr) -> bool {
        self.inner.ourselves.called(from, to)
    }

    /// Takes note of a connection that was made to an address.
    pub(super) fn called(&self, (tcp, to): (TcpStream, SocketAddr)) -> Result<Call, Failure> {
        let call = self.inner.ourselves.call(tcp, to);
        call.map_err(|error| unreachable(error.to_string(), "destination_unavailable"))
    }

    /// How long a connection may take to be made.
    pub(super) fn connect_timeout(&self) -> Duration {
        **self.inner.connect_timeout.load()
    }

    /// The road in force.
    pub(super) fn road(&self) -> Arc<Road> {
        self.inner.road.load_full()
    }

    /// Which road is in force.
    pub(super) fn era(&self) -> u64 {
        self.inner.road.load().era
    }

    pub(super) fn egress(&self) -> arc_swap::Guard<Arc<Egress>> {
        self.inner.egress.load()
    }

    /// Whether a connection to `address` would come back to this process.
    pub(super) fn is_ours(&self, address: SocketAddr) -> bool {
        self.inner.ourselves.is(address)
    }

    /// Makes a connection that is ready for its first request.
    pub(super) async fn http(
        &self,
        origin: &Origin,
        speaks: Speaks,
    ) -> Result<Connection, Failure> {
        let limit = self.connect_timeout();
        let connected = timeout(limit, self.handshake(origin, speaks)).await;
        connected.unwrap_or_else(|_elapsed| Err(too_slow(&origin.host, limit)))
    }

    async fn handshake(&self, origin: &Origin, speaks: Speaks) -> Result<Connection, Failure> {
        // A request that switches its protocol goes through a tunnel (RFC 6455, section 4.1).
        let errand = match (origin.scheme, speaks) {
            (Scheme::Http, Speaks::Any) => Errand::Requests,
            (Scheme::Http, Speaks::Http1Only) => Errand::Tunnel,
            (Scheme::Https, _) => Errand::Proved,
        };
        let reached = self.connect(origin, errand).await?;
        let Reached { line, forwarder, era } = reached;
        if origin.scheme == Scheme::Http {
            return connection::http1(line, forwarder, era, &self.inner.tasks).await;
        }
        let connector = match speaks {
            Speaks::Any => &self.inner.any,
            Speaks::Http1Only => &self.inner.only_http1,
        };
        let tls = self.secured(connector, &origin.host, line).await?;
        if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
            return connection::http2(tls, era, &self.inner.tasks).await;
        }
        connection::http1(tls, None, era, &self.inner.tasks).await
    }

    /// TLS with a proxy, which is asked in HTTP/1.
    pub(super) async fn secured_for_http1(
        &self,
        host: &str,
        call: Call,
    ) -> Result<TlsStream<Call>, Failure> {
        self.secured(&self.inner.only_http1, host, call).await
    }

    async fn secured<IO>(
        &self,
        connector: &TlsConnector,
        host: &str,
        io: IO,
    ) -> Result<TlsStream<IO>, Failure>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned()).map_err(|_invalid| {
            let detail = format!("{host} is not a name that TLS can verify");
            Failure::Tls { detail, verification: true }
        })?;
        let tls = connector.connect(name, io).await;
        self.inner.metrics.handshake_upstream(match &tls {
            Ok(_) => Handshake::Ok,
            Err(error) if is_verification(error) => Handshake::Distrusted,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Handshake::Reset,
            Err(_) => Handshake::Other,
        });
        tls.map_err(|error| tls_failure(host, &error))
    }

    /// What of `addresses` may be reached; a loop anywhere is a loop.
    pub(super) fn checked(
        &self,
        host: &str,
        addresses: Vec<SocketAddr>,
    ) -> Result<Vec<SocketAddr>, Failure> {
        if addresses.iter().any(|address| self.inner.ourselves.is(*address)) {
            return Err(Failure::Loop);
        }
        if addresses.is_empty() {
            return Err(unreachable(format!("{host} has no address"), "dns_error"));
        }
        let egress = self.inner.egress.load();
        let allowed: Vec<SocketAddr> =
            addresses.into_iter().filter(|address| egress.permits(host, address.ip())).collect();
        if allowed.is_empty() { Err(Failure::Forbidden(host.to_owned())) } else { Ok(allowed) }
    }
}

fn client_config(
    roots: Arc<rustls::RootCertStore>,
    protocols: &[&[u8]],
) -> Result<ClientConfig, rustls::Error> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    // SHA-256 has CPU instructions where SHA-384 has not: 1.2x the handshakes.
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

fn tls_failure(host: &str, error: &io::Error) -> Failure {
    let detail = format!("TLS with {host} failed: {error}");
    Failure::Tls { detail, verification: is_verification(error) }
}

/// Whether the certificate was refused, which no retry changes.
fn is_verification(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(
        inner,
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
    )
}

fn too_slow(host: &str, limit: Duration) -> Failure {
    unreachable(format!("no connection to {host} within {limit:?}"), "connection_timeout")
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn addresses(written: &[&str]) -> Vec<SocketAddr> {
        written.iter().map(|address| address.parse().expect("an address")).collect()
    }

    fn dialer(egress: Egress, ours: &[&str]) -> Dialer {
        let ourselves = Ourselves::default();
        ourselves.set(addresses(ours));
        let roots = rustls::RootCertStore::empty();
        let seen = (TaskTracker::new(), Metrics::new());
        let options = Options {
            extra_roots: None,
            connect_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(1),
            idle_per_host: 1,
            proxy: None,
        };
        Dialer::new(roots, egress, &options, ourselves, seen).expect("a dialer")
    }

    #[test]
    fn a_loop_anywhere_is_a_loop_and_what_egress_forbids_is_left_out() {
        let deny = vec!["169.254.0.0/16".parse().expect("a network")];
        let dialer = dialer(Egress { deny, allow: Vec::new() }, &["127.0.0.1:8080"]);
        let check = |found: &[&str]| dialer.checked("a.test", addresses(found));
        let (good, denied) = ("192.0.2.1:80", "169.254.169.254:80");
        assert_eq!(check(&[denied, good]).expect("one is left"), addresses(&[good]));
        assert!(matches!(check(&[denied]), Err(Failure::Forbidden(host)) if host == "a.test"));
        assert!(matches!(check(&[good, "127.0.0.1:8080"]), Err(Failure::Loop)));
        assert!(matches!(check(&[]), Err(Failure::Unreachable { kind: "dns_error", .. })));
    }

    #[tokio::test]
    async fn a_dialer_says_why_it_did_not_connect() {
        let gone = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = gone.local_addr().expect("it is bound").port();
        drop(gone);
        let nothing = dialer(Egress::default(), &[]);
        let closed = Origin::new(Scheme::Http, "127.0.0.1", port).expect("an origin");
        let refused = nothing.tcp(&closed).await.expect_err("nobody listens");
        assert!(matches!(refused, Failure::Unreachable { kind: "connection_refused", .. }));
        let ours = format!("127.0.0.1:{port}");
        let looped = dialer(Egress::default(), &[&ours]).tcp(&closed).await;
        assert!(matches!(looped, Err(Failure::Loop)));
    }
}

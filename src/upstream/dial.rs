//! Makes a connection: resolve, check, connect, TLS, HTTP.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::TaskTracker;

use crate::exchange::{Body, Failure, Origin, Scheme};
use crate::metrics::{Handshake, Metrics};
use crate::upstream::Egress;
use crate::upstream::load::{Load, UNTOLD};

/// The addresses on which this process itself listens.
#[derive(Clone, Debug, Default)]
pub struct Ourselves(Arc<ArcSwap<Vec<SocketAddr>>>);

impl Ourselves {
    /// Replaces the list.
    pub fn set(&self, addresses: Vec<SocketAddr>) {
        self.0.store(Arc::new(addresses));
    }

    /// Whether a connection to `address` would come back to this process.
    pub fn is(&self, address: SocketAddr) -> bool {
        let listeners = self.0.load();
        listeners.iter().any(|ours| {
            let (bound, asked) = (ours.ip().to_canonical(), address.ip().to_canonical());
            ours.port() == address.port()
                && (bound == asked
                    || asked.is_unspecified()
                    || bound.is_unspecified() && is_local(asked))
        })
    }
}

/// Whether an address is one of this machine's: only such a one can be bound.
fn is_local(address: IpAddr) -> bool {
    address.is_loopback() || UdpSocket::bind((address, 0)).is_ok()
}

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
    ourselves: Ourselves,
    tasks: TaskTracker,
    metrics: Metrics,
}

/// A connection that speaks HTTP.
pub(super) enum Connection {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>, Load),
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
        connect_timeout: Duration,
        ourselves: Ourselves,
        (tasks, metrics): (TaskTracker, Metrics),
    ) -> Result<Self, rustls::Error> {
        let roots = Arc::new(roots);
        let any = client_config(roots.clone(), &[b"h2", b"http/1.1"])?;
        let only_http1 = client_config(roots, &[b"http/1.1"])?;
        let inner = Inner {
            any: TlsConnector::from(Arc::new(any)),
            only_http1: TlsConnector::from(Arc::new(only_http1)),
            connect_timeout: ArcSwap::from_pointee(connect_timeout),
            egress: ArcSwap::from_pointee(egress),
            ourselves,
            tasks,
            metrics,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Takes over what a reload changed.
    pub fn reconfigure(&self, egress: Egress, connect_timeout: Duration) {
        self.inner.egress.store(Arc::new(egress));
        self.inner.connect_timeout.store(Arc::new(connect_timeout));
    }

    /// Opens a TCP connection, for a tunnel.
    ///
    /// # Errors
    ///
    /// [`Failure::Unreachable`], [`Failure::Forbidden`] or [`Failure::Loop`]; nothing was sent.
    pub async fn tcp(&self, host: &str, port: u16) -> Result<TcpStream, Failure> {
        let limit = **self.inner.connect_timeout.load();
        let connected = timeout(limit, self.connect(host, port)).await;
        connected.unwrap_or_else(|_elapsed| Err(too_slow(host, limit)))
    }

    /// Makes a connection that is ready for its first request.
    pub(super) async fn http(
        &self,
        origin: &Origin,
        speaks: Speaks,
    ) -> Result<Connection, Failure> {
        let limit = **self.inner.connect_timeout.load();
        let connected = timeout(limit, self.handshake(origin, speaks)).await;
        connected.unwrap_or_else(|_elapsed| Err(too_slow(&origin.host, limit)))
    }

    async fn handshake(&self, origin: &Origin, speaks: Speaks) -> Result<Connection, Failure> {
        let tcp = self.connect(&origin.host, origin.port).await?;
        if origin.scheme == Scheme::Http {
            return self.http1(tcp).await;
        }
        let name = ServerName::try_from(origin.host.to_string()).map_err(|_invalid| {
            let detail = format!("{} is not a name that TLS can verify", origin.host);
            Failure::Tls { detail, verification: true }
        })?;
        let connector = match speaks {
            Speaks::Any => &self.inner.any,
            Speaks::Http1Only => &self.inner.only_http1,
        };
        let tls = connector.connect(name, tcp).await;
        self.inner.metrics.handshake_upstream(match &tls {
            Ok(_) => Handshake::Ok,
            Err(error) if is_verification(error) => Handshake::Distrusted,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Handshake::Reset,
            Err(_) => Handshake::Other,
        });
        let tls = tls.map_err(|error| tls_failure(&origin.host, &error))?;
        if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
            return self.http2(tls).await;
        }
        self.http1(tls).await
    }

    async fn http1<IO>(&self, io: IO) -> Result<Connection, Failure>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(BUFFER_MAX);
        let (sender, connection) =
            builder.handshake(TokioIo::new(io)).await.map_err(|error| not_http(&error))?;
        let driven = connection.with_upgrades();
        self.inner.tasks.spawn(async move {
            // How it ended reaches whoever waits for a response on it.
            drop(driven.await);
        });
        Ok(Connection::Http1(sender))
    }

    async fn http2<IO>(&self, io: IO) -> Result<Connection, Failure>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEADERS_MAX)
            .initial_max_send_streams(UNTOLD)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_PATIENCE);
        let (sender, connection) =
            builder.handshake(TokioIo::new(io)).await.map_err(|error| not_http(&error))?;
        // Whoever looks for a free stream asks it how many there are, while it is driven.
        let driven = Arc::new(Mutex::new(Box::pin(connection)));
        let asked = Arc::downgrade(&driven);
        self.inner.tasks.spawn(async move {
            let next = poll_fn(|cx| {
                driven.lock().unwrap_or_else(PoisonError::into_inner).as_mut().poll(cx)
            });
            drop(next.await);
        });
        let load = Load::new(move || {
            asked.upgrade().map_or(0, |connection| {
                connection.lock().unwrap_or_else(PoisonError::into_inner).current_max_send_streams()
            })
        });
        Ok(Connection::Http2(sender, load))
    }

    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, Failure> {
        let found = tokio::net::lookup_host((host, port)).await.map_err(|error| {
            unreachable(format!("{host} cannot be resolved: {error}"), "dns_error")
        })?;
        let addresses = self.checked(host, interleaved(found.collect()))?;
        let tcp = race(addresses).await.map_err(|error| {
            let kind = match error.kind() {
                io::ErrorKind::ConnectionRefused => "connection_refused",
                io::ErrorKind::TimedOut => "connection_timeout",
                _ => "destination_unavailable",
            };
            unreachable(format!("{host}:{port} cannot be reached: {error}"), kind)
        })?;
        // Nagle's algorithm against delayed ACK costs 40 ms a connection.
        let ready = tcp.set_nodelay(true);
        ready.map_err(|error| unreachable(error.to_string(), "destination_unavailable"))?;
        Ok(tcp)
    }

    /// What of `addresses` may be reached; a loop anywhere is a loop.
    fn checked(&self, host: &str, addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Failure> {
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

/// RFC 8305: one address after another, a quarter of a second apart; the first to connect wins.
async fn race(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut addresses = addresses.into_iter();
    let mut tries = JoinSet::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        let more = match addresses.next() {
            Some(address) => {
                tries.spawn(TcpStream::connect(address));
                true
            }
            None if tries.is_empty() => return Err(last),
            None => false,
        };
        let head_start = if more { HEAD_START } else { Duration::MAX };
        match timeout(head_start, tries.join_next()).await {
            Ok(Some(Ok(Ok(stream)))) => return Ok(stream),
            Ok(Some(Ok(Err(error)))) => last = error,
            Ok(Some(Err(panicked))) => last = io::Error::other(panicked),
            Ok(None) | Err(_) => {}
        }
    }
}

/// Alternates between families, beginning with the resolver's first (RFC 8305, section 4).
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut merged = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        let before = merged.len();
        merged.extend(first.next());
        merged.extend(second.next());
        if merged.len() == before {
            return merged;
        }
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

fn not_http(error: &hyper::Error) -> Failure {
    unreachable(format!("no HTTP on the new connection: {error}"), "connection_terminated")
}

fn too_slow(host: &str, limit: Duration) -> Failure {
    unreachable(format!("no connection to {host} within {limit:?}"), "connection_timeout")
}

fn unreachable(detail: String, kind: &'static str) -> Failure {
    Failure::Unreachable { detail, kind }
}

/// RFC 8305, section 5, recommends 250 ms.
const HEAD_START: Duration = Duration::from_millis(250);
/// Past 64 KiB a larger buffer gained nothing in the download benchmark.
const BUFFER_MAX: usize = 64 * 1024;
/// As much as HTTP/1 may send in its buffer; hyper's own 16 KiB refuses what curl takes.
const HEADERS_MAX: u32 = 64 * 1024;
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// A connection whose peer vanished is found before a request waits on it for long.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_PATIENCE: Duration = Duration::from_secs(20);

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
        Dialer::new(roots, egress, Duration::from_secs(1), ourselves, seen).expect("a dialer")
    }

    #[test]
    fn families_alternate_and_the_resolvers_first_is_first() {
        let (one, two, three) = ("192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1");
        let (six, seven) = ("[2001:db8::1]:1", "[2001:db8::2]:1");
        for (found, wanted) in [
            (&[][..], &[][..]),
            (&[one], &[one]),
            (&[one, two, three], &[one, two, three]),
            (&[six, seven, one], &[six, one, seven]),
            (&[one, six, seven], &[one, six, seven]),
            (&[one, two, three, six], &[one, six, two, three]),
            (&[six, one, two, three, seven], &[six, one, seven, two, three]),
        ] {
            assert_eq!(interleaved(addresses(found)), addresses(wanted), "{found:?}");
        }
    }

    #[test]
    fn our_own_listeners_are_known_by_every_address_they_answer_on() {
        for (ours, asked, wanted) in [
            ("127.0.0.1:8080", "127.0.0.1:8080", true),
            ("127.0.0.1:8080", "127.0.0.1:8081", false),
            ("127.0.0.1:8080", "127.0.0.2:8080", false),
            ("127.0.0.1:8080", "[::ffff:127.0.0.1]:8080", true),
            ("127.0.0.1:8080", "0.0.0.0:8080", true), // the system takes it for loopback
            ("127.0.0.1:8080", "[::]:8080", true),
            ("127.0.0.1:8080", "203.0.113.9:8080", false),
            ("0.0.0.0:8080", "127.0.0.1:8080", true),
            ("0.0.0.0:8080", "127.8.8.8:8080", true),
            ("0.0.0.0:8080", "203.0.113.9:8080", false), // bound to all of ours, and not ours
            ("0.0.0.0:8080", "127.0.0.1:80", false),
            ("[::]:8080", "127.0.0.1:8080", true),
            ("[::]:8080", "[::1]:8080", true),
        ] {
            let ourselves = Ourselves::default();
            assert!(!ourselves.is(asked.parse().expect("an address")));
            ourselves.set(addresses(&["192.0.2.7:1", ours]));
            assert_eq!(ourselves.is(asked.parse().expect("an address")), wanted, "{ours} {asked}");
        }
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
    async fn an_address_that_refuses_gives_way_to_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let open = listener.local_addr().expect("it is bound");
        let gone = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let closed = gone.local_addr().expect("it is bound");
        drop(gone);
        for found in
            [vec![open], vec![closed, open], vec![open, closed], vec![closed, closed, open]]
        {
            let stream = race(found).await.expect("one of them listens");
            assert_eq!(stream.peer_addr().expect("it is connected"), open);
        }
        let refused = race(vec![closed]).await.expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert!(race(Vec::new()).await.is_err());
    }

    #[tokio::test]
    async fn a_dialer_says_why_it_did_not_connect() {
        let gone = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = gone.local_addr().expect("it is bound").port();
        drop(gone);
        let nothing = dialer(Egress::default(), &[]);
        let refused = nothing.tcp("127.0.0.1", port).await.expect_err("nobody listens");
        assert!(matches!(refused, Failure::Unreachable { kind: "connection_refused", .. }));
        let ours = format!("127.0.0.1:{port}");
        let looped = dialer(Egress::default(), &[&ours]).tcp("127.0.0.1", port).await;
        assert!(matches!(looped, Err(Failure::Loop)));
    }
}

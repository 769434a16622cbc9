//! Redirected sockets and where they were going.
//!
//! The packet filter says where (`SO_ORIGINAL_DST`); the name comes from the client: the
//! SNI, or `Host`. The name decides the route and what the upstream's certificate has to
//! prove, and never where the bytes go: that is the address that the client chose, so a
//! name that lies leads nowhere.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, Method, Uri};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::exchange::{Body, Failure, Origin, Scheme};
use crate::intercept::{self, Asked as Named, Decision, Hello};
use crate::listen::inside::Inside;
use crate::listen::seat::{Fuse, Seated};
use crate::listen::serve::{self, Asked};
use crate::listen::sniff::{Guess, Prefixed};
use crate::listen::{House, Spec, tunnel};
use crate::proxy::Arrival;
use crate::upstream::Line;

/// Serves one connection of a client that does not know that it was redirected.
pub(super) async fn serve(stream: Seated, spec: Arc<Spec>, house: House) {
    let (way, fuse) = (way(stream.tcp()), stream.fuse());
    let mut io = Prefixed::new(stream);
    let (first_word, head) = (spec.caps.first_word_timeout, spec.caps.header_timeout);
    let patience = if way.is_some() { first_word } else { head };
    let guess = tokio::select! {
        guess = timeout(patience, io.guess()) => guess,
        // Nothing was asked yet, so there is nothing to wait for.
        () = house.draining.cancelled() => return,
    };
    let Some((from, to)) = way else { return direct((io, fuse), guess.ok(), &spec, &house).await };
    let redirected = Redirected { from, to, fuse, spec, house };
    match guess {
        Ok(Ok(guess)) => redirected.spoken(io, guess, None).await,
        Ok(Err(_)) => {}
        Err(_elapsed) => redirected.silent(io).await,
    }
}

/// From where a connection comes and where it was going; `None` where it came here by itself.
fn way(tcp: &TcpStream) -> Option<(SocketAddr, SocketAddr)> {
    let (from, here) = (tcp.peer_addr().ok()?, tcp.local_addr().ok()?);
    // Fails where the kernel tracks no connections, which then redirects none.
    let to = original(tcp, here).ok()?;
    let (to, here) = (plain(to), plain(here));
    (to != here).then_some((plain(from), to))
}

#[cfg(target_os = "linux")]
fn original(tcp: &TcpStream, here: SocketAddr) -> io::Result<SocketAddr> {
    let socket = socket2::SockRef::from(tcp);
    let original = match plain(here) {
        SocketAddr::V4(_) => socket.original_dst_v4()?,
        SocketAddr::V6(_) => socket.original_dst_v6()?,
    };
    original.as_socket().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

#[cfg(not(target_os = "linux"))]
fn original(_tcp: &TcpStream, _here: SocketAddr) -> io::Result<SocketAddr> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

/// A listener of both families sees IPv4 addresses as IPv6 ones.
fn plain(mut address: SocketAddr) -> SocketAddr {
    address.set_ip(address.ip().to_canonical());
    address
}

/// Refuses who came here by himself: there is nowhere to go, or only here again.
async fn direct(
    (io, fuse): (Prefixed<Seated>, Fuse),
    guess: Option<io::Result<Guess>>,
    spec: &Spec,
    house: &House,
) {
    let refused = |asked: Asked| {
        let answer = house.proxy.refuse(asked.request.method(), &Failure::BadRequest(DIRECT));
        std::future::ready(answer)
    };
    let served = match guess {
        Some(Ok(Guess::Http1)) => serve::http1(io, (&spec.caps, fuse), house, refused).await,
        Some(Ok(Guess::Http2)) => serve::http2(io, &spec.caps, house, refused).await,
        Some(Ok(Guess::Tls | Guess::Neither | Guess::More) | Err(_)) | None => Ok(()),
    };
    tracing::debug!(error = served.err().map(tracing::field::display), "{DIRECT}");
}

/// A connection that was redirected here.
#[derive(Clone)]
struct Redirected {
    from: SocketAddr,
    /// Where it was going.
    to: SocketAddr,
    fuse: Fuse,
    spec: Arc<Spec>,
    house: House,
}

impl Redirected {
    /// Goes on once it is known what the client speaks.
    ///
    /// `upstream` is a connection to where it was going, if there is one already.
    async fn spoken(self, io: Prefixed<Seated>, guess: Guess, upstream: Option<Line>) {
        if self.house.dialer.made(self.from, self.to) {
            return self.circle(io, guess).await;
        }
        match guess {
            Guess::Tls => self.tls(io, upstream).await,
            // To a proxy of the client's own: what it is asked is not ours to read.
            Guess::Http1 if io.seen().starts_with(b"CONNECT ") => {
                self.tunnel(io, self.nameless(), upstream).await;
            }
            Guess::Http1 | Guess::Http2 => self.plain(io, guess).await,
            Guess::Neither | Guess::More => self.tunnel(io, self.nameless(), upstream).await,
        }
    }

    /// Lets the server speak first, as those of SMTP or SSH do; a client that was
    /// only slow is served as any other.
    async fn silent(self, mut io: Prefixed<Seated>) {
        if self.house.dialer.made(self.from, self.to) {
            return self.circle(io, Guess::Neither).await;
        }
        let upstream = match self.dial(&self.nameless()).await {
            Ok(upstream) => Some(upstream),
            // The name that the client may yet give can be one that is allowed.
            Err(Failure::Forbidden(_)) => None,
            Err(_) => return,
        };
        let server = async {
            match &upstream {
                Some(upstream) => upstream.heard().await,
                None => std::future::pending().await,
            }
        };
        let idle = self.spec.caps.idle_timeout;
        let guess = tokio::select! {
            guess = io.guess() => guess,
            () = sleep(idle), if upstream.is_none() => return,
            // It spoke, or hung up, which is passed on too.
            _ = server => Ok(Guess::Neither),
            () = self.house.draining.cancelled() => return,
        };
        if let Ok(guess) = guess {
            self.spoken(io, guess, upstream).await;
        }
    }

    async fn tls(self, mut io: Prefixed<Seated>, upstream: Option<Line>) {
        let named = match timeout(self.spec.caps.header_timeout, io.hello()).await {
            Ok(Ok(Hello::Names(name))) => Origin::new(Scheme::Https, &name, self.to.port()),
            Ok(Ok(Hello::Nameless | Hello::Unreadable | Hello::More)) | Err(_) => None,
            Ok(Err(_)) => return,
        };
        let Some(origin) = named.map(|origin| origin.pinned(self.to)) else {
            return self.tunnel(io, self.nameless(), upstream).await;
        };
        let house = &self.house;
        let routed = house.proxy.names(&origin.host, origin.port);
        let asked = Named { host: &origin.host, routed };
        match intercept::decide(&house.rules.load(), asked, &house.distrust, Instant::now()) {
            Decision::Tunnel(_) => self.tunnel(io, origin, upstream).await,
            Decision::Open => {
                drop(upstream);
                let authority = house.authority.clone();
                let Self { spec, house, .. } = self;
                Inside { origin, user: None, spec, house }.tls(io, &authority).await;
            }
        }
    }

    /// Serves requests in the clear, each for the host that it names.
    async fn plain(self, io: Prefixed<Seated>, guess: Guess) {
        let respond = |asked| answer(asked, Some(self.to), self.house.clone());
        let served = http(io, guess, &self, respond).await;
        if let Err(error) = served {
            tracing::debug!(%error, "a connection broke off");
        }
    }

    /// Ends what would otherwise go round for as long as there are ports.
    async fn circle(self, io: Prefixed<Seated>, guess: Guess) {
        tracing::warn!(
            to = %self.to,
            "a call of our own was redirected back to us: the rules have to spare samekey's user \
             (`samekey capture apply --uid`)"
        );
        if matches!(guess, Guess::Http1 | Guess::Http2) {
            let respond = |asked| answer(asked, None, self.house.clone());
            drop(http(io, guess, &self, respond).await);
        }
    }

    async fn tunnel<IO>(&self, io: IO, origin: Origin, upstream: Option<Line>)
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let dialled = match upstream {
            Some(upstream) => Ok(upstream),
            None => self.dial(&origin).await,
        };
        if let Ok(upstream) = dialled {
            tunnel::join(io, upstream, &self.house.metrics).await;
        }
    }

    async fn dial(&self, origin: &Origin) -> Result<Line, Failure> {
        let dialled = self.house.dialer.tcp(origin).await;
        match &dialled {
            Ok(_) => {}
            // The client only sees that the connection ends.
            Err(error @ (Failure::Forbidden(_) | Failure::Loop)) => {
                tracing::warn!(to = %self.to, host = &*origin.host, %error, "a redirected connection was cut");
            }
            Err(error) => tracing::debug!(to = %self.to, %error, "a tunnel found no upstream"),
        }
        dialled
    }

    /// Where it was going, for a client that gave no name.
    fn nameless(&self) -> Origin {
        Origin::at_address(Scheme::Http, self.to)
    }
}

async fn http<F, Fut>(
    io: Prefixed<Seated>,
    guess: Guess,
    redirected: &Redirected,
    respond: F,
) -> Result<(), hyper::Error>
where
    F: Fn(Asked) -> Fut,
    Fut: Future<Output = http::Response<Body>> + Send + 'static,
{
    let (caps, house) = (&redirected.spec.caps, &redirected.house);
    if guess == Guess::Http2 {
        serve::http2(io, caps, house, respond).await
    } else {
        serve::http1(io, (caps, redirected.fuse.clone()), house, respond).await
    }
}

/// Answers a request that was going `to` there; to nowhere but here, it goes in a circle.
async fn answer(asked: Asked, to: Option<SocketAddr>, house: House) -> http::Response<Body> {
    let Asked { request, fault, presence } = asked;
    let origin = match (fault, to) {
        (Some(fault), _) => Err(fault),
        (None, Some(to)) => named(request.method(), request.uri(), request.headers(), to),
        (None, None) => Err(Failure::Loop),
    };
    house.proxy.answer(Arrival { request, origin, user: None, presence }).await
}

/// Whom a request in the clear is for: a whole URL says, or `:authority`, else `Host`
/// (RFC 9112, section 3.3). Who names no port means the one that the connection has.
fn named(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    to: SocketAddr,
) -> Result<Origin, Failure> {
    if method == Method::CONNECT {
        return Err(Failure::BadRequest("CONNECT behind another request"));
    }
    // The bytes would go out in the clear, or TLS would go to a port that has none.
    if uri.scheme_str().is_some_and(|scheme| scheme != "http") {
        return Err(Failure::Misdirected);
    }
    let mut hosts = headers.get_all(HOST).iter();
    let (host, more) = (hosts.next().filter(|host| !host.is_empty()), hosts.next());
    if more.is_some() {
        return Err(Failure::BadRequest("more than one Host")); // RFC 9112, section 3.2
    }
    let wrong = Failure::BadRequest("Host is no host");
    let authority = match (uri.authority(), host) {
        (Some(authority), _) => authority.clone(),
        (None, Some(host)) => match Authority::try_from(host.as_bytes()) {
            Ok(authority) => authority,
            Err(_) => return Err(wrong),
        },
        (None, None) => return Ok(Origin::at_address(Scheme::Http, to)),
    };
    let origin = Origin::of(Scheme::Http, &authority).ok_or_else(|| wrong.clone())?;
    let port = if authority.port().is_some() { origin.port } else { to.port() };
    let origin = Origin::new(Scheme::Http, &origin.host, port).ok_or(wrong)?;
    Ok(origin.pinned(to))
}

const DIRECT: &str = "this listener takes connections that were redirected to it, and this one \
                      was not: a proxy setting wants a listener with `mode: forward`";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_in_the_clear_says_whom_it_is_for() {
        let to = "192.0.2.1:8080";
        for (target, hosts, wanted) in [
            ("/", &["a.test"][..], Some("http://a.test:8080")),
            ("/", &["A.test:8080"], Some("http://a.test:8080")),
            ("/", &["a.test:81"], Some("http://a.test:81")), // as it came, and to where it was going
            ("/", &["a.test."], Some("http://a.test:8080")),
            ("/", &["[::1]"], Some("http://[::1]:8080")),
            ("/", &[], Some("http://192.0.2.1:8080")),
            ("/", &[""], Some("http://192.0.2.1:8080")),
            ("http://b.test/x", &["a.test"], Some("http://b.test:8080")),
            ("http://b.test:80/x", &[], Some("http://b.test")),
            ("https://b.test/x", &[], None),
            ("ftp://b.test/x", &[], None),
            ("/", &["a.test", "a.test"], None),
            ("/", &["user@a.test"], None),
            ("/", &["a.test:0"], None),
            ("/", &["a b"], None),
        ] {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(HOST, host.parse().expect("a value"));
            }
            let to = to.parse().expect("an address");
            let uri = target.parse().expect("a target");
            let found = named(&Method::GET, &uri, &headers, to).ok();
            assert!(
                found.as_ref().is_none_or(|found| found.at() == Some(to)),
                "{target} {hosts:?}"
            );
            let found = found.map(|found| found.to_string());
            assert_eq!(found.as_deref(), wanted, "{target} {hosts:?}");
        }
        let tunnel = "a.test:443".parse().expect("a target");
        let to = to.parse().expect("an address");
        assert!(named(&Method::CONNECT, &tunnel, &HeaderMap::new(), to).is_err());
    }

    #[tokio::test]
    async fn who_was_not_redirected_was_going_nowhere_else() {
        for (address, host) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("[::1]:0", "::1"),
            ("[::]:0", "::1"),
            ("[::]:0", "127.0.0.1"),
        ] {
            let listener = tokio::net::TcpListener::bind(address).await.expect("a free port");
            let port = listener.local_addr().expect("it is bound").port();
            let _client = TcpStream::connect((host, port)).await.expect("it listens");
            let (accepted, _) = listener.accept().await.expect("it was called");
            assert_eq!(way(&accepted), None, "{address} by {host}");
        }
    }
}

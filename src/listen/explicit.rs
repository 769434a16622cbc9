//! The explicit proxy: absolute-form and CONNECT.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::uri::Authority as UriAuthority;
use http::{HeaderMap, Method, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};

use crate::exchange::{Body, Failure, Origin, Scheme};
use crate::intercept::{self, Asked as Named, Authority, Decision, Protocol};
use crate::listen::seat::{Fuse, Seated};
use crate::listen::serve::{self, Asked};
use crate::listen::sniff::{Guess, Prefixed};
use crate::listen::wire::Wire;
use crate::listen::{Auth, House, Spec, tunnel};
use crate::metrics::Handshake;
use crate::proxy::Arrival;

/// Serves one connection of a client that knows it talks to a proxy.
pub(super) async fn serve(stream: Seated, spec: Arc<Spec>, house: House) {
    let respond = |asked: Asked| respond(asked, spec.clone(), house.clone());
    let fuse = stream.fuse();
    if let Err(error) = serve::http1(stream, (&spec.caps, fuse), &house, respond).await {
        tracing::debug!(%error, "a connection broke off");
    }
}

async fn respond(asked: Asked, spec: Arc<Spec>, house: House) -> http::Response<Body> {
    let Asked { request, fault, presence } = asked;
    let admitted = fault.map_or_else(|| admit(&spec.auth, request.headers()), Err);
    let user = match admitted {
        Ok(user) => user,
        Err(failure) => return house.proxy.refuse(request.method(), &failure),
    };
    if request.method() == Method::CONNECT {
        let method = request.method().clone();
        return match connect(request, user, spec, &house).await {
            Ok(()) => {
                let mut granted = http::Response::new(Body::empty());
                *granted.status_mut() = StatusCode::OK;
                granted
            }
            Err(failure) => house.proxy.refuse(&method, &failure),
        };
    }
    let origin = absolute(&request).map(unopened);
    house.proxy.answer(Arrival { request, origin, user, presence }).await
}

/// Who may ask: nobody has to say, or it has to be the right name and password.
///
/// # Errors
///
/// [`Failure::ProxyAuth`].
pub(super) fn admit(auth: &Auth, headers: &HeaderMap) -> Result<Option<String>, Failure> {
    let Auth::Basic { user, password } = auth else { return Ok(None) };
    let given = headers.get(PROXY_AUTHORIZATION).and_then(|value| value.to_str().ok());
    let encoded = given
        .and_then(|given| given.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"));
    let decoded = encoded.and_then(|(_, encoded)| STANDARD.decode(encoded.trim()).ok());
    let wanted = format!("{user}:{password}");
    let right = decoded.is_some_and(|given| {
        aws_lc_rs::constant_time::verify_slices_are_equal(&given, wanted.as_bytes()).is_ok()
    });
    if right { Ok(Some(user.clone())) } else { Err(Failure::ProxyAuth) }
}

/// Where an absolute-form request goes.
fn absolute(request: &http::Request<Incoming>) -> Result<Origin, Failure> {
    let uri = request.uri();
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(Failure::BadRequest(
            "this is a proxy: the request target has to be a whole URL, or CONNECT",
        ));
    };
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return Err(Failure::BadRequest("the request target is neither http nor https")),
    };
    Origin::of(scheme, authority)
        .ok_or(Failure::BadRequest("the request target holds a user, or no valid host and port"))
}

/// What is asked of samekey itself came in the clear here, whatever the URL says.
fn unopened(origin: Origin) -> Origin {
    if intercept::is_own(&origin.host) { origin.with_scheme(Scheme::Http) } else { origin }
}

/// Grants a CONNECT, or says why not; a host that is opened is dialled only when
/// there is something to ask it.
async fn connect(
    mut request: http::Request<Incoming>,
    user: Option<String>,
    spec: Arc<Spec>,
    house: &House,
) -> Result<(), Failure> {
    let origin = target(request.uri(), request.headers())?;
    let routed = house.proxy.names(&origin.host, origin.port);
    let asked = Named { host: &origin.host, routed };
    let rules = house.rules.load();
    let decision = intercept::decide(&rules, asked, &house.distrust, Instant::now());
    let authority = (decision == Decision::Open).then(|| house.authority.clone());
    let upgrade = hyper::upgrade::on(&mut request);
    let guest = house.clone();
    if let Some(authority) = authority {
        let inside = Inside { origin, user, spec, house: guest };
        house.tasks.spawn(async move {
            if let Some(io) = upgraded(upgrade).await {
                open(io, authority, inside).await;
            }
        });
        return Ok(());
    }
    let upstream = house.dialer.tcp(&origin.host, origin.port).await?;
    house.tasks.spawn(async move {
        if let Some(io) = upgraded(upgrade).await {
            tunnel::join(io, upstream, &guest.metrics).await;
        }
    });
    Ok(())
}

/// The authority of a CONNECT: with a port, and agreeing with `Host` where that names one.
fn target(uri: &Uri, headers: &HeaderMap) -> Result<Origin, Failure> {
    let wanted = "CONNECT wants host:port";
    let authority = uri.authority().filter(|authority| authority.port().is_some());
    let authority = authority.filter(|_| uri.scheme().is_none());
    let authority = authority.ok_or(Failure::BadRequest(wanted))?;
    let origin = Origin::of(Scheme::Https, authority).ok_or(Failure::BadRequest(wanted))?;
    if !agrees(&origin, headers) {
        return Err(Failure::BadRequest("Host names another host than CONNECT"));
    }
    Ok(origin)
}

/// Whether `Host` names `origin`; a missing or empty one does, and one without a port.
fn agrees(origin: &Origin, headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).filter(|host| !host.is_empty()) else { return true };
    if host == origin.host_field() {
        return true; // what a client nearly always writes
    }
    let named = UriAuthority::try_from(host.as_bytes()).ok();
    let portless = named.as_ref().is_some_and(|named| named.port().is_none());
    let named = named.and_then(|named| Origin::of(origin.scheme, &named));
    named.is_some_and(|named| named.host == origin.host && (portless || named.port == origin.port))
}

/// A tunnel to one authority, and whoever is inside it.
#[derive(Clone)]
struct Inside {
    /// The authority of the CONNECT; the scheme is what is found inside.
    origin: Origin,
    user: Option<String>,
    spec: Arc<Spec>,
    house: House,
}

async fn upgraded(upgrade: OnUpgrade) -> Option<Wire<Seated>> {
    let upgraded = upgrade.await.ok()?;
    // The stream itself, without the box: nothing of it was read ahead, since the
    // wire holds back what follows a CONNECT.
    let parts = upgraded.downcast::<TokioIo<Wire<Seated>>>().ok()?;
    parts.read_buf.is_empty().then(|| parts.io.into_inner())
}

/// Looks at the first bytes, and reads what can be read.
async fn open(io: Wire<Seated>, authority: Authority, inside: Inside) {
    let mut io = Prefixed::new(io);
    let guess = timeout(inside.spec.caps.header_timeout.min(FIRST_WORD), io.guess()).await;
    let plain = inside.origin.with_scheme(Scheme::Http);
    match guess {
        Ok(Ok(Guess::Tls)) => tls(io, &authority, inside).await,
        Ok(Ok(Guess::Http1)) => ended(&inside, http1(io, plain, &inside).await),
        Ok(Ok(Guess::Http2)) => ended(&inside, http2(io, plain, &inside).await),
        Ok(Err(_)) => {}
        // There is nobody else behind that name.
        Ok(Ok(_)) | Err(_) if intercept::is_own(&inside.origin.host) => {}
        // Not ours to read, or the server speaks first.
        Ok(Ok(Guess::Neither | Guess::More)) | Err(_) => {
            match inside.house.dialer.tcp(&inside.origin.host, inside.origin.port).await {
                Ok(upstream) => tunnel::join(io, upstream, &inside.house.metrics).await,
                Err(error) => tracing::debug!(%error, "a tunnel found no upstream"),
            }
        }
    }
}

async fn tls(io: Prefixed<Wire<Seated>>, authority: &Authority, inside: Inside) {
    let (house, host) = (&inside.house, inside.origin.host.clone());
    let limit = inside.spec.caps.header_timeout;
    let opened = intercept::handshake(io, authority, &host, limit).await;
    house.metrics.minted(authority.minted());
    house.metrics.handshake_client(match &opened {
        Ok(_) => Handshake::Ok,
        Err(intercept::Handshake::Distrusted(_)) => Handshake::Distrusted,
        Err(intercept::Handshake::Reset) => Handshake::Reset,
        Err(_) => Handshake::Other,
    });
    match opened {
        Ok(opened) => {
            let origin = inside.origin.clone();
            let served = match opened.protocol {
                Protocol::H2 => http2(opened.stream, origin, &inside).await,
                Protocol::Http1 => http1(opened.stream, origin, &inside).await,
            };
            ended(&inside, served);
        }
        // Some clients say why they refuse a certificate, some only hang up.
        Err(intercept::Handshake::Distrusted(_) | intercept::Handshake::Reset) => {
            distrusted(house, &host);
        }
        Err(error) => tracing::debug!(%host, %error, "a client's TLS handshake failed"),
    }
}

/// A client may refuse our certificate after its own handshake is done.
fn ended(inside: &Inside, served: Result<(), hyper::Error>) {
    let Err(error) = served else { return };
    if intercept::distrust_in(&error) {
        inside.house.metrics.handshake_client(Handshake::Distrusted);
        distrusted(&inside.house, &inside.origin.host);
    } else {
        tracing::debug!(%error, "a connection broke off");
    }
}

fn distrusted(house: &House, host: &str) {
    house.distrust.note(host, Instant::now());
    tracing::warn!(
        host,
        "a client refused our certificate: point SSL_CERT_FILE, REQUESTS_CA_BUNDLE or \
         NODE_EXTRA_CA_CERTS at bundle.pem (see `samekey env`), or list the host in intercept.except"
    );
}

async fn http1<IO>(io: IO, origin: Origin, inside: &Inside) -> Result<(), hyper::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let respond = |asked| answer(asked, origin.clone(), inside.clone());
    // TLS ends with a word of its own, and who speaks to us of plain HTTP here knows 1.1.
    let fuse = Fuse::default();
    serve::http1(io, (&inside.spec.caps, fuse), &inside.house, respond).await
}

async fn http2<IO>(io: IO, origin: Origin, inside: &Inside) -> Result<(), hyper::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let respond = |asked| answer(asked, origin.clone(), inside.clone());
    serve::http2(io, &inside.spec.caps, &inside.house, respond).await
}

async fn answer(asked: Asked, origin: Origin, inside: Inside) -> http::Response<Body> {
    let Asked { request, fault, presence } = asked;
    let origin = match fault {
        Some(fault) => Err(fault),
        None if request.method() == Method::CONNECT => {
            Err(Failure::BadRequest("CONNECT inside a tunnel"))
        }
        None if leads_to(&origin, &request) => Ok(origin),
        None => Err(Failure::Misdirected),
    };
    let user = inside.user;
    inside.house.proxy.answer(Arrival { request, origin, user, presence }).await
}

/// Whether a request inside a tunnel is for the tunnel's authority.
fn leads_to(origin: &Origin, request: &http::Request<Incoming>) -> bool {
    let named = request.uri().authority();
    let same = named.is_none_or(|named| Origin::of(origin.scheme, named).as_ref() == Some(origin));
    same && (named.is_some() || agrees(origin, request.headers()))
}

/// How long a client inside a tunnel may be silent before it counts as one that waits to be spoken to.
const FIRST_WORD: std::time::Duration = std::time::Duration::from_secs(3);

//! The explicit proxy: absolute-form and CONNECT.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::PROXY_AUTHORIZATION;
use http::{HeaderMap, Method, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};

use crate::exchange::{Body, Failure, Origin, Scheme};
use crate::intercept::{self, Asked as Named, Authority, Decision};
use crate::listen::inside::{self, Inside};
use crate::listen::seat::Seated;
use crate::listen::serve::{self, Asked};
use crate::listen::sniff::{Guess, Prefixed};
use crate::listen::wire::Wire;
use crate::listen::{Auth, House, Spec, tunnel};
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
        house.spawn(async move {
            if let Some(io) = upgraded(upgrade).await {
                open(io, authority, inside).await;
            }
        });
        return Ok(());
    }
    let upstream = house.dialer.tcp(&origin).await?;
    house.spawn(async move {
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
    if !inside::agrees(&origin, headers) {
        return Err(Failure::BadRequest("Host names another host than CONNECT"));
    }
    Ok(origin)
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
        Ok(Ok(Guess::Tls)) => inside.tls(io, &authority).await,
        Ok(Ok(Guess::Http1)) => inside.ended(inside.http1(io, plain).await),
        Ok(Ok(Guess::Http2)) => inside.ended(inside.http2(io, plain).await),
        Ok(Err(_)) => {}
        // There is nobody else behind that name.
        Ok(Ok(_)) | Err(_) if intercept::is_own(&inside.origin.host) => {}
        // Not ours to read, or the server speaks first.
        Ok(Ok(Guess::Neither | Guess::More)) | Err(_) => {
            match inside.house.dialer.tcp(&inside.origin).await {
                Ok(upstream) => tunnel::join(io, upstream, &inside.house.metrics).await,
                Err(error) => tracing::debug!(%error, "a tunnel found no upstream"),
            }
        }
    }
}

/// How long a client inside a tunnel may be silent before it counts as one that waits to be spoken to.
const FIRST_WORD: std::time::Duration = std::time::Duration::from_secs(3);

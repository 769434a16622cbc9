//! A base URL: no proxy setting, no CA.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::HOST;
use http::uri::{Authority as UriAuthority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, Uri};

use crate::exchange::{Body, Failure, Origin, Scheme};
use crate::intercept;
use crate::listen::seat::Seated;
use crate::listen::serve::{self, Asked};
use crate::listen::sniff::{Guess, Prefixed};
use crate::listen::{House, Spec, explicit};
use crate::proxy::Arrival;

/// Where the requests of a base URL go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// All to one upstream.
    One(Origin),
    /// To the upstream that the first segment of the path names.
    ByPath,
}

/// Serves one connection whose requests all go to `target`.
pub(super) async fn serve(stream: Seated, target: Target, spec: Arc<Spec>, house: House) {
    // What samekey tells of itself is for this machine: others may reach a base URL.
    let near = stream.tcp().peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback());
    let fuse = stream.fuse();
    let mut stream = Prefixed::new(stream);
    let guess = tokio::select! {
        guess = tokio::time::timeout(spec.caps.header_timeout, stream.guess()) => guess,
        // Nothing was asked yet, so there is nothing to wait for.
        () = house.draining.cancelled() => return,
    };
    let respond = |asked: Asked| {
        let own = own(near, asked.request.uri(), asked.request.headers());
        let target = own.unwrap_or_else(|| target.clone());
        answer(asked, target, spec.clone(), house.clone())
    };
    let served = match guess {
        Ok(Ok(Guess::Http2)) => serve::http2(stream, &spec.caps, &house, respond).await,
        // What it cannot read it refuses.
        Ok(Ok(Guess::Http1 | Guess::Tls | Guess::Neither | Guess::More)) => {
            serve::http1(stream, (&spec.caps, fuse), &house, respond).await
        }
        Ok(Err(_)) | Err(_) => return,
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection broke off");
    }
}

async fn answer(
    asked: Asked,
    target: Target,
    spec: Arc<Spec>,
    house: House,
) -> http::Response<Body> {
    let Asked { mut request, fault, presence } = asked;
    let user = match explicit::admit(&spec.auth, request.headers()) {
        Ok(user) => user,
        Err(failure) => return house.proxy.refuse(request.method(), &failure),
    };
    let origin = match fault {
        Some(fault) => Err(fault),
        None if request.method() == Method::CONNECT => {
            Err(Failure::BadRequest("CONNECT to a base URL: this listener is no proxy"))
        }
        None => match target {
            Target::One(origin) => Ok(origin),
            Target::ByPath => {
                split(request.uri()).ok_or(Failure::BadRequest(UNNAMED)).map(|(origin, rest)| {
                    *request.uri_mut() = rest;
                    origin
                })
            }
        },
    };
    house.proxy.answer(Arrival { request, origin, user, presence }).await
}

/// Samekey itself, where somebody on this machine names it as the authority.
fn own(near: bool, uri: &Uri, headers: &HeaderMap) -> Option<Target> {
    let host = || headers.get(HOST).map(HeaderValue::as_bytes);
    let named = uri.authority().map(|named| named.as_str().as_bytes()).or_else(host)?;
    // Most requests name another one: they cost a glance.
    let begins = named.get(..intercept::OWN_HOST.len())?;
    if !near || !begins.eq_ignore_ascii_case(intercept::OWN_HOST.as_bytes()) {
        return None;
    }
    let origin = Origin::of(Scheme::Http, &UriAuthority::try_from(named).ok()?)?;
    intercept::is_own(&origin.host).then_some(Target::One(origin))
}

/// The upstream that the first segment names, and the target without it, whose
/// bytes are otherwise as they came.
///
/// The upstream is asked in TLS; `http:` before its name says otherwise.
fn split(uri: &Uri) -> Option<(Origin, Uri)> {
    let path = uri.path().strip_prefix('/')?;
    let segment = path.split('/').next()?;
    let (scheme, authority) = match segment.split_once(':') {
        Some(("http", authority)) => (Scheme::Http, authority),
        Some(("https", authority)) => (Scheme::Https, authority),
        _ => (Scheme::Https, segment),
    };
    let origin = Origin::of(scheme, &authority.parse().ok()?)?;
    // Samekey itself is asked for by `Host`, which tells who is near.
    if !is_plainly_a_host(&origin.host) || intercept::is_own(&origin.host) {
        return None;
    }
    let rest = path.get(segment.len()..)?;
    let slash = if rest.is_empty() { "/" } else { "" };
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let rest: PathAndQuery = format!("{slash}{rest}{query}").parse().ok()?;
    Some((origin, Uri::from(rest)))
}

/// A name with a dot, an address, or this machine: `/v1/jobs` names no upstream.
fn is_plainly_a_host(host: &str) -> bool {
    let is_name = host == "localhost" || host.trim_matches('.').contains('.');
    is_name && !host.contains('%') || host.parse::<IpAddr>().is_ok()
}

const UNNAMED: &str =
    "the first segment of the path must name the upstream, as in /api.example.com/v1/jobs";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samekey_itself_is_asked_for_by_host_and_from_this_machine_alone() {
        for (near, host, wanted) in [
            (true, "samekey.internal", true),
            (true, "SAMEKEY.internal.:8081", true),
            (false, "samekey.internal", false),
            (true, "x.samekey.internal", false),
            (true, "api.test", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().expect("a value"));
            let uri = Uri::from_static("/");
            assert_eq!(own(near, &uri, &headers).is_some(), wanted, "{near} {host}");
        }
        let uri = Uri::from_static("http://samekey.internal/");
        assert!(own(true, &uri, &HeaderMap::new()).is_some(), "the authority of HTTP/2");
        assert_eq!(own(true, &Uri::from_static("/"), &HeaderMap::new()), None);
    }

    #[test]
    fn the_first_segment_names_the_upstream_and_the_rest_goes_on_as_it_came() {
        for (target, wanted) in [
            ("/api.test/v1/jobs", Some(("https://api.test", "/v1/jobs"))),
            ("/API.test/v1//a%2Fb/?x=%20&y", Some(("https://api.test", "/v1//a%2Fb/?x=%20&y"))),
            ("/api.test", Some(("https://api.test", "/"))),
            ("/api.test?a=b", Some(("https://api.test", "/?a=b"))),
            ("/api.test/", Some(("https://api.test", "/"))),
            ("/api.test//x", Some(("https://api.test", "//x"))),
            ("/api.test:8443/x", Some(("https://api.test:8443", "/x"))),
            ("/http:127.0.0.1:81/x", Some(("http://127.0.0.1:81", "/x"))),
            ("/https:api.test:81/x", Some(("https://api.test:81", "/x"))),
            ("/localhost:81/x", Some(("https://localhost:81", "/x"))),
            ("/[::1]:81/x", Some(("https://[::1]:81", "/x"))),
            ("/v1/jobs", None),
            ("/", None),
            ("//api.test/x", None),
            ("/user@api.test/x", None),
            ("/api%2Etest/x", None),
            ("/api.test:0/x", None),
            ("/api.test:port/x", None),
            ("/ftp:api.test/x", None),
            ("/samekey.internal/env", None),
            ("/http:SAMEKEY.internal.:80/env", None),
            ("*", None),
        ] {
            let found = split(&target.parse().expect("a target"));
            let found = found.map(|(origin, rest)| (origin.to_string(), rest.to_string()));
            let wanted = wanted.map(|(origin, rest)| (origin.to_owned(), rest.to_owned()));
            assert_eq!(found, wanted, "{target}");
        }
    }
}

//! A request as it goes onto a connection: its target, and the fields that belong to the hop.

use http::header::{
    CONNECTION, COOKIE, HOST, HeaderValue, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING,
};
use http::{HeaderMap, Method, Uri, Version};

use crate::exchange::{Body, Origin, Request};
use crate::upstream::FurtherProxy;

/// A request on its way to a connection.
pub(super) type Parcel = http::Request<Body>;

/// What is sent of a request.
pub(super) fn parcel(request: Request) -> Parcel {
    let request = *request;
    let mut parcel = http::Request::new(request.body);
    *parcel.method_mut() = request.method;
    *parcel.uri_mut() = Uri::from(request.path);
    *parcel.headers_mut() = request.headers;
    parcel
}

/// `Host` follows the target (RFC 9112, section 3.2.2), never what the client wrote there.
pub(super) fn for_http1(
    parcel: &mut Parcel,
    origin: &Origin,
    upgrade: bool,
    forwarder: Option<&FurtherProxy>,
) {
    *parcel.version_mut() = Version::HTTP_11;
    match forwarder {
        Some(proxy) => for_proxy(parcel, origin, proxy),
        None => for_host(parcel),
    }
    parcel.headers_mut().insert(HOST, origin.host_field().clone());
    join_cookies(parcel.headers_mut());
    let bodiless = matches!(*parcel.method(), Method::GET | Method::HEAD);
    if bodiless && !parcel.body().is_empty() && parcel.body().length().is_none() {
        // hyper takes a GET of unknown length for one without a body.
        parcel.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if upgrade {
        parcel.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    } else if parcel.headers().contains_key(TE) {
        // RFC 9110, section 10.1.4: TE ends at this hop, so Connection has to name it.
        parcel.headers_mut().insert(CONNECTION, HeaderValue::from_static("te"));
    }
}

/// An earlier try may have been made over HTTP/2, or through a proxy.
fn for_host(parcel: &mut Parcel) {
    if parcel.uri().authority().is_some()
        && let Some(path) = parcel.uri().path_and_query().cloned()
    {
        *parcel.uri_mut() = Uri::from(path);
        parcel.headers_mut().remove(PROXY_AUTHORIZATION);
    }
}

/// A proxy wants the whole URL (RFC 9112, section 3.2.2), and to know who asks.
fn for_proxy(parcel: &mut Parcel, origin: &Origin, proxy: &FurtherProxy) {
    if let Some(uri) = whole(parcel, origin) {
        *parcel.uri_mut() = uri;
    }
    match proxy.authorization() {
        Some(value) => drop(parcel.headers_mut().insert(PROXY_AUTHORIZATION, value.clone())),
        None => drop(parcel.headers_mut().remove(PROXY_AUTHORIZATION)),
    }
}

/// The URL that a request is for.
fn whole(parcel: &Parcel, origin: &Origin) -> Option<Uri> {
    let path = parcel.uri().path_and_query().cloned()?;
    let uri = Uri::builder().scheme(origin.scheme.as_str()).authority(origin.authority());
    uri.path_and_query(path).build().ok()
}

/// HTTP/2 lets a client cut its cookies into fields of their own, HTTP/1 does not
/// (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    let (Some(_first), Some(_second)) = (crumbs.next(), crumbs.next()) else { return };
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, whole);
    }
}

/// The target has a scheme and an authority there, and no field speaks of the connection.
pub(super) fn for_http2(parcel: &mut Parcel, origin: &Origin) {
    *parcel.version_mut() = Version::HTTP_2;
    let headers = parcel.headers_mut();
    for name in [HOST, CONNECTION, TRANSFER_ENCODING, PROXY_AUTHORIZATION] {
        headers.remove(name);
    }
    if let Some(uri) = whole(parcel, origin) {
        *parcel.uri_mut() = uri;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(parcel: &Parcel) -> String {
        let field = |name| parcel.headers().get(name).map(|value| value.to_str().expect("text"));
        let [host, told] = [field(HOST), field(PROXY_AUTHORIZATION)].map(Option::unwrap_or_default);
        format!("{} {host} {told}", parcel.uri())
    }

    #[test]
    fn a_target_is_what_the_next_hop_wants_whatever_was_tried_before() {
        let origin = Origin::parse("http://a.test:81").expect("an origin");
        let at = Origin::parse("http://proxy.test:3128").expect("an origin");
        let named = FurtherProxy::new(at.clone(), Some(("u", "p")), Vec::new());
        let nameless = FurtherProxy::new(at, None, Vec::new());
        let mut parcel = http::Request::new(Body::empty());
        *parcel.uri_mut() = Uri::from_static("/x?y=%2f");
        let (path, url) = ("/x?y=%2f a.test:81 ", "http://a.test:81/x?y=%2f a.test:81 ");
        let known = format!("{url}Basic dTpw");
        for (forwarder, wanted) in [
            (None, path),
            (Some(&named), known.as_str()),
            (Some(&named), known.as_str()),
            (Some(&nameless), url),
            (None, path),
            (Some(&named), known.as_str()),
            (None, path),
        ] {
            for_http1(&mut parcel, &origin, false, forwarder);
            assert_eq!(shown(&parcel), wanted);
        }
        for_http1(&mut parcel, &origin, false, Some(&named));
        for_http2(&mut parcel, &origin);
        assert_eq!(shown(&parcel), "http://a.test:81/x?y=%2f  ");
        for_http1(&mut parcel, &origin, false, None);
        assert_eq!(shown(&parcel), path);
    }
}

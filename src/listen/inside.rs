//! Requests inside a tunnel to one authority, in TLS that is opened or without.

use std::sync::Arc;

use http::header::HOST;
use http::uri::Authority as UriAuthority;
use http::{HeaderMap, Method};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::exchange::{Body, Failure, Origin};
use crate::intercept::{self, Authority, Protocol};
use crate::listen::seat::Fuse;
use crate::listen::serve::{self, Asked};
use crate::listen::{House, Spec};
use crate::metrics::Handshake;
use crate::proxy::Arrival;

/// A tunnel to one authority, and whoever is inside it.
#[derive(Clone)]
pub(super) struct Inside {
    /// The authority that the tunnel is for; the scheme is what is found inside.
    pub(super) origin: Origin,
    /// Who proved to be allowed to open it.
    pub(super) user: Option<String>,
    pub(super) spec: Arc<Spec>,
    pub(super) house: House,
}

impl Inside {
    /// Opens TLS in the name of the tunnel's host, and serves what is inside.
    pub(super) async fn tls<IO>(&self, io: IO, authority: &Authority)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (house, host) = (&self.house, &*self.origin.host);
        let limit = self.spec.caps.header_timeout;
        let opened = intercept::handshake(io, authority, host, limit).await;
        house.metrics.minted(authority.minted());
        house.metrics.handshake_client(match &opened {
            Ok(_) => Handshake::Ok,
            Err(intercept::Handshake::Distrusted(_)) => Handshake::Distrusted,
            Err(intercept::Handshake::Reset) => Handshake::Reset,
            Err(_) => Handshake::Other,
        });
        match opened {
            Ok(opened) => {
                let origin = self.origin.clone();
                let served = match opened.protocol {
                    Protocol::H2 => self.http2(opened.stream, origin).await,
                    Protocol::Http1 => self.http1(opened.stream, origin).await,
                };
                self.ended(served);
            }
            // Some clients say why they refuse a certificate, some only hang up.
            Err(intercept::Handshake::Distrusted(_) | intercept::Handshake::Reset) => {
                self.distrusted();
            }
            Err(error) => tracing::debug!(%host, %error, "a client's TLS handshake failed"),
        }
    }

    /// Serves HTTP/1.1 whose requests are for `origin`.
    pub(super) async fn http1<IO>(&self, io: IO, origin: Origin) -> Result<(), hyper::Error>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let respond = |asked| answer(asked, origin.clone(), self.clone());
        // TLS ends with a word of its own, and who speaks to us of plain HTTP here knows 1.1.
        let fuse = Fuse::default();
        serve::http1(io, (&self.spec.caps, fuse), &self.house, respond).await
    }

    /// Serves HTTP/2 whose requests are for `origin`.
    pub(super) async fn http2<IO>(&self, io: IO, origin: Origin) -> Result<(), hyper::Error>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let respond = |asked| answer(asked, origin.clone(), self.clone());
        serve::http2(io, &self.spec.caps, &self.house, respond).await
    }

    /// A client may refuse our certificate after its own handshake is done.
    pub(super) fn ended(&self, served: Result<(), hyper::Error>) {
        let Err(error) = served else { return };
        if intercept::distrust_in(&error) {
            self.house.metrics.handshake_client(Handshake::Distrusted);
            self.distrusted();
        } else {
            tracing::debug!(%error, "a connection broke off");
        }
    }

    fn distrusted(&self) {
        let host = &*self.origin.host;
        self.house.distrust.note(host, Instant::now());
        tracing::warn!(
            host,
            "a client refused our certificate: point SSL_CERT_FILE, REQUESTS_CA_BUNDLE or \
             NODE_EXTRA_CA_CERTS at bundle.pem (see `samekey env`), or list the host in intercept.except"
        );
    }
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
    let same = |named: &UriAuthority| {
        let named = Origin::of(origin.scheme, named);
        named.is_some_and(|named| named.host == origin.host && named.port == origin.port)
    };
    named.is_none_or(same) && (named.is_some() || agrees(origin, request.headers()))
}

/// Whether `Host` names `origin`; a missing or empty one does, and one without a port.
pub(super) fn agrees(origin: &Origin, headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).filter(|host| !host.is_empty()) else { return true };
    if host == origin.host_field() {
        return true; // what a client nearly always writes
    }
    let named = UriAuthority::try_from(host.as_bytes()).ok();
    let portless = named.as_ref().is_some_and(|named| named.port().is_none());
    let named = named.and_then(|named| Origin::of(origin.scheme, &named));
    named.is_some_and(|named| named.host == origin.host && (portless || named.port == origin.port))
}

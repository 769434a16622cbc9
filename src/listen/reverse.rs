//! A base URL: no proxy setting, no CA.

use std::sync::Arc;

use tokio::net::TcpStream;

use crate::exchange::Origin;
use crate::listen::serve::{self, Asked};
use crate::listen::sniff::{Guess, Prefixed};
use crate::listen::{House, Spec, explicit};
use crate::proxy::Arrival;

/// Serves one connection whose requests all go to `origin`.
pub(super) async fn serve(stream: TcpStream, origin: Origin, spec: Arc<Spec>, house: House) {
    let mut stream = Prefixed::new(stream);
    let guess = tokio::time::timeout(spec.caps.header_timeout, stream.guess()).await;
    let respond = |asked: Asked| answer(asked, origin.clone(), spec.clone(), house.clone());
    let served = match guess {
        Ok(Ok(Guess::Http2)) => serve::http2(stream, &spec.caps, &house, respond).await,
        Ok(Ok(Guess::Neither)) | Err(_) | Ok(Err(_)) => return,
        Ok(Ok(Guess::Tls | Guess::Http1 | Guess::More)) => {
            serve::http1(stream, &spec.caps, &house, respond).await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection broke off");
    }
}

async fn answer(
    asked: Asked,
    origin: Origin,
    spec: Arc<Spec>,
    house: House,
) -> http::Response<crate::exchange::Body> {
    let Asked { request, fault, presence } = asked;
    let user = match explicit::admit(&spec.auth, request.headers()) {
        Ok(user) => user,
        Err(failure) => return house.proxy.refuse(request.method(), &failure),
    };
    let origin = fault.map_or(Ok(origin), Err);
    house.proxy.answer(Arrival { request, origin, user, presence }).await
}

//! A base URL: no proxy setting, no CA.

use std::sync::Arc;

use http::Method;

use crate::exchange::{Body, Failure, Origin};
use crate::listen::seat::Seated;
use crate::listen::serve::{self, Asked};
use crate::listen::sniff::{Guess, Prefixed};
use crate::listen::{House, Spec, explicit};
use crate::proxy::Arrival;

/// Serves one connection whose requests all go to `origin`.
pub(super) async fn serve(stream: Seated, origin: Origin, spec: Arc<Spec>, house: House) {
    let mut stream = Prefixed::new(stream);
    let guess = tokio::select! {
        guess = tokio::time::timeout(spec.caps.header_timeout, stream.guess()) => guess,
        // Nothing was asked yet, so there is nothing to wait for.
        () = house.draining.cancelled() => return,
    };
    let respond = |asked: Asked| answer(asked, origin.clone(), spec.clone(), house.clone());
    let served = match guess {
        Ok(Ok(Guess::Http2)) => serve::http2(stream, &spec.caps, &house, respond).await,
        // What it cannot read it refuses.
        Ok(Ok(Guess::Http1 | Guess::Tls | Guess::Neither | Guess::More)) => {
            serve::http1(stream, &spec.caps, &house, respond).await
        }
        Ok(Err(_)) | Err(_) => return,
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
) -> http::Response<Body> {
    let Asked { request, fault, presence } = asked;
    let user = match explicit::admit(&spec.auth, request.headers()) {
        Ok(user) => user,
        Err(failure) => return house.proxy.refuse(request.method(), &failure),
    };
    let origin = match fault {
        Some(fault) => Err(fault),
        None if request.method() == Method::CONNECT => {
            Err(Failure::BadRequest("CONNECT to a base URL: this listener is no proxy"))
        }
        None => Ok(origin),
    };
    house.proxy.answer(Arrival { request, origin, user, presence }).await
}

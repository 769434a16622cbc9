//! Takes a delivery in: read whole, proved, kept, and answered.

use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use tokio::time::timeout;
use tower::{Layer, Service};

use crate::exchange::trail::Answered;
use crate::exchange::{Body, BoxFuture, Failure, Request, Response, Stage};
use crate::inbox::Intake;
use crate::inbox::identity::{DeliveryId, Known};
use crate::inbox::parcel::{DELIVERY, Parcel};
use crate::inbox::signature::Unproved;
use crate::journal::deliveries::NewDelivery;
use crate::metrics::InboxEvent;

/// Wraps the stages of a route in [`Inbox`].
#[derive(Clone, Debug)]
pub struct InboxLayer {
    intake: Option<Intake>,
}

/// Answers for the application, where the route has an inbox.
#[derive(Clone, Debug)]
pub struct Inbox<S> {
    intake: Option<Intake>,
    inner: S,
}

impl InboxLayer {
    /// Takes in at `intake`; without one every request passes.
    pub fn new(intake: Option<Intake>) -> Self {
        Self { intake }
    }
}

impl<S> Inbox<S> {
    /// The stage below.
    pub fn below(&self) -> &S {
        &self.inner
    }
}

impl<S> Layer<S> for InboxLayer {
    type Service = Inbox<S>;

    fn layer(&self, inner: S) -> Inbox<S> {
        Inbox { intake: self.intake.clone(), inner }
    }
}

impl<S: Stage> Service<Request> for Inbox<S> {
    type Response = Response;
    type Error = Failure;
    type Future = BoxFuture<Result<Response, Failure>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match &self.intake {
            Some(intake) if intake.takes(&request) => Box::pin(receive(intake.clone(), request)),
            Some(_) | None => self.inner.call(request),
        }
    }
}

async fn receive(intake: Intake, request: Request) -> Result<Response, Failure> {
    request.trail.with(|notes| notes.answered = Answered::Here);
    let taken = take(&intake, request).await;
    if taken.is_err() {
        intake.terms.metrics.count(InboxEvent::Refused);
    }
    taken.map(answer)
}

async fn take(intake: &Intake, mut request: Request) -> Result<DeliveryId, Failure> {
    let rules = &intake.terms.rules;
    let place = intake.place()?;
    let body = whole(&mut request, rules.max_size).await?;
    if let Some(signature) = &rules.signature {
        let now = intake.tray.store().now().wall / MICROS;
        signature.verify(&request.headers, &body, now).map_err(unproved)?;
    }
    let route = intake.tray.route();
    let limit = rules.max_size.saturating_mul(DECODED_SHARE);
    let known = rules.identity.of(route, &request.headers, &body, limit);
    if let Known::ByBody(delivery) = known {
        tracing::warn!(
            route,
            %delivery,
            "a delivery names no event where inbox.identity looks: its body stands for it"
        );
    }
    let new = NewDelivery {
        route: route.to_owned(),
        id: known.id().0,
        digest: *blake3::hash(&body).as_bytes(),
        head: Parcel::of(&request, &rules.headers).written(),
        body,
        came: intake.tray.store().now(),
    };
    intake.take_in(new).await?;
    drop(place);
    Ok(known.id())
}

fn unproved(why: Unproved) -> Failure {
    Failure::BadRequest(match why {
        Unproved::Unsigned => "the delivery does not carry the signature of its body",
        Unproved::Untimely => {
            "the delivery was signed longer ago, or later, than inbox.signature.tolerance allows"
        }
    })
}

/// The whole body, byte for byte.
async fn whole(request: &mut Request, most: usize) -> Result<Bytes, Failure> {
    let body = std::mem::take(&mut request.body);
    let too_large = Failure::BadRequest("the delivery is larger than inbox.max_size");
    if body.length().is_some_and(|length| length > most as u64) {
        return Err(too_large);
    }
    match timeout(READ_WITHIN, body.read_whole(most)).await {
        Ok(Some(body)) => Ok(body),
        Ok(None) => Err(match &request.upload {
            Some(upload) if upload.is_malformed() => {
                Failure::BadRequest("the request's body is not what its framing says")
            }
            Some(upload) if upload.is_broken() => Failure::ClientGone,
            Some(_) | None => too_large,
        }),
        Err(_late) => Err(Failure::BadRequest("the delivery did not come whole in time")),
    }
}

/// A repeat is answered like the first: whoever sent it is done.
fn answer(id: DeliveryId) -> Response {
    let mut response = Response::new(StatusCode::OK, Body::empty());
    if let Ok(id) = HeaderValue::try_from(id.to_string()) {
        response.headers.insert(DELIVERY, id);
    }
    response
}

/// A provider gives its delivery up about then.
const READ_WITHIN: Duration = Duration::from_secs(10);
/// Of one second.
const MICROS: i64 = 1_000_000;
/// How much larger a body may be without its coding, for its identity to be read.
const DECODED_SHARE: usize = 4;

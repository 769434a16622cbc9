//! What stages ask of the one below them.

use tower::Service;

use crate::exchange::{BoxFuture, Failure, Request, Response};

/// A stage whose future can be handed on as it is, by a stage that has nothing to do.
pub trait Stage:
    Service<
        Request,
        Response = Response,
        Error = Failure,
        Future = BoxFuture<Result<Response, Failure>>,
    > + Clone
    + Send
    + 'static
{
}

impl<S> Stage for S where
    S: Service<
            Request,
            Response = Response,
            Error = Failure,
            Future = BoxFuture<Result<Response, Failure>>,
        > + Clone
        + Send
        + 'static
{
}

/// Takes the service that is ready, for a future of its own, and leaves a clone. The clone
/// is not ready: who calls next asks it first.
pub fn take_ready<S: Clone>(service: &mut S) -> S {
    let clone = service.clone();
    std::mem::replace(service, clone)
}

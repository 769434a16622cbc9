//! What an error proves about what was sent.

use std::error::Error as _;

use crate::exchange::Failure;
use crate::exchange::body::Upload;

/// The failure that an error on a connection stands for, once bytes were sent.
pub(super) fn of(error: &hyper::Error, upload: Option<&Upload>) -> Failure {
    if let Some(h2) = error.source().and_then(|source| source.downcast_ref::<h2::Error>())
        && is_refusal(h2)
    {
        return Failure::Refused;
    }
    // A body that its client did not finish is no request: nothing can come of it.
    if let Some(upload) = upload.filter(|upload| upload.is_broken()) {
        return if upload.is_malformed() {
            Failure::BadRequest("the request's body is not what its framing says")
        } else {
            Failure::ClientGone
        };
    }
    let broken = !error.is_parse();
    let why =
        error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
    let detail = if broken {
        format!("the connection broke before a response came: {why}")
    } else {
        format!("what came is not an HTTP response: {why}")
    };
    Failure::Protocol { detail, broken }
}

/// Whether HTTP/2 proves that the request was not processed.
///
/// RFC 9113, section 8.7: a stream reset with `REFUSED_STREAM`, and a stream above
/// the last one that a GOAWAY names. h2 gives the error of a remote GOAWAY to the
/// streams above it alone; those below it get the connection's own end.
fn is_refusal(error: &h2::Error) -> bool {
    let refused_stream = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_remote() && (refused_stream || error.is_go_away())
}

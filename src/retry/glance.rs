//! Looks into an answer before it is passed on, or put aside for another attempt.

use std::time::Duration;

use crate::exchange::glance::{READ_MAX, into_json};
use crate::exchange::trail::Says;
use crate::exchange::{Body, Condition, Failure, Response, headers};
use crate::retry::outcome::Classified;
use crate::retry::policy::Policy;

/// What the body of an answer said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// That no repetition will help (`never_when`): on an error, and on a good status
    /// that is a failure. What it means for the key, `failed_when` alone says.
    pub(super) permanent: bool,
    /// That the first request under the key is still under way (`in_progress_when`).
    pub(super) in_progress: bool,
    /// That a good status is a failure (`failed_when`).
    pub(super) says: Option<Says>,
}

/// Whether the route has something to look for in this answer.
pub(super) fn is_wanted(
    policy: &Policy,
    attempt: Classified,
    result: &Result<Response, Failure>,
) -> bool {
    let looks = if is_good(attempt) {
        !policy.failed_when.is_empty()
    } else {
        !(policy.never_when.is_empty() && policy.in_progress_when.is_empty())
    };
    looks && result.as_ref().is_ok_and(|response| headers::is_json(&response.headers))
}

/// Reads the beginning of an answer, and what it says.
pub(super) async fn read(
    policy: &Policy,
    attempt: Classified,
    result: Result<Response, Failure>,
) -> (Result<Response, Failure>, Said) {
    let good = is_good(attempt);
    let response = match result {
        Ok(response) => response,
        Err(failure) => return (Err(failure), Said::default()),
    };
    let (response, said) = into_json(response, |root| {
        let holds = |conditions: &[Condition]| conditions.iter().any(|it| it.holds(root));
        let failed = policy.failed_when.iter().find(|failed| good && failed.condition.holds(root));
        let is_failure = !good || failed.is_some();
        Said {
            permanent: is_failure && holds(&policy.never_when),
            in_progress: !good && holds(&policy.in_progress_when),
            says: failed.map(|failed| failed.means),
        }
    })
    .await;
    (Ok(response), said.unwrap_or_default())
}

/// Whether its status says that it is no failure; then its body may say that it is one.
fn is_good(attempt: Classified) -> bool {
    attempt.status.is_some_and(|status| status.is_success() || status.is_redirection())
}

/// Frees the connection and the slot of an answer that is being retried, and
/// keeps the answer, if it is small, in case no further attempt can start.
pub(super) async fn set_aside(result: Result<Response, Failure>) -> Result<Response, Failure> {
    let mut response = result?;
    let body = std::mem::take(&mut response.body);
    let peeked = body.peek(READ_MAX, DRAIN_WITHIN).await;
    let Some(whole) = peeked.whole else {
        return Err(Failure::Protocol {
            detail: format!(
                "the upstream answered {} and no further attempt began",
                response.status
            ),
            broken: true,
        });
    };
    // Its bytes and no more: what is put down here holds neither slot nor connection.
    response.body = Body::full(whole);
    Ok(response)
}

/// Longer is dearer than a new connection: `semantics.md`, rule 54.
const DRAIN_WITHIN: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body::Frame;
    use tokio::time::Instant;

    use super::*;
    use crate::exchange::body::BodyError;
    use crate::exchange::glance::READ_WITHIN;
    use crate::exchange::tests::{Piece, data, encoded, fed, next, response, rest, streamed};
    use crate::exchange::{Pointer, Scalar};
    use crate::retry::FailedWhen;
    use crate::retry::outcome::classify;
    use crate::retry::tests::policy;

    const JSON: &str = "application/json";
    const NO_CREDITS: &str = r#"{"error":{"code":"no_credits"}}"#;
    /// The same.
    const BROTLI: &[u8] = b"\x0b\x0f\x80{\"error\":{\"code\":\"no_credits\"}}\x03";
    const NEVER: Said = Said { permanent: true, in_progress: false, says: None };

    /// It looks for `no_credits`, and for failures that mean that nothing was done.
    fn looking() -> Policy {
        let is = |pointer: &str, value| {
            let pointer = Pointer::parse(pointer).expect("a pointer");
            Condition { pointer, values: vec![value] }
        };
        let failed = is("/success", Scalar::Bool(false));
        Policy {
            never_when: vec![is("/error/code", Scalar::String("no_credits".to_owned()))],
            failed_when: vec![FailedWhen { condition: failed, means: Says::Refused }],
            ..policy()
        }
    }

    /// What an answer says; and it is passed on as it came, whatever that is.
    async fn said(status: u16, fields: &[(&'static str, &str)], body: Body) -> (Said, Body) {
        let policy = looking();
        let result = Ok(response(status, fields, body));
        let attempt = classify(&result, &policy).expect("an attempt");
        if !is_wanted(&policy, attempt, &result) {
            return (Said::default(), came(result).body);
        }
        let (result, said) = read(&policy, attempt, result).await;
        (said, came(result).body)
    }

    fn came(result: Result<Response, Failure>) -> Response {
        result.expect("it came")
    }

    fn pieces(body: &[u8], cut: usize) -> impl Iterator<Item = Piece> + '_ {
        body.chunks(cut).map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece))))
    }

    async fn check(status: u16, coding: &str, body: &[u8], wanted: Said) {
        let fields = [("content-type", JSON), ("content-encoding", coding)];
        for streams in [false, true] {
            let whole = Body::full(Bytes::copy_from_slice(body));
            let body_of = if streams { streamed(pieces(body, 1000)) } else { whole };
            let (found, passed_on) = said(status, &fields, body_of).await;
            assert_eq!(found, wanted, "{status} {coding}, {} bytes", body.len());
            let passed_on = passed_on.read_whole(1 << 20).await.expect("all of it");
            assert!(*passed_on == *body, "{status} {coding} is passed on as it came");
        }
    }

    /// The words, and blanks up to a length.
    fn padded(length: usize) -> Vec<u8> {
        let mut text = NO_CREDITS.as_bytes().to_vec();
        text.resize(length, b' ');
        text
    }

    #[tokio::test(start_paused = true)]
    async fn a_code_is_found_whatever_the_status_and_the_coding() {
        let plain = NO_CREDITS.as_bytes();
        for status in [400, 402, 403, 409, 429, 500, 503] {
            check(status, "", plain, NEVER).await;
        }
        for coding in ["gzip", "deflate", "zstd"] {
            check(429, coding, &encoded(coding, plain), NEVER).await;
        }
        check(429, "deflate", &encoded("raw deflate", plain), NEVER).await;
        check(429, "br", BROTLI, NEVER).await;
        check(429, "gzip, zstd", &encoded("zstd", &encoded("gzip", plain)), NEVER).await;
        // A good answer is no failure for holding the word: `failed_when` has to say so.
        check(200, "", plain, Said::default()).await;
        let failed = br#"{"success":false,"error":{"code":"no_credits"}}"#;
        let both = Said { says: Some(Says::Refused), ..NEVER };
        check(200, "gzip", &encoded("gzip", failed), both).await;
        check(200, "", br#"{"success":false}"#, Said { permanent: false, ..both }).await;
        check(500, "", failed, NEVER).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_read_up_to_64_kib_coded_and_plain() {
        for (length, wanted) in
            [(READ_MAX - 1, NEVER), (READ_MAX, NEVER), (READ_MAX + 1, Said::default())]
        {
            let body = padded(length);
            check(429, "", &body, wanted).await;
            for coding in ["gzip", "deflate", "zstd"] {
                check(429, coding, &encoded(coding, &body), wanted).await;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_read_beyond_doubt_decides_nothing() {
        let nothing = Said::default();
        let gzip = encoded("gzip", NO_CREDITS.as_bytes());
        for (coding, body) in [
            ("", &b"no_credits"[..]),
            ("", &NO_CREDITS.as_bytes()[1..]),
            ("", br#"{"error":{"code":"no_credits"},"error":{}}"#),
            ("", br#"{"error":{"code":["no_credits"]}}"#),
            ("", b""),
            ("gzip", NO_CREDITS.as_bytes()),
            ("gzip", &gzip[..gzip.len() - 1]),
            ("", &gzip),
            ("compress", &gzip),
        ] {
            check(429, coding, body, nothing).await;
        }
        for (kind, wanted) in [
            (JSON, NEVER),
            ("application/problem+json; charset=utf-8", NEVER),
            ("text/plain", nothing),
            ("application/x-ndjson", nothing),
        ] {
            let body = Body::full(Bytes::from_static(NO_CREDITS.as_bytes()));
            assert_eq!(said(429, &[("content-type", kind)], body).await.0, wanted, "{kind}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_breaks_off_or_trickles_decides_nothing_and_goes_on() {
        let fields = [("content-type", JSON)];
        let broke = streamed([data(NO_CREDITS), Err(BodyError::UpstreamBroke)]);
        let (found, mut body) = said(429, &fields, broke).await;
        assert_eq!((found, rest(&mut body).await), (Said::default(), format!("{NO_CREDITS}!")));
        let (upstream, body) = fed();
        upstream.send(data(NO_CREDITS)).expect("it is read");
        let began = Instant::now();
        let (found, mut body) = said(429, &fields, body).await;
        assert_eq!((found, began.elapsed()), (Said::default(), READ_WITHIN));
        assert_eq!(next(&mut body).await.as_deref(), Some(NO_CREDITS));
    }
}

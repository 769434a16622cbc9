//! Looks at what a poll was answered: may others have it, may it serve later, is the job over?

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};

use crate::exchange::glance::{READ_MAX, READ_WITHIN};
use crate::exchange::{Record, Response, coding, headers, json};
use crate::poll::{Terminal, job};

/// Reads an answer that others may have; `None`: it is larger, slower, broken, or for
/// whoever asked alone. The response is whole in any case.
pub(super) async fn shared(mut response: Response) -> (Response, Option<Record>) {
    if !is_shareable(&response) {
        return (response, None);
    }
    let body = std::mem::take(&mut response.body);
    let peeked = body.peek(ANSWER_MAX, READ_WITHIN).await;
    response.body = peeked.body;
    let record = peeked.whole.map(|whole| {
        // A copy of its own size: a slice would hold on to the whole read buffer.
        let whole = Bytes::copy_from_slice(&whole);
        Record::new(response.status, &response.headers, whole)
    });
    (response, record)
}

/// Whether an answer may serve polls that come after it: it says how the job goes, or
/// that there is none. What failed says nothing about the job.
pub(super) fn may_serve_later(status: StatusCode) -> bool {
    status.is_success()
        || status.is_redirection()
        || matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
}

/// Whether the upstream refuses the credential.
pub(super) fn is_refusal(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

/// Whether an answer says that its job is over. What is not JSON, or is more than is
/// read to judge an answer, says nothing.
pub(super) fn is_over(terminal: &Terminal, fields: &HeaderMap, record: &Record) -> bool {
    let body = record.body();
    if !record.status().is_success() || !headers::is_json(fields) || body.len() > READ_MAX {
        return false;
    }
    let text = coding::decode(headers::content_coding(fields), body, READ_MAX);
    let root = text.as_deref().map(json::parse);
    matches!(root, Some(Ok(root)) if terminal.condition.holds(&root))
}

/// A stream of events has no end to wait for, and a switched protocol no second reader.
fn is_shareable(response: &Response) -> bool {
    let kind = response.headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes().to_ascii_lowercase());
    let streams = kind.is_some_and(|kind| kind.starts_with(b"text/event-stream"));
    !streams && response.upgrade.is_none() && !job::varies_beyond(&response.headers)
}

/// What is said of a job is small; more is a download, and each gets its own.
pub(super) const ANSWER_MAX: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use super::*;
    use crate::exchange::tests::{
        data, full, headers as fields, response, rest, streamed, trailers,
    };
    use crate::exchange::{Body, Condition, Pointer, Scalar};

    fn terminal() -> Terminal {
        let pointer = Pointer::parse("/status").expect("a pointer");
        let values = ["completed", "failed"].map(|word| Scalar::String(word.to_owned()));
        let condition = Condition { pointer, values: values.to_vec() };
        Terminal { condition, lasts: Duration::from_secs(1) }
    }

    fn over(status: u16, lines: &[(&'static str, &str)], body: impl Into<Bytes>) -> bool {
        let status = StatusCode::from_u16(status).expect("a status");
        let fields = fields(lines);
        is_over(&terminal(), &fields, &Record::new(status, &fields, body.into()))
    }

    const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

    #[test]
    fn a_job_is_over_where_a_whole_good_answer_says_so() {
        for (status, body, wanted) in [
            (200, r#"{"status": "completed"}"#, true),
            (202, r#"{"status": "failed", "a": 1}"#, true),
            (200, r#"{"status": "error"}"#, false),
            (200, r#"{"job": {"status": "completed"}}"#, false),
            (200, r#"{"status": "completed""#, false),
            (200, "completed", false),
            (200, "", false),
            (500, r#"{"status": "failed"}"#, false),
            (404, r#"{"status": "failed"}"#, false),
        ] {
            assert_eq!(over(status, JSON, body), wanted, "{status} {body}");
        }
        assert!(!over(200, &[("content-type", "text/plain")], r#"{"status": "completed"}"#));
    }

    #[test]
    fn so_much_of_an_answer_is_judged_coded_or_not() {
        let done = r#"{"status": "completed"}"#;
        let padded = |size: usize| done.to_owned() + &" ".repeat(size - done.len());
        let gzip = |text: &str| {
            let level = flate2::Compression::fast();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(text.as_bytes()).expect("memory takes it");
            encoder.finish().expect("memory takes it")
        };
        let coded = [JSON[0], ("content-encoding", "gzip")];
        for (size, wanted) in [(READ_MAX - 1, true), (READ_MAX, true), (READ_MAX + 1, false)] {
            assert_eq!(over(200, JSON, padded(size)), wanted, "{size}");
            assert_eq!(over(200, &coded, gzip(&padded(size))), wanted, "{size} in gzip");
        }
        let mut cut = gzip(&padded(100));
        cut.pop();
        assert!(!over(200, &coded, cut));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_shared_up_to_a_size_and_is_whole_in_any_case() {
        let events = ("content-type", "Text/Event-Stream; charset=utf-8");
        let large = |size: usize| Body::full(Bytes::from(vec![b'x'; size]));
        for (lines, body, size, is_shared) in [
            (&[][..], large(ANSWER_MAX - 1), ANSWER_MAX - 1, true),
            (&[], large(ANSWER_MAX), ANSWER_MAX, true),
            (&[], large(ANSWER_MAX + 1), ANSWER_MAX + 1, false),
            (&[], Body::empty(), 0, true),
            (&[events], full("data: 1"), 7, false),
            (&[("vary", "user-agent")], full("a"), 1, false),
            (&[("vary", "origin")], full("a"), 1, true),
            (&[], streamed([data("ab"), trailers("x-sum")]), 3, false),
        ] {
            let (mut response, record) = shared(response(200, lines, body)).await;
            assert_eq!(record.is_some(), is_shared, "{lines:?} {size}");
            assert_eq!(rest(&mut response.body).await.len(), size);
        }
    }

    #[test]
    fn what_failed_serves_nobody_later() {
        for (status, wanted) in [
            (200, true),
            (202, true),
            (303, true),
            (404, true),
            (410, true),
            (400, false),
            (401, false),
            (403, false),
            (408, false),
            (429, false),
            (500, false),
            (503, false),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(may_serve_later(status), wanted, "{status}");
        }
    }
}

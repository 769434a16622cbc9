//! Reads a request's body, and lets it pass where it fits or cannot be judged.

use std::borrow::Cow;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tower::{Layer, Service};

use crate::exchange::body::{BodyError, Caps, Filled, Held, Room};
use crate::exchange::{BoxFuture, Failure, Request, Response, Stage, coding, headers, take_ready};
use crate::metrics::{Fit, RouteMetrics};
use crate::schema::{Misfit, Schema};

/// What one route checks by.
#[derive(Debug)]
pub struct Terms {
    /// What bodies are to fit.
    pub schema: Schema,
    /// How much of a body is held.
    pub caps: Caps,
    /// Where it is held.
    pub room: Room,
    /// Where it is counted.
    pub metrics: RouteMetrics,
    /// Whether a misfit is only counted.
    pub observes: bool,
}

/// Wraps a stage in [`Checked`].
#[derive(Clone, Debug)]
pub struct SchemaLayer {
    terms: Option<Arc<Terms>>,
}

/// Refuses what does not fit the route's schema, where it has one.
#[derive(Clone, Debug)]
pub struct Checked<S> {
    terms: Option<Arc<Terms>>,
    inner: S,
}

impl SchemaLayer {
    /// Checks by `terms`; without any, every request is passed on as it is.
    pub fn new(terms: Option<Terms>) -> Self {
        Self { terms: terms.map(Arc::new) }
    }
}

impl<S> Checked<S> {
    /// The stage below.
    pub fn below(&self) -> &S {
        &self.inner
    }
}

impl<S> Layer<S> for SchemaLayer {
    type Service = Checked<S>;

    fn layer(&self, inner: S) -> Checked<S> {
        Checked { terms: self.terms.clone(), inner }
    }
}

impl<S: Stage> Service<Request> for Checked<S> {
    type Response = Response;
    type Error = Failure;
    type Future = BoxFuture<Result<Response, Failure>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let Some(terms) = self.terms.as_ref().filter(|_| is_checked(&request)) else {
            return self.inner.call(request);
        };
        let terms = terms.clone();
        let mut inner = take_ready(&mut self.inner);
        Box::pin(async move {
            terms.check(&mut request).await?;
            inner.call(request).await
        })
    }
}

/// Whether a request has JSON that can be judged.
fn is_checked(request: &Request) -> bool {
    headers::is_json(&request.headers) && !request.body.is_empty() && !request.wants_upgrade
}

impl Terms {
    /// Reads the body, which stays in place, and judges it.
    async fn check(&self, request: &mut Request) -> Result<(), Failure> {
        let judged = match self.read(request).await? {
            Some(text) => self.judge(text).await,
            None => Ok(false),
        };
        match judged {
            Ok(true) => {
                self.metrics.fitted(Fit::Fits);
                Ok(())
            }
            Ok(false) => {
                self.metrics.fitted(Fit::Unchecked);
                tracing::debug!(route = self.metrics.name(), "the schema did not judge a body");
                Ok(())
            }
            Err(misfit) => {
                self.metrics.fitted(Fit::Misfits);
                if self.observes { Ok(()) } else { Err(Failure::Unfit(misfit.to_string())) }
            }
        }
    }

    /// The text of the body; none where it is larger than is held in memory, coded or
    /// not, or in a coding that is not known.
    async fn read(&self, request: &mut Request) -> Result<Option<Bytes>, Failure> {
        let body = std::mem::take(&mut request.body);
        let held = Held::new(body, self.caps, &self.room);
        let filled = held.fill().await;
        request.body = held.reader();
        let whole = match filled {
            Ok(Filled::Whole(whole)) => whole,
            Ok(Filled::TooLarge) => return Ok(None),
            Err(BodyError::Malformed(why)) => return Err(Failure::BadRequest(why)),
            Err(_left) => return Err(Failure::ClientGone),
        };
        let limit = usize::try_from(self.caps.memory).unwrap_or(usize::MAX);
        let plain = coding::decode(headers::content_coding(&request.headers), &whole, limit);
        Ok(plain.map(|plain| match plain {
            Cow::Borrowed(_) => whole.clone(),
            Cow::Owned(plain) => plain.into(),
        }))
    }

    /// False where it cannot be judged. A large body is judged beside the threads that serve others.
    async fn judge(&self, text: Bytes) -> Result<bool, Misfit> {
        if text.len() <= AT_ONCE_MAX {
            return self.schema.check(&text);
        }
        let schema = self.schema.clone();
        let judged = tokio::task::spawn_blocking(move || schema.check(&text)).await;
        // It can only have panicked, and a healthy call is not to fail for that.
        judged.unwrap_or(Ok(false))
    }
}

/// What is judged within a millisecond.
const AT_ONCE_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use http::Method;

    use super::*;
    use crate::exchange::tests::{Scripted, data, full, headers, measured, request, streamed};
    use crate::exchange::{Body, RequestParts};
    use crate::metrics::Metrics;

    const MEMORY: usize = 100_000;

    struct Bench {
        stage: Checked<Scripted>,
        upstream: Scripted,
        metrics: Metrics,
    }

    fn bench(schema: Option<&str>, observes: bool) -> Bench {
        let (upstream, metrics) = (Scripted::default(), Metrics::new());
        let terms = schema.map(|text| Terms {
            schema: Schema::compile(text.as_bytes()).expect("a schema"),
            caps: Caps { memory: MEMORY as u64, disk: 1 << 20 },
            room: Room::new(std::env::temp_dir(), 1 << 20, 1 << 20),
            metrics: metrics.route("r"),
            observes,
        });
        let stage = SchemaLayer::new(terms).layer(upstream.clone());
        Bench { stage, upstream, metrics }
    }

    /// What came of a request, and what the upstream saw of its body.
    async fn sent(
        bench: &mut Bench,
        fields: &[(&'static str, &str)],
        body: Body,
    ) -> Result<Bytes, Failure> {
        bench.upstream.status(200, &[]);
        let headers = headers(fields);
        let request = Box::new(RequestParts { headers, ..*request(Method::POST, body) });
        bench.stage.call(request).await?;
        Ok(bench.upstream.calls().pop().expect("it was sent").body.expect("all of it"))
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).expect("a vector takes all");
        encoder.finish().expect("a vector takes all")
    }

    const JSON: (&str, &str) = ("content-type", "application/json");
    const GZIP: (&str, &str) = ("content-encoding", "gzip");
    const OBJECT: Option<&str> = Some(r#"{"type": "object"}"#);

    #[tokio::test]
    async fn what_fits_goes_on_as_it_came_and_what_does_not_goes_nowhere() {
        let bytes = |text: &[u8]| Body::full(Bytes::copy_from_slice(text));
        let (good, bad) = (br#"{"a": 1 }"#.as_slice(), b"[1]".as_slice());
        for (fields, body, wanted, result) in [
            (&[JSON][..], full(r#"{"a": 1 }"#), Some(good), "fits"),
            (&[JSON], streamed([data(r#"{"a":"#), data(" 1 }")]), Some(good), "fits"),
            (&[JSON], measured(&[r#"{"a":"#, " 1 }"]), Some(good), "fits"),
            (&[JSON, GZIP], bytes(&gzip(good)), Some(&gzip(good)), "fits"),
            (&[JSON], full("[1]"), None, "misfit"),
            (&[JSON], streamed([data("[1"), data("]")]), None, "misfit"),
            (&[JSON, GZIP], bytes(&gzip(bad)), None, "misfit"),
            (&[JSON, GZIP], bytes(bad), Some(bad), "unchecked"),
            (&[JSON, ("content-encoding", "own")], bytes(bad), Some(bad), "unchecked"),
            (&[JSON], Body::empty(), Some(b""), ""),
            (&[("content-type", "text/plain")], bytes(bad), Some(bad), ""),
            (&[], bytes(bad), Some(bad), ""),
        ] {
            let mut bench = bench(OBJECT, false);
            let sent = sent(&mut bench, fields, body).await;
            let is_sent = bench.upstream.calls().len();
            match (sent, wanted) {
                (Ok(seen), Some(wanted)) => assert_eq!(seen, wanted),
                (Err(Failure::Unfit(detail)), None) => {
                    assert!(detail.contains("`type`") && is_sent == 0, "{detail}");
                }
                (sent, wanted) => panic!("{sent:?} and not {wanted:?}"),
            }
            let counts = |result: &str| format!(r#"schema_total{{result="{result}",route="r"}} 1"#);
            let text = bench.metrics.text();
            for known in ["fits", "misfit", "unchecked"] {
                assert_eq!(text.contains(&counts(known)), known == result, "{fields:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_body_is_checked_as_far_as_it_is_held_in_memory() {
        for (length, is_checked) in [(MEMORY - 1, true), (MEMORY, true), (MEMORY + 1, false)] {
            let mut text = b"[1]".to_vec();
            text.resize(length, b' ');
            for (fields, body) in [(&[JSON][..], text.clone()), (&[JSON, GZIP], gzip(&text))] {
                let mut bench = bench(OBJECT, false);
                let pieces = body
                    .chunks(7000)
                    .map(|piece| Ok(http_body::Frame::data(Bytes::copy_from_slice(piece))));
                let sent = sent(&mut bench, fields, streamed(pieces)).await;
                assert_eq!(sent.is_err(), is_checked, "{length} {fields:?}");
                assert!(is_checked || sent.expect("it went on") == body);
            }
        }
    }

    #[tokio::test]
    async fn a_route_without_a_schema_and_one_that_observes_send_as_it_came() {
        for (schema, observes, series) in [
            (None, false, None),
            (OBJECT, true, Some(r#"samekey_schema_total{result="misfit",route="r"} 1"#)),
        ] {
            let mut bench = bench(schema, observes);
            assert_eq!(sent(&mut bench, &[JSON], full("[1]")).await.expect("it is sent"), "[1]");
            let text = bench.metrics.text();
            assert!(series.is_none_or(|series| text.contains(series)), "{text}");
        }
    }

    #[tokio::test]
    async fn a_client_that_leaves_or_breaks_its_framing_is_told_what_it_did() {
        for (error, wanted) in [
            (BodyError::ClientLeft, "the client left before its request was complete"),
            (BodyError::Malformed("why"), "why"),
        ] {
            let mut bench = bench(OBJECT, false);
            let body = streamed([data("{"), Err(error)]);
            let failure = sent(&mut bench, &[JSON], body).await.expect_err("it is not whole");
            assert_eq!(failure.to_string(), wanted);
            assert_eq!(bench.upstream.calls().len(), 0);
        }
    }
}

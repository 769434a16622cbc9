//! Posts what is exported: by our own client, past our own proxy.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Method, Request, Response, Uri};
use opentelemetry_http::{HttpClient, HttpError};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use crate::exchange::{Body, Origin, RequestParts, Scheme};
use crate::metrics::Metrics;
use crate::trace::heard::Heard;
use crate::upstream::{Dialer, Egress, Options, Ourselves, Pool, Sender};

/// What an exporter sends with.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    sender: Sender,
    runtime: Handle,
    tasks: TaskTracker,
    heard: Heard,
}

impl Wire {
    /// Trusts what `roots` holds. It takes no proxy from any variable, and is bound by no
    /// `egress`: that is for what applications ask. Its handshakes are no upstream's, and
    /// counted nowhere.
    ///
    /// # Errors
    ///
    /// When the TLS library finds nothing that it can use.
    pub(super) fn new(
        roots: rustls::RootCertStore,
        timeout: Duration,
        tasks: TaskTracker,
        heard: Heard,
    ) -> Result<Self, rustls::Error> {
        let nowhere = (tasks.clone(), Metrics::new());
        let straight = Options {
            extra_roots: None,
            connect_timeout: timeout,
            idle_timeout: REST_MAX,
            idle_per_host: CONNECTIONS,
            proxy: None,
        };
        let ourselves = Ourselves::default();
        let dialer = Dialer::new(roots, Egress::default(), &straight, ourselves, nowhere)?;
        let pool = Pool::new(dialer, REST_MAX, CONNECTIONS);
        let sender = Sender::new(pool, Some(timeout), Some(timeout));
        Ok(Self { sender, runtime: Handle::current(), tasks, heard })
    }

    async fn post(mut self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let origin = origin(&head.uri).ok_or("no URL of HTTP")?;
        let target = head.uri.path_and_query().cloned();
        let target = target.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let mut parts = RequestParts::new(Method::POST, origin, target, Body::full(body));
        parts.headers = head.headers;
        let sent = self.sender.call(parts).await;
        let answer = sent.inspect_err(|error| self.heard.failed(error.to_string()))?;
        let whole = answer.body.peek(ANSWER_MAX, ANSWER_WITHIN).await.whole.unwrap_or_default();
        if answer.status.is_success() {
            self.heard.taken(&whole);
        } else {
            self.heard.failed(format!("it answered {}", answer.status));
        }
        let mut response = Response::new(whole);
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        Ok(response)
    }
}

impl HttpClient for Wire {
    /// Sends from the runtime, whatever thread asks.
    fn send_bytes<'client, 'sending>(
        &'client self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'sending>>
    where
        'client: 'sending,
        Self: 'sending,
    {
        let posted = self.tasks.spawn_on(self.clone().post(request), &self.runtime);
        Box::pin(async move { posted.await.unwrap_or_else(|cut| Err(cut.into())) })
    }
}

fn origin(uri: &Uri) -> Option<Origin> {
    let scheme = match uri.scheme_str()? {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return None,
    };
    Origin::of(scheme, uri.authority()?)
}

/// The client that an exporter is given.
pub(super) fn shared(wire: Wire) -> Arc<dyn HttpClient> {
    Arc::new(wire)
}

/// Longer than the usual pause between two batches.
const REST_MAX: Duration = Duration::from_secs(30);
/// One export at a time.
const CONNECTIONS: usize = 1;
/// What a collector says of what it did not take is short.
const ANSWER_MAX: usize = 64 * 1024;
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

//! A collector of a test's own: takes spans as OTLP over HTTP, or does not.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1 as otlp;
use prost::Message as _;
use tokio::net::TcpListener;

/// A running collector.
#[derive(Clone, Debug)]
pub(super) struct Collector {
    pub(super) address: SocketAddr,
    books: Arc<Mutex<Books>>,
}

#[derive(Debug)]
struct Books {
    posts: Vec<Post>,
    /// What is answered: `None` is nothing, ever.
    says: Option<StatusCode>,
}

/// What was posted.
#[derive(Clone, Debug)]
pub(super) struct Post {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    taken: bool,
}

/// A span, as a test reads it.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) name: String,
    pub(super) kind: otlp::span::SpanKind,
    pub(super) trace: String,
    pub(super) id: String,
    pub(super) parent: String,
    pub(super) state: String,
    pub(super) took: Duration,
    pub(super) began: u64,
    pub(super) failed: bool,
    /// The ids of the spans that it links to.
    pub(super) links: Vec<String>,
    pub(super) said: BTreeMap<String, String>,
}

impl Span {
    /// An attribute, as text; empty where it is not there.
    pub(super) fn say(&self, name: &str) -> &str {
        self.said.get(name).map_or("", String::as_str)
    }
}

impl Collector {
    /// Listens on a free port, and takes what comes.
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let books = Books { posts: Vec::new(), says: Some(StatusCode::OK) };
        let books = Arc::new(Mutex::new(books));
        let address = listener.local_addr().expect("it is bound");
        let routes = Router::new().route("/v1/traces", post(take)).with_state(books.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { address, books }
    }

    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` is set to.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers this from here on; `None`: nothing.
    pub(super) fn says(&self, status: Option<u16>) {
        let status = status.map(|status| StatusCode::from_u16(status).expect("a status"));
        self.books.lock().expect("a lock").says = status;
    }

    /// All that was posted, taken or not.
    pub(super) fn posts(&self) -> Vec<Post> {
        self.books.lock().expect("a lock").posts.clone()
    }

    /// The spans that were taken, in the order in which they began; the exchange first.
    pub(super) fn spans(&self) -> Vec<Span> {
        let posts = self.posts().into_iter().filter(|post| post.taken);
        let mut spans: Vec<Span> = posts.flat_map(|post| post.spans()).collect();
        spans.sort_by_key(|span| (span.began, span.kind != otlp::span::SpanKind::Server));
        spans
    }

    /// Waits for so many spans, for at most ten seconds.
    pub(super) async fn until(&self, wanted: usize) -> Vec<Span> {
        let reached = async {
            while self.spans().len() < wanted {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let reached = tokio::time::timeout(Duration::from_secs(10), reached).await;
        let spans = self.spans();
        assert!(reached.is_ok() && spans.len() == wanted, "not {wanted} spans: {spans:#?}");
        spans
    }

    /// Waits for so many posts, taken or not, for at most ten seconds.
    pub(super) async fn asked(&self, wanted: usize) {
        let reached = async {
            while self.posts().len() < wanted {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let reached = tokio::time::timeout(Duration::from_secs(10), reached).await;
        assert!(reached.is_ok(), "{} posts, not {wanted}", self.posts().len());
    }
}

impl Post {
    /// What its spans are said to come from.
    pub(super) fn resource(&self) -> BTreeMap<String, String> {
        let resources = self.request().resource_spans.into_iter();
        resources.flat_map(|of| said(of.resource.expect("a resource").attributes)).collect()
    }

    fn request(&self) -> ExportTraceServiceRequest {
        let mut body = self.body.to_vec();
        if self.headers.get("content-encoding").is_some_and(|coding| coding == "gzip") {
            use std::io::Read as _;
            let packed = std::mem::take(&mut body);
            flate2::read::GzDecoder::new(&*packed).read_to_end(&mut body).expect("gzip");
        }
        assert_eq!(self.headers["content-type"], "application/x-protobuf");
        ExportTraceServiceRequest::decode(&*body).expect("OTLP")
    }

    fn spans(&self) -> Vec<Span> {
        let scopes = self.request().resource_spans.into_iter().flat_map(|of| of.scope_spans);
        scopes.flat_map(|of| of.spans).map(span).collect()
    }
}

async fn take(
    State(books): State<Arc<Mutex<Books>>>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let says = {
        let mut books = books.lock().expect("a lock");
        let taken = books.says.is_some_and(|status| status.is_success());
        books.posts.push(Post { headers, body, taken });
        books.says
    };
    match says {
        Some(status) => status,
        None => std::future::pending().await,
    }
}

fn span(span: otlp::Span) -> Span {
    let kind = span.kind();
    Span {
        kind,
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        state: span.trace_state,
        took: Duration::from_nanos(span.end_time_unix_nano - span.start_time_unix_nano),
        began: span.start_time_unix_nano,
        links: span.links.iter().map(|link| hex(&link.span_id)).collect(),
        failed: span.status.is_some_and(|status| status.code == 2),
        said: said(span.attributes).collect(),
        name: span.name,
    }
}

fn said(attributes: Vec<KeyValue>) -> impl Iterator<Item = (String, String)> {
    attributes.into_iter().map(|said| (said.key, text(said.value.as_ref())))
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::BoolValue(truth)) => truth.to_string(),
        Some(any_value::Value::ArrayValue(array)) => {
            let texts: Vec<_> = array.values.iter().map(|value| text(Some(value))).collect();
            texts.join(",")
        }
        other => panic!("no attribute is {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a text takes it");
        text
    })
}

//! The admin listener: probes, metrics, and what loopback may ask.

mod api;
mod books;
mod breakers;
mod door;
mod events;
mod exchanges;
mod keys;
mod scrape;
mod page;
mod shown;
pub mod wanted;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::credit::Breakers;
use crate::exchange::BoxFuture;
use crate::metrics::Metrics;

use door::{Door, is_near};

pub use books::{Asked, Books, Ended};
pub use shown::{Attempt, Exchange, Page, stands};

/// The `admin` block, as meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Where it binds: `host:port`.
    pub address: String,
    /// What a caller that is not on loopback may reach.
    pub expose: Expose,
    /// Connections at one time.
    pub connections: u32,
}

/// What a caller that is not on loopback may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expose {
    /// Metrics and probes.
    Metrics,
    /// Everything.
    All,
}

/// What the admin listener can be asked, and whom it asks.
#[derive(Clone)]
pub struct Desk {
    /// What is shown at `/metrics`.
    pub metrics: Metrics,
    /// Brings gauges up to date before they are shown.
    pub refresh: Arc<dyn Fn() -> BoxFuture<()> + Send + Sync>,
    /// Cancelled when it is told to end, by a caller here or otherwise: from then on it is
    /// not ready.
    pub leaving: CancellationToken,
    /// What is running, as JSON.
    pub status: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// The routes in force, as JSON.
    pub routes: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// Loads the config anew; the error says what is wrong with it.
    pub reload: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// Who is held back for want of credit.
    pub breakers: Breakers,
    /// What was tried, and who settles it.
    pub books: Books,
    /// What a caller that is not on loopback may reach.
    pub expose: Expose,
}

/// Serves until it is closed, so many connections at one time: probes have to be answered
/// while draining too.
pub async fn serve(socket: TcpListener, desk: Desk, connections: u32, closing: CancellationToken) {
    Door { connections, near: is_near }.keep(socket, router(desk), closing).await;
}

fn router(desk: Desk) -> Router {
    let guarded = middleware::from_fn_with_state(desk.clone(), guard);
    let api = api::router().layer(guarded.clone());
    let quit = post(quit).layer(middleware::from_fn(only_here));
    Router::new()
        .route("/", get(page::show).layer(guarded))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/quitquitquit", quit)
        .nest("/api", api)
        .with_state(desk)
}

async fn ready(State(desk): State<Desk>) -> Response {
    if desk.leaving.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response();
    }
    "ready\n".into_response()
}

async fn metrics(State(desk): State<Desk>, headers: HeaderMap) -> Response {
    (desk.refresh)().await;
    scrape::answer(&desk.metrics, &headers)
}

/// Ends the process as SIGTERM does: for a Job, whose pod would wait for its sidecar.
async fn quit(State(desk): State<Desk>) -> Response {
    if !desk.leaving.is_cancelled() {
        tracing::info!("told to end by POST /quitquitquit");
    }
    desk.leaving.cancel();
    "draining\n".into_response()
}

/// Lets through callers on loopback alone, whatever is exposed, and never a web page.
async fn only_here(
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    match refusal(peer, false, request.headers()) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    }
}

/// Lets through who may ask: callers on loopback, or all where that is exposed,
/// and never a web page.
async fn guard(
    State(desk): State<Desk>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    match refusal(peer, desk.expose == Expose::All, request.headers()) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    }
}

/// Why a caller may not ask.
fn refusal(peer: SocketAddr, exposed: bool, headers: &HeaderMap) -> Option<Response> {
    let local = is_near(peer);
    let detail = if !local && !exposed {
        "only loopback may ask this"
    } else if !is_no_page(headers, local) {
        "a web page may not ask this: Host or Origin can be another site's; ask by address"
    } else {
        return None;
    };
    Some(api::problem(StatusCode::FORBIDDEN, "forbidden", detail))
}

/// Whether a request cannot be a page's: a page that was rebound to this address still
/// says its own name in `Host`, and a page elsewhere says its own in `Origin`.
fn is_no_page(headers: &HeaderMap, local: bool) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(HOST).unwrap_or_default();
    let authority: Option<axum::http::uri::Authority> = host.parse().ok();
    let name = authority.as_ref().map_or("", |authority| authority.host()).to_ascii_lowercase();
    let origin = text(ORIGIN).map(|origin| origin.trim_start_matches("http://"));
    is_ours(name.strip_suffix('.').unwrap_or(&name), local)
        && origin.is_none_or(|origin| origin == host)
}

/// Whether a name can be that of this machine: an address, `localhost`, and elsewhere a name that
/// no page of the web has. It has no dot, or ends as those of a cluster (`svc`), RFC 6762
/// (`local`), RFC 6761 (`localhost`), or what ICANN reserved for networks of one's own (`internal`).
fn is_ours(name: &str, local: bool) -> bool {
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    if name == "localhost" || bare.parse::<std::net::IpAddr>().is_ok() {
        return true;
    }
    let last = name.rsplit_once('.').map(|(_, last)| last);
    let is_private =
        last.is_none_or(|last| ["svc", "local", "localhost", "internal"].contains(&last));
    !local && !name.is_empty() && is_private
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("expose", &self.expose).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tokio::sync::broadcast;
    use tower::Service as _;

    use super::*;

    #[tokio::test]
    async fn only_a_caller_on_this_machine_ends_it_whatever_is_exposed() {
        for (peer, method, fields, wanted) in [
            ("10.0.0.9:1", "POST", [("host", "10.0.0.1:9090")].as_slice(), 403),
            ("[2001:db8::9]:1", "POST", &[("host", "[2001:db8::1]:9090")], 403),
            ("127.0.0.1:1", "POST", &[("host", "evil.test")], 403),
            ("127.0.0.1:1", "POST", &[("host", "a:1"), ("origin", "http://evil.test")], 403),
            ("127.0.0.1:1", "GET", &[("host", "127.0.0.1:9090")], 405),
            ("127.0.0.1:1", "POST", &[("host", "127.0.0.1:9090")], 200),
            ("[::ffff:127.0.0.1]:1", "POST", &[("host", "localhost:9090")], 200),
        ] {
            let (ended, _nobody) = broadcast::channel(1);
            let desk = Desk { expose: Expose::All, ..books::tests::desk(ended) };
            let mut request = Request::builder().method(method).uri("/quitquitquit");
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            let peer: SocketAddr = peer.parse().expect("an address");
            let request = request.extension(ConnectInfo(peer)).body(Body::empty());
            let answer = router(desk.clone()).call(request.expect("a request")).await;
            assert_eq!(answer.expect("an answer").status(), wanted, "{peer} {method} {fields:?}");
            assert_eq!(desk.leaving.is_cancelled(), wanted == 200, "{peer} {method} {fields:?}");
        }
    }

    #[test]
    fn no_web_page_gets_through() {
        let check = |host: &str, origin: Option<&str>, local: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().expect("a value"));
            if let Some(origin) = origin {
                headers.insert(ORIGIN, origin.parse().expect("a value"));
            }
            is_no_page(&headers, local)
        };
        for (host, origin, local, wanted) in [
            ("127.0.0.1:9090", None, true, true),
            ("localhost:9090", Some("http://localhost:9090"), true, true),
            ("LOCALHOST.:9090", None, true, true),
            ("[::1]:9090", None, true, true),
            ("evil.test:9090", None, true, false), // a rebound name
            ("samekey:9090", None, true, false),
            ("127.0.0.1:9090", Some("http://evil.test"), true, false),
            ("127.0.0.1:9090", Some("null"), true, false),
            ("10.0.0.1:9090", None, false, true),
            ("samekey:9090", None, false, true),
            ("samekey.pay.svc:9090", None, false, true),
            ("samekey.pay.svc.cluster.local:9090", None, false, true),
            ("host.docker.internal:9090", None, false, true),
            ("evil.test:9090", Some("http://evil.test:9090"), false, false),
            ("svc.evil.test:9090", None, false, false),
            ("", None, false, false),
        ] {
            assert_eq!(check(host, origin, local), wanted, "{host} {origin:?} {local}");
        }
    }
}

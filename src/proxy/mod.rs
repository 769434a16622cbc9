//! Finds the route, calls its pipeline, always answers.

mod finish;
mod own;
pub mod sheet;
mod switch;

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use http::header::{ACCEPT, CONNECTION, HeaderName, HeaderValue, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode, Uri, Version};
use hyper::body::Incoming;
use tokio::time::Instant;
use tower::Service as _;

use crate::exchange::body::Body;
use crate::exchange::trail::{Answered, Presence};
use crate::exchange::{
    Client, Failure, Origin, Request, RequestParts, Response, Shape, Standing, Traced, Trail,
    answer, headers,
};
use crate::idempotency::scope::{Caller, principal};
use crate::idempotency::{Carrier, Commons};
use crate::intercept;
use crate::metrics::{Metrics, RouteMetrics};
use crate::pipeline::{self, Lasting, Pipeline};
use crate::route::{Index, Mode, Route};
use crate::trace::{Asked, Sent, Tracer};
use crate::upstream::{Pool, Sender};

use finish::{Finish, Unread};
pub use own::About;

/// Answers requests; a clone shares everything.
#[derive(Clone, Debug)]
pub struct Proxy {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    router: ArcSwap<Router>,
    commons: Commons,
    tracer: Option<Tracer>,
    /// Known once the listeners are bound.
    about: OnceLock<About>,
}

/// The routes in force, each with its stages.
#[derive(Debug)]
pub struct Router {
    routed: Vec<Routed>,
    index: Index,
    unrouted: Sender,
    none: RouteMetrics,
}

#[derive(Debug)]
struct Routed {
    route: Route,
    pipeline: Pipeline,
    metrics: RouteMetrics,
}

/// A request that came in, and what the way it came in says about it.
#[derive(Debug)]
pub struct Arrival {
    /// The request.
    pub request: http::Request<Incoming>,
    /// Where it is to go, or why it cannot.
    pub origin: Result<Origin, Failure>,
    /// The user who proved to be allowed to ask.
    pub user: Option<String>,
    /// Learns whether the client got its answer.
    pub presence: Presence,
}

impl Router {
    /// Builds the stages of each route.
    pub fn new(
        routes: Vec<Route>,
        lasting: impl Fn(&Route) -> Lasting,
        commons: &Commons,
        pool: &Pool,
        metrics: &Metrics,
    ) -> Self {
        let staged = routes.into_iter().map(|route| {
            let lasting = lasting(&route);
            let pipeline = pipeline::build(&route, &lasting, commons, pool);
            Routed { route, pipeline, metrics: lasting.metrics }
        });
        let in_order: Vec<Routed> = staged.collect();
        let index = Index::of(in_order.iter().map(|one| &one.route.matcher));
        Self {
            routed: in_order,
            index,
            unrouted: pipeline::unrouted(pool),
            none: metrics.route("none"),
        }
    }

    fn find(&self, origin: &Origin, method: &Method, path: &str) -> Option<&Routed> {
        let matches = |routed: &&Routed| {
            routed.route.matcher.matches(&origin.host, origin.port, method, path)
        };
        self.of_host(&origin.host).find(matches)
    }

    /// The routes that a host can have, in their order.
    fn of_host(&self, host: &str) -> impl Iterator<Item = &Routed> {
        self.index.of_host(host).iter().filter_map(|at| self.routed.get(*at))
    }
}

impl Proxy {
    /// Answers by `router` until another one takes its place, and is traced by `tracer`.
    pub fn new(router: Router, commons: Commons, tracer: Option<Tracer>) -> Self {
        let router = ArcSwap::from_pointee(router);
        let about = OnceLock::new();
        Self { inner: Arc::new(Inner { router, commons, tracer, about }) }
    }

    /// Tells whoever asks `samekey.internal` what stands here; the first word stays.
    pub fn tell(&self, about: About) {
        self.inner.about.get_or_init(|| about);
    }

    /// Puts other routes in force; exchanges under way end as they began.
    pub fn reroute(&self, router: Router) {
        self.inner.router.store(Arc::new(router));
    }

    /// Asks providers what became of the keys that are unknown, where routes say how.
    pub fn follow_left(&self) {
        for routed in &self.inner.router.load().routed {
            pipeline::claims(&routed.pipeline).follow_left();
        }
    }

    /// Whether any route names a host.
    pub fn names(&self, host: &str, port: u16) -> bool {
        let router = self.inner.router.load();
        router.of_host(host).any(|routed| routed.route.matcher.names(host, port))
    }

    /// Answers a request that is refused before it is looked at.
    pub fn refuse(&self, method: &Method, failure: &Failure) -> http::Response<Body> {
        let router = self.inner.router.load();
        let trail = Trail::default();
        let finish =
            Finish::new(router.none.clone(), method.clone(), trail, Presence::default(), false);
        finish.answer(Err(failure.clone()), &Unread::default(), &Shape::Problem)
    }

    /// Answers a request.
    ///
    /// # Cancel safety
    ///
    /// Dropping it says that the client hung up: an exchange that holds a claim
    /// goes on, any other ends.
    pub async fn answer(&self, arrival: Arrival) -> http::Response<Body> {
        let in_force = self.inner.router.load_full();
        let Arrival { mut request, origin, user, presence } = arrival;
        let (method, version) = (request.method().clone(), request.version());
        let trail = Trail::default();
        let origin = match origin.and_then(|origin| checked(origin, request.headers())) {
            Ok(origin) => origin,
            Err(failure) => {
                let finish = Finish::new(in_force.none.clone(), method, trail, presence, false);
                return finish.answer(Err(failure), &Unread::default(), &Shape::Problem);
            }
        };
        if intercept::is_own(&origin.host) {
            let finish = Finish::new(in_force.none.clone(), method, trail.clone(), presence, true);
            return self.of_itself(request, &origin, trail, finish).await;
        }
        let routed = in_force.find(&origin, &method, request.uri().path());
        let metrics = routed.map_or(&in_force.none, |routed| &routed.metrics).clone();
        let mut finish =
            Finish::new(metrics, method, trail.clone(), presence.clone(), routed.is_some());
        finish.aimed_at(&origin, request.uri(), self);
        let traced = self.trace(&request, &origin, routed);
        finish.part_of(traced.clone(), request.headers());
        let wants_upgrade = version == Version::HTTP_11 && headers::asks_upgrade(request.headers());
        let switch = wants_upgrade.then(|| hyper::upgrade::on(&mut request));
        let client = Client { user, presence };
        let mut request = self.clean(request, origin, routed, (client, trail, wants_upgrade));
        request.traced = traced;
        let unread = Unread::of(&request);
        let result = match routed {
            Some(routed) => routed.pipeline.clone().call(request).await,
            None => in_force.unrouted.clone().call(request).await,
        };
        let result = result.map(|mut response| {
            if let (Some(client), Some(upstream)) = (switch, response.upgrade.take()) {
                self.inner.commons.tasks.spawn(switch::join(client, upstream));
            }
            response
        });
        // Who matched no route is told in our own words: nobody said whose client it is.
        let shape = routed.map_or(&Shape::Problem, |routed| &routed.route.errors);
        finish.answer(result, &unread, shape)
    }

    /// The trace that a request is part of, where somebody wants exchanges traced.
    fn trace(
        &self,
        request: &http::Request<Incoming>,
        origin: &Origin,
        routed: Option<&Routed>,
    ) -> Option<Traced> {
        let tracer = self.inner.tracer.as_ref()?;
        let cared = routed.is_some_and(|routed| routed.route.mode == Mode::Enforce);
        Some(tracer.begin(&Asked {
            method: request.method(),
            origin,
            target: &target(request.uri()),
            headers: request.headers(),
            route: routed.map_or("none", |routed| &routed.route.name),
            sent: if cared { Sent::Cared } else { Sent::AsItCame },
        }))
    }

    /// Answers what is asked of samekey itself.
    async fn of_itself(
        &self,
        request: http::Request<Incoming>,
        origin: &Origin,
        trail: Trail,
        mut finish: Finish,
    ) -> http::Response<Body> {
        finish.aimed_at(origin, request.uri(), self);
        trail.with(|notes| notes.answered = Answered::Here);
        let (parts, incoming) = request.into_parts();
        let (body, _upload) = Body::from_client(incoming);
        let accepts = parts.headers.get(ACCEPT).and_then(|value| value.to_str().ok());
        let question = own::Question {
            method: &parts.method,
            path: parts.uri.path(),
            query: parts.uri.query(),
            scheme: origin.scheme,
            html: accepts.is_some_and(|accepts| accepts.contains("text/html")),
        };
        let result = match self.inner.about.get() {
            Some(about) => Ok(own::answer(about, question).await),
            None => Err(Failure::Loop), // nobody is served before the listeners are bound
        };
        let result = result.map(|mut response| {
            // Nobody wants a body here, and none is read past.
            if !body.is_empty() {
                close(&mut response.headers);
            }
            response
        });
        finish.answer(result, &Unread::default(), &Shape::Problem)
    }

    /// The request as the stages see it.
    fn clean(
        &self,
        request: http::Request<Incoming>,
        origin: Origin,
        routed: Option<&Routed>,
        (client, trail, wants_upgrade): (Client, Trail, bool),
    ) -> Request {
        let (mut parts, incoming) = request.into_parts();
        let path = target(&parts.uri);
        let upgrade = wants_upgrade.then(|| parts.headers.get(UPGRADE).cloned()).flatten();
        let mut wishes = headers::clean_request(&mut parts.headers, carrier(routed));
        wishes.single_attempt |= wants_upgrade;
        if let Some(protocol) = upgrade {
            parts.headers.insert(UPGRADE, protocol);
        }
        let (body, upload) = Body::from_client(incoming);
        let query = path.query();
        let asker = Caller { headers: &parts.headers, query, proxy_user: client.user.as_deref() };
        let caller = routed.map_or([0; 32], |routed| {
            let rules = &routed.route.rules;
            principal(&self.inner.commons.secret, rules.principal, &rules.credentials, asker).0
        });
        Box::new(RequestParts {
            method: parts.method,
            origin,
            path,
            headers: parts.headers,
            upload: (!body.is_empty()).then_some(upload),
            body,
            trail,
            traced: None,
            client,
            caller,
            arrived: Instant::now(),
            wants_upgrade,
            replayable: true,
            cut_at: None,
            wait_until: None,
            wishes,
            standing: Standing::default(),
            guard: None,
        })
    }
}

/// What a request asks its origin for.
fn target(uri: &Uri) -> PathAndQuery {
    match uri.path_and_query() {
        Some(target) if !target.path().is_empty() => target.clone(),
        _ => PathAndQuery::from_static("/"),
    }
}

/// The field that a client cannot nominate away: the one that carries the key.
fn carrier(routed: Option<&Routed>) -> &HeaderName {
    static USUAL: HeaderName = HeaderName::from_static("idempotency-key");
    match routed.map(|routed| &routed.route.rules.carrier) {
        Some(Carrier::Header(name)) => name,
        Some(Carrier::Json(_) | Carrier::Query(_)) | None => &USUAL,
    }
}

/// A request that has come through here so often goes in a circle.
fn checked(origin: Origin, headers: &HeaderMap) -> Result<Origin, Failure> {
    let seen = headers.contains_key(http::header::VIA) && headers::times_seen(headers) >= HOPS_MAX;
    if seen { Err(Failure::Loop) } else { Ok(origin) }
}

/// Whether a failure leaves the client's connection in a state in which nothing
/// more can be read from it.
fn loses_framing(failure: &Failure) -> bool {
    matches!(failure, Failure::BadRequest(_) | Failure::HeaderTooLarge | Failure::ClientGone)
}

fn close(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
}

/// A response made here, in its final form.
fn local(failure: &Failure, attempts: usize, shape: &Shape) -> Response {
    let mut response = answer::shaped(failure, attempts, shape);
    if loses_framing(failure) {
        close(&mut response.headers);
    }
    if response.status == StatusCode::CONFLICT && !matches!(failure, Failure::InProgress { .. }) {
        answer::stop_words(&mut response.headers);
    }
    response
}

/// Sidecars in front of gateways in front of gateways are fewer than this.
const HOPS_MAX: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_came_through_here_too_often_goes_in_a_circle() {
        let origin = || Origin::parse("https://api.test").expect("an origin");
        for (times, passes) in [(0, true), (HOPS_MAX - 1, true), (HOPS_MAX, false)] {
            let mut headers = HeaderMap::new();
            for _ in 0..times {
                headers.append(http::header::VIA, HeaderValue::from_static("1.1 samekey"));
            }
            assert_eq!(checked(origin(), &headers).is_ok(), passes, "{times} times");
        }
    }
}

//! A tray between a provider that sends and an application that follows a script.

mod durable;
mod refused;

use std::collections::VecDeque;
use std::sync::Mutex;

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use super::parcel::DELIVERY;
use super::store::Memory;
use super::*;
use crate::exchange::tests::request;
use crate::exchange::{Body, Chance, Pointer};
use crate::journal::Clock;
use crate::metrics::Metrics;

/// What the application does with an attempt.
#[derive(Clone, Copy, Debug)]
enum Act {
    Status(u16),
    Away,
    /// It answers 200 after so many milliseconds.
    Slow(u64),
}

/// An attempt as it arrived: when, its id, its body.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    at_ms: u64,
    id: String,
    body: String,
}

#[derive(Debug, Default)]
struct Application {
    script: VecDeque<Act>,
    seen: Vec<Seen>,
    under_way: u32,
    most: u32,
}

struct Scene {
    intake: Intake,
    trays: Trays,
    tray: Tray,
    application: Arc<Mutex<Application>>,
    metrics: Metrics,
    tasks: TaskTracker,
    draining: CancellationToken,
    _kept: Option<tempfile::TempDir>,
}

fn rules() -> Rules {
    Rules {
        identity: Identity::Json(Pointer::parse("/id").expect("a pointer")),
        signature: None,
        headers: Vec::new(),
        keep: Duration::from_hours(1),
        max_size: 1000,
        max_waiting: 100,
        max_bytes: 1 << 20,
        max_reading: 9,
        max_remembered: 9,
        attempts: None,
        give_up_after: Duration::from_hours(1),
    }
}

impl Scene {
    fn new(rules: Rules, script: &[Act]) -> Self {
        Self::on(Store::Memory(Memory::new(Clock::System)), None, rules, script)
    }

    fn on(store: Store, kept: Option<tempfile::TempDir>, rules: Rules, script: &[Act]) -> Self {
        let (tasks, draining) = (TaskTracker::new(), CancellationToken::new());
        let origin = request(Method::POST, Body::empty()).origin;
        let trays = Trays::new(Means {
            store,
            tasks: tasks.clone(),
            draining: draining.clone(),
            chance: Chance::new([7; 32]),
            applications: vec![origin],
        });
        let script = script.iter().copied().collect();
        let application = Arc::new(Mutex::new(Application { script, ..Application::default() }));
        let (tray, metrics) = (trays.of("hooks"), Metrics::new());
        let intake = tray.open(terms(&application, rules, (&metrics, &tray)));
        Self { intake, trays, tray, application, metrics, tasks, draining, _kept: kept }
    }

    async fn send(&self, body: Body) -> Result<Response, Failure> {
        let inner = tower::service_fn(|_request| -> BoxFuture<Result<Response, Failure>> {
            Box::pin(async { Ok(Response::new(StatusCode::IM_A_TEAPOT, Body::empty())) })
        });
        let mut layer = tower::Layer::layer(&InboxLayer::new(Some(self.intake.clone())), inner);
        layer.call(request(Method::POST, body)).await
    }

    async fn event(&self, id: &str) -> Result<Response, Failure> {
        self.send(Body::full(Bytes::from(format!(r#"{{"id": "{id}"}}"#)))).await
    }

    /// Sends events of these names, each of which is answered 200.
    async fn events(&self, ids: &str) {
        for id in ids.split_whitespace() {
            let answer = self.event(id).await.expect("it is taken in");
            assert_eq!(answer.status, StatusCode::OK);
        }
    }

    /// The names of the events that the application got, in order.
    fn got(&self) -> String {
        let seen = self.seen();
        let ids: Vec<_> = seen.iter().filter_map(|seen| seen.body.split('"').nth(3)).collect();
        ids.join(" ")
    }

    fn seen(&self) -> Vec<Seen> {
        self.application.lock().expect("a lock").seen.clone()
    }

    async fn settled(&self) {
        while self.trays.waiting() > 0 {
            sleep(Duration::from_millis(1)).await;
        }
    }

    fn counted(&self, event: &str) -> u32 {
        let series = format!(r#"samekey_inbox_total{{event="{event}",route="hooks"}} "#);
        let text = self.metrics.text();
        let line = text.lines().find_map(|line| line.strip_prefix(&series));
        line.and_then(|count| count.parse().ok()).expect("it is counted")
    }

    async fn drain(&self) {
        self.draining.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Waits double from 100 ms to 1 s, unscattered; hints are obeyed as they are.
fn terms(
    application: &Arc<Mutex<Application>>,
    rules: Rules,
    (metrics, tray): (&Metrics, &Tray),
) -> Terms {
    let (application, began) = (application.clone(), Instant::now());
    Terms {
        rules,
        applications: tray.applications().to_vec(),
        concurrency: NonZeroU32::new(2).expect("two"),
        wait: Arc::new(|hint, nth, _random| {
            hint.unwrap_or_else(|| Duration::from_millis((100 << nth.min(5)).min(1000)))
        }),
        send: Arc::new(move |request| {
            let application = application.clone();
            Box::pin(async move { answer(&application, began, request).await })
        }),
        metrics: metrics.inbox("hooks"),
    }
}

async fn answer(
    application: &Mutex<Application>,
    began: Instant,
    request: Request,
) -> Result<Response, Failure> {
    let id = request.headers.get(DELIVERY).and_then(|id| id.to_str().ok()).expect("an id");
    let id = id.to_owned();
    let body = request.body.read_whole(10_000).await.expect("a body");
    let act = {
        let mut application = application.lock().expect("a lock");
        let at_ms = u64::try_from(began.elapsed().as_millis()).expect("it fits");
        let body = String::from_utf8_lossy(&body).into_owned();
        application.seen.push(Seen { at_ms, id, body });
        application.under_way += 1;
        application.most = application.most.max(application.under_way);
        application.script.pop_front().unwrap_or(Act::Status(200))
    };
    if let Act::Slow(ms) = act {
        sleep(Duration::from_millis(ms)).await;
    }
    application.lock().expect("a lock").under_way -= 1;
    match act {
        Act::Away => {
            Err(Failure::Unreachable { detail: String::new(), kind: "connection_refused" })
        }
        Act::Status(status) => {
            Ok(Response::new(StatusCode::from_u16(status).expect("a status"), Body::empty()))
        }
        Act::Slow(_) => Ok(Response::new(StatusCode::OK, Body::empty())),
    }
}

#[tokio::test(start_paused = true)]
async fn six_deliveries_of_one_event_are_one_for_the_application() {
    let scene = Scene::new(rules(), &[Act::Slow(50)]);
    scene.events("a a a").await;
    scene.settled().await;
    scene.events("a a a b").await;
    scene.settled().await;
    assert_eq!(scene.got(), "a b");
    let counted = ["accepted", "repeated", "delivered", "refused", "failed"];
    assert_eq!(counted.map(|event| scene.counted(event)), [2, 5, 2, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn it_is_answered_before_the_application_has_seen_it() {
    let scene = Scene::new(rules(), &[Act::Slow(60_000)]);
    let began = Instant::now();
    let answer = scene.event("a").await.expect("it is taken in");
    assert!(began.elapsed() < Duration::from_millis(1), "nobody is waited for");
    scene.settled().await;
    let id = answer.headers.get(DELIVERY).expect("an id");
    assert_eq!(scene.seen().first().map(|seen| seen.id.as_str()), id.to_str().ok());
}

#[tokio::test(start_paused = true)]
async fn it_is_sent_until_it_is_taken_under_one_id() {
    use Act::{Away, Status};
    for script in [vec![Away; 3], vec![Status(500); 3], vec![Status(404), Status(410), Away]] {
        let scene = Scene::new(rules(), &script);
        scene.events("a").await;
        scene.settled().await;
        let seen = scene.seen();
        assert_eq!(seen.len(), 4, "{script:?}");
        assert!(seen.iter().all(|one| one.id == seen[0].id && one.body == seen[0].body));
        let waits: Vec<u64> = seen.windows(2).map(|pair| pair[1].at_ms - pair[0].at_ms).collect();
        assert!(waits[0] >= 100 && waits[1] >= 100, "{script:?}: {waits:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_does_not_keep_the_others_from_their_turn() {
    let scene = Scene::new(rules(), &[Act::Status(500), Act::Status(200), Act::Status(500)]);
    scene.events("bad b").await;
    scene.settled().await;
    assert_eq!(scene.got(), "bad b bad bad");
}

#[tokio::test(start_paused = true)]
async fn one_that_ties_the_application_up_is_not_the_only_one_that_is_tried() {
    // Whatever is first: the first is away, and so is whoever asks next, twice.
    let scene = Scene::new(rules(), &[Act::Away, Act::Away, Act::Away]);
    scene.events("a").await;
    sleep(Duration::from_millis(1)).await;
    scene.events("b c").await;
    scene.settled().await;
    assert!(scene.got().starts_with("a b c"), "{}", scene.got());
}

#[tokio::test(start_paused = true)]
async fn an_application_that_is_away_is_asked_by_one_at_a_time() {
    let scene = Scene::new(rules(), &[Act::Away; 20]);
    let ids: Vec<String> = (0..50).map(|n| format!("e{n}")).collect();
    scene.events(&ids.join(" ")).await;
    sleep(Duration::from_secs(10)).await;
    // Two went together at first; then one each second, once the waits have grown.
    let seen = scene.seen().len();
    assert!((10..=16).contains(&seen), "{seen} attempts in ten seconds");
    scene.settled().await;
    assert_eq!(scene.counted("delivered"), 50);
}

#[tokio::test(start_paused = true)]
async fn so_many_are_under_way_at_one_time() {
    let scene = Scene::new(rules(), &[Act::Slow(100); 6]);
    scene.events("a b c d e f").await;
    scene.settled().await;
    assert_eq!(scene.application.lock().expect("a lock").most, 2);
    assert_eq!(scene.got(), "a b c d e f", "first come, first sent");
}

#[tokio::test(start_paused = true)]
async fn it_is_given_up_after_so_many_attempts_and_taken_in_anew_after_that() {
    for attempts in 1..4 {
        let most = NonZeroU32::new(attempts);
        let scene = Scene::new(Rules { attempts: most, ..rules() }, &[Act::Status(500); 9]);
        scene.events("a").await;
        scene.settled().await;
        assert_eq!((scene.seen().len(), scene.counted("failed")), (attempts as usize, 1));
        scene.events("a").await;
        assert_eq!(scene.counted("accepted"), 2, "whoever sends it again wants it delivered");
    }
}

#[tokio::test(start_paused = true)]
async fn what_only_asks_and_what_goes_elsewhere_passes() {
    let scene = Scene::new(rules(), &[]);
    let elsewhere = crate::exchange::Origin::parse("https://other.test").expect("an origin");
    let mut away = request(Method::POST, Body::empty());
    away.origin = elsewhere;
    for (request, taken) in [
        (request(Method::GET, Body::empty()), false),
        (request(Method::HEAD, Body::empty()), false),
        (request(Method::OPTIONS, Body::empty()), false),
        (away, false),
        (request(Method::POST, Body::empty()), true),
        (request(Method::PUT, Body::empty()), true),
    ] {
        assert_eq!(scene.intake.takes(&request), taken, "{request:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_without_its_inbox_keeps_what_waits_until_it_has_one_again() {
    let scene = Scene::new(rules(), &[Act::Away]);
    scene.events("a").await;
    sleep(Duration::from_millis(10)).await;
    scene.trays.retire(|_route| false);
    sleep(Duration::from_mins(1)).await;
    assert_eq!((scene.seen().len(), scene.trays.waiting()), (1, 1));
    let tray = scene.trays.of("hooks");
    drop(tray.open(terms(&scene.application, rules(), (&scene.metrics, &scene.tray))));
    scene.settled().await;
    assert_eq!(scene.got(), "a a");
}

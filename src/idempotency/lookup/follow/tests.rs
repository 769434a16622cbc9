//! What becomes of a key that is unknown, by the answers that its provider gives.

use std::sync::Mutex;
use std::time::Duration;

use http::{HeaderName, Method};
use tokio::sync::Semaphore;

use super::*;
use crate::exchange::RequestParts;
use crate::exchange::tests::{full, headers, request, response};
use crate::idempotency::CredentialField;
use crate::idempotency::identify::Identified;
use crate::idempotency::key::Source;
use crate::idempotency::lookup::tests::recipe;
use crate::idempotency::store::{Claim, Completed};
use crate::idempotency::tests::{rules, shared};
use crate::journal::resolve::Verdict;

/// A route with a recipe, a provider that answers as it is told, and a key.
struct Scene {
    shared: Arc<Shared>,
    says: Arc<Mutex<(u16, &'static str)>>,
    seen: Arc<Mutex<Vec<HeaderMap>>>,
    follow: Follow,
}

const TAG: &str = "json /tag";
const NONE: &str = r#"{"jobs":[]}"#;
const OURS: &str = r#"{"jobs":[{"tag":"k-1","id":7}]}"#;

fn ask() -> Ask {
    let key = Key::parse(b"k-1").expect("a key");
    Ask {
        id: RecordId([1; 32]),
        found: Identified { key, source: Source::Identity, sent: true },
        adopted: false,
        likeness: None,
        fingerprint: None,
        tag: Some(TAG.to_owned()),
    }
}

fn ours(fields: &[(&'static str, &str)]) -> Request {
    Box::new(RequestParts { headers: headers(fields), ..*request(Method::POST, full("{}")) })
}

impl Scene {
    fn new() -> Self {
        let mut route = shared(rules());
        route.terms.lookup = Some(Arc::new(recipe()));
        let shared = Arc::new(route);
        let says = Arc::new(Mutex::new((200, NONE)));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (saying, noting) = (says.clone(), seen.clone());
        let asker = Asker(Arc::new(move |request: Request| {
            noting.lock().expect("no test panics here").push(request.headers);
            let (status, text) = *saying.lock().expect("no test panics here");
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(10)).await;
                Ok(response(status, &[], full(text)))
            })
        }));
        let request = ours(&[("x-api-key", "hunter2")]);
        let follow = Follow::of(&shared, || asker, &request, &ask()).expect("it has a recipe");
        Self { shared, says, seen, follow }
    }

    fn says(&self, status: u16, text: &'static str) {
        *self.says.lock().expect("no test panics here") = (status, text);
    }

    fn times_asked(&self) -> usize {
        self.seen.lock().expect("no test panics here").len()
    }

    async fn reserve(&self, tag: Option<&str>) -> Reserved {
        let asked = Asked { tag: tag.map(str::to_owned), ..self.follow.0.asked() };
        self.shared.store.reserve(&asked).await.expect("there is room")
    }

    async fn claim(&self, tag: Option<&str>) -> Claim {
        match self.reserve(tag).await {
            Reserved::Claimed(claim) => claim,
            other => panic!("it is free: {other:?}"),
        }
    }

    /// Leaves the key unknown, as an exchange does that was dropped on its way.
    async fn unknown(&self, tag: Option<&str>) -> Open {
        let mut claim = self.claim(tag).await;
        claim.begin_sending();
        drop(claim);
        self.still_unknown().await
    }

    async fn still_unknown(&self) -> Open {
        match self.reserve(None).await {
            Reserved::Unknown(open) => open,
            other => panic!("nobody knows: {other:?}"),
        }
    }

    async fn completed(&self) -> Completed {
        match self.reserve(None).await {
            Reserved::Completed(done) => done,
            other => panic!("it was answered: {other:?}"),
        }
    }

    async fn is_free(&self) -> bool {
        match self.reserve(None).await {
            Reserved::Claimed(_) => true,
            Reserved::Unknown(_) => false,
            other => panic!("free or unknown: {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_found_is_the_answer_at_once() {
    let scene = Scene::new();
    let open = scene.unknown(None).await;
    scene.says(200, OURS);
    assert!(scene.follow.ask(&open).await);
    let record = scene.completed().await.record.expect("it is kept");
    assert_eq!(record.body().as_ref(), br#"{"tag":"k-1","id":7}"#);
    assert_eq!(scene.times_asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn several_that_are_found_leave_no_answer_and_no_free_key() {
    let scene = Scene::new();
    let open = scene.unknown(Some(TAG)).await;
    scene.says(200, r#"{"jobs":[{"tag":"k-1","id":7},{"tag":"k-1","id":8}]}"#);
    assert!(scene.follow.ask(&open).await);
    assert!(scene.completed().await.record.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_key_is_free_once_it_was_absent_late_and_often_enough() {
    let scene = Scene::new();
    let open = scene.unknown(Some(TAG)).await;
    let began = Instant::now();
    assert!(!scene.follow.ask(&open).await, "it is too soon to tell");
    while !scene.is_free().await {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(began.elapsed() < Duration::from_mins(5), "{:?}", scene.times_asked());
    }
    assert!(began.elapsed() >= Duration::from_mins(1), "{:?}", began.elapsed());
    assert_eq!(scene.times_asked(), 3, "one too soon, and two that count");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_not_named_is_never_free() {
    for tag in [None, Some("json /elsewhere")] {
        let scene = Scene::new();
        let open = scene.unknown(tag).await;
        scene.follow.begin_soon(open.exchange);
        tokio::time::sleep(Duration::from_hours(48)).await;
        let open = scene.still_unknown().await;
        scene.says(200, OURS);
        assert!(scene.follow.ask(&open).await, "but found, it was done");
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_proves_nothing_frees_nothing_and_is_asked_ever_less() {
    for (status, text) in [(503, NONE), (401, NONE), (200, "{"), (200, r#"{"jobs":[{"id":1}]}"#)] {
        let scene = Scene::new();
        scene.says(status, text);
        let open = scene.unknown(Some(TAG)).await;
        scene.follow.begin_soon(open.exchange);
        tokio::time::sleep(Duration::from_hours(72)).await;
        scene.still_unknown().await;
        assert_eq!(scene.times_asked(), READINGS_MAX, "{status} {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_settled_is_asked_for_no_more() {
    let scene = Scene::new();
    let open = scene.unknown(Some(TAG)).await;
    scene.follow.begin_soon(open.exchange);
    tokio::time::sleep(Duration::from_secs(40)).await;
    let before = scene.times_asked();
    scene.shared.store.resolve(open.exchange, Verdict::Landed).await.expect("it can be asked");
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(scene.times_asked(), before);
    assert!(scene.completed().await.record.is_none());
}

#[tokio::test(start_paused = true)]
async fn however_many_ask_for_a_key_the_provider_is_read_once() {
    let scene = Scene::new();
    let open = scene.unknown(Some(TAG)).await;
    let [one, two, three] = [(); 3].map(|()| scene.follow.ask(&open));
    assert_eq!(tokio::join!(one, two, three), (false, false, false));
    assert_eq!(scene.times_asked(), 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    scene.says(200, OURS);
    let [one, two] = [(); 2].map(|()| scene.follow.ask(&open));
    assert_eq!(tokio::join!(one, two), (true, true));
    assert_eq!(scene.times_asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn so_many_keys_are_asked_for_in_the_background_at_a_time() {
    let mut scene = Scene::new();
    let (questions, answers) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (asking, answering) = (questions.clone(), answers.clone());
    let asker = Asker(Arc::new(move |_request| {
        let (asking, answering) = (asking.clone(), answering.clone());
        Box::pin(async move {
            asking.add_permits(1);
            answering.acquire().await.expect("it is open").forget();
            Ok(response(200, &[], full(OURS)))
        })
    }));
    let own = ours(&[("x-api-key", "hunter2")]);
    let turns = scene.shared.lookups.turns().available_permits();
    for n in 0..=turns {
        let id = RecordId(*blake3::hash(&n.to_be_bytes()).as_bytes());
        let ask = Ask { id, ..ask() };
        let follow = Follow::of(&scene.shared, || asker.clone(), &own, &ask);
        scene.follow = follow.expect("it has a recipe");
        let open = scene.unknown(Some(TAG)).await;
        scene.follow.begin_soon(open.exchange);
        let soon = Duration::from_millis(1100);
        tokio::time::sleep(soon).await;
        let waiting = questions.available_permits();
        assert_eq!(waiting, turns.min(n + 1), "those that wait for an answer");
    }
    answers.add_permits(1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(questions.available_permits(), turns + 1, "one has ended, and the last goes");
}

#[tokio::test(start_paused = true)]
async fn credentials_go_with_a_lookup_and_keys_do_not() {
    let mut rules = rules();
    rules.credentials = vec![
        CredentialField::Header("x-team".parse().expect("a name")),
        CredentialField::Query("token".to_owned()),
    ];
    let mut request = ours(&[
        ("authorization", "Bearer hunter2"),
        ("x-team", "t"),
        ("x-api-version", "2"),
        ("user-agent", "u"),
        ("idempotency-key", "k-1"),
        ("content-length", "2"),
        ("accept-encoding", "br"),
        ("x-other", "o"),
    ]);
    request.path = "/v1/jobs?token=a%26b&x=1".parse().expect("a path");
    let access = Access::of(&rules, &request).expect("it is not signed");
    let mut names: Vec<_> = access.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    let wanted = [
        "accept",
        "authorization",
        "cache-control",
        "user-agent",
        "x-api-version",
        "x-other",
        "x-team",
    ];
    assert_eq!(names, wanted, "any of the client's may say whose list is meant");
    assert_eq!(access.extra, ["token=a%26b"]);
    let signed = ours(&[("authorization", "AWS4-HMAC-SHA256 Credential=A/d, Signature=s")]);
    assert!(Access::of(&rules, &signed).is_none(), "a signature stands for one request");
}

//! The bounds of what is remembered: each that the config says is the one that holds.

use std::time::Duration;

use http::Method;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::provider::{Options, Provider};
use crate::support::program::folder_with;
use crate::support::{Answer, ORDER, Samekey, Stage, client};

/// A route whose polls are answered from memory for an hour.
const POLLED: &str = "kind: poll, interval: 1h";
/// One whose provider lists what was ordered under a tag.
const LOOKED_UP: &str = "retry: {attempts: 1}, idempotency: {upstream_dedupes: false}, \
     lookup: {tag: {json: /client-data/samekey}, request: '/s/s/v2/movies?page={page}', \
     items: /movies, match: /client-data/samekey, next: {page: 1}, status: 201, settle: 1s, every: 1s}";
/// Longer than it takes until a key is asked for in the background.
const SOON: Duration = Duration::from_secs(2);

impl Stage {
    /// Asks about a job; how the answer came here.
    async fn poll(&self, job: &str) -> String {
        let fields = [("authorization", "Bearer a")];
        let url = self.url(&format!("/echo?job={job}"));
        let answer = self.client.send(Method::GET, &url, &fields, "").await;
        assert_eq!(answer.status, 200);
        answer.header("samekey-replay").to_owned()
    }

    /// Loses two orders on the way to the provider, which then plays the rest of the script.
    async fn lose_two(&self, rest: &str) {
        self.script(&format!("reset_before x2; {rest}"));
        for name in ["order-1", "order-2"] {
            let fields = [("samekey-key", name), ("x-api-key", "k")];
            assert_eq!(self.post(&fields, ORDER).await.status, 502);
        }
    }

    /// How many exchanges are unknown.
    async fn unknown(&self) -> usize {
        let listed = client::get(self.samekey.admin, "/api/exchanges?state=unknown").await.json();
        listed["exchanges"].as_array().expect("a list").len()
    }
}

#[tokio::test]
async fn so_many_jobs_and_bytes_are_remembered_for_polls() {
    for (bound, one, two) in [
        ("", "stored", "stored"),
        (", polled_jobs: 2", "stored", "stored"),
        (", polled_jobs: 1", "stored", ""),
        (", polled_memory: 1B", "", ""),
    ] {
        let stage = Stage::keeping(&format!("{{dir: state{bound}}}"), POLLED).await;
        let [_, again, _, first] = [
            stage.poll("a").await,
            stage.poll("a").await,
            stage.poll("b").await,
            stage.poll("a").await,
        ];
        assert_eq!((again.as_str(), first.as_str()), (one, two), "{bound}");
    }
}

#[tokio::test]
async fn so_many_keys_are_asked_for_in_the_background() {
    let stage = Stage::keeping("{dir: state, followed_lookups: 1}", LOOKED_UP).await;
    stage.lose_two("ok").await;
    stage.samekey.logged(&["a lookup settled an unknown outcome", "absent"]).await;
    sleep(SOON).await;
    assert_eq!(stage.unknown().await, 1, "the other waits for whoever asks for it");
    let again = stage.post(&[("samekey-key", "order-2"), ("x-api-key", "k")], ORDER).await;
    assert_eq!(again.said(), (409, "outcome-unknown".to_owned()));
    while stage.unknown().await > 0 {
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn so_many_of_them_are_asked_for_at_one_time() {
    for turns in [1, 2] {
        let stage =
            Stage::keeping(&format!("{{dir: state, lookup_turns: {turns}}}"), LOOKED_UP).await;
        stage.lose_two("held x2").await;
        stage.provider.arrived("s", 2 + turns).await;
        sleep(SOON).await;
        assert_eq!(stage.sent(), 2 + turns);
        stage.provider.release();
        stage.provider.arrived("s", 4).await;
    }
}

#[tokio::test]
async fn so_many_credentials_are_held_back_for_want_of_credit() {
    let route = "breaker: {statuses: [402]}";
    for (accounts, sent) in [(1, 3), (2, 2)] {
        let stage =
            Stage::keeping(&format!("{{dir: state, credit_accounts: {accounts}}}"), route).await;
        stage.script("402 forever");
        for own in ["Bearer a", "Bearer b"] {
            for _ in 0..2 {
                assert_eq!(stage.post(&[("authorization", own)], ORDER).await.status, 402);
            }
        }
        assert_eq!(stage.sent(), sent, "{accounts} are held back");
    }
}

#[tokio::test]
async fn so_many_balances_are_known() {
    let route = "breaker: {statuses: [402]}, \
         preflight: {request: GET /s/s/account, json: /credits, at_least: 1, every: 1h}";
    for (accounts, asked) in [(1, 1), (2, 2)] {
        let stage =
            Stage::keeping(&format!("{{dir: state, credit_accounts: {accounts}}}"), route).await;
        for own in ["Bearer a", "Bearer b"] {
            assert_eq!(stage.post(&[("authorization", own)], ORDER).await.status, 201);
        }
        let balances = stage.targets().into_iter().filter(|target| target == "/account");
        assert_eq!(balances.count(), asked, "{accounts} are known");
    }
}

/// A sidecar in front of an application, whose inbox is in memory and has this bound.
async fn inbox(bound: &str) -> (Provider, Samekey) {
    let application = Provider::start(Options::default()).await.expect("an application");
    let folder = folder_with(&format!(
        "listeners: [{{address: '127.0.0.1:0', mode: reverse, upstream: 'http://{}'}}]\n\
         admin: {{address: '127.0.0.1:0'}}\nstate: {{dir: state, journal: memory}}\n\
         routes: [{{name: hooks, match: {{hosts: ['127.0.0.1']}}, \
         inbox: {{identity: {{json: /id}}, {bound}}}}}]\n",
        application.ports.http_addr
    ));
    (application, Samekey::run_in(folder.into()).await)
}

async fn deliver(to: &Samekey, id: &str) -> Answer {
    let uri = format!("http://{}/s/s/echo", to.proxy).parse().expect("a URL");
    let body = format!(r#"{{"id": "{id}"}}"#);
    let mut request =
        client::request(Method::POST, &uri, &[("content-type", "application/json")], &body);
    *request.uri_mut() = "/s/s/echo".parse().expect("a path");
    let stream = TcpStream::connect(to.proxy).await.expect("it listens");
    client::over_http1(stream, request).await.expect("an answer")
}

#[tokio::test]
async fn so_many_deliveries_are_read_at_one_time() {
    for (bound, status) in [("max_reading: 1", 503), ("max_reading: 2", 200)] {
        let (_application, running) = inbox(bound).await;
        let mut slow = TcpStream::connect(running.proxy).await.expect("it listens");
        let head = format!(
            "POST /s/s/echo HTTP/1.1\r\nhost: {}\r\ncontent-length: 9\r\n\r\n",
            running.proxy
        );
        slow.write_all(head.as_bytes()).await.expect("it takes them");
        running.until("samekey_inflight_exchanges{route=\"hooks\"}", 1.0).await;
        assert_eq!(deliver(&running, "a").await.status, status, "{bound}");
    }
}

#[tokio::test]
async fn so_many_deliveries_are_remembered() {
    for (bound, delivered) in [("max_remembered: 1", 3), ("max_remembered: 2", 2)] {
        let (application, running) = inbox(bound).await;
        for id in ["a", "b", "a"] {
            assert_eq!(deliver(&running, id).await.status, 200);
            running.until("samekey_inbox_waiting{route=\"hooks\"}", 0.0).await;
        }
        assert_eq!(application.seen("s").len(), delivered, "{bound}");
    }
}

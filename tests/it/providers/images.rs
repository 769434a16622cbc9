//! Background removal from a Python client: an image in, image bytes out.

use std::time::Duration;

use http::Method;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;

use super::{CREDENTIAL, Counter, EVENT, FAST, OUT_OF_CREDIT, told};
use crate::provider::apis::Name;
use crate::support::{Answer, Client, Samekey};

const REMOVE: &str = "/v1/remove-background";

async fn counter(blocks: &str) -> Counter {
    Counter::new(Name::Images, blocks).await
}

/// An upload as `requests` writes it, with a boundary of its own each time.
async fn upload(counter: &Counter, boundary: &str, image: &str, event: Option<&str>) -> Answer {
    let (media, body) = form(boundary, image);
    let mut headers = vec![("content-type", media.as_str())];
    headers.extend(event.map(|event| (EVENT, event)));
    counter.post(REMOVE, &headers, body).await
}

fn form(boundary: &str, image: &str) -> (String, String) {
    let body = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"size\"\r\n\r\nauto\r\n\
         --{boundary}\r\nContent-Disposition: form-data; name=\"image_file\"; \
         filename=\"car.jpg\"\r\nContent-Type: image/jpeg\r\n\r\n{image}\r\n--{boundary}--\r\n"
    );
    (format!("multipart/form-data; boundary={boundary}"), body)
}

#[tokio::test]
async fn the_articles_retry_is_a_route_whose_operator_accepts_what_it_says() {
    let list = "attempts: 6, on: [429, 500, 502, 503, 504]";
    let accepts = counter(&format!("retry: {{{FAST}, {list}, unsafe: true}}")).await;
    accepts.script("429; 500; 502; 503; 504");
    let answer = upload(&accepts, "a", "JPEG", None).await;
    assert_eq!((told(&answer), accepts.spent()), ((200, "6", ""), (1, 1)));
    accepts.script("503 x6");
    assert_eq!(told(&upload(&accepts, "a", "JPEG", None).await), (503, "6", "attempts"));
    accepts.script("501");
    assert_eq!(told(&upload(&accepts, "a", "JPEG", None).await), (501, "1", ""));

    let careful = counter(&format!("retry: {{{FAST}, {list}}}")).await;
    careful.script("429 x5");
    assert_eq!(told(&upload(&careful, "a", "JPEG", None).await), (200, "6", ""));
    careful.script("503 effect");
    let answer = upload(&careful, "a", "JPEG", None).await;
    assert_eq!((told(&answer), careful.spent()), ((503, "1", "unsafe"), (1, 1)));
}

#[tokio::test]
async fn the_same_upload_is_the_same_whatever_its_boundary() {
    let counter = counter("idempotency: {upstream_dedupes: false}").await;
    let first = upload(&counter, "aaaa", "JPEG", Some("car-1")).await;
    let again = upload(&counter, "bbbbbb", "JPEG", Some("car-1")).await;
    assert_eq!((&again.body, again.header("samekey-replay")), (&first.body, "stored"));
    let other = upload(&counter, "aaaa", "another", Some("car-1")).await;
    assert_eq!(other.said(), (422, "key-reused".to_owned()));
    assert_eq!((counter.sent(), counter.spent()), (1, (1, 1)));
}

#[tokio::test]
async fn an_image_url_is_as_good_as_an_upload() {
    let counter = counter("idempotency: {upstream_dedupes: false}").await;
    let headers = [("content-type", "application/x-www-form-urlencoded"), (EVENT, "car-1")];
    let first = counter.post(REMOVE, &headers, "image_url=https%3A%2F%2Fa.test%2Fcar.jpg").await;
    let again = counter.post(REMOVE, &headers, "image_url=https%3a%2f%2fa.test%2fcar.jpg").await;
    assert_eq!((first.status.as_u16(), &again.body), (200, &first.body));
    assert_eq!(counter.spent(), (1, 1));
}

#[tokio::test]
async fn an_upload_is_replayed_from_memory_and_from_a_file() {
    let counter = counter(&format!("retry: {{{FAST}}}, body: {{memory: 64KiB, disk: 4MiB}}")).await;
    for size in [32 * 1024, 1024 * 1024] {
        counter.script("429; ok");
        let answer = upload(&counter, "a", &"x".repeat(size), None).await;
        assert_eq!((told(&answer), counter.spent()), ((200, "2", ""), (1, 1)), "{size}");
        let digests: Vec<_> = counter.seen().into_iter().map(|seen| seen.body_digest).collect();
        assert_eq!(digests[0], digests[1], "{size}");
    }
}

#[tokio::test]
async fn the_credential_is_kept_nowhere() {
    let counter = counter(&format!("retry: {{{FAST}}}, idempotency: {{capture: {{a: /a}}}}")).await;
    counter.script("429; ok");
    upload(&counter, "a", "JPEG", Some("car-1")).await;
    upload(&counter, "a", "JPEG", None).await;
    let mut folders = vec![counter.samekey.path().join("state")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
                continue;
            }
            files += 1;
            let bytes = std::fs::read(entry.path()).unwrap_or_default();
            let found = bytes.windows(CREDENTIAL.len()).any(|piece| piece == CREDENTIAL.as_bytes());
            assert!(!found, "{}", entry.path().display());
        }
    }
    assert!(files > 2, "the journal is among them");
    assert!(!counter.samekey.log().concat().contains(CREDENTIAL));
    assert!(!counter.admin("/api/exchanges").await.to_string().contains(CREDENTIAL));
}

/// Asks, and hangs up once the provider has been asked.
async fn give_up(counter: &Counter, event: Option<&str>) {
    let (media, body) = form("a", "JPEG");
    let host = counter.provider.ports.authority(Name::Images);
    let named = event.map(|event| format!("{EVENT}: {event}\r\n")).unwrap_or_default();
    let text = format!(
        "POST http://{host}{REMOVE} HTTP/1.1\r\nhost: {host}\r\nx-api-key: {CREDENTIAL}\r\n\
         content-type: {media}\r\ncontent-length: {}\r\n{named}\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(counter.samekey.proxy).await.expect("it listens");
    stream.write_all(text.as_bytes()).await.expect("it takes them");
    counter.provider.arrived("images", 1).await;
    drop(stream);
    counter.samekey.until("samekey_inflight_exchanges{route=\"r\"}", 0.0).await;
    counter.provider.release();
}

#[tokio::test]
async fn who_timed_out_gets_the_image_and_pays_once() {
    for (event, replay) in [(Some("car-1"), "stored"), (None, "adopted")] {
        let counter = counter("idempotency: {upstream_dedupes: false, adopt_orphans: 10m}").await;
        counter.script("held; ok");
        give_up(&counter, event).await;
        let answer = upload(&counter, "bb", "JPEG", event).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "image/png"));
        assert!(answer.body.starts_with(b"\x89PNG\r\n\x1a\n\0\xff"), "the bytes as they were");
        let from = answer.header("samekey-replay");
        assert!(from == replay || from == "joined", "{from}");
        assert_eq!((counter.sent(), counter.spent()), (1, (1, 1)), "{replay}");
        let again = upload(&counter, "c", "JPEG", Some("another")).await;
        assert_ne!(again.body, answer.body, "another image is paid for");
    }
}

#[tokio::test]
async fn retry_after_is_obeyed() {
    let counter = counter(&format!("retry: {{{FAST}}}")).await;
    counter.script("429 retry_after=1; ok");
    let answer = upload(&counter, "a", "JPEG", None).await;
    assert_eq!((told(&answer), counter.spent()), ((200, "2", ""), (1, 1)));
    let at: Vec<u64> = counter.seen().iter().map(|seen| seen.at_ms).collect();
    assert!(at[1] - at[0] >= 999, "{at:?}");
}

#[tokio::test]
async fn waits_double_from_the_first() {
    let backoff = "backoff: {initial: 40ms, max: 1s, jitter: none}";
    let counter = counter(&format!("retry: {{attempts: 5, {backoff}}}")).await;
    counter.script("429 x4");
    let answer = upload(&counter, "a", "JPEG", None).await;
    assert_eq!(told(&answer), (200, "5", ""));
    let at: Vec<u64> = counter.seen().iter().map(|seen| seen.at_ms).collect();
    let waits: Vec<u64> = at.windows(2).map(|two| two[1] - two[0]).collect();
    let least = [40, 80, 160, 320];
    assert!(waits.iter().zip(least).all(|(waited, least)| *waited + 1 >= least), "{waits:?}");
}

#[tokio::test]
async fn the_last_attempts_answer_is_the_providers_own_and_the_ledger_says_so() {
    let counter = counter(&format!("retry: {{{FAST}, attempts: 4}}")).await;
    counter.script("429 forever");
    let answer = upload(&counter, "a", "JPEG", None).await;
    assert_eq!(told(&answer), (429, "4", "attempts"));
    assert_eq!(answer.json()["errors"][0]["code"], "rate_limit_exceeded");
    let row = counter.row().await;
    let statuses: Vec<_> = row["attempts"].as_array().expect("a list").iter().collect();
    assert_eq!(
        (statuses.len(), &row["status"], &row["state"]),
        (4, &json!(429), &json!("released"))
    );
    assert_eq!(counter.spent(), (0, 0));
}

#[tokio::test]
async fn five_at_one_time_and_a_pause_between_are_never_too_many() {
    let counter = counter("limits: {concurrency: 5, rate: 4/200ms}").await;
    counter.script("slow 30 forever");
    let began = Instant::now();
    let uploads = (0..15).map(|_| upload(&counter, "a", "JPEG", None));
    let answers = futures_util::future::join_all(uploads).await;
    assert!(answers.iter().all(|answer| told(answer) == (200, "1", "")));
    let books = counter.books();
    assert_eq!((books.limited, books.effects, books.spent), (0, 15, 15));
    // Three times four go before the last three, and the way there takes some longer than others.
    assert!(began.elapsed() >= Duration::from_millis(600), "{:?}", began.elapsed());
}

#[tokio::test]
async fn without_limits_the_sixth_at_one_time_is_turned_away() {
    let counter = counter("retry: {attempts: 1}").await;
    counter.script("held x5");
    let five = futures_util::future::join_all((0..5).map(|_| upload(&counter, "a", "JPEG", None)));
    let sixth = async {
        counter.provider.arrived("images", 5).await;
        while counter.spent().0 < 5 {
            tokio::task::yield_now().await;
        }
        let sixth = upload(&counter, "a", "JPEG", None).await;
        counter.provider.release();
        sixth
    };
    let (_, sixth) = tokio::join!(five, sixth);
    assert_eq!((told(&sixth), sixth.header("retry-after")), ((429, "1", "attempts"), "1"));
}

#[tokio::test]
async fn the_time_to_an_answer_and_between_its_pieces_are_apart() {
    let slow = counter("retry: {attempts: 1, attempt_timeout: 150ms}").await;
    slow.script("hang_after");
    let answer = upload(&slow, "a", "JPEG", None).await;
    assert_eq!(answer.said(), (504, "upstream-timeout".to_owned()));
    slow.script("drip 20");
    let answer = upload(&slow, "a", "JPEG", None).await;
    assert!(answer.whole, "a body may take longer than the time to its head");

    let silent = counter("retry: {attempts: 1, body_idle_timeout: 100ms}").await;
    silent.script("slow 300; drip 1000");
    assert!(upload(&silent, "a", "JPEG", None).await.whole, "nor is that time the other");
    let answer = upload(&silent, "a", "JPEG", None).await;
    assert!(!answer.whole, "a silence is seen as such");

    let cut =
        counter("retry: {attempts: 9, deadline: 400ms, backoff: {initial: 150ms, jitter: none}}")
            .await;
    cut.script("429 forever");
    assert_eq!(told(&upload(&cut, "a", "JPEG", None).await).2, "deadline");
}

#[tokio::test]
async fn the_balance_is_read_for_nothing() {
    let counter = counter("retry: {attempts: 2}").await;
    counter.script("503; ok");
    let url = counter.url("/account");
    let answer = counter.client.send(Method::GET, &url, &[("x-api-key", CREDENTIAL)], "").await;
    assert_eq!((told(&answer), &answer.json()["credits"]), ((200, "2", ""), &json!(1_000_000)));
    assert_eq!(counter.spent(), (0, 0));
}

/// The route that a preset has for images, on the simulator's path and without its pauses.
async fn preset(blocks: &str) -> Counter {
    let route = format!(
        "[{{preset: removebg-remove, match: {{hosts: [localhost], paths: [{REMOVE}]}}, \
         retry: {{{FAST}}}, limits: {{rate: 100/1s}}, errors: problem, {blocks}}}]"
    );
    Counter::with_routes(Name::Images, &route).await
}

#[tokio::test]
async fn the_balance_is_asked_for_before_a_batch() {
    let counter = preset(
        "breaker: {statuses: [402], reset_after: 1h}, \
         preflight: {request: GET /account, json: /credits, at_least: 1, every: 60s}",
    )
    .await;
    let out = (OUT_OF_CREDIT.0, OUT_OF_CREDIT.1.to_owned());
    counter.terms(&json!({"credits": 0}));
    for event in ["car-1", "car-2"] {
        assert_eq!(upload(&counter, "a", "JPEG", Some(event)).await.said(), out);
    }
    let seen = counter.seen();
    assert_eq!((seen.len(), seen[0].path.as_str()), (1, "/account"), "no image was sent");
    assert_eq!((counter.books().broke, counter.spent()), (0, (0, 0)));
    counter.terms(&json!({"credits": 2}));
    counter.reset_breakers().await;
    for event in ["car-1", "car-2"] {
        let answer = upload(&counter, "a", "JPEG", Some(event)).await;
        assert_eq!(answer.header("content-type"), "image/png");
    }
    // The reading is used for a while; what the provider says itself holds the rest back.
    assert_eq!(told(&upload(&counter, "a", "JPEG", Some("car-3")).await), (402, "1", ""));
    assert_eq!(upload(&counter, "a", "JPEG", Some("car-4")).await.said(), out);
    assert_eq!((counter.asked("GET"), counter.asked("POST")), (2, 3));
    assert_eq!((counter.books().broke, counter.spent()), (1, (2, 2)));
}

#[tokio::test]
async fn the_name_of_an_uploaded_file_is_in_the_ledger() {
    let capture = "capture: {input: 'request:field:image_file', size: 'request:field:size'}";
    let counter = preset(&format!("idempotency: {{{capture}}}")).await;
    upload(&counter, "a", "JPEG", Some("car-1")).await;
    assert_eq!(counter.row().await["captured"], json!({"input": "car.jpg", "size": "auto"}));
    assert_eq!(counter.spent(), (1, 1));
}

/// A listener that makes no connection: its queue is full, and nobody takes from it.
async fn full() -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let listener = socket.listen(1).expect("it listens");
    let at = listener.local_addr().expect("an address");
    let mut waiting = Vec::new();
    while let Ok(made) =
        tokio::time::timeout(Duration::from_millis(500), TcpStream::connect(at)).await
    {
        waiting.push(made.expect("a connection"));
        assert!(waiting.len() < 64, "the queue has an end");
    }
    (listener, waiting)
}

#[tokio::test]
async fn time_to_connect_is_apart() {
    let (listener, _waiting) = full().await;
    let samekey = Samekey::start(
        "upstream: {connect_timeout: 300ms}\n\
         routes: [{name: r, match: {hosts: ['*']}, retry: {attempts: 1, attempt_timeout: 60s}}]\n",
    )
    .await;
    let client = Client::through(&samekey);
    let at = listener.local_addr().expect("an address");
    let began = Instant::now();
    let answer = client.post(&format!("http://{at}{REMOVE}"), "{}").await;
    assert_eq!(answer.said().1, "upstream-unreachable", "nothing was sent: {}", answer.text());
    let took = began.elapsed();
    assert!((300..30_000).contains(&took.as_millis()), "{took:?}");
    // Who was reached may take longer than that.
    let counter = counter("retry: {attempts: 1}").await;
    counter.script("slow 600");
    let url = counter.url(REMOVE);
    let headers =
        [("content-type", "application/x-www-form-urlencoded"), ("x-api-key", CREDENTIAL)];
    let answer = client.send(Method::POST, &url, &headers, "image_url=u").await;
    assert_eq!((told(&answer), counter.spent()), ((200, "1", ""), (1, 1)));
}

//! HTTP/2 on either side, what it proves, and connections that died at rest.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::provider::{Options, Provider};
use crate::support::client::raw;
use crate::support::{Client, Samekey};

/// A route about whose upstream nothing is known.
const PLAIN: &str = "
providers: []
routes:
  - name: jobs
    match: {hosts: ['*']}
    retry: {backoff: {initial: 5ms, max: 20ms}}
";

async fn offering(alpn: &str) -> Provider {
    let options = Options { alpn: vec![alpn.to_owned()], ..Options::default() };
    Provider::start(options).await.expect("a provider")
}

#[tokio::test]
async fn a_post_is_sent_again_only_where_http2_proves_that_it_was_not_processed() {
    let provider = offering("h2").await;
    let samekey = Samekey::beside(&provider, PLAIN).await;
    let client = Client::through(&samekey);
    let url = provider.ports.https_url("/s/s/v1/jobs");
    for (step, status, requests, effects) in [
        ("refused_stream", 201, 2, 1),
        ("goaway_below", 201, 2, 1),
        ("refused_stream; goaway_below", 201, 3, 1),
        ("goaway_above", 502, 1, 1),
        ("eof_after", 502, 1, 1),
        ("reset_after", 502, 1, 1),
        ("failed_stream", 502, 1, 1),
        ("eof_before", 502, 1, 0),
    ] {
        for warm in [false, true] {
            provider.script("s", if warm { "ok" } else { step });
            if warm {
                assert_eq!(
                    client.get(&provider.ports.https_url("/s/s/status/200")).await.status,
                    200
                );
                provider.script("s", step);
            }
            let answer = client.post(&url, "{}").await;
            let seen = (answer.status.as_u16(), provider.seen("s").len(), provider.effects("s"));
            assert_eq!(
                seen,
                (status, requests, effects),
                "{step}, warm: {warm}: {}",
                answer.text()
            );
            if status == 502 {
                assert_eq!(answer.json()["type"], "urn:samekey:upstream-protocol", "{step}");
                assert_eq!(answer.header("samekey-stop"), "unsafe", "{step}");
            }
        }
    }
}

#[tokio::test]
async fn each_pair_of_protocols_carries_requests() {
    for alpn in ["h2", "http/1.1"] {
        let provider = offering(alpn).await;
        let samekey = Samekey::beside(&provider, PLAIN).await;
        for client in [Client::through(&samekey), Client::through(&samekey).h2()] {
            let url = provider.ports.https_url("/s/s/echo?x=%2F");
            let body = "x".repeat(300_000);
            let answer = client
                .send(Method::PUT, &url, &[("cookie", "a=1"), ("cookie", "b=2")], &body)
                .await;
            assert_eq!((answer.status.as_u16(), answer.text() == body), (200, true));
            let seen = provider.seen("s").pop().expect("it arrived");
            let wanted = if alpn == "h2" { "HTTP/2" } else { "HTTP/1.1" };
            assert_eq!((seen.version.as_str(), seen.path.as_str()), (wanted, "/s/s/echo?x=%2F"));
            let cookies: Vec<_> = seen
                .headers
                .iter()
                .filter(|(name, _)| name.eq_ignore_ascii_case("cookie"))
                .collect();
            assert!(alpn == "h2" || cookies.len() == 1, "HTTP/1 has one Cookie field: {cookies:?}");
        }
    }
}

#[tokio::test]
async fn a_call_of_grpc_goes_both_ways_before_either_ends() {
    let provider = offering("h2").await;
    for routes in [PLAIN, "intercept: {hosts: all}\nroutes: []\nproviders: []\n"] {
        let samekey = Samekey::beside(&provider, routes).await;
        let url = provider.ports.https_url("/duplex");
        let stream = Client::through(&samekey)
            .h2()
            .tls(&url.parse().expect("a URL"))
            .await
            .expect("a tunnel");
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .expect("HTTP/2");
        tokio::spawn(connection);
        let (pieces, taken) = mpsc::channel::<Bytes>(1);
        let stream = futures_util::stream::unfold(taken, |mut taken| async {
            let piece = taken.recv().await?;
            Some((Ok::<_, std::convert::Infallible>(Frame::data(piece)), taken))
        });
        let request =
            Request::post(&url).header("content-type", "application/grpc").header("te", "trailers");
        let request = request.body(StreamBody::new(Box::pin(stream))).expect("a request");
        let response =
            sender.send_request(request).await.expect("the head comes before the body ends");
        let mut body = response.into_body();
        for n in 0..20_u8 {
            let piece = Bytes::from(vec![n; 1000]);
            pieces.send(piece.clone()).await.expect("it is taken");
            let mut back = Vec::new();
            while back.len() < piece.len() {
                let frame = body.frame().await.expect("it goes on").expect("it is whole");
                back.extend_from_slice(&frame.into_data().expect("data"));
            }
            assert_eq!(back, piece);
        }
        drop(pieces);
        let mut trailers = None;
        while let Some(frame) = body.frame().await {
            trailers = frame.expect("it is whole").into_trailers().ok();
        }
        assert_eq!(trailers.expect("trailers").get("grpc-status").expect("a status"), "0");
    }
}

#[tokio::test]
async fn streams_of_one_connection_do_not_wait_for_each_other() {
    let provider = offering("h2").await;
    provider.script("slow", "held");
    let samekey = Samekey::beside(&provider, PLAIN).await;
    let url = provider.ports.https_url("/s/slow/v1/jobs");
    let stream =
        Client::through(&samekey).h2().tls(&url.parse().expect("a URL")).await.expect("a tunnel");
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    let ask = |method: &str, url: &str| {
        let body = http_body_util::Full::<Bytes>::default();
        let request = Request::builder().method(method).uri(url).body(body).expect("a request");
        let mut sender = sender.clone();
        async move { sender.send_request(request).await.expect("an answer").status() }
    };
    let slow = tokio::spawn(ask("POST", &url));
    provider.arrived("slow", 1).await;
    let fast = (0..50).map(|_| ask("GET", &provider.ports.https_url("/status/200")));
    let fast = futures_util::future::join_all(fast).await;
    assert!(fast.iter().all(|status| *status == 200));
    provider.release();
    assert_eq!(slow.await.expect("it ends"), 201);
    let mut connections: Vec<_> =
        provider.seen("default").iter().map(|seen| seen.connection).collect();
    connections.dedup();
    assert_eq!(connections.len(), 1, "one connection up is shared");
}

#[tokio::test]
async fn a_request_does_not_wait_for_streams_that_fill_a_connection() {
    let options =
        Options { alpn: vec!["h2".to_owned()], max_streams: Some(2), ..Options::default() };
    let provider = Provider::start(options).await.expect("a provider");
    provider.script("slow", "held forever");
    let samekey = Samekey::beside(&provider, PLAIN).await;
    let client = Client::through(&samekey);
    let slow: Vec<_> = (1..=5)
        .map(|_| {
            let (client, url) = (client.clone(), provider.ports.https_url("/s/slow/v1/jobs"));
            tokio::spawn(async move { client.post(&url, "{}").await.status })
        })
        .collect();
    provider.arrived("slow", 5).await;
    assert_eq!(client.get(&provider.ports.https_url("/status/200")).await.status, 200);
    provider.release();
    for slow in slow {
        assert_eq!(slow.await.expect("it ends"), 201);
    }
}

#[tokio::test]
async fn a_misdirected_stream_is_refused_and_the_others_go_on() {
    let provider = offering("h2").await;
    let samekey = Samekey::beside(&provider, PLAIN).await;
    let url = provider.ports.https_url("/status/200");
    let stream =
        Client::through(&samekey).h2().tls(&url.parse().expect("a URL")).await.expect("a tunnel");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    for (url, wanted) in [("https://b.test/status/200".to_owned(), 400), (url, 200)] {
        let request =
            Request::get(url).body(http_body_util::Full::<Bytes>::default()).expect("a request");
        let response = sender.send_request(request).await.expect("an answer");
        assert_eq!(response.status(), wanted);
        let body = response.into_body().collect().await.expect("it is whole").to_bytes();
        assert_eq!(
            String::from_utf8_lossy(&body).contains("urn:samekey:misdirected"),
            wanted == 400
        );
    }
    assert_eq!(provider.seen("default").len(), 1);
}

#[tokio::test]
async fn fields_of_forty_kibibytes_come_back_over_http2() {
    let provider = offering("h2").await;
    let samekey = Samekey::beside(&provider, PLAIN).await;
    provider.script("s", &format!("ok +x-large:{}", "y".repeat(40_000)));
    let answer = Client::through(&samekey).get(&provider.ports.https_url("/s/s/status/200")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("x-large").len()),
        (200, 40_000),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn a_connection_that_died_at_rest_costs_a_post_nothing() {
    for alpn in ["http/1.1", "h2"] {
        let provider = offering(alpn).await;
        for then in ["then_close", "then_eof", "then_reset"] {
            let samekey = Samekey::beside(&provider, PLAIN).await;
            let client = Client::through(&samekey);
            provider.script("s", &format!("ok {then} forever"));
            let url = provider.ports.https_url("/s/s/v1/jobs");
            for n in 1..=5 {
                let answer = client.post(&url, "{}").await;
                let seen =
                    (answer.status.as_u16(), provider.seen("s").len(), provider.effects("s"));
                assert_eq!(seen, (201, n, n), "{alpn} {then}: {}", answer.text());
                assert_eq!(answer.header("samekey-attempts"), "1", "{alpn} {then}");
                // The end has to arrive here before the next request: the connection dies at rest.
                tokio::time::sleep(Duration::from_millis(60)).await;
            }
        }
    }
}

#[tokio::test]
async fn a_post_takes_no_connection_that_its_upstream_is_about_to_close() {
    let provider = offering("http/1.1").await;
    let samekey = Samekey::beside(&provider, PLAIN).await;
    let client = Client::through(&samekey);
    for (field, method, reused) in [
        ("keep-alive:timeout=1", Method::POST, false),
        ("keep-alive:timeout=1", Method::GET, true),
        ("keep-alive:timeout=60", Method::POST, true),
        ("x-none:1", Method::POST, true),
    ] {
        provider.script("s", &format!("ok +{field} forever"));
        let url = provider.ports.https_url("/s/s/v1/jobs");
        let get = provider.ports.https_url("/s/s/status/200");
        client.get(&get).await;
        let url = if method == Method::GET { &get } else { &url };
        client.send(method.clone(), url, &[], "").await;
        let connections: Vec<_> = provider.seen("s").iter().map(|seen| seen.connection).collect();
        assert_eq!(connections[0] == connections[1], reused, "{field} {method}: {connections:?}");
        provider.script("s", "ok then_close forever");
        client.get(&get).await;
        client.get(&get).await;
    }
}

/// Answers each piece that it reads twice.
async fn say_too_much(mut stream: TcpStream) {
    let one = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n";
    let says = format!("{one}good{one}evil");
    let mut seen = [0; 4096];
    while let Ok(1..) = stream.read(&mut seen).await {
        if stream.write_all(says.as_bytes()).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn what_an_upstream_says_too_much_never_answers_the_next_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let at = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(say_too_much(stream));
        }
    });
    let samekey = Samekey::start(PLAIN).await;
    for _ in 0..20 {
        let request =
            format!("GET http://{at}/ HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
        let seen = raw(samekey.proxy, request.as_bytes()).await;
        assert!(seen.ends_with("good"), "{seen}");
    }
}

#[tokio::test]
async fn a_client_that_resets_its_stream_ends_the_attempt() {
    let provider = offering("h2").await;
    provider.script("s", "hang");
    let samekey =
        Samekey::beside(&provider, "intercept: {hosts: all}\nroutes: []\nproviders: []\n").await;
    let url = provider.ports.https_url("/s/s/status/200");
    let stream =
        Client::through(&samekey).h2().tls(&url.parse().expect("a URL")).await.expect("a tunnel");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    let request =
        Request::get(&url).body(http_body_util::Full::<Bytes>::default()).expect("a request");
    let asked = tokio::spawn(async move { sender.send_request(request).await.map(drop) });
    provider.arrived("s", 1).await;
    asked.abort();
    samekey.until("samekey_inflight_exchanges{route=\"none\"}", 0.0).await;
    let plain = TcpStream::connect(samekey.proxy).await.expect("it still listens");
    drop(plain);
}

//! The simulator's own tests: a fault that is not one would prove nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::apis::Name;
use super::apis::courier::signature;
use super::{Options, Provider};

async fn provider() -> Provider {
    Provider::start(Options::default()).await.expect("loopback has free ports")
}

/// Sends one request on a connection of its own; all that came, and how it ended.
async fn raw(provider: &Provider, head: &str, body: &str) -> (String, io::Result<()>) {
    let mut tcp = TcpStream::connect(provider.ports.http_addr).await.expect("it listens");
    let length = body.len();
    let text = format!(
        "{head} HTTP/1.1\r\nHost: p\r\nConnection: close\r\nIdempotency-Key: k\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    tcp.write_all(text.as_bytes()).await.expect("it reads");
    let mut came = Vec::new();
    let ended = tcp.read_to_end(&mut came).await;
    (String::from_utf8_lossy(&came).into_owned(), ended.map(|_| ()))
}

/// Creates a job in a scenario, and gives back what came.
async fn create(provider: &Provider, scenario: &str, body: &str) -> String {
    raw(provider, &format!("POST /s/{scenario}/v1/jobs"), body).await.0
}

/// Plays one step: the answer's beginning, whether the end was a reset, the effects.
async fn check(step: &str, begins: &str, is_reset: bool, effects: usize) {
    let provider = provider().await;
    provider.script("a", step);
    let (came, ended) = raw(&provider, "POST /s/a/v1/jobs", r#"{"a":1}"#).await;
    assert!(came.starts_with(begins), "{step}: {came}");
    assert_eq!(came.is_empty(), begins.is_empty(), "{step}: {came}");
    let was_reset = ended.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset);
    assert_eq!(was_reset, is_reset, "{step}");
    assert_eq!(provider.effects("a"), effects, "{step}");
    assert_eq!(provider.seen("a").len(), 1, "{step}");
}

#[tokio::test]
async fn every_step_does_what_it_says() {
    check("ok", "HTTP/1.1 201 Created\r\n", false, 1).await;
    check("429 retry_after=1", "HTTP/1.1 429 ", false, 0).await;
    check("500 effect", "HTTP/1.1 500 ", false, 1).await;
    check("reset_before", "", true, 0).await;
    check("eof_before", "", false, 0).await;
    check("reset_after", "", true, 1).await;
    check("eof_after", "", false, 1).await;
    check("garbage", "HTTTP/one", false, 1).await;
    check("early 413", "HTTP/1.1 413 ", false, 0).await;
    check("hundred", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201", false, 1).await;
    check("truncate", "HTTP/1.1 201 ", false, 1).await;
    check("truncate_reset", "HTTP/1.1 201 ", true, 1).await;
    check("bad_chunk", "HTTP/1.1 201 ", false, 1).await;
    check("slow 5", "HTTP/1.1 201 ", false, 1).await;
    check("drip 0", "HTTP/1.1 201 ", false, 1).await;
    check("ok chunked", "HTTP/1.1 201 ", false, 1).await;
    check("ok until_close", "HTTP/1.1 201 ", false, 1).await;
    check("ok then_reset", "HTTP/1.1 201 ", true, 1).await;
}

#[tokio::test]
async fn an_effect_is_in_the_book_once_and_before_its_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let book = folder.path().join("book");
    let lines = || -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(&book).expect("it is there");
        text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
    };
    let options = Options { book: Some(book.clone()), ..Options::default() };
    let provider = Provider::start(options).await.expect("loopback has free ports");
    provider.script("a", "hang_after; reset_after; 503");
    let hanging = create(&provider, "a", r#"{"order": "o-1"}"#);
    let written = async {
        provider.arrived("a", 1).await;
        while lines().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        answer = hanging => panic!("it hangs: {answer}"),
        () = written => {}
    }
    for _ in 0..3 {
        create(&provider, "a", r#"{"order": "o-1"}"#).await;
    }
    let lines = lines();
    assert_eq!(lines.len(), 1, "one key: {lines:?}");
    let line = &lines[0];
    assert_eq!((&line["event"], &line["key"]), (&"o-1".into(), &"k".into()));
    assert!(line["job"] == "job-a-1" && line["at_ms"].is_u64(), "{line}");
}

#[tokio::test]
async fn a_repeated_key_has_one_effect_where_keys_are_honoured() {
    let provider = provider().await;
    provider.script("a", "reset_after");
    for _ in 0..2 {
        create(&provider, "a", "{}").await;
    }
    let came = create(&provider, "a", "{}").await;
    assert!(came.contains("Idempotent-Replayed: true"), "{came}");
    let came = create(&provider, "a", "[]").await;
    assert!(came.contains("422"), "{came}");
    assert_eq!(provider.effects("a"), 1);

    provider.script("b", "");
    provider.honour_keys("b", false);
    create(&provider, "b", "{}").await;
    create(&provider, "b", "{}").await;
    assert_eq!(provider.effects("b"), 2);
}

#[tokio::test]
async fn a_held_answer_waits_for_its_release() {
    let provider = provider().await;
    provider.script("a", "held");
    let answer = create(&provider, "a", "{}");
    let release = async {
        provider.arrived("a", 1).await;
        let came = create(&provider, "a", "{}").await;
        assert!(came.contains("request_in_progress"), "{came}");
        provider.release();
    };
    let (came, ()) = tokio::join!(answer, release);
    assert!(came.contains("201 Created"), "{came}");
}

#[tokio::test]
async fn the_next_connections_are_refused_when_asked() {
    let provider = provider().await;
    provider.refuse_connections(1);
    let mut tcp = TcpStream::connect(provider.ports.http_addr).await.expect("it listens");
    let ended = tcp.read(&mut [0; 8]).await.expect_err("it is reset");
    assert_eq!(ended.kind(), io::ErrorKind::ConnectionReset);
    let (came, _) = raw(&provider, "GET /status/204", "").await;
    assert!(came.contains("204"), "{came}");
}

async fn tls(provider: &Provider) -> TlsStream<TcpStream> {
    tls_to(provider, provider.ports.https_addr).await
}

async fn tls_to(provider: &Provider, at: SocketAddr) -> TlsStream<TcpStream> {
    let ca = CertificateDer::from_pem_slice(provider.ports.ca_pem.as_bytes()).expect("it is PEM");
    let mut roots = RootCertStore::empty();
    roots.add(ca).expect("it is a CA");
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("aws-lc-rs knows TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from("localhost").expect("it is a name");
    let tcp = TcpStream::connect(at).await.expect("it listens");
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("it is trusted")
}

/// Plays one step over TLS and HTTP/2: the status, or what the client could tell of the failure.
async fn check_h2(step: &str, told: &str, effects: usize) {
    let provider = provider().await;
    provider.script("a", step);
    let (send, connection) = h2::client::handshake(tls(&provider).await).await.expect("it is h2");
    let ask = async {
        let mut send = send.ready().await.expect("a stream is free");
        let url = provider.ports.https_url("/s/a/v1/jobs");
        let request = http::Request::post(url).header("idempotency-key", "k").body(());
        let request = request.expect("the request is right");
        let (response, mut body) = send.send_request(request, false).expect("it is sent");
        body.send_data(Bytes::from_static(b"{}"), true).expect("it is sent");
        match response.await {
            Ok(response) => response.status().as_u16().to_string(),
            Err(error) => kind(&error),
        }
    };
    let answered = tokio::select! {
        biased;
        told = ask => told,
        // The connection's own end is told to the stream, which is asked first.
        _ = async { let ended = connection.await; std::future::pending::<()>().await; ended } => String::new(),
    };
    assert_eq!(answered, told, "{step}");
    assert_eq!(provider.effects("a"), effects, "{step}");
}

/// Who ended it, and how, as far as a client may rely on it.
fn kind(error: &h2::Error) -> String {
    let remote = if error.is_remote() { "remote" } else { "local" };
    let what = match (error.is_go_away(), error.is_reset(), error.is_io()) {
        (true, ..) => "goaway",
        (_, true, _) => "reset",
        (.., true) => "io",
        _ => "other",
    };
    let reason = error.reason().map(|reason| format!(" {reason:?}")).unwrap_or_default();
    format!("{remote} {what}{reason}")
}

#[tokio::test]
async fn every_step_does_what_it_says_over_http2() {
    check_h2("ok", "201", 1).await;
    check_h2("503", "503", 0).await;
    check_h2("hundred", "201", 1).await;
    check_h2("early 413", "413", 0).await;
    check_h2("refused_stream", "remote reset REFUSED_STREAM", 0).await;
    check_h2("failed_stream", "remote reset INTERNAL_ERROR", 1).await;
    check_h2("goaway_below", "remote goaway NO_ERROR", 0).await;
    check_h2("goaway_above", "local io", 1).await;
    check_h2("eof_after", "local io", 1).await;
    check_h2("reset_before", "local io", 0).await;
    check_h2("reset_after", "local io", 1).await;
    check_h2("garbage", "local goaway FRAME_SIZE_ERROR", 1).await;
}

/// A provider of one API, with these of its terms.
async fn api(name: Name, changes: &serde_json::Value) -> Provider {
    let options = Options { apis: vec![name], ..Options::default() };
    let provider = Provider::start(options).await.expect("loopback has free ports");
    provider.sites.terms(name, changes);
    provider
}

/// Sends one request to an API's port, plain or over TLS and HTTP/2.
async fn ask(provider: &Provider, name: Name, head: &str, body: &str) -> String {
    let at = provider.ports.apis[&name];
    let mut tcp = TcpStream::connect(at).await.expect("it listens");
    let length = body.len();
    let text = format!(
        "{head} HTTP/1.1\r\nHost: p\r\nConnection: close\r\nX-Api-Key: k\r\n\
         Authorization: Key k\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    tcp.write_all(text.as_bytes()).await.expect("it reads");
    let mut came = Vec::new();
    // A reset is one of the ends that scripts give.
    drop(tcp.read_to_end(&mut came).await);
    String::from_utf8_lossy(&came).into_owned()
}

const MOVIE: &str = r#"{"scenes": [], "client-data": {"order": "o-1"}}"#;

#[tokio::test]
async fn an_api_is_broken_by_scripts_as_any_other_and_counts_what_it_did() {
    let folder = tempfile::tempdir().expect("a folder");
    let book = folder.path().join("book");
    let options =
        Options { apis: vec![Name::Movies], book: Some(book.clone()), ..Options::default() };
    let provider = Provider::start(options).await.expect("loopback has free ports");
    provider.script("movies", "429 retry_after=7; 503 effect; reset_before; reset_after; truncate");
    let mut came = Vec::new();
    for _ in 0..6 {
        came.push(ask(&provider, Name::Movies, "POST /v2/movies", MOVIE).await);
    }
    assert!(came[0].contains("429") && came[0].contains("retry-after: 7"), "{came:?}");
    assert!(came[0].contains(r#"{"message":"Too many requests","success":false}"#), "{came:?}");
    assert!(came[1].contains(" 503 ") && came[1].contains(r#""success":false"#), "{came:?}");
    assert!(came[2].is_empty() && came[3].is_empty(), "{came:?}");
    assert!(came[5].contains(r#""success":true"#), "{came:?}");
    let books = provider.sites.books("movies");
    assert_eq!((books.effects, books.spent, provider.effects("movies")), (4, 4, 4));
    assert_eq!(books.events.get("o-1"), Some(&4));
    let written = std::fs::read_to_string(&book).expect("it is there");
    assert_eq!(written.lines().count(), 4);
    assert!(written.lines().all(|line| line.contains(r#""event":"o-1""#)), "{written}");

    ask(&provider, Name::Movies, "POST /s/b/v2/movies", MOVIE).await;
    assert_eq!((provider.effects("b"), provider.effects("movies")), (1, 4));
    provider.script("movies", "");
    assert_eq!(provider.effects("movies"), 0, "a script begins anew");
}

#[tokio::test]
async fn an_api_counts_those_who_ask_at_one_time() {
    let provider = api(Name::Images, &serde_json::json!({"at_once": 2})).await;
    provider.script("images", "held; held; ok");
    let order = || ask(&provider, Name::Images, "POST /v1/remove-background", "image_url=a");
    let rest = async {
        provider.arrived("images", 2).await;
        while provider.effects("images") < 2 {
            tokio::task::yield_now().await;
        }
        let third = order().await;
        provider.release();
        third
    };
    let (first, second, third) = tokio::join!(order(), order(), rest);
    assert!(third.contains(" 429 ") && third.contains("Retry-After: 1"), "{third}");
    assert!([first, second].iter().all(|came| came.contains(" 200 ")));
    assert!(order().await.contains(" 200 "));
}

#[tokio::test]
async fn one_port_speaks_plain_http_and_tls() {
    let provider = api(Name::Movies, &serde_json::json!({})).await;
    let tls = tls_to(&provider, provider.ports.apis[&Name::Movies]).await;
    let (send, connection) = h2::client::handshake(tls).await.expect("it is h2");
    tokio::spawn(connection);
    let mut send = send.ready().await.expect("a stream is free");
    let url = format!("https://{}/v2/movies", provider.ports.authority(Name::Movies));
    let request = http::Request::post(url).header("x-api-key", "k").body(());
    let (response, mut body) = send.send_request(request.expect("right"), false).expect("sent");
    body.send_data(Bytes::from_static(MOVIE.as_bytes()), true).expect("it is sent");
    assert_eq!(response.await.expect("an answer").status(), 200);
    assert_eq!(provider.effects("movies"), 1);
}

/// A receiver of webhooks that answers with these statuses in turn, then 200; what came.
async fn receive(statuses: &[u16], count: usize) -> (String, tokio::task::JoinHandle<Vec<String>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/hook", listener.local_addr().expect("it is bound"));
    let statuses = statuses.to_vec();
    let came = tokio::spawn(async move {
        let mut came = Vec::new();
        while came.len() < count {
            let (mut tcp, _) = listener.accept().await.expect("it listens");
            let mut text = Vec::new();
            while !text.ends_with(b"}") {
                tcp.read_buf(&mut text).await.expect("it comes");
            }
            let status = statuses.get(came.len()).copied().unwrap_or(200);
            let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n");
            tcp.write_all(answer.as_bytes()).await.expect("it is read");
            came.push(String::from_utf8_lossy(&text).into_owned());
        }
        came
    });
    (url, came)
}

#[tokio::test]
async fn a_webhook_comes_signed_until_it_is_taken() {
    let terms = serde_json::json!({"takes_ms": 0, "redeliver_ms": 1});
    let provider = api(Name::Generation, &terms).await;
    let (url, came) = receive(&[500, 503], 3).await;
    let body = serde_json::json!({"input": {"prompt": "o-1"}, "webhook_url": url}).to_string();
    ask(&provider, Name::Generation, "POST /v1/models/sketch", &body).await;
    let came = came.await.expect("they came");
    let [first, .., last] = came.as_slice() else { panic!("{came:?}") };
    assert_eq!(first, last, "the same each time");
    let (head, body) = first.split_once("\r\n\r\n").expect("a head and a body");
    let field = head.lines().find_map(|line| line.strip_prefix("X-Clipia-Signature: t="));
    let (at, signed) = field.and_then(|field| field.split_once(",v1=")).expect("it is signed");
    assert_eq!(signed, signature(&format!("{at}.{body}")));
    while provider.sites.books("generation").deliveries.len() < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(provider.sites.books("generation").deliveries, [500, 503, 200]);
}

#[tokio::test]
async fn a_webhook_that_nobody_takes_comes_six_times() {
    let terms = serde_json::json!({"takes_ms": 0, "redeliver_ms": 1});
    let provider = api(Name::Generation, &terms).await;
    let (url, came) = receive(&[500; 6], 6).await;
    let body = serde_json::json!({"input": {"prompt": "o-1"}, "webhook_url": url}).to_string();
    ask(&provider, Name::Generation, "POST /v1/models/sketch", &body).await;
    assert_eq!(came.await.expect("they came").len(), 6);
    tokio::time::sleep(std::time::Duration::from_millis(100)).await; // for a seventh, wrongly
    assert_eq!(provider.sites.books("generation").deliveries, [500; 6]);
}

#[tokio::test]
async fn a_movie_is_told_of_twice() {
    let provider = api(Name::Movies, &serde_json::json!({"takes_ms": 0})).await;
    let (url, came) = receive(&[], 2).await;
    let to = serde_json::json!([{"destinations": [{"type": "webhook", "endpoint": url}]}]);
    let body = serde_json::json!({"scenes": [], "exports": to}).to_string();
    ask(&provider, Name::Movies, "POST /v2/movies", &body).await;
    let came = came.await.expect("they came");
    assert_eq!(came.first(), came.last());
    assert!(came.iter().all(|text| text.contains(r#""project":"#)), "{came:?}");
}

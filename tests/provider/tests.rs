//! The simulator's own tests: a fault that is not one would prove nothing.

use std::io;
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
    let tcp = TcpStream::connect(provider.ports.https_addr).await.expect("it listens");
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

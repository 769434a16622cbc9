//! What peers send that should not pass: clients that break the rules, upstreams that lie.

mod upstreams;
mod within;

use std::net::SocketAddr;
use std::time::Duration;

use http::Method;
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};

use crate::provider::{Options, Provider};
use crate::support::client::{connect, raw, read_all};
use crate::support::{Answer, Client, Samekey};

/// Everything is opened, nothing is routed.
const OPEN: &str = "intercept: {hosts: all}\nroutes: []\nproviders: []\n";

/// Nothing is opened.
const BLIND: &str = "intercept: {hosts: none}\nroutes: []\nproviders: []\n";

/// One route over all that speaks for itself.
const ROUTED: &str = "
providers: []
routes:
  - name: jobs
    match: {hosts: ['*']}
    retry: {backoff: {initial: 5ms, max: 20ms}}
";

async fn provider() -> Provider {
    Provider::start(Options::default()).await.expect("a provider")
}

/// The problem that an answer holds: its status and its slug.
fn problem(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), slug(&answer.json()))
}

fn slug(problem: &Value) -> String {
    let kind = problem.get("type").and_then(Value::as_str).unwrap_or_default();
    kind.replace("urn:samekey:", "")
}

/// The last response of a connection: its status, its slug, and its head.
fn last_response(seen: &str) -> (u16, String, String) {
    let response = seen.rfind("HTTP/1.1 ").and_then(|at| seen.get(at..)).unwrap_or_default();
    let status = response.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or_default();
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    (status, slug(&body), head.to_ascii_lowercase())
}

/// Sends bytes on one connection, whether all of them are taken or not, and reads to
/// its end: what came, and whether it was closed.
async fn push(proxy: SocketAddr, bytes: &[u8]) -> (String, bool) {
    let stream = TcpStream::connect(proxy).await.expect("it listens");
    let (mut reader, mut writer) = stream.into_split();
    let bytes = bytes.to_vec();
    let writing = tokio::spawn(async move {
        let taken = writer.write_all(&bytes).await.is_ok();
        (writer, taken)
    });
    let mut seen = Vec::new();
    let reading = reader.read_to_end(&mut seen);
    let closed = tokio::time::timeout(Duration::from_secs(5), reading).await;
    writing.abort();
    (String::from_utf8_lossy(&seen).into_owned(), matches!(closed, Ok(Ok(_))))
}

/// Wants each of `requests` refused with `status` and its problem, and the connection closed;
/// `AT` stands for the provider's address.
async fn refused(requests: &[(&str, &str)], status: u16, slug: &str) {
    let provider = provider().await;
    let samekey = Samekey::beside(&provider, OPEN).await;
    let at = provider.ports.http_addr.to_string();
    for (what, request) in requests {
        let (seen, closed) = push(samekey.proxy, request.replace("AT", &at).as_bytes()).await;
        let (got, kind, head) = last_response(&seen);
        assert_eq!((got, kind.as_str()), (status, slug), "{what}: {seen:?}");
        assert!(closed && head.contains("connection: close"), "{what} is closed: {seen:?}");
        assert!(head.contains("content-type: application/problem+json"), "{what}: {seen:?}");
    }
    let whole = provider.seen("default").iter().filter(|seen| seen.whole).count();
    assert_eq!(whole, 0, "nothing whole went on: {:#?}", provider.seen("default"));
}

/// Heads in which two readers can see different requests, and what is wrong with each.
const MALFORMED_HEADS: &[(&str, &str)] = &[
    ("a folded line", "GET http://AT/ HTTP/1.1\r\nHost: AT\r\nX: a\r\n b\r\n\r\n"),
    ("a folded line with a tab", "GET http://AT/ HTTP/1.1\r\nHost: AT\r\nX: a\r\n\tb\r\n\r\n"),
    (
        "a length beside chunks",
        "POST http://AT/echo HTTP/1.1\r\nHost: AT\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "two lengths",
        "POST http://AT/echo HTTP/1.1\r\nHost: AT\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    ),
    (
        "two equal lengths",
        "POST http://AT/echo HTTP/1.1\r\nHost: AT\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "a list of lengths",
        "POST http://AT/echo HTTP/1.1\r\nHost: AT\r\nContent-Length: 5, 5\r\n\r\nhello",
    ),
    (
        "a signed length",
        "POST http://AT/echo HTTP/1.1\r\nHost: AT\r\nContent-Length: +5\r\n\r\nhello",
    ),
    (
        "a negative length",
        "POST http://AT/echo HTTP/1.1\r\nHost: AT\r\nContent-Length: -5\r\n\r\nhello",
    ),
    (
        "a hexadecimal length",
        "POST http://AT/echo HTTP/1.1\r\nHost: AT\r\nContent-Length: 0x5\r\n\r\nhello",
    ),
    ("an empty length", "POST http://AT/echo HTTP/1.1\r\nHost: AT\r\nContent-Length:\r\n\r\nhello"),
    (
        "a coding of two",
        "POST http://AT/echo HTTP/1.1\r\nHost: AT\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "no coding",
        "POST http://AT/echo HTTP/1.1\r\nHost: AT\r\nTransfer-Encoding: identity\r\n\r\n",
    ),
    (
        "an unknown coding",
        "POST http://AT/echo HTTP/1.1\r\nHost: AT\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "two codings",
        "POST http://AT/echo HTTP/1.1\r\nHost: AT\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a coding behind a vertical tab",
        "POST http://AT/echo HTTP/1.1\r\nHost: AT\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunks in HTTP/1.0",
        "POST http://AT/echo HTTP/1.0\r\nHost: AT\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("two Hosts", "GET http://AT/ HTTP/1.1\r\nHost: AT\r\nHost: AT\r\n\r\n"),
    ("two different Hosts", "GET http://AT/ HTTP/1.1\r\nHost: AT\r\nHost: b.test\r\n\r\n"),
    ("a list of Hosts", "GET http://AT/ HTTP/1.1\r\nHost: AT, b.test\r\n\r\n"),
    ("no Host", "GET http://AT/ HTTP/1.1\r\n\r\n"),
    ("a user in the target", "GET http://u:p@AT/ HTTP/1.1\r\nHost: AT\r\n\r\n"),
    ("a fragment in the target", "GET http://AT/#x HTTP/1.1\r\nHost: AT\r\n\r\n"),
    ("a space before the colon", "GET http://AT/ HTTP/1.1\r\nHost: AT\r\nX : a\r\n\r\n"),
    ("a name that is no token", "GET http://AT/ HTTP/1.1\r\nHost: AT\r\nX(y): a\r\n\r\n"),
    ("a field without a name", "GET http://AT/ HTTP/1.1\r\nHost: AT\r\n: a\r\n\r\n"),
    ("a NUL in a field", "GET http://AT/ HTTP/1.1\r\nHost: AT\r\nX: a\0b\r\n\r\n"),
    ("a bare CR in a field", "GET http://AT/ HTTP/1.1\r\nHost: AT\r\nX: a\rb\r\n\r\n"),
    ("bare LFs", "GET http://AT/ HTTP/1.1\nHost: AT\n\n"),
    ("a method that is no token", "G(T http://AT/ HTTP/1.1\r\nHost: AT\r\n\r\n"),
    ("no version", "GET http://AT/\r\nHost: AT\r\n\r\n"),
    ("a version of its own", "GET http://AT/ HTTP/1.2\r\nHost: AT\r\n\r\n"),
    ("two spaces", "GET  http://AT/ HTTP/1.1\r\nHost: AT\r\n\r\n"),
    ("TLS on a plain port", "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n"),
    ("a target that is no URL", "GET /echo HTTP/1.1\r\nHost: AT\r\n\r\n"),
    ("a scheme of its own", "GET ftp://AT/ HTTP/1.1\r\nHost: AT\r\n\r\n"),
    ("port zero", "GET http://127.0.0.1:0/ HTTP/1.1\r\nHost: AT\r\n\r\n"),
    ("a port that is too large", "GET http://127.0.0.1:65536/ HTTP/1.1\r\nHost: AT\r\n\r\n"),
];

#[tokio::test]
async fn a_malformed_head_is_refused_and_the_connection_closed() {
    refused(MALFORMED_HEADS, 400, "bad-request").await;
}

#[tokio::test]
async fn a_malformed_body_is_refused_and_the_connection_closed() {
    let head = "POST http://AT/echo HTTP/1.1\r\nHost: AT\r\nTransfer-Encoding: chunked\r\n\r\n";
    let bodies = [
        ("a chunk without a size", "\r\n\r\n"),
        ("a size that is no number", "zz\r\nab\r\n0\r\n\r\n"),
        ("a signed size", "-1\r\nab\r\n0\r\n\r\n"),
        ("a size past 64 bits", "fffffffffffffffff\r\nab\r\n0\r\n\r\n"),
        ("a chunk that is longer than its size", "1\r\nab\r\n0\r\n\r\n"),
        ("a bare LF after a size", "1\na\r\n0\r\n\r\n"),
        ("a length that trails", "1\r\na\r\n0\r\nContent-Length: 5\r\n\r\n"),
        ("a coding that trails", "1\r\na\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("a Host that trails", "1\r\na\r\n0\r\nHost: b.test\r\n\r\n"),
        ("credentials that trail", "1\r\na\r\n0\r\nAuthorization: x\r\n\r\n"),
        ("a key that trails", "1\r\na\r\n0\r\nIdempotency-Key: x\r\n\r\n"),
        ("a folded trailer", "1\r\na\r\n0\r\nX: y\r\n z\r\n\r\n"),
    ];
    let requests: Vec<_> =
        bodies.iter().map(|(what, body)| (*what, format!("{head}{body}"))).collect();
    let requests: Vec<_> =
        requests.iter().map(|(what, request)| (*what, request.as_str())).collect();
    refused(&requests, 400, "bad-request").await;
}

#[tokio::test]
async fn a_malformed_connect_is_refused_and_the_connection_closed() {
    let requests = [
        ("a length", "CONNECT AT HTTP/1.1\r\nHost: AT\r\nContent-Length: 5\r\n\r\nhello"),
        ("no length but a field", "CONNECT AT HTTP/1.1\r\nHost: AT\r\nContent-Length: 0\r\n\r\n"),
        (
            "chunks",
            "CONNECT AT HTTP/1.1\r\nHost: AT\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("no port", "CONNECT localhost HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ("an empty port", "CONNECT localhost: HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ("port zero", "CONNECT localhost:0 HTTP/1.1\r\nHost: localhost:0\r\n\r\n"),
        ("another Host", "CONNECT AT HTTP/1.1\r\nHost: b.test\r\n\r\n"),
        ("another port in Host", "CONNECT AT HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n"),
        ("a user", "CONNECT u@AT HTTP/1.1\r\nHost: AT\r\n\r\n"),
        ("a URL", "CONNECT http://AT/ HTTP/1.1\r\nHost: AT\r\n\r\n"),
        ("a path", "CONNECT /x HTTP/1.1\r\nHost: AT\r\n\r\n"),
    ];
    refused(&requests, 400, "bad-request").await;
}

#[tokio::test]
async fn a_head_past_a_limit_is_refused_and_one_at_it_is_served() {
    let provider = provider().await;
    let listener = "listeners: [{address: '127.0.0.1:0', header_size: 8KiB, header_count: 10, uri_size: 1KiB}]\n";
    let samekey = Samekey::beside(&provider, &format!("{listener}{OPEN}")).await;
    let at = provider.ports.http_addr;
    let with = |path: &str, fields: &str| {
        format!("GET http://{at}{path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n{fields}\r\n")
    };
    let path = |length: usize| format!("/status/200?{}", "x".repeat(length));
    let base = format!("http://{at}/status/200?").len();
    let large = |bytes: usize| format!("X: {}\r\n", "y".repeat(bytes));
    for (what, request, wanted) in [
        ("a target at the limit", with(&path(1024 - base), ""), 200),
        ("a target past the limit", with(&path(1025 - base), ""), 431),
        ("fields at the limit", with("/status/200", &"a: b\r\n".repeat(8)), 200),
        ("fields past the limit", with("/status/200", &"a: b\r\n".repeat(9)), 431),
        ("a head under the limit", with("/status/200", &large(7 * 1024)), 200),
        ("a head past the limit", with("/status/200", &large(9 * 1024)), 431),
        ("a head far past the limit", with("/status/200", &large(4 << 20)), 431),
        ("a target without an end", format!("GET http://{at}/{}", "x".repeat(4 << 20)), 431),
    ] {
        let (seen, closed) = push(samekey.proxy, request.as_bytes()).await;
        let (status, slug, _) = last_response(&seen);
        assert_eq!((status, closed), (wanted, true), "{what}: {seen:.300}");
        assert!(wanted == 200 || slug == "header-too-large", "{what}: {seen:.300}");
    }
}

#[tokio::test]
async fn what_follows_a_good_request_is_judged_for_itself() {
    let provider = provider().await;
    let samekey = Samekey::beside(&provider, OPEN).await;
    let at = provider.ports.http_addr;
    let good = format!(
        "POST http://{at}/s/good/v1/jobs HTTP/1.1\r\nHost: {at}\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    let bad = format!("GET http://{at}/s/bad/echo HTTP/1.1\r\nHost: {at}\r\nX : y\r\n\r\n");
    let seen = raw(samekey.proxy, format!("{good}{good}{bad}{good}").as_bytes()).await;
    let statuses: Vec<_> = seen.matches("HTTP/1.1 ").collect();
    assert_eq!(statuses.len(), 3, "{seen}");
    assert_eq!(seen.matches("HTTP/1.1 201").count(), 2, "{seen}");
    assert_eq!(last_response(&seen).0, 400, "{seen}");
    assert_eq!((provider.effects("good"), provider.seen("bad").len()), (2, 0));
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_is_still_sending() {
    let provider = provider().await;
    provider.script("early", "early 413 forever");
    let samekey = Samekey::beside(&provider, OPEN).await;
    let at = provider.ports.http_addr;
    let body = "x".repeat(8 << 20);
    for (path, field, wanted) in [
        ("/echo", "X : y", 400),
        ("/s/early/echo", "X: y", 413),
        ("/echo", "Content-Length: 1", 400),
    ] {
        let length = body.len();
        let head = format!(
            "POST http://{at}{path} HTTP/1.1\r\nHost: {at}\r\n{field}\r\nContent-Length: {length}\r\n\r\n"
        );
        let (seen, _) = push(samekey.proxy, format!("{head}{body}").as_bytes()).await;
        assert_eq!(last_response(&seen).0, wanted, "{path} {field}: {seen:.300}");
    }
}

#[tokio::test]
async fn connect_is_granted_to_old_clients_too() {
    let provider = provider().await;
    let at = provider.ports.http_addr;
    let port = at.port();
    for config in [OPEN, BLIND] {
        let samekey = Samekey::beside(&provider, config).await;
        for head in [
            format!("CONNECT {at} HTTP/1.0\r\n\r\n"),
            format!("CONNECT {at} HTTP/1.1\r\n\r\n"),
            format!("CONNECT {at} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
            format!("CONNECT LOCALHOST:{port} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n"),
            format!("CONNECT {at} HTTP/1.1\r\nHost: {at}\r\nProxy-Connection: keep-alive\r\n\r\n"),
        ] {
            let host =
                if head.contains("LOCAL") { format!("localhost:{port}") } else { at.to_string() };
            let inside =
                format!("GET /status/200 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            let seen = raw(samekey.proxy, format!("{head}{inside}").as_bytes()).await;
            let statuses = seen.matches(" 200 OK\r\n").count();
            assert_eq!(statuses, 2, "{head:?}: {seen}");
        }
    }
}

/// Writes a head for ten seconds, byte by byte; whether all of it was taken.
async fn drip(mut writer: OwnedWriteHalf) -> bool {
    for byte in [b"GET http://a.test/ HTTP/1.1\r\nX: ".to_vec(), vec![b'y'; 200]].concat() {
        if writer.write_all(&[byte]).await.is_err() {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    true
}

#[tokio::test]
async fn a_client_that_is_slow_or_silent_is_let_go() {
    let listener =
        "listeners: [{address: '127.0.0.1:0', header_timeout: 300ms, idle_timeout: 600ms}]\n";
    let provider = provider().await;
    provider.script("slow", "slow 1500");
    let samekey = Samekey::beside(&provider, &format!("{listener}{OPEN}")).await;
    let at = provider.ports.http_addr;
    let proxy = samekey.proxy;
    let request = |path: &str| format!("GET http://{at}{path} HTTP/1.1\r\nHost: {at}\r\n\r\n");
    let slow = async {
        let stream = TcpStream::connect(proxy).await.expect("it listens");
        let (mut reader, writer) = stream.into_split();
        let dripping = tokio::spawn(drip(writer));
        let mut seen = Vec::new();
        let closed =
            tokio::time::timeout(Duration::from_secs(3), reader.read_to_end(&mut seen)).await;
        assert!(closed.is_ok(), "a head that drips is cut");
        assert!(dripping.await.is_ok_and(|taken| !taken), "a head that drips is not taken whole");
    };
    let silent = async {
        let mut stream = TcpStream::connect(proxy).await.expect("it listens");
        let closed = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut [0; 1])).await;
        assert!(closed.is_ok(), "a connection that says nothing is closed");
    };
    let idle = async {
        let mut stream = TcpStream::connect(proxy).await.expect("it listens");
        stream.write_all(request("/status/200").as_bytes()).await.expect("it is taken");
        let mut seen = String::new();
        let closed =
            tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut seen)).await;
        assert!(closed.is_ok() && seen.contains(" 200 OK"), "an idle connection is closed: {seen}");
    };
    let busy = async {
        let mut stream = TcpStream::connect(proxy).await.expect("it listens");
        stream.write_all(request("/s/slow/status/200").as_bytes()).await.expect("it is taken");
        let mut seen = String::new();
        stream.read_to_string(&mut seen).await.expect("it ends");
        assert!(seen.contains(" 200 OK"), "an exchange under way is not idle: {seen:?}");
    };
    tokio::join!(slow, silent, idle, busy);
}

#[tokio::test]
async fn connections_past_the_cap_wait_and_tunnels_count() {
    let provider = provider().await;
    let listener = "listeners: [{address: '127.0.0.1:0', max_connections: 2}]\n";
    for config in [OPEN, BLIND] {
        let samekey = Samekey::beside(&provider, &format!("{listener}{config}")).await;
        let at = provider.ports.http_addr;
        let one = connect(samekey.proxy, &at.to_string()).await.expect("a tunnel");
        let two = connect(samekey.proxy, &at.to_string()).await.expect("a tunnel");
        let series = format!("samekey_connections{{listener=\"{}\"}}", samekey.proxy);
        samekey.until(&series, 2.0).await;
        let mut third = TcpStream::connect(samekey.proxy).await.expect("the kernel takes it");
        let request = format!(
            "GET http://{at}/status/200 HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n"
        );
        third.write_all(request.as_bytes()).await.expect("the kernel takes it");
        let early = tokio::time::timeout(Duration::from_millis(200), third.readable()).await;
        assert!(early.is_err(), "a third connection waits");
        drop(one);
        let seen = read_all(&mut third).await;
        assert!(seen.contains(" 200 OK"), "it is served when there is a place: {seen}");
        drop(two);
        samekey.until(&series, 0.0).await;
    }
}

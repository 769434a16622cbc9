//! What peers send that should not pass: clients that break the rules, upstreams that lie.

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

#[tokio::test]
async fn a_request_inside_a_tunnel_is_for_the_tunnels_authority_alone() {
    let provider = provider().await;
    let samekey = Samekey::beside(&provider, OPEN).await;
    let at = provider.ports.http_addr;
    for (target, host, wanted) in [
        ("/status/200".to_owned(), at.to_string(), 200),
        ("/status/200".to_owned(), "127.0.0.1".to_owned(), 200),
        (format!("http://{at}/status/200"), at.to_string(), 200),
        (format!("http://{at}/status/200"), "b.test".to_owned(), 200),
        ("/status/200".to_owned(), "b.test".to_owned(), 400),
        ("/status/200".to_owned(), format!("127.0.0.1:{}", at.port().wrapping_add(1)), 400),
        ("http://b.test/status/200".to_owned(), at.to_string(), 400),
    ] {
        let mut tunnel = connect(samekey.proxy, &at.to_string()).await.expect("a tunnel");
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let again = format!("GET /status/200 HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
        tunnel.write_all(format!("{request}{again}").as_bytes()).await.expect("it is taken");
        let seen = read_all(&mut tunnel).await;
        let first: u16 = seen.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        assert_eq!(first, wanted, "{target} for {host}: {seen}");
        assert_eq!(
            seen.contains("urn:samekey:misdirected"),
            wanted == 400,
            "{target} for {host}: {seen}"
        );
        assert_eq!(
            last_response(&seen).0,
            200,
            "{target} for {host}: the connection stays open: {seen}"
        );
    }
    assert!(provider.seen("default").iter().all(|seen| {
        seen.headers
            .iter()
            .any(|(name, value)| name.eq_ignore_ascii_case("host") && *value == at.to_string())
    }));
}

#[tokio::test]
async fn a_connect_inside_a_tunnel_or_to_a_base_url_is_refused() {
    let provider = provider().await;
    let at = provider.ports.http_addr;
    let listeners = format!(
        "listeners: [{{address: '127.0.0.1:0'}}, {{address: '127.0.0.1:0', mode: reverse, upstream: 'http://{at}'}}]\n"
    );
    let samekey = Samekey::beside(&provider, &format!("{listeners}{OPEN}")).await;
    let request = format!("CONNECT {at} HTTP/1.1\r\nHost: {at}\r\n\r\n");
    let mut tunnel = connect(samekey.proxy, &at.to_string()).await.expect("a tunnel");
    tunnel.write_all(request.as_bytes()).await.expect("it is taken");
    for seen in [read_all(&mut tunnel).await, raw(samekey.listeners[1], request.as_bytes()).await] {
        let (status, slug, _) = last_response(&seen);
        assert_eq!((status, slug.as_str()), (400, "bad-request"), "{seen}");
    }
    assert!(provider.seen("default").is_empty(), "{:#?}", provider.seen("default"));
}

/// What a GET through a tunnel is answered, or the tunnel itself where it is refused.
async fn inside(proxy: SocketAddr, authority: &str, path: &str) -> String {
    let mut tunnel = match connect(proxy, authority).await {
        Ok(tunnel) => tunnel,
        Err(refusal) => return refusal,
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    tunnel.write_all(request.as_bytes()).await.expect("it is taken");
    read_all(&mut tunnel).await
}

#[tokio::test]
async fn what_would_come_back_to_us_is_a_loop_by_whatever_name() {
    let provider = provider().await;
    for config in [OPEN, BLIND, ROUTED] {
        let samekey = Samekey::beside(&provider, config).await;
        let client = Client::through(&samekey);
        for port in [samekey.proxy.port(), samekey.admin.port()] {
            for host in
                ["127.0.0.1", "localhost", "LocalHost.", "0.0.0.0", "[::ffff:127.0.0.1]", "127.1"]
            {
                let authority = format!("{host}:{port}");
                let answer = client.get(&format!("http://{authority}/metrics")).await;
                assert_eq!(problem(&answer), (508, "loop".to_owned()), "{authority}");
                let inside = inside(samekey.proxy, &authority, "/").await;
                assert!(inside.contains(" 508 "), "a tunnel to {authority}: {inside}");
            }
        }
    }
}

#[tokio::test]
async fn a_wildcard_listener_is_found_by_each_address_of_the_machine() {
    let provider = provider().await;
    let listener = "listeners: [{address: '[::]:0', auth: open}]\n";
    let samekey = Samekey::beside(&provider, &format!("{listener}{OPEN}")).await;
    let port = samekey.proxy.port();
    let proxy = SocketAddr::from(([127, 0, 0, 1], port));
    for host in ["127.0.0.1", "[::1]", "localhost", "127.0.0.2", "[::]", "0.0.0.0"] {
        let fields = format!("Host: {host}:{port}\r\nConnection: close\r\n");
        let request = format!("GET http://{host}:{port}/ HTTP/1.1\r\n{fields}\r\n");
        let seen = raw(proxy, request.as_bytes()).await;
        assert_eq!(last_response(&seen).0, 508, "{host}: {seen}");
    }
}

/// Reaches the provider by address and by name, plainly and through a tunnel, under this
/// `egress`, and wants each allowed or not.
async fn reached(provider: &Provider, config: &str, egress: &str, allowed: [bool; 2]) {
    let samekey = Samekey::beside(provider, &format!("{config}egress: {egress}\n")).await;
    let client = Client::through(&samekey);
    for (host, allowed) in ["127.0.0.1", "localhost"].into_iter().zip(allowed) {
        let authority = format!("{host}:{}", provider.ports.http_addr.port());
        let answer = client.get(&format!("http://{authority}/status/200")).await;
        let wanted = if allowed { 200 } else { 403 };
        assert_eq!(answer.status.as_u16(), wanted, "{egress}: {host} {}", answer.text());
        assert!(allowed || problem(&answer).1 == "forbidden-destination", "{egress}: {host}");
        let inside = inside(samekey.proxy, &authority, "/status/200").await;
        assert!(inside.contains(&format!(" {wanted} ")), "{egress}: {host}: {inside}");
    }
}

#[tokio::test]
async fn egress_is_judged_by_the_resolved_address() {
    let provider = provider().await;
    for (egress, allowed) in [
        ("{deny: [127.0.0.0/8, '::1']}", [false, false]),
        ("{deny: [127.0.0.1]}", [false, false]),
        ("{allow: [10.0.0.0/8]}", [false, false]),
        ("{allow: [localhost]}", [false, true]),
        ("{allow: ['127.0.0.0/8']}", [true, true]),
        ("{allow: [localhost, '127.0.0.0/8'], deny: [10.0.0.0/8]}", [true, true]),
        ("{allow: [localhost], deny: ['127.0.0.0/8', '::1']}", [false, false]),
    ] {
        reached(&provider, OPEN, egress, allowed).await;
        reached(&provider, BLIND, egress, allowed).await;
    }
}

#[tokio::test]
async fn a_password_is_asked_for_once_a_connection_and_never_goes_on() {
    let provider = provider().await;
    let at = provider.ports.http_addr;
    let folder = tempfile::tempdir().expect("a folder");
    let password = folder.path().join("password");
    std::fs::write(&password, "open sesame\n").expect("written");
    let auth = format!("{{user: ali, password_file: '{}'}}", password.display());
    let listeners = format!(
        "listeners: [{{address: '127.0.0.1:0', auth: {auth}}}, {{address: '127.0.0.1:0', mode: reverse, upstream: 'http://{at}', auth: {auth}}}]\n"
    );
    let samekey = Samekey::beside(&provider, &format!("{listeners}{OPEN}")).await;
    let right = "Proxy-Authorization: Basic YWxpOm9wZW4gc2VzYW1l\r\n";
    for (field, wanted) in [
        ("", 407),
        ("Proxy-Authorization: Basic YWxpOndyb25n\r\n", 407),
        ("Proxy-Authorization: Basic !\r\n", 407),
        ("Proxy-Authorization: Bearer YWxpOm9wZW4gc2VzYW1l\r\n", 407),
        ("Authorization: Basic YWxpOm9wZW4gc2VzYW1l\r\n", 407),
        (right, 200),
        ("proxy-authorization: basic  YWxpOm9wZW4gc2VzYW1l\r\n", 200),
    ] {
        for (proxy, target) in [
            (samekey.listeners[0], format!("GET http://{at}/status/200")),
            (samekey.listeners[1], "GET /status/200".to_owned()),
            (samekey.listeners[0], format!("CONNECT {at}")),
        ] {
            let request = format!("{target} HTTP/1.1\r\nHost: {at}\r\n{field}\r\n");
            let mut stream = TcpStream::connect(proxy).await.expect("it listens");
            stream.write_all(request.as_bytes()).await.expect("it is taken");
            let mut first = vec![0; 4096];
            let count = stream.read(&mut first).await.expect("it answers");
            let seen = String::from_utf8_lossy(&first[..count]).into_owned();
            let (status, _, head) = last_response(&seen);
            assert_eq!(status, wanted, "{target} {field}: {seen}");
            assert!(wanted == 200 || head.contains("proxy-authenticate: basic"), "{seen}");
            assert!(!head.contains("connection: close"), "{target} {field}: {seen}");
        }
    }
    let inside = format!(
        "CONNECT {at} HTTP/1.1\r\n{right}\r\nGET /status/200 HTTP/1.1\r\nHost: {at}\r\n\r\n"
    );
    assert_eq!(raw(samekey.proxy, inside.as_bytes()).await.matches(" 200 OK").count(), 2);
    for seen in provider.seen("default") {
        assert!(
            !seen.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("proxy-authorization"))
        );
    }
}

/// An upstream that says these bytes to each request, and then closes.
async fn liar(says: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(lie(stream, says));
        }
    });
    address
}

async fn lie(mut stream: TcpStream, says: &[u8]) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    // What it says is what the test is about, not whether it was taken.
    drop(stream.write_all(says).await);
    drop(stream.shutdown().await);
}

#[tokio::test]
async fn a_head_that_is_no_answer_is_an_upstream_protocol_problem() {
    let samekey = Samekey::start(OPEN).await;
    for says in [
        &b"nonsense\r\n\r\n"[..],
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/3.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 100\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"",
        b"\x16\x03\x01\x00\x05",
    ] {
        let at = liar(says).await;
        let answer = Client::through(&samekey).get(&format!("http://{at}/")).await;
        let shown = says.escape_ascii();
        assert_eq!(problem(&answer), (502, "upstream-protocol".to_owned()), "{shown}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_never_looks_complete() {
    let samekey = Samekey::start(OPEN).await;
    for (says, whole) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"[..], true),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", true),
        (b"HTTP/1.0 200 OK\r\n\r\nhello", true),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", true),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\nmore", true),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello", false),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", false),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", false),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n", false),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n", false),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nhello", false),
    ] {
        let at = liar(says).await;
        let shown = says.escape_ascii();
        for _ in 0..2 {
            let answer = Client::through(&samekey).get(&format!("http://{at}/")).await;
            assert_eq!(
                (answer.status.as_u16(), answer.whole),
                (200, whole),
                "{shown}: {:?}",
                answer.body
            );
            assert!(b"hello".starts_with(&answer.body[..]), "{shown}: {:?}", answer.body);
        }
    }
}

#[tokio::test]
async fn a_truncated_answer_breaks_off_on_every_way_through() {
    for alpn in ["h2", "http/1.1"] {
        let options = Options { alpn: vec![alpn.to_owned()], ..Options::default() };
        let provider = Provider::start(options).await.expect("a provider");
        let samekey = Samekey::beside(&provider, ROUTED).await;
        let client = Client::through(&samekey);
        for step in ["truncate", "truncate_reset", "bad_chunk"] {
            for client in [client.clone(), client.clone().h2()] {
                provider.script("s", &format!("{step} forever"));
                let url = provider.ports.https_url("/s/s/status/200");
                let sent = client.try_send(Method::GET, &url, &[], "").await;
                let whole = sent.is_ok_and(|answer| answer.status == 200 && answer.whole);
                assert!(!whole, "{step} over {alpn} looks complete");
            }
        }
    }
}

#[tokio::test]
async fn an_upstream_that_cannot_prove_who_it_is_gets_nothing() {
    let wrong = Options { names: vec!["other.test".to_owned()], ..Options::default() };
    let wrong = Provider::start(wrong).await.expect("a provider");
    let right = provider().await;
    // The first one's name is wrong; the second one's CA is not trusted.
    let samekey = Samekey::beside(&wrong, ROUTED).await;
    for provider in [&wrong, &right] {
        let url = provider.ports.https_url("/status/200");
        let answer = Client::through(&samekey).get(&url).await;
        assert_eq!(problem(&answer), (502, "upstream-tls".to_owned()), "{}", answer.text());
        assert_eq!(answer.header("samekey-attempts"), "1");
        assert!(provider.seen("default").is_empty());
    }
    let plain = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = plain.local_addr().expect("it is bound").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = plain.accept().await {
            drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await);
        }
    });
    let answer = Client::through(&samekey).get(&format!("https://localhost:{port}/")).await;
    assert_eq!(problem(&answer).1, "upstream-tls", "no TLS at all: {}", answer.text());
}

#[tokio::test]
async fn nobody_there_is_upstream_unreachable() {
    let samekey = Samekey::start(ROUTED).await;
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let at = free.local_addr().expect("it is bound");
    drop(free);
    let client = Client::through(&samekey);
    for url in [
        format!("http://{at}/"),
        format!("https://{at}/"),
        "http://no.such.host.invalid/".to_owned(),
    ] {
        let answer = client.get(&url).await;
        assert_eq!(problem(&answer), (502, "upstream-unreachable".to_owned()), "{url}");
    }
}

#[tokio::test]
async fn garbage_after_connections_never_stops_it() {
    let mut samekey = Samekey::start(OPEN).await;
    for seed in 0..40_u8 {
        let bytes: Vec<u8> =
            (0..200_u8).map(|n| n.wrapping_mul(31).wrapping_add(seed.wrapping_mul(77))).collect();
        let mut stream = TcpStream::connect(samekey.proxy).await.expect("it listens");
        // It may hang up at the first byte.
        drop(stream.write_all(&bytes).await);
        if let Ok(mut tunnel) = connect(samekey.proxy, "no.such.host.invalid:443").await {
            drop(tunnel.write_all(&bytes).await);
        }
    }
    let series = format!("samekey_connections{{listener=\"{}\"}}", samekey.proxy);
    samekey.until(&series, 0.0).await;
    samekey.signal(Signal::TERM);
    assert_eq!(samekey.ended().await.code(), Some(0));
    let panics: Vec<_> =
        samekey.log().into_iter().filter(|line| line.contains("panicked")).collect();
    assert!(panics.is_empty(), "{panics:#?}");
}

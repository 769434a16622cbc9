//! What passes through: bodies of any size, trailers, tunnels, switched protocols, drains.

mod drain;
mod untouched;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Frame;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::provider::{Options, Provider};
use crate::support::client::{connect, raw, read_all};
use crate::support::{Client, Samekey};

/// One route over everything.
const ROUTED: &str = "
providers: []
routes:
  - name: all
    match: {hosts: ['*']}
    retry: {backoff: {initial: 5ms, max: 20ms}}
";

const BLIND: &str = "intercept: {hosts: none}\nroutes: []\nproviders: []\n";

async fn provider() -> Provider {
    Provider::start(Options::default()).await.expect("a provider")
}

/// A head and a body, in the answer that this holds.
fn split(seen: &str) -> (&str, &str) {
    seen.split_once("\r\n\r\n").unwrap_or((seen, ""))
}

#[tokio::test]
async fn path_and_query_go_on_byte_for_byte() {
    let provider = provider().await;
    let samekey = Samekey::beside(&provider, ROUTED).await;
    let at = provider.ports.http_addr;
    let targets = [
        "/",
        "/?",
        "/a?",
        "//",
        "//a//b/",
        "/a/../b/./c",
        "/%7Ea/%2e%2E/%2f",
        "/a%2Fb%2fc",
        "/a+b%20c?d+e%20f",
        "/a;b=c,d",
        "/?a=b&&c=&=d",
        "/?a=b?c=d??",
        "/a:b@c!$&'()*",
        "/%00%0a",
        "/caf%C3%A9",
        "/a%",
        "/a%zz",
        "/?q={x}|[y]",
        "/a\\b",
        "/?redirect=http://b.test/x?y=z",
        "/*",
    ];
    for target in targets {
        for line in [format!("http://{at}{target}"), target.to_owned()] {
            let request = format!("GET {line} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
            if line == target {
                let mut tunnel = connect(samekey.proxy, &at.to_string()).await.expect("a tunnel");
                tunnel.write_all(request.as_bytes()).await.expect("it is taken");
                read_all(&mut tunnel).await;
            } else {
                raw(samekey.proxy, request.as_bytes()).await;
            }
            let seen = provider.seen("default");
            assert_eq!(seen.last().map(|seen| seen.path.as_str()), Some(target), "{line}");
        }
    }
    for (line, wanted) in [
        (format!("http://{at}"), "/"),
        (format!("http://{at}?a=b"), "/?a=b"),
        (format!("HTTP://{at}/X"), "/X"),
    ] {
        raw(
            samekey.proxy,
            format!("GET {line} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n").as_bytes(),
        )
        .await;
        assert_eq!(
            provider.seen("default").last().map(|seen| seen.path.clone()).as_deref(),
            Some(wanted),
            "{line}"
        );
    }
}

/// Fields that are the upstream's to see, and two that are ours.
const END_TO_END: &[(&str, &str)] = &[
    ("authorization", "Bearer t"),
    ("te", "trailers"),
    ("samekey-key", "order-1"),
    ("samekey-trace", "1"),
    ("forwarded", "for=9.9.9.9"),
    ("x-forwarded-for", "9.9.9.9"),
    ("x-empty", ""),
    ("x-twice", "1"),
    ("x-twice", "2"),
    ("cookie", "a=1"),
    ("cookie", "b=2"),
];

/// Fields that end at the first hop, and a nomination of some that must not.
const ONE_HOP: &[(&str, &str)] = &[
    ("connection", "keep-alive, x-hop, Idempotency-Key, Authorization, TE"),
    ("proxy-connection", "keep-alive"),
    ("keep-alive", "timeout=5"),
    ("proxy-authorization", "Basic eDp5"),
    ("x-hop", "1"),
];

/// What of both an upstream sees.
const ARRIVES: &[(&str, &[&str])] = &[
    ("authorization", &["Bearer t"]),
    ("te", &["trailers"]),
    ("via", &["1.1 samekey"]),
    ("forwarded", &["for=9.9.9.9"]),
    ("x-forwarded-for", &["9.9.9.9"]),
    ("x-empty", &[""]),
    ("x-twice", &["1", "2"]),
    ("x-hop", &[]),
    ("keep-alive", &[]),
    ("proxy-connection", &[]),
    ("proxy-authorization", &[]),
    ("samekey-key", &[]),
    ("samekey-trace", &[]),
];

#[tokio::test]
async fn fields_of_one_hop_end_here_and_the_others_go_on() {
    // An upstream of HTTP/2 cannot even say them.
    let options = Options { alpn: vec!["http/1.1".to_owned()], ..Options::default() };
    let provider = Provider::start(options).await.expect("a provider");
    provider.script(
        "s",
        "ok +samekey-attempts:99 +samekey-x:1 +connection:x-hop +x-hop:1 +keep-alive:timeout=9 +proxy-authenticate:Basic +x-end:1 forever",
    );
    let samekey = Samekey::beside(&provider, ROUTED).await;
    let client = Client::through(&samekey);
    for (url, h2, key) in [
        (provider.ports.http_url("/s/s/inspect"), false, "k-1"),
        (provider.ports.https_url("/s/s/inspect"), false, "k-2"),
        (provider.ports.https_url("/s/s/inspect"), true, "k-3"),
    ] {
        let mut fields = [END_TO_END, &[("idempotency-key", key)]].concat();
        if !h2 {
            fields.extend(ONE_HOP);
        }
        let client = if h2 { client.clone().h2() } else { client.clone() };
        let answer = client.send(Method::GET, &url, &fields, "").await;
        let shown = answer.json();
        let got = |name: &str| -> Vec<String> {
            let rows = shown["headers"].as_array().cloned().unwrap_or_default();
            let rows = rows
                .iter()
                .filter(|row| row[0].as_str().is_some_and(|n| n.eq_ignore_ascii_case(name)));
            rows.filter_map(|row| row[1].as_str().map(str::to_owned)).collect()
        };
        let authority = url.split('/').nth(2).expect("an authority");
        let host = [got("host"), got(":authority")].concat();
        assert_eq!(host, [authority], "{url}: Host follows the target: {shown:#}");
        assert_eq!(got("idempotency-key"), [key], "{url}: {shown:#}");
        for (name, wanted) in ARRIVES {
            assert_eq!(got(name), *wanted, "{url} {name}: {shown:#}");
        }
        assert_eq!(got("cookie").join("; "), "a=1; b=2");
        assert!(
            answer.headers.get_all("samekey-attempts").iter().eq(["1"]),
            "{:#?}",
            answer.headers
        );
        assert!(
            !answer.headers.contains_key("samekey-x")
                && !answer.headers.contains_key("proxy-authenticate")
        );
        assert!(answer.header("via") == "1.1 samekey" && answer.header("x-end") == "1");
    }
}

#[tokio::test]
async fn host_follows_the_target_whatever_the_client_wrote_there() {
    let provider = provider().await;
    let samekey = Samekey::beside(&provider, ROUTED).await;
    let at = provider.ports.http_addr;
    let request =
        format!("GET http://{at}/ HTTP/1.1\r\nHost: b.test:99\r\nConnection: close\r\n\r\n");
    raw(samekey.proxy, request.as_bytes()).await;
    let seen = provider.seen("default").pop().expect("it arrived");
    let hosts: Vec<_> =
        seen.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("host")).collect();
    assert!(hosts.len() == 1 && hosts[0].1 == at.to_string(), "{hosts:?}");
}

#[tokio::test]
async fn answers_without_a_body_keep_their_fields_and_the_connection() {
    let provider = provider().await;
    provider.script("s", "ok; 204; 304 +etag:x +content-length:7; 200 body=; 205; ok");
    let samekey = Samekey::beside(&provider, ROUTED).await;
    let at = provider.ports.http_addr;
    let request = |method: &str, path: &str| {
        format!("{method} http://{at}{path} HTTP/1.1\r\nHost: {at}\r\n\r\n")
    };
    let all = [
        request("HEAD", "/s/s/bytes/1234"),
        request("GET", "/s/s/echo"),
        request("GET", "/s/s/echo"),
        request("GET", "/s/s/echo"),
        request("GET", "/s/s/echo"),
        request("GET", "/s/s/bytes/5"),
    ];
    let seen = raw(samekey.proxy, all.concat().as_bytes()).await;
    let statuses: Vec<_> =
        seen.match_indices("HTTP/1.1 ").filter_map(|(at, _)| seen.get(at + 9..at + 12)).collect();
    assert_eq!(statuses, ["200", "204", "304", "200", "205", "200"], "{seen}");
    assert!(split(&seen).0.to_ascii_lowercase().contains("content-length: 1234"), "{seen}");
    assert!(seen.ends_with("\0\0\0\0\0"), "{seen}");
    let client = Client::through(&samekey).h2();
    for (method, path, status, length) in [
        (Method::HEAD, "/bytes/1234", 200, "1234"),
        (Method::GET, "/status/204", 204, ""),
        (Method::GET, "/bytes/0", 200, "0"),
    ] {
        let answer = client.send(method, &provider.ports.https_url(path), &[], "").await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("content-length"), answer.whole),
            (status, length, true)
        );
    }
}

/// A body of these pieces, whose trailers follow.
fn pieces(
    pieces: Vec<Bytes>,
    trailers: Option<(&'static str, &'static str)>,
) -> impl http_body::Body<Data = Bytes, Error = Infallible> {
    let mut frames: Vec<_> = pieces.into_iter().map(Frame::data).collect();
    frames.extend(trailers.map(|(name, value)| {
        let mut map = http::HeaderMap::new();
        map.insert(name, value.parse().expect("a value"));
        Frame::trailers(map)
    }));
    http_body_util::StreamBody::new(futures_util::stream::iter(frames.into_iter().map(Ok)))
}

#[tokio::test]
async fn trailers_go_both_ways() {
    for alpn in ["h2", "http/1.1"] {
        let options = Options { alpn: vec![alpn.to_owned()], ..Options::default() };
        let provider = Provider::start(options).await.expect("a provider");
        let samekey = Samekey::beside(&provider, ROUTED).await;
        for h2 in [true, false] {
            provider.script("s", "ok chunked +trailer:x-sim-trailer forever");
            let url = provider.ports.https_url("/s/s/echo");
            let client =
                if h2 { Client::through(&samekey).h2() } else { Client::through(&samekey) };
            let body = pieces(vec![Bytes::from_static(b"hello")], Some(("x-digest", "abc")));
            let mut request =
                Request::post(&url).header("trailer", "x-digest").header("te", "trailers");
            if !h2 {
                let uri: http::Uri = url.parse().expect("a URL");
                request = request
                    .uri(uri.path())
                    .header("host", uri.authority().expect("a host").as_str());
            }
            let request = request.body(body).expect("a request");
            let stream = client.tls(&url.parse().expect("a URL")).await.expect("a tunnel");
            let response = send(stream, request, h2).await;
            assert_eq!(response.status(), 200);
            let whole = response.into_body().collect().await.expect("it is whole");
            let trailer = whole.trailers().and_then(|map| map.get("x-sim-trailer")).cloned();
            assert_eq!(trailer.expect("a trailer came down"), "1", "{alpn} {h2}");
            assert_eq!(whole.to_bytes(), "hello");
            let seen = provider.seen("s");
            let up = &seen.last().expect("it arrived").trailers;
            assert_eq!(up.len(), 1, "{alpn} {h2}: {up:?}");
            assert!(up[0].0.eq_ignore_ascii_case("x-digest") && up[0].1 == "abc");
        }
    }
}

/// Sends one request on a new connection.
async fn send<IO, B>(io: IO, request: Request<B>, h2: bool) -> http::Response<hyper::body::Incoming>
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    B: http_body::Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let io = TokioIo::new(io);
    if h2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io)
                .await
                .expect("HTTP/2");
        tokio::spawn(connection);
        return sender.send_request(request).await.expect("an answer");
    }
    let (mut sender, connection) = http1::handshake(io).await.expect("HTTP/1");
    tokio::spawn(connection);
    sender.send_request(request).await.expect("an answer")
}

#[tokio::test]
async fn without_an_upstream_the_first_segment_of_the_path_names_it() {
    let provider = provider().await;
    let listeners = "listeners: [{address: '127.0.0.1:0', mode: reverse}]\n";
    let samekey = Samekey::beside(&provider, &format!("{listeners}{ROUTED}")).await;
    let tls = provider.ports.https_url("").replace("https://", "/");
    let plain = provider.ports.http_url("").replace("http://", "/http:");
    for upstream in [&tls, &plain] {
        provider.script("s", "503; ok");
        let path = format!("{upstream}/s/s/inspect?x=%2f");
        let answer = crate::support::client::get(samekey.proxy, &path).await;
        let attempts = answer.header("samekey-attempts");
        assert_eq!((answer.status.as_u16(), attempts), (200, "2"), "{path}");
        let paths: Vec<_> = provider.seen("s").into_iter().map(|row| row.path).collect();
        assert_eq!(paths, ["/s/s/inspect?x=%2f"; 2]);
    }
    let answer = crate::support::client::get(samekey.proxy, "/v1/jobs").await;
    let told = answer.text();
    assert_eq!(answer.status, 400, "{told}");
    assert!(told.contains("as in /api.example.com/v1/jobs"), "{told}");
}

#[tokio::test]
async fn a_base_url_leads_to_its_upstream() {
    let provider = provider().await;
    let listeners = |upstream: &str| {
        format!("listeners: [{{address: '127.0.0.1:0', mode: reverse, upstream: '{upstream}'}}]\n")
    };
    for upstream in [provider.ports.http_url(""), provider.ports.https_url("")] {
        let samekey =
            Samekey::beside(&provider, &format!("{}{ROUTED}", listeners(&upstream))).await;
        provider.script("s", "503; ok");
        let request = "GET //s/../s/s/inspect?x=%2f HTTP/1.1\r\nHost: whatever.test\r\nConnection: close\r\n\r\n";
        raw(samekey.proxy, request.as_bytes()).await;
        let seen = provider.seen("default");
        let last = seen.last().expect("it arrived");
        assert_eq!(last.path, "//s/../s/s/inspect?x=%2f");
        let host = last
            .headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("host") || name == ":authority");
        assert_eq!(host.map(|(_, value)| value.as_str()), upstream.split('/').nth(2));
        let url = format!("http://{}/s/s/status/200", samekey.proxy);
        let answer = crate::support::client::get(samekey.proxy, "/s/s/status/200").await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("samekey-attempts")),
            (200, "2"),
            "{url}"
        );
        let request = Request::get(&url).body(Full::<Bytes>::default()).expect("a request");
        let stream = TcpStream::connect(samekey.proxy).await.expect("it listens");
        assert_eq!(send(stream, request, true).await.status(), 200, "HTTP/2 with prior knowledge");
    }
}

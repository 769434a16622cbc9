//! What passes through: bodies of any size, trailers, tunnels, switched protocols, drains.

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
async fn a_protocol_that_both_sides_switch_to_passes_untouched() {
    let provider = provider().await;
    let samekey = Samekey::beside(&provider, ROUTED).await;
    let at = provider.ports.http_addr;
    let noise: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let head = format!(
        "Host: {at}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let plain = TcpStream::connect(samekey.proxy).await.expect("it listens");
    let tunnel = connect(samekey.proxy, &at.to_string()).await.expect("a tunnel");
    for (mut stream, target) in [(plain, format!("http://{at}/ws")), (tunnel, "/ws".to_owned())] {
        // The first bytes of the other protocol may come on the heels of the request.
        let request = [format!("GET {target} HTTP/1.1\r\n{head}").as_bytes(), b"early"].concat();
        stream.write_all(&request).await.expect("it is taken");
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\nearly") {
            seen.push(stream.read_u8().await.expect("the switch comes, and the echo"));
        }
        let text = String::from_utf8_lossy(&seen).to_ascii_lowercase();
        assert!(text.starts_with("http/1.1 101 "), "{text}");
        assert!(text.contains("connection: upgrade") && text.contains("upgrade: echo"), "{text}");
        let (mut reader, mut writer) = stream.into_split();
        let sent = noise.clone();
        let writing = tokio::spawn(async move {
            writer.write_all(&sent).await.expect("it is taken");
            writer.shutdown().await.expect("it is half-closed");
        });
        let mut back = Vec::new();
        reader.read_to_end(&mut back).await.expect("it ends");
        writing.await.expect("all was written");
        assert!(back == noise, "{} of {} bytes came back", back.len(), noise.len());
    }
}

#[tokio::test]
async fn an_offer_of_h2c_is_declined_and_costs_no_retry() {
    let provider = provider().await;
    provider.script("s", "503; ok");
    let samekey = Samekey::beside(&provider, ROUTED).await;
    let fields = [
        ("connection", "Upgrade, HTTP2-Settings"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAAQBAAAAAAIAAAAA"),
    ];
    let url = provider.ports.http_url("/s/s/status/200");
    let answer = Client::through(&samekey).send(Method::GET, &url, &fields, "").await;
    assert_eq!((answer.status.as_u16(), answer.header("samekey-attempts")), (200, "2"));
    let offered = |name: &str| {
        provider
            .seen("s")
            .iter()
            .any(|seen| seen.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name)))
    };
    assert!(!offered("upgrade") && !offered("http2-settings"));
}

#[tokio::test]
async fn a_client_that_waits_for_100_is_told_to_go_on() {
    let provider = provider().await;
    provider.script("s", "hundred; ok");
    let samekey = Samekey::beside(&provider, ROUTED).await;
    let at = provider.ports.http_addr;
    for _ in 0..2 {
        let mut stream = TcpStream::connect(samekey.proxy).await.expect("it listens");
        let head = format!(
            "POST http://{at}/s/s/v1/jobs HTTP/1.1\r\nHost: {at}\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("it is taken");
        let mut first = [0; 25];
        stream.read_exact(&mut first).await.expect("it is told");
        assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(b"{}").await.expect("it is taken");
        let rest = read_all(&mut stream).await;
        assert!(rest.starts_with("HTTP/1.1 201") && !rest.contains("100 Continue"), "{rest}");
    }
    assert!(
        provider
            .seen("s")
            .iter()
            .all(|seen| !seen.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("expect")))
    );
    let refused = format!(
        "POST http://127.0.0.1:{}/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
        samekey.admin.port()
    );
    let seen = raw(samekey.proxy, refused.as_bytes()).await;
    assert!(seen.starts_with("HTTP/1.1 508"), "a body that nobody wants is not asked for: {seen}");
}

#[tokio::test]
async fn a_stream_of_events_passes_piece_by_piece() {
    for alpn in ["h2", "http/1.1"] {
        let options = Options { alpn: vec![alpn.to_owned()], ..Options::default() };
        let provider = Provider::start(options).await.expect("a provider");
        let samekey = Samekey::beside(&provider, ROUTED).await;
        for h2 in [true, false] {
            provider.script("s", "drip 60 +content-type:text/event-stream body=data:1");
            let url = provider.ports.https_url("/s/s/status/200");
            let client =
                if h2 { Client::through(&samekey).h2() } else { Client::through(&samekey) };
            let mut request = Request::get(&url);
            if !h2 {
                let uri: http::Uri = url.parse().expect("a URL");
                request = request
                    .uri(uri.path())
                    .header("host", uri.authority().expect("a host").as_str());
            }
            let stream = client.tls(&url.parse().expect("a URL")).await.expect("a tunnel");
            let request = request.body(Full::<Bytes>::default()).expect("a request");
            let mut body = send(stream, request, h2).await.into_body();
            let mut got = Vec::new();
            while let Some(frame) = body.frame().await {
                got.extend(frame.expect("it is whole").into_data().ok().map(|data| data.len()));
            }
            got.retain(|length| *length > 0);
            assert_eq!(got, [1; 6], "{alpn}: each byte came by itself");
        }
    }
}

/// An upstream that says hello, then says everything back in reverse pieces, and ends when its client did.
async fn hello() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.write_all(b"220 hello\r\n").await.expect("it is taken");
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.expect("it ends");
                // Only a half-closed connection gets here and can still be written to.
                stream.write_all(&all).await.expect("it is taken");
                stream.shutdown().await.expect("it is taken");
            });
        }
    });
    address
}

#[tokio::test]
async fn what_is_not_http_passes_a_tunnel_byte_for_byte() {
    let at = hello().await;
    let noise: Vec<u8> =
        (0..500_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let open = "intercept: {hosts: all}\nroutes: []\nproviders: []\n";
    let ssh = b"SSH-2.0-OpenSSH_9.6\r\n".to_vec();
    let checks = [
        (BLIND, noise.clone(), false),
        (BLIND, Vec::new(), true),
        (open, ssh, false),
        (open, b"\0\x01binary".to_vec(), false),
        (open, noise, true),
    ];
    let checks = checks.map(|(config, mut sent, waits)| async move {
        let samekey = Samekey::start(config).await;
        let stream = connect(samekey.proxy, &at.to_string()).await.expect("a tunnel");
        let (mut reader, mut writer) = stream.into_split();
        let mut first = [0; 11];
        if waits {
            // The server speaks first, and the client waits for it.
            reader.read_exact(&mut first).await.expect("the greeting comes");
        } else {
            sent.insert(0, 0xff);
            sent.rotate_left(1);
        }
        let wanted = sent.clone();
        let writing = tokio::spawn(async move {
            writer.write_all(&sent).await.expect("it is taken");
            writer.shutdown().await.expect("it is half-closed");
            writer
        });
        if !waits {
            reader.read_exact(&mut first).await.expect("the greeting comes");
        }
        assert_eq!(&first, b"220 hello\r\n");
        let mut back = Vec::new();
        reader.read_to_end(&mut back).await.expect("it ends");
        assert!(back == wanted, "{} of {} bytes came back", back.len(), wanted.len());
        drop(writing.await.expect("all was written"));
        let up = samekey.metric("samekey_tunnel_bytes_total{direction=\"up\"}").await;
        let sent = u32::try_from(wanted.len()).expect("it is small");
        assert!((up - f64::from(sent)).abs() < 0.5, "{up} bytes were counted");
    });
    futures_util::future::join_all(checks).await;
}

#[tokio::test]
async fn a_large_body_passes_without_being_kept() {
    let provider = provider().await;
    let samekey = Samekey::beside(&provider, ROUTED).await;
    let at = provider.ports.http_addr;
    let size: u64 = 192 << 20;
    let piece = Bytes::from(vec![7; 1 << 16]);
    let count = usize::try_from(size >> 16).expect("it fits");
    for chunked in [false, true] {
        let stream = TcpStream::connect(samekey.proxy).await.expect("it listens");
        let mut request =
            Request::post(format!("http://{at}/s/up/sink")).header("host", at.to_string());
        if !chunked {
            request = request.header("content-length", size);
        }
        let body = pieces(vec![piece.clone(); count], None);
        let response = send(stream, request.body(body).expect("a request"), false).await;
        let text = response.into_body().collect().await.expect("it is whole").to_bytes();
        let sink: Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(sink["bytes"], size);
    }
    let stream = TcpStream::connect(samekey.proxy).await.expect("it listens");
    let request =
        Request::get(format!("http://{at}/s/down/bytes/{size}")).header("host", at.to_string());
    let request = request.body(Full::<Bytes>::default()).expect("a request");
    let mut body = send(stream, request, false).await.into_body();
    let mut got = 0;
    while let Some(frame) = body.frame().await {
        got += frame.expect("it is whole").into_data().map_or(0, |data| data.len() as u64);
    }
    assert_eq!(got, size);
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", samekey.pid())).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(peak < 96 * 1024, "{peak} KiB for bodies of {size} bytes");
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

#[tokio::test]
async fn a_drain_lets_exchanges_end_and_takes_no_more() {
    let provider = provider().await;
    provider.script("slow", "held");
    provider.script("drip", "drip 30 body=0123456789");
    let mut samekey = Samekey::beside(&provider, ROUTED).await;
    let client = Client::through(&samekey);
    let silent = TcpStream::connect(samekey.proxy).await.expect("it listens");
    let mut idle = TcpStream::connect(samekey.proxy).await.expect("it listens");
    let at = provider.ports.http_addr;
    idle.write_all(format!("GET http://{at}/status/200 HTTP/1.1\r\nHost: {at}\r\n\r\n").as_bytes())
        .await
        .expect("it is taken");
    provider.arrived("default", 1).await;
    let jobs = ["/s/slow/v1/jobs", "/s/drip/status/200"].map(|path| {
        let (client, url) = (client.clone(), provider.ports.https_url(path));
        tokio::spawn(async move { client.post(&url, "{}").await })
    });
    provider.arrived("slow", 1).await;
    provider.arrived("drip", 1).await;
    samekey.signal(Signal::TERM);
    while TcpStream::connect(samekey.proxy).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let ready = crate::support::client::get(samekey.admin, "/readyz").await;
    assert_eq!(ready.status, 503);
    provider.release();
    let [slow, drip] = jobs;
    assert_eq!(slow.await.expect("it ends").status, 201);
    let drip = drip.await.expect("it ends");
    assert_eq!((drip.text().as_str(), drip.whole), ("0123456789", true));
    let ended = tokio::time::timeout(Duration::from_secs(5), samekey.ended()).await;
    assert_eq!(ended.expect("idle connections do not hold it up").code(), Some(0));
    drop((silent, idle));
}

#[tokio::test]
async fn the_second_signal_ends_it_at_once_and_grace_ends_in_time() {
    let provider = provider().await;
    provider.script("s", "held forever");
    for (grace, signals) in [("60s", 2), ("300ms", 1)] {
        let config = format!("{ROUTED}shutdown: {{grace: {grace}}}\n");
        let mut samekey = Samekey::beside(&provider, &config).await;
        let (client, url) = (Client::through(&samekey), provider.ports.https_url("/s/s/v1/jobs"));
        let before = provider.seen("s").len();
        let job = tokio::spawn(async move { client.try_send(Method::POST, &url, &[], "{}").await });
        provider.arrived("s", before + 1).await;
        for _ in 0..signals {
            samekey.signal(Signal::TERM);
            while TcpStream::connect(samekey.proxy).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let ended = tokio::time::timeout(Duration::from_secs(10), samekey.ended()).await;
        assert!(ended.is_ok(), "{signals} signals, grace {grace}");
        assert!(job.await.expect("it ends").is_err(), "it was cut off");
    }
}

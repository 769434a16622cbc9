//! What passes for as long as it likes: switched protocols, events, tunnels, large bodies.

use super::*;

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

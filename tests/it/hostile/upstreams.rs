//! Upstreams that lie, break off, cannot prove who they are, or are not there.

use super::*;

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

//! What asks for more than it may: inside tunnels, in loops, past egress and passwords.

use super::*;

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
async fn an_order_that_comes_back_another_way_does_not_wait_for_itself() {
    let provider = provider().await;
    // A load balancer in front of the listener, whose address nobody can know for our own.
    let balancer = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let at = balancer.local_addr().expect("it is bound");
    let listeners = format!(
        "listeners: [{{address: '127.0.0.1:0', mode: reverse, upstream: 'http://{at}'}}]\n"
    );
    let samekey = Samekey::beside(&provider, &format!("{listeners}{ROUTED}")).await;
    let behind = samekey.proxy;
    tokio::spawn(async move {
        while let Ok((mut near, _)) = balancer.accept().await {
            tokio::spawn(async move {
                let mut far = TcpStream::connect(behind).await.expect("it listens");
                tokio::io::copy_bidirectional(&mut near, &mut far).await.unwrap_or_default();
            });
        }
    });
    for (method, fields) in [("GET", ""), ("POST", ""), ("POST", "Idempotency-Key: order-1\r\n")] {
        let fields = format!("Host: a.test\r\nContent-Length: 0\r\nConnection: close\r\n{fields}");
        let seen =
            raw(behind, format!("{method} /v1/jobs HTTP/1.1\r\n{fields}\r\n").as_bytes()).await;
        assert_eq!(last_response(&seen).0, 508, "{method} {fields}: {seen}");
        assert!(seen.contains("urn:samekey:loop"), "{method} {fields}: {seen}");
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

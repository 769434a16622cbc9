//! The admin side: whom it answers, and what it says is in force.

use super::*;

/// An address of this machine that is not loopback.
fn other_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?; // asks for a way there, and sends nothing
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

/// What the admin side answers to a request with these fields, by its address.
async fn admin(address: SocketAddr, head: &str) -> (u16, String) {
    let stream = TcpStream::connect(address).await.expect("it listens");
    let mut lines = head.split('\n');
    let (method, path) =
        lines.next().and_then(|line| line.split_once(' ')).expect("method and path");
    let fields: Vec<_> = lines.filter_map(|line| line.split_once(": ")).collect();
    let uri: http::Uri = format!("http://{address}{path}").parse().expect("a URL");
    let mut request = client::request(method.parse().expect("a method"), &uri, &[], "");
    for (name, value) in fields {
        let name: http::HeaderName = name.parse().expect("a name");
        request.headers_mut().insert(name, value.parse().expect("a value"));
    }
    let answer: Answer = client::over_http1(stream, request).await.expect("an answer");
    (answer.status.as_u16(), answer.text())
}

#[tokio::test]
async fn the_admin_side_answers_callers_on_loopback_and_no_web_page() {
    let samekey = Samekey::start(ROUTE).await;
    for (head, wanted) in [
        ("GET /livez", 200),
        ("GET /readyz", 200),
        ("GET /metrics", 200),
        ("GET /api/status", 200),
        ("GET /api/routes", 200),
        ("POST /api/reload", 200),
        ("GET /api/reload", 405),
        ("POST /api/status", 405),
        ("GET /api/nothing", 404),
        ("GET /nothing", 404),
        ("GET /", 200),
        ("POST /", 405),
        ("GET /\nHost: evil.test", 403),
        ("GET /\nOrigin: http://evil.test", 403),
        ("GET /api/exchanges?route=r", 200),
        ("GET /api/exchanges?limit=0", 400),
        ("GET /api/exchanges/1", 404),
        ("POST /api/exchanges/1/resolve", 404),
        ("GET /api/keys/k", 404),
        ("DELETE /api/keys/k", 404),
        ("POST /api/exchanges", 405),
        ("DELETE /api/exchanges/1", 405),
        ("GET /api/exchanges/1/resolve", 405),
        ("POST /api/keys/k", 405),
        ("POST /api/events", 405),
        ("GET /api/status\nHost: localhost:9090", 200),
        ("GET /api/status\nHost: evil.test", 403),
        ("GET /api/status\nHost: evil.test\nOrigin: http://evil.test", 403),
        ("POST /api/reload\nOrigin: http://evil.test", 403),
        ("POST /api/reload\nOrigin: null", 403),
        ("POST /api/exchanges/1/resolve\nOrigin: http://evil.test", 403),
    ] {
        let (status, text) = admin(samekey.admin, head).await;
        assert_eq!(status, wanted, "{head}: {text}");
        if head.contains("/api") && status >= 400 {
            let problem: Value = serde_json::from_str(&text).expect("a problem");
            assert_eq!(problem["status"], status, "{head}: {text}");
            assert!(problem["type"].as_str().expect("text").starts_with("urn:samekey:"), "{text}");
        }
    }
}

#[tokio::test]
async fn status_and_routes_say_what_is_in_force() {
    let samekey = Samekey::start(ROUTE).await;
    let status = client::get(samekey.admin, "/api/status").await.json();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["listeners"], serde_json::json!([samekey.proxy.to_string()]));
    assert_eq!((&status["config"], &status["draining"]), (&"samekey.yaml".into(), &false.into()));
    let routes = client::get(samekey.admin, "/api/routes").await.json();
    let route = &routes["routes"][0];
    assert_eq!((&route["name"], &route["upstream_dedupes"]), (&"r".into(), &true.into()));
    assert_eq!((&route["mode"], &route["budget_tokens"]), (&"enforce".into(), &100.into()));
    assert_eq!((&route["preset"], &route["written"]), (&Value::Null, &"samekey.yaml:6".into()));
    let policy = [&route["own"], &route["hosts"], &route["attempts"], &route["deadline_seconds"]];
    let wanted = serde_json::json!([true, ["localhost"], 4, 300.0]);
    assert_eq!(serde_json::json!(policy), wanted);
    let last = routes["routes"].as_array().and_then(|routes| routes.last()).expect("routes");
    let written = last["written"].as_str().expect("a place");
    assert!(written.starts_with("config/providers/"), "{last}");
    assert!(
        last["name"].as_str().expect("a name").starts_with(last["preset"].as_str().expect("one"))
    );
}

#[tokio::test]
async fn a_caller_from_elsewhere_reaches_what_is_exposed() {
    let Some(ip) = other_address() else { return };
    for (expose, wanted) in [("metrics", 403), ("all", 200)] {
        let folder = Arc::new(crate::support::program::folder_with(&format!(
            "listeners: [{{address: '127.0.0.1:0'}}]\nadmin: {{address: '0.0.0.0:0', expose: {expose}}}\n\
             state: {{journal: memory}}"
        )));
        let samekey = Samekey::run_in(folder).await;
        let elsewhere = SocketAddr::new(ip, samekey.admin.port());
        for path in ["/livez", "/readyz", "/metrics"] {
            assert_eq!(admin(elsewhere, &format!("GET {path}")).await.0, 200, "{path}");
        }
        for head in ["GET /", "GET /api/status", "GET /api/routes", "POST /api/reload"] {
            assert_eq!(admin(elsewhere, head).await.0, wanted, "{expose}: {head}");
        }
        for (head, heard) in [("GET /api/exchanges", 200), ("DELETE /api/keys/k", 404)] {
            let wanted = if wanted == 403 { 403 } else { heard };
            assert_eq!(admin(elsewhere, head).await.0, wanted, "{expose}: {head}");
        }
        let loopback = SocketAddr::from(([127, 0, 0, 1], samekey.admin.port()));
        assert_eq!(admin(loopback, "GET /api/status").await.0, 200);
    }
}

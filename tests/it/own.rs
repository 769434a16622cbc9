//! `samekey.internal`: what samekey answers itself, to whoever is proxied.

use http::Method;

use crate::support::client::{connect, raw, read_all};
use crate::support::program::{folder_with, samekey};
use crate::support::{Client, Samekey};

const LOCAL: &str =
    "samekey_exchanges_total{method=\"GET\",route=\"none\",source=\"local\",status=\"2xx\"}";

#[tokio::test]
async fn whoever_is_proxied_is_told_so_and_nothing_is_sent() {
    // Not even opened by the rules, and every route is another's.
    let samekey =
        Samekey::start("intercept: {hosts: none, except: ['*.internal']}\nproviders: []\n").await;
    let client = Client::through(&samekey);
    for (client, url, tls) in [
        (client.clone(), "http://samekey.internal/check", false),
        (client.clone(), "https://samekey.internal/check", true),
        (client.clone().h2(), "https://samekey.internal/check", true),
        (client.clone(), "https://samekey.internal:8443/check", true),
    ] {
        let answer = client.get(url).await;
        assert_eq!(answer.status, 200, "{url}: {}", answer.text());
        let said = answer.json();
        assert_eq!((&said["proxied"], &said["tls"]), (&true.into(), &tls.into()), "{url}");
        assert_eq!(said["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(said["proxy"], samekey.url());
        assert_eq!(answer.header("samekey-attempts"), "0");
        assert_eq!(answer.header("cache-control"), "no-store");
    }
    samekey.until(LOCAL, 4.0).await;
    let ledger = crate::support::client::get(samekey.admin, "/api/exchanges").await.json();
    assert_eq!(ledger["exchanges"], serde_json::json!([]), "it is no exchange of the ledger");
    samekey.until("samekey_attempts_total{outcome=\"done\",route=\"none\"}", 0.0).await;
}

#[tokio::test]
async fn what_a_program_needs_can_be_fetched_there() {
    let samekey = Samekey::start("").await;
    let client = Client::through(&samekey);
    let get = async |path: &str| client.get(&format!("http://samekey.internal{path}")).await;
    let public = samekey.path().join("state/public");
    for (path, kind) in [
        ("/ca.pem", "application/x-pem-file"),
        ("/bundle.pem", "application/x-pem-file"),
        ("/truststore.p12", "application/x-pkcs12"),
    ] {
        let answer = get(path).await;
        let name = path.trim_start_matches('/');
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, kind), "{path}");
        assert_eq!(answer.header("content-disposition"), format!("attachment; filename={name}"));
        assert_eq!(answer.body, std::fs::read(public.join(name)).expect("published"), "{path}");
    }
    let env = get("/env").await.text();
    assert!(env.contains(&format!("export HTTPS_PROXY='{}'\n", samekey.url())), "{env}");
    let bundle = std::fs::canonicalize(public.join("bundle.pem")).expect("it is there");
    assert!(env.contains(bundle.to_str().expect("text")), "{env}");
    let text = get("/").await;
    assert!(text.text().starts_with("You are proxied through samekey "), "{}", text.text());
    let page = client
        .send(Method::GET, "http://samekey.internal/", &[("accept", "text/html,*/*")], "")
        .await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(
        page.header("content-security-policy")
            .starts_with("default-src 'none'; style-src 'sha256-")
    );
    assert!(page.text().contains("<h1>You are proxied through samekey"));
    assert_eq!(get("/nothing").await.status, 404);
    let head = client.send(Method::HEAD, "http://samekey.internal/ca.pem", &[], "").await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    let post = client.post("http://samekey.internal/", "{}").await;
    assert_eq!((post.status.as_u16(), post.header("allow")), (405, "GET, HEAD"));
}

#[tokio::test]
async fn a_password_is_asked_for_as_for_everything_else() {
    let folder = std::sync::Arc::new(folder_with(
        "listeners: [{address: '127.0.0.1:0', auth: {user: u, password_file: password}}]\n\
         admin: {address: '127.0.0.1:0'}\nstate: {dir: state}\n",
    ));
    std::fs::write(folder.path().join("password"), "hush-hush\n").expect("written");
    let samekey = Samekey::run_in(folder).await;
    let client = Client::through(&samekey);
    let url = "http://samekey.internal/env";
    assert_eq!(client.get(url).await.status, 407);
    let user = [("proxy-authorization", "Basic dTpodXNoLWh1c2g=")];
    let told = client.send(Method::GET, url, &user, "").await;
    assert_eq!(told.status, 200);
    assert!(!told.text().contains("hush"), "no secret is told");
}

#[tokio::test]
async fn a_base_url_answers_for_it_by_host() {
    let config = "listeners:\n  - {address: '127.0.0.1:0', mode: reverse, upstream: 'http://127.0.0.1:1'}\n  \
                  - {address: '127.0.0.1:0', mode: reverse}\n";
    let samekey = Samekey::start(config).await;
    for listener in samekey.listeners.clone() {
        let asked = b"GET /check HTTP/1.1\r\nHost: samekey.internal\r\nConnection: close\r\n\r\n";
        let told = raw(listener, asked).await;
        assert!(told.starts_with("HTTP/1.1 200 ") && told.contains("\"tls\":false"), "{told}");
    }
}

/// No name is looked up for it, whatever is spoken inside the tunnel.
#[tokio::test]
async fn what_is_neither_tls_nor_http_leads_nowhere() {
    use tokio::io::AsyncWriteExt as _;
    let samekey = Samekey::start("").await;
    let mut tunnel = connect(samekey.proxy, "samekey.internal:22").await.expect("a tunnel");
    tunnel.write_all(b"SSH-2.0-OpenSSH_9.6\r\n").await.expect("it takes them");
    assert_eq!(read_all(&mut tunnel).await, "");
    let mut plain = connect(samekey.proxy, "samekey.internal:80").await.expect("a tunnel");
    let asked = b"GET /check HTTP/1.1\r\nHost: samekey.internal\r\nConnection: close\r\n\r\n";
    plain.write_all(asked).await.expect("it takes them");
    assert!(read_all(&mut plain).await.contains("\"proxied\":true"));
    let absolute = b"GET https://samekey.internal/check HTTP/1.1\r\nHost: samekey.internal\r\nConnection: close\r\n\r\n";
    let told = raw(samekey.proxy, absolute).await;
    assert!(told.contains("\"tls\":false"), "it came in the clear: {told}");
    samekey.until("samekey_tunnels_total", 0.0).await;
}

#[tokio::test]
async fn no_route_can_have_it() {
    let config = "routes: [{name: r, match: {hosts: ['Samekey.internal:80']}}]";
    let told = samekey(folder_with(config).path(), &["check"]).await;
    assert_eq!(told.code, Some(2), "{}", told.out);
    assert!(told.err.contains("samekey answers samekey.internal itself"), "{}", told.err);
    let asked = ["explain", "GET", "https://samekey.internal/"];
    let told = samekey(folder_with("").path(), &asked).await;
    assert!(told.out.contains("samekey answers this host itself"), "{}{}", told.out, told.err);
}

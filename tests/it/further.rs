//! `upstream.proxy`: upstreams behind a further proxy, by names that only it knows.

use std::sync::Arc;

use http::Method;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::provider::{Options, Provider};
use crate::support::client::{connect, read_all};
use crate::support::{Client, Further, Samekey};

/// One route over everything.
const ROUTED: &str = "
providers: []
routes:
  - name: r
    match: {hosts: ['*']}
    retry: {backoff: {initial: 5ms, max: 20ms}}
";

/// What `ann` and `s3 cret` are in Basic.
const ANN: &str = "Basic YW5uOnMzIGNyZXQ=";

/// A provider, a proxy before it, and a sidecar that goes through it.
struct Stage {
    provider: Provider,
    proxy: Further,
    samekey: Samekey,
    client: Client,
}

impl Stage {
    /// Starts all; `proxy` is `upstream.proxy`, with `AT` for where it is.
    async fn new(proxy: &str, rest: &str) -> Self {
        Self::behind(Further::start().await, Options::default(), proxy, rest).await
    }

    async fn behind(further: Further, options: Options, proxy: &str, rest: &str) -> Self {
        let provider = Provider::start(options).await.expect("a provider");
        let folder = tempfile::tempdir().expect("a folder");
        let roots = format!("{}{}", provider.ports.ca_pem, further.ca_pem);
        std::fs::write(folder.path().join("roots.pem"), roots).expect("written");
        std::fs::write(folder.path().join("password"), "s3 cret\n").expect("written");
        write_config(&folder, &further, proxy, rest);
        // A setting for programs is none of ours: it leads nowhere.
        let variables =
            [("HTTPS_PROXY", "http://127.0.0.1:1"), ("HTTP_PROXY", "http://127.0.0.1:1")];
        let samekey = Samekey::run_with(Arc::new(folder), &variables).await;
        let client = Client::through(&samekey);
        Self { provider, proxy: further, samekey, client }
    }

    /// A URL of the provider's by a name that nobody but the proxy knows.
    fn url(&self, scheme: &str, path: &str) -> String {
        let ports = &self.provider.ports;
        let at = if scheme == "https" { ports.https_addr } else { ports.http_addr };
        format!("{scheme}://api.provider.test:{}{path}", at.port())
    }

    /// How often the provider was asked.
    fn sent(&self) -> usize {
        self.provider.seen("s").len()
    }
}

fn write_config(folder: &TempDir, proxy: &Further, block: &str, rest: &str) {
    let block = block.replace("AT", &proxy.address.to_string());
    let text = format!(
        "listeners: [{{address: '127.0.0.1:0'}}]\nadmin: {{address: '127.0.0.1:0'}}\n\
         state: {{dir: state}}\nupstream: {{roots: roots.pem, connect_timeout: 2s, proxy: {block}}}\n{rest}"
    );
    std::fs::write(folder.path().join("samekey.yaml"), text).expect("written");
}

const PLAIN: &str = "'http://AT'";
const NAMED: &str = "{url: 'http://AT', user: ann, password_file: password}";

#[tokio::test]
async fn https_goes_through_one_tunnel_and_tls_ends_at_the_provider() {
    for alpn in ["h2", "http/1.1"] {
        let options = Options { alpn: vec![alpn.to_owned()], ..Options::default() };
        let stage = Stage::behind(Further::start().await, options, NAMED, ROUTED).await;
        stage.proxy.wants(ANN);
        stage.provider.script("s", "ok; 429; ok");
        let url = stage.url("https", "/s/s/v1/jobs?x=%2f");
        for attempts in ["1", "2"] {
            let answer = stage.client.post(&url, "{}").await;
            let told = (answer.status.as_u16(), answer.header("samekey-attempts"));
            assert_eq!(told, (201, attempts), "{}", answer.text());
        }
        let seen = stage.provider.seen("s");
        assert_eq!((seen.len(), stage.provider.effects("s")), (3, 2));
        for row in &seen {
            assert_eq!(row.path, "/s/s/v1/jobs?x=%2f");
            assert!(row.key.is_some());
            let fields: Vec<_> = row.headers.iter().map(|(name, _)| name.to_lowercase()).collect();
            assert!(!fields.iter().any(|name| name.starts_with("proxy-")), "{fields:?}");
        }
        let connect = stage.url("https", "").replace("https://", "CONNECT ");
        assert_eq!(stage.proxy.asked(), [connect], "{alpn}: one connection for all");
        assert_eq!((stage.proxy.told(), stage.proxy.began()), (vec![ANN.to_owned()], vec![22]));
    }
}

#[tokio::test]
async fn plain_http_is_asked_for_by_its_whole_url() {
    let stage = Stage::new(NAMED, ROUTED).await;
    stage.proxy.wants(ANN);
    stage.provider.script("s", "ok; ok; 429; ok");
    let url = stage.url("http", "/s/s/v1/jobs?x=%2f");
    for attempts in ["1", "1", "2"] {
        let headers = [("proxy-authorization", "Basic bWluZQ=="), ("content-type", "text/plain")];
        let answer = stage.client.send(Method::POST, &url, &headers, "{}").await;
        let told = (answer.status.as_u16(), answer.header("samekey-attempts"));
        assert_eq!(told, (201, attempts), "{}", answer.text());
    }
    let seen = stage.provider.seen("s");
    assert!(seen.iter().all(|row| row.path == "/s/s/v1/jobs?x=%2f"), "{seen:?}");
    assert_eq!(stage.proxy.asked(), vec![format!("POST {url}"); 4]);
    // The client's own word for this proxy goes no further.
    assert_eq!(stage.proxy.told(), vec![ANN.to_owned(); 4]);
    assert!(!seen[0].headers.iter().any(|(_, value)| value.contains("bWluZQ")), "{seen:?}");
}

#[tokio::test]
async fn a_tunnel_and_a_switched_protocol_get_a_tunnel() {
    let stage = Stage::new(PLAIN, "intercept: {hosts: none}\nroutes: []\nproviders: []\n").await;
    let authority = format!("api.provider.test:{}", stage.provider.ports.http_addr.port());
    let mut tunnel = connect(stage.samekey.proxy, &authority).await.expect("a tunnel");
    let request =
        format!("GET /status/204 HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    tunnel.write_all(request.as_bytes()).await.expect("it is taken");
    assert!(read_all(&mut tunnel).await.starts_with("HTTP/1.1 204"));
    assert_eq!(stage.proxy.asked(), [format!("CONNECT {authority}")]);
    // One at rest that the proxy was asked on is not one to switch protocols on.
    let url = stage.url("http", "/status/204");
    assert_eq!(stage.client.get(&url).await.status, 204);
    let mut socket = TcpStream::connect(stage.samekey.proxy).await.expect("it listens");
    let upgrade = format!(
        "GET http://{authority}/ws HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nearly"
    );
    socket.write_all(upgrade.as_bytes()).await.expect("it is taken");
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\nearly") {
        seen.push(socket.read_u8().await.expect("the switch comes, and the echo"));
    }
    assert_eq!(stage.proxy.asked(), [format!("GET {url}"), format!("CONNECT {authority}")]);
}

#[tokio::test]
async fn a_tunnel_that_is_not_granted_sent_nothing_and_is_asked_for_again() {
    let stage = Stage::new(PLAIN, ROUTED).await;
    stage.provider.script("s", "ok");
    stage.proxy.refuses(&[503, 0, 502]);
    let answer = stage.client.post(&stage.url("https", "/s/s/v1/jobs"), "{}").await;
    let told = (answer.status.as_u16(), answer.header("samekey-attempts"));
    assert_eq!(told, (201, "4"), "{}", answer.text());
    assert_eq!((stage.sent(), stage.provider.effects("s")), (1, 1));
    assert_eq!(stage.proxy.asked().len(), 4);
    let not_sent = "samekey_attempts_total{outcome=\"not_sent\",route=\"r\"}";
    assert!((stage.samekey.metric(not_sent).await - 3.0).abs() < 1e-9);
}

#[tokio::test]
async fn what_a_proxy_says_to_a_whole_url_is_a_status_that_proves_nothing() {
    let stage = Stage::new(PLAIN, ROUTED).await;
    stage.provider.script("s", "ok; ok");
    let url = stage.url("http", "/s/s/v1/jobs");
    for status in [502, 504] {
        stage.proxy.refuses(&[status]);
        let answer = stage.client.post(&url, "{}").await;
        let told = (answer.status.as_u16(), answer.header("samekey-attempts").to_owned());
        assert_eq!((told, answer.header("samekey-stop")), ((status, "1".to_owned()), "unsafe"));
    }
    assert_eq!((stage.sent(), stage.proxy.asked().len()), (0, 2));
    stage.proxy.refuses(&[502]);
    let answer = stage.client.get(&url).await;
    assert_eq!(
        (answer.header("samekey-attempts"), stage.sent()),
        ("2", 1),
        "a GET may be repeated"
    );
}

#[tokio::test]
async fn a_407_is_told_once_and_a_reload_brings_the_right_password() {
    let stage = Stage::new(NAMED, ROUTED).await;
    stage.provider.script("s", "ok; ok");
    let right = "Basic YW5uOmJldHRlcg==";
    stage.proxy.wants(right);
    let key = [("idempotency-key", "order-1"), ("content-type", "application/json")];
    for scheme in ["https", "http"] {
        let url = stage.url(scheme, "/s/s/v1/jobs");
        let answer = stage.client.send(Method::POST, &url, &key, "{}").await;
        let text = answer.text();
        assert_eq!(answer.said(), (502, "upstream-unreachable".to_owned()), "{text}");
        assert_eq!(answer.header("samekey-attempts"), "1");
        assert!(answer.header("proxy-status").contains("error=proxy_configuration_error"));
        assert!(text.contains("does not take upstream.proxy.user"), "{text}");
        assert_eq!(answer.header("proxy-authenticate"), "", "it is not the client's to answer");
    }
    assert_eq!((stage.proxy.asked().len(), stage.sent()), (2, 0));
    std::fs::write(stage.samekey.path().join("password"), "better\n").expect("written");
    stage.samekey.signal(Signal::HUP);
    stage.samekey.until("samekey_config_reloads_total{result=\"ok\"}", 1.0).await;
    for scheme in ["https", "http"] {
        let url = stage.url(scheme, "/s/s/v1/jobs");
        let answer = stage.client.send(Method::POST, &url, &key, "{}").await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    assert_eq!(stage.sent(), 2, "the keys were free");
    let log = stage.samekey.log().join("\n");
    for secret in ["s3 cret", "better", "YW5uOn", "YW5uOm"] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[tokio::test]
async fn a_proxys_rule_is_not_asked_twice() {
    let stage = Stage::new(PLAIN, ROUTED).await;
    for status in [403, 405] {
        stage.proxy.refuses(&[status]);
        let answer = stage.client.post(&stage.url("https", "/s/s/v1/jobs"), "{}").await;
        assert_eq!(answer.said(), (502, "upstream-unreachable".to_owned()));
        let (attempts, text) = (answer.header("samekey-attempts"), answer.text());
        assert_eq!(attempts, "1");
        assert!(text.contains(&format!("with {status}")) && text.contains("CONNECT"), "{text}");
    }
    assert_eq!((stage.proxy.asked().len(), stage.sent()), (2, 0));
}

#[tokio::test]
async fn egress_holds_and_this_machine_is_reached_without_it() {
    let except = "{url: 'http://AT', except: [spared.provider.test]}";
    let egress = "egress: {allow: ['*.provider.test', 127.0.0.0/8, '::1', 169.254.0.0/16]}\n";
    let stage = Stage::new(except, &format!("{egress}{ROUTED}")).await;
    for (url, slug) in [
        ("http://169.254.169.254/latest/meta-data", "forbidden-destination"),
        ("https://api.other.test/", "forbidden-destination"),
        // Nobody here knows it, and the proxy is not asked.
        ("https://spared.provider.test/", "upstream-unreachable"),
    ] {
        let answer = stage.client.get(url).await;
        assert_eq!(answer.said().1, slug, "{url}: {}", answer.text());
    }
    for url in [stage.provider.ports.https_url(""), stage.provider.ports.http_url("")] {
        let answer = stage.client.get(&format!("{url}/status/204")).await;
        assert_eq!(answer.status, 204, "{url}: {}", answer.text());
    }
    assert_eq!(stage.proxy.asked(), [""; 0]);
    assert_eq!(stage.client.get(&stage.url("http", "/status/204")).await.status, 204);
    assert_eq!(stage.proxy.asked().len(), 1);
}

#[tokio::test]
async fn tls_with_the_proxy_itself_is_verified() {
    let url = "{url: 'https://localhost:PORT', user: ann, password_file: password}";
    let further = Further::start_tls().await;
    let block = url.replace("PORT", &further.address.port().to_string());
    let stage = Stage::behind(further, Options::default(), &block, ROUTED).await;
    stage.proxy.wants(ANN);
    for scheme in ["https", "http"] {
        let url = stage.url(scheme, "/status/204");
        assert_eq!(stage.client.get(&url).await.status, 204, "{scheme}");
    }
    assert_eq!(stage.proxy.asked().len(), 2);
    // One that shows the certificate of another CA.
    let mut stranger = Further::start_tls().await;
    stranger.ca_pem = String::new();
    let block = url.replace("PORT", &stranger.address.port().to_string());
    let stage = Stage::behind(stranger, Options::default(), &block, ROUTED).await;
    let answer = stage.client.post(&stage.url("https", "/status/204"), "{}").await;
    assert_eq!(answer.said(), (502, "upstream-tls".to_owned()), "{}", answer.text());
    assert_eq!((answer.header("samekey-attempts"), stage.proxy.told().len()), ("1", 0));
}

#[tokio::test]
async fn connect_timeout_covers_a_proxy_that_says_nothing_and_a_dead_one_is_named() {
    let once = ROUTED.replace("{backoff", "{attempts: 1, backoff");
    let stage = Stage::new(PLAIN, &once).await;
    stage.proxy.refuses(&[1]);
    let answer = stage.client.post(&stage.url("https", "/s/s/v1/jobs"), "{}").await;
    assert_eq!(answer.said(), (502, "upstream-unreachable".to_owned()), "{}", answer.text());
    assert!(answer.header("proxy-status").contains("error=connection_timeout"));
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let dead = gone.local_addr().expect("it is bound");
    drop(gone);
    write_config(&stage.samekey.folder, &stage.proxy, &format!("'http://{dead}'"), ROUTED);
    stage.samekey.until("samekey_config_reloads_total{result=\"ok\"}", 1.0).await;
    let answer = stage.client.post(&stage.url("http", "/s/s/v1/jobs"), "{}").await;
    let (attempts, text) = (answer.header("samekey-attempts"), answer.text());
    assert_eq!((answer.said().1.as_str(), attempts), ("upstream-unreachable", "4"), "{text}");
    assert!(text.contains(&format!("the proxy http://{dead} cannot be reached")), "{text}");
    assert_eq!(stage.sent(), 0);
}

#[tokio::test]
async fn connections_of_another_proxy_are_not_used_again() {
    for scheme in ["https", "http"] {
        let stage = Stage::new(PLAIN, ROUTED).await;
        let url = stage.url(scheme, "/status/204");
        assert_eq!(stage.client.get(&url).await.status, 204);
        let other = Further::start().await;
        write_config(&stage.samekey.folder, &other, PLAIN, ROUTED);
        stage.samekey.until("samekey_config_reloads_total{result=\"ok\"}", 1.0).await;
        assert_eq!(stage.client.get(&url).await.status, 204);
        assert_eq!((stage.proxy.asked().len(), other.asked().len()), (1, 1), "{scheme}");
        // And so without any.
        write_config(&stage.samekey.folder, &other, "null", ROUTED);
        stage.samekey.until("samekey_config_reloads_total{result=\"ok\"}", 2.0).await;
        let answer = stage.client.get(&url).await;
        assert_eq!(answer.said().1, "upstream-unreachable", "only the proxies know that name");
        assert_eq!(other.asked().len(), 0, "{scheme}");
    }
}

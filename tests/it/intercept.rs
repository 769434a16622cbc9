//! Reading inside TLS: whose is opened, with which certificate, and what clients make of it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::provider::{Options, Provider};
use crate::support::client::{connect, read_all, trusting};
use crate::support::{Client, Samekey};

const ROUTED: &str = "routes:\n  - {name: r, match: {hosts: [localhost, 127.0.0.1, '*.test']}}\n";

/// TLS in the name of `name`, through a tunnel to `authority`.
async fn tls(
    samekey: &Samekey,
    authority: &str,
    name: &str,
    ca_pem: &str,
) -> Result<TlsStream<TcpStream>, String> {
    let stream = connect(samekey.proxy, authority).await?;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let connector = TlsConnector::from(Arc::new(trusting(ca_pem, false)));
    connector.connect(name, stream).await.map_err(|error| error.to_string())
}

/// The certificate that is shown first.
fn leaf(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    let chain = stream.get_ref().1.peer_certificates().expect("it showed one");
    chain.first().expect("it showed one").clone().into_owned()
}

#[tokio::test]
async fn each_host_has_one_leaf_for_the_name_that_the_client_gives() {
    let samekey = Samekey::start(ROUTED).await;
    let ca = samekey.ca_pem();
    let leaf_of = async |authority: &str, name: &str| {
        leaf(&tls(&samekey, authority, name, &ca).await.expect("it is trusted"))
    };
    let first = leaf_of("localhost:443", "localhost").await;
    let (same, port) =
        tokio::join!(leaf_of("localhost:443", "localhost"), leaf_of("localhost:444", "localhost"));
    assert!(first == same && first == port, "one leaf a host");
    assert_ne!(first, leaf_of("localhost:443", "other.test").await, "the SNI names the leaf");
    assert_ne!(first, leaf_of("127.0.0.1:443", "127.0.0.1").await, "no SNI: the CONNECT host");
    samekey.until("samekey_certificates_minted_total", 3.0).await;
    samekey.until(r#"samekey_tls_handshakes_total{result="ok",side="client"}"#, 5.0).await;
}

/// Asks the provider over TLS by this name, and says whose certificate let it through:
/// ours where the connection was opened, the provider's where it was tunnelled.
async fn check_opened(rules: &str, host: &str, opened: bool) {
    let provider = Provider::start(Options::default()).await.expect("a provider");
    let config = format!("{rules}\nroutes:\n  - {{name: r, match: {{hosts: [localhost]}}}}");
    let samekey = Samekey::beside(&provider, &config).await;
    let url = format!("https://{host}:{}/s/s/status/200", provider.ports.https_addr.port());
    let ours = samekey.ca_pem();
    let (right, wrong) =
        if opened { (&ours, &provider.ports.ca_pem) } else { (&provider.ports.ca_pem, &ours) };
    let answer = Client::trusting(&samekey, right).get(&url).await;
    assert_eq!(answer.status, 200, "{rules} {host}");
    let routed = opened && host == "localhost";
    assert_eq!(answer.header("samekey-attempts"), if routed { "1" } else { "" }, "{rules} {host}");
    let refused =
        Client::trusting(&samekey, wrong).try_send(http::Method::GET, &url, &[], "").await;
    assert!(refused.is_err(), "{rules} {host}: {refused:?}");
    let tunnels = samekey.metric("samekey_tunnels_total").await;
    assert_eq!(tunnels > 0.5, !opened, "{rules} {host}");
}

#[tokio::test]
async fn the_rules_say_which_hosts_are_opened() {
    check_opened("", "localhost", true).await;
    check_opened("", "127.0.0.1", false).await;
    check_opened("intercept: {hosts: routed}", "127.0.0.1", false).await;
    check_opened("intercept: {hosts: all}", "127.0.0.1", true).await;
    check_opened("intercept: {hosts: all}", "localhost", true).await;
    check_opened("intercept: {hosts: none}", "localhost", false).await;
    check_opened("intercept: {hosts: all, except: [LOCALHOST.]}", "localhost", false).await;
    check_opened("intercept: {hosts: all, except: ['*.localhost']}", "localhost", true).await;
}

/// A client that does not trust us asks twice; `second` says whether it gets through then.
async fn check_distrust(rules: &str, second: bool) {
    let provider = Provider::start(Options::default()).await.expect("a provider");
    let config = format!("{rules}\nroutes:\n  - {{name: r, match: {{hosts: [localhost]}}}}");
    let samekey = Samekey::beside(&provider, &config).await;
    let distrusting = Client::trusting(&samekey, &provider.ports.ca_pem);
    let url = provider.ports.https_url("/s/s/status/200");
    let ask = || distrusting.try_send(http::Method::GET, &url, &[], "");
    ask().await.expect_err("our certificate is refused");
    let distrusted = r#"samekey_tls_handshakes_total{result="distrusted",side="client"}"#;
    samekey.until(distrusted, 1.0).await;
    let line = samekey.logged(&["a client refused our certificate"]).await;
    for words in ["localhost", "WARN", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "bundle.pem"] {
        assert!(line.contains(words), "{words} is not in {line}");
    }
    assert_eq!(
        ask().await.map(|answer| answer.status.as_u16()).ok(),
        second.then_some(200),
        "{rules}"
    );
}

#[tokio::test]
async fn a_client_that_distrusts_us_is_told_of_and_tunnelled_where_that_is_wanted() {
    check_distrust("", false).await;
    check_distrust("intercept: {on_distrust: fail}", false).await;
    check_distrust("intercept: {on_distrust: tunnel}", true).await;
}

#[tokio::test]
async fn a_ca_of_the_operators_signs_and_is_published() {
    let provider = Provider::start(Options::default()).await.expect("a provider");
    let folder = Arc::new(crate::support::program::folder_beside(
        &provider,
        &format!("intercept: {{ca: {{cert: own.pem, key: own.key}}}}\n{ROUTED}"),
    ));
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(rcgen::DnType::CommonName, "an operator's own CA");
    let cert = params.self_signed(&key).expect("a CA").pem();
    fs::write(folder.path().join("own.pem"), &cert).expect("written");
    fs::write(folder.path().join("own.key"), key.serialize_pem()).expect("written");
    let samekey = Samekey::run_in(folder).await;
    assert!(!samekey.path().join("state/ca").exists(), "none is made");
    let answer =
        Client::trusting(&samekey, &cert).get(&provider.ports.https_url("/s/s/status/200")).await;
    assert_eq!(answer.status, 200);
    let published: String = samekey.ca_pem().split_whitespace().collect();
    assert_eq!(published, cert.split_whitespace().collect::<String>());
}

#[tokio::test]
async fn the_ca_outlives_restarts_and_what_is_public_is_written_anew() {
    let mut first = Samekey::start(ROUTED).await;
    let folder = first.folder.clone();
    let path = |name: &str| folder.path().join("state").join(name);
    let mode =
        |name: &str| fs::metadata(path(name)).expect("it is there").permissions().mode() & 0o777;
    for (name, wanted) in [
        ("", 0o711),
        ("ca", 0o700),
        ("ca/key.pem", 0o600),
        ("ca/cert.pem", 0o644),
        ("secret", 0o600),
        ("spill", 0o700),
        ("public", 0o755),
        ("public/ca.pem", 0o644),
        ("public/bundle.pem", 0o644),
        ("public/env.sh", 0o644),
    ] {
        assert_eq!(mode(name), wanted, "{name}");
    }
    let ca = first.ca_pem();
    let env = fs::read_to_string(path("public/env.sh")).expect("written");
    assert!(env.contains(&format!("export HTTPS_PROXY='{}'", first.url())), "{env}");
    first.signal(rustix::process::Signal::TERM);
    assert_eq!(first.ended().await.code(), Some(0));
    for name in ["ca.pem", "env.sh"] {
        fs::write(path("public").join(name), "changed").expect("written");
    }
    fs::remove_file(path("public/bundle.pem")).expect("removed");
    let second = Samekey::run_in(folder.clone()).await;
    assert_eq!(second.ca_pem(), ca);
    assert!(fs::read_to_string(path("public/bundle.pem")).expect("written").ends_with(&ca));
    let env = fs::read_to_string(path("public/env.sh")).expect("written");
    assert!(env.contains(&format!("export HTTPS_PROXY='{}'", second.url())), "{env}");
    tls(&second, "localhost:443", "localhost", &ca).await.expect("it is trusted as before");
}

#[tokio::test]
async fn plain_http_inside_a_tunnel_is_served_as_such() {
    let provider = Provider::start(Options::default()).await.expect("a provider");
    let samekey = Samekey::beside(&provider, ROUTED).await;
    let authority = provider.ports.http_addr.to_string();
    let mut stream = connect(samekey.proxy, &authority).await.expect("a tunnel");
    let head =
        format!("GET /s/s/status/200 HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("it reads");
    let answer = read_all(&mut stream).await.to_lowercase();
    assert!(
        answer.starts_with("http/1.1 200") && answer.contains("samekey-attempts: 1"),
        "{answer}"
    );
}

#[tokio::test]
async fn what_is_neither_tls_nor_http_is_passed_on_byte_for_byte() {
    let echo = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let authority = echo.local_addr().expect("it is bound").to_string();
    let server = async {
        let (mut stream, _) = echo.accept().await.expect("it is asked");
        let mut seen = [0; 12];
        stream.read_exact(&mut seen).await.expect("it comes");
        stream.write_all(&seen).await.expect("it is read");
    };
    let samekey = Samekey::start(ROUTED).await;
    let client = async {
        let mut stream = connect(samekey.proxy, &authority).await.expect("a tunnel");
        stream.write_all(b"\x00\x01SSH-2.0\xff\r\n").await.expect("it reads");
        let mut seen = [0; 12];
        stream.read_exact(&mut seen).await.expect("it comes back");
        seen
    };
    let ((), seen) = tokio::join!(server, client);
    assert_eq!(&seen, b"\x00\x01SSH-2.0\xff\r\n");
    samekey.until("samekey_tunnels_total", 1.0).await;
}

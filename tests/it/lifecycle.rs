//! How a sidecar ends, and what the next one finds: signals, drains, containers that restart.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::provider::{Options, Provider};
use crate::support::client::{self, get, raw};
use crate::support::program::folder_beside;
use crate::support::proxy::BINARY;
use crate::support::{Client, ORDER, Samekey};

/// One route over everything.
const ROUTED: &str =
    "providers: []\nroutes: [{name: r, match: {hosts: ['*']}, retry: {attempts: 1}}]\n";

/// The same, where an order that found nobody waits for its next attempt.
const WAITS: &str = "providers: []\nroutes: [{name: r, match: {hosts: ['*']}, \
    retry: {attempts: 4, deadline: 1h, \
    backoff: {kind: constant, initial: 10m, max: 10m, jitter: none}}}]\n";

/// A provider that takes each request for a new order.
async fn provider() -> Provider {
    let options = Options { honours_keys: false, ..Options::default() };
    Provider::start(options).await.expect("a provider")
}

/// A folder whose state outlives a process.
fn lasting(provider: &Provider, rest: &str) -> Arc<TempDir> {
    lasting_that(provider, rest, ROUTED)
}

fn lasting_that(provider: &Provider, rest: &str, routed: &str) -> Arc<TempDir> {
    let folder = folder_beside(provider, &format!("{rest}{routed}"));
    let file = folder.path().join("samekey.yaml");
    let text = std::fs::read_to_string(&file).expect("written").replace(", journal: memory", "");
    std::fs::write(file, text).expect("written");
    Arc::new(folder)
}

async fn order(
    samekey: &Samekey,
    provider: &Provider,
    key: &str,
) -> Result<client::Answer, String> {
    let fields = [("content-type", "application/json"), ("idempotency-key", key)];
    let url = provider.ports.https_url("/s/s/v1/jobs");
    Client::through(samekey).try_send(Method::POST, &url, &fields, ORDER).await
}

/// Asks the admin side, and tells the status.
async fn admin(samekey: &Samekey, head: &str, fields: &str) -> u16 {
    let host = if fields.contains("Host:") {
        String::new()
    } else {
        format!("Host: {}\r\n", samekey.admin)
    };
    let request = format!("{head} HTTP/1.1\r\n{host}{fields}Connection: close\r\n\r\n");
    let seen = raw(samekey.admin, request.as_bytes()).await;
    seen.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn quitquitquit_drains_and_ends_it_as_a_signal_does() {
    let provider = provider().await;
    provider.script("s", "held");
    let mut samekey = Samekey::beside(&provider, ROUTED).await;
    for (head, fields, wanted) in [
        ("GET /quitquitquit", "", 405),
        ("POST /quitquitquit", "Host: evil.test\r\n", 403),
        ("POST /quitquitquit", "Origin: http://evil.test\r\n", 403),
        ("GET /readyz", "", 200),
    ] {
        assert_eq!(admin(&samekey, head, fields).await, wanted, "{head} {fields}");
    }
    let (answer, ()) = tokio::join!(order(&samekey, &provider, "k"), async {
        provider.arrived("s", 1).await;
        assert_eq!(admin(&samekey, "POST /quitquitquit", "").await, 200);
        samekey.logged(&["draining"]).await;
        assert_eq!(admin(&samekey, "GET /readyz", "").await, 503);
        assert_eq!(admin(&samekey, "POST /quitquitquit", "").await, 200, "again");
        // The kubelet's own signal is the first one all the same.
        samekey.signal(Signal::TERM);
        assert!(TcpStream::connect(samekey.proxy).await.is_err());
        provider.release();
    });
    assert_eq!(answer.expect("it was not cut").status, 201);
    assert_eq!(samekey.ended().await.code(), Some(0));
    // With nothing under way its answer comes all the same.
    for _ in 0..20 {
        let mut samekey = Samekey::start("providers: []\n").await;
        assert_eq!(admin(&samekey, "POST /quitquitquit", "").await, 200);
        assert_eq!(samekey.ended().await.code(), Some(0));
    }
}

#[tokio::test]
async fn within_the_delay_it_takes_requests_and_is_not_ready() {
    let provider = provider().await;
    let slow = format!("shutdown: {{delay: 1h}}\n{ROUTED}");
    let mut samekey = Samekey::beside(&provider, &slow).await;
    samekey.signal(Signal::TERM);
    samekey.logged(&["no longer ready"]).await;
    assert_eq!(admin(&samekey, "GET /readyz", "").await, 503);
    assert_eq!(order(&samekey, &provider, "last-words").await.expect("it is taken").status, 201);
    samekey.signal(Signal::TERM);
    assert_eq!(samekey.ended().await.code(), Some(1), "the second one ends it at once");
    let quick = format!("shutdown: {{delay: 300ms}}\n{ROUTED}");
    let mut samekey = Samekey::beside(&provider, &quick).await;
    samekey.signal(Signal::TERM);
    samekey.logged(&["draining"]).await;
    assert!(TcpStream::connect(samekey.proxy).await.is_err());
    assert_eq!(samekey.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_signal_amid_the_start_ends_it_in_order() {
    // A Redis that takes connections and says nothing.
    let redis = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let at = redis.local_addr().expect("it is bound");
    let folder = crate::support::program::folder_with(&format!(
        "listeners: [{{address: '127.0.0.1:0'}}]\nadmin: {{address: '127.0.0.1:0'}}\n\
         state: {{dir: state, shared: {{url: 'redis://{at}'}}}}\n"
    ));
    let mut child =
        crate::support::program::command(folder.path(), &["run"]).spawn().expect("built");
    let held = redis.accept().await.expect("it asks");
    let id = child.id().and_then(|id| i32::try_from(id).ok()).expect("it runs");
    let id = rustix::process::Pid::from_raw(id).expect("a process id");
    rustix::process::kill_process(id, Signal::TERM).expect("it runs");
    let ended = tokio::time::timeout(Duration::from_secs(10), child.wait()).await;
    assert_eq!(ended.expect("it does not wait").expect("it ends").code(), Some(0));
    drop(held);
}

#[tokio::test]
async fn a_download_that_outlasts_the_signal_is_whole() {
    let provider = provider().await;
    let mut samekey = Samekey::beside(&provider, ROUTED).await;
    let size: usize = 24 << 20;
    let url = provider.ports.http_url(&format!("/bytes/{size}"));
    let mut stream = TcpStream::connect(samekey.proxy).await.expect("it listens");
    let at = provider.ports.http_addr;
    let head = format!("GET {url} HTTP/1.1\r\nHost: {at}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("it is taken");
    let mut seen = vec![0; 4096];
    stream.read_exact(&mut seen).await.expect("it begins");
    samekey.signal(Signal::TERM);
    samekey.logged(&["draining"]).await;
    stream.read_to_end(&mut seen).await.expect("it ends");
    let end = seen.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    assert_eq!(seen.len() - end, size);
    assert_eq!(samekey.ended().await.code(), Some(0));
}

/// An upstream that answers everything in one chunk, and then: ends, breaks off, or waits.
async fn chunked(then: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = [0; 4096];
                assert!(stream.read(&mut asked).await.expect("it is asked") > 0);
                let answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
                stream.write_all(answer).await.expect("it is taken");
                match then {
                    "ends" => stream.write_all(b"0\r\n\r\n").await.expect("it is taken"),
                    "waits" => std::future::pending().await,
                    _breaks_off => {}
                }
            });
        }
    });
    address
}

/// Asks in this version, and tells what came and whether it ended as a whole answer does.
async fn asked(samekey: SocketAddr, upstream: SocketAddr, version: &str) -> (String, bool) {
    let mut stream = TcpStream::connect(samekey).await.expect("it listens");
    let head = format!(
        "GET http://{upstream}/ {version}\r\nHost: {upstream}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("it is taken");
    let mut seen = Vec::new();
    let ended = stream.read_to_end(&mut seen).await;
    let text = String::from_utf8_lossy(&seen).into_owned();
    let whole = if text.contains("chunked") { text.ends_with("0\r\n\r\n") } else { ended.is_ok() };
    (text, whole)
}

#[tokio::test]
async fn an_answer_that_only_the_connections_end_would_end_never_looks_complete() {
    // As nginx is towards what it stands before: a client of HTTP/1.0 knows no chunks.
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        let mut samekey = Samekey::start(&format!("shutdown: {{grace: 300ms}}\n{ROUTED}")).await;
        for (then, wanted) in [("ends", true), ("breaks off", false), ("ends", true)] {
            let (text, whole) = asked(samekey.proxy, chunked(then).await, version).await;
            assert_eq!(whole, wanted, "{version}, {then}: {text}");
            assert!(!whole || text.contains("hello"), "{version}, {then}: {text}");
        }
        let (proxy, endless) = (samekey.proxy, chunked("waits").await);
        let asking = tokio::spawn(async move { asked(proxy, endless, version).await });
        samekey.until("samekey_inflight_exchanges{route=\"r\"}", 1.0).await;
        samekey.signal(Signal::TERM);
        let (text, whole) = asking.await.expect("it ends");
        assert!(!whole, "{version}: {text}");
        assert_eq!(samekey.ended().await.code(), Some(0));
        samekey.logged(&["exchanges were cut"]).await;
    }
}

#[tokio::test]
async fn streams_that_outlast_the_grace_are_cut_for_all_to_see() {
    let provider = provider().await;
    provider.script("s", "drip 100 +content-type:text/event-stream pad=2000 forever");
    let config = format!("shutdown: {{grace: 300ms}}\n{ROUTED}");
    let mut samekey = Samekey::beside(&provider, &config).await;
    let clients = [Client::through(&samekey), Client::through(&samekey).h2()];
    let streams = clients.map(|client| {
        let url = provider.ports.https_url("/s/s/status/200");
        tokio::spawn(async move { client.get(&url).await })
    });
    provider.arrived("s", 2).await;
    samekey.signal(Signal::TERM);
    for stream in streams {
        let answer = stream.await.expect("it ends");
        assert_eq!((answer.status.as_u16(), answer.whole), (200, false));
    }
    assert_eq!(samekey.ended().await.code(), Some(0));
    samekey.logged(&["exchanges were cut"]).await;
}

#[tokio::test]
async fn http2_clients_are_told_to_go_away_and_their_streams_end() {
    let provider = provider().await;
    provider.script("s", "held");
    let mut samekey = Samekey::beside(&provider, ROUTED).await;
    let url = provider.ports.https_url("/s/s/v1/jobs");
    let tls =
        Client::through(&samekey).h2().tls(&url.parse().expect("a URL")).await.expect("a tunnel");
    let (mut sender, connection) = h2::client::handshake(tls).await.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let request = || Request::post(&url).body(()).expect("a request");
    let (first, _) = sender.send_request(request(), true).expect("it is taken");
    provider.arrived("s", 1).await;
    samekey.signal(Signal::TERM);
    samekey.logged(&["draining"]).await;
    let refused = async {
        loop {
            match sender.clone().ready().await {
                Err(refused) => break refused,
                Ok(_still) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    let refused = tokio::time::timeout(Duration::from_secs(10), refused).await.expect("it is told");
    assert!(refused.is_go_away() && refused.reason() == Some(h2::Reason::NO_ERROR), "{refused:?}");
    provider.release();
    assert_eq!(first.await.expect("it ends").status(), 201);
    connection.await.expect("it ends").expect("and in order");
    assert_eq!((samekey.ended().await.code(), provider.seen("s").len()), (Some(0), 1));
}

#[tokio::test]
async fn an_order_whose_client_left_amid_the_drain_is_there_after_a_restart() {
    let provider = provider().await;
    provider.script("s", "held");
    let folder = lasting(&provider, "");
    let mut first = Samekey::run_in(folder.clone()).await;
    tokio::select! {
        _ = order(&first, &provider, "k") => panic!("it is held"),
        () = provider.arrived("s", 1) => {}
    }
    first.signal(Signal::TERM);
    first.logged(&["draining"]).await;
    provider.release();
    assert_eq!(first.ended().await.code(), Some(0));
    let second = Samekey::run_in(folder).await;
    let again = order(&second, &provider, "k").await.expect("an answer");
    assert_eq!((again.status.as_u16(), again.header("samekey-replay")), (201, "stored"));
    assert_eq!(provider.seen("s").len(), 1);
}

#[tokio::test]
async fn an_order_that_the_grace_cuts_is_unknown_after_a_restart() {
    let provider = provider().await;
    provider.script("s", "hang_after forever");
    let folder = lasting(&provider, "shutdown: {grace: 100ms}\n");
    let mut first = Samekey::run_in(folder.clone()).await;
    let (cut, ()) = tokio::join!(order(&first, &provider, "k"), async {
        provider.arrived("s", 1).await;
        first.signal(Signal::TERM);
    });
    assert!(cut.is_err(), "{cut:?}");
    assert_eq!(first.ended().await.code(), Some(0));
    let second = Samekey::run_in(folder).await;
    let listed = get(second.admin, "/api/exchanges?state=unknown").await.json();
    assert_eq!(listed["exchanges"][0]["key"], "k", "{listed}");
    assert_eq!(provider.seen("s").len(), 1);
}

#[tokio::test]
async fn an_order_that_was_never_sent_whole_is_free_after_a_restart() {
    let provider = provider().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let (dead, alive) = (nobody.local_addr().expect("it is bound"), provider.ports.http_addr);
    drop(nobody);
    let folder = lasting_that(&provider, "shutdown: {grace: 200ms}\n", WAITS);
    let listed = async |samekey: &Samekey, state: &str| {
        let rows = get(samekey.admin, &format!("/api/exchanges?state={state}")).await.json();
        rows["exchanges"].as_array().map(Vec::len)
    };
    for nth in 0..2 {
        let mut first = Samekey::run_in(folder.clone()).await;
        let mut clients = Vec::new();
        for (key, at, length) in [("waits", dead, 1), ("uploads", alive, 100)] {
            let mut stream = TcpStream::connect(first.proxy).await.expect("it listens");
            let head = format!(
                "POST http://{at}/s/s/v1/jobs HTTP/1.1\r\nHost: {at}\r\nSamekey-Key: {key}\r\n\
                 Content-Length: {length}\r\n\r\n1"
            );
            stream.write_all(head.as_bytes()).await.expect("it is taken");
            clients.push(stream);
        }
        first.until("samekey_retries_total{reason=\"connect\",route=\"r\"}", 1.0).await;
        while listed(&first, "in_flight").await != Some(2) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(first.stopped().await.code(), Some(0));
        let mut second = Samekey::run_in(folder.clone()).await;
        let left = (listed(&second, "unknown").await, listed(&second, "in_flight").await);
        assert_eq!(left, (Some(0), Some(0)), "after stop {nth}");
        second.stopped().await;
    }
    let second = Samekey::run_in(folder).await;
    for key in ["waits", "uploads"] {
        let (url, fields) = (provider.ports.http_url("/s/s/v1/jobs"), [("samekey-key", key)]);
        let sent = Client::through(&second).send(Method::POST, &url, &fields, ORDER).await;
        assert_eq!(sent.status, 201, "{key}: it is a new order");
    }
    assert_eq!(provider.effects("s"), 2);
}

#[tokio::test]
async fn a_container_that_is_killed_finds_its_directory_as_it_left_it() {
    let provider = provider().await;
    let folder = lasting(&provider, "");
    let mut ca = Vec::new();
    for n in 0..3 {
        let mut samekey = Samekey::run_in(folder.clone()).await;
        ca.push(samekey.ca_pem());
        let answer = order(&samekey, &provider, "k").await.expect("an answer");
        let replay = if n == 0 { "" } else { "stored" };
        assert_eq!((answer.status.as_u16(), answer.header("samekey-replay")), (201, replay));
        samekey.signal(Signal::KILL);
        samekey.ended().await;
    }
    assert!(ca.iter().all(|pem| *pem == ca[0]), "applications go on to trust it");
    assert_eq!(provider.effects("s"), 1);
}

#[tokio::test]
async fn exec_buries_the_orphans_of_its_program() {
    // As process 1 of a container has to: this makes it inherit orphans likewise.
    let wrapper = "import ctypes,os,sys\n\
        assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0\n\
        os.execv(sys.argv[1], sys.argv[1:])";
    let folder = crate::support::program::folder_with("state: {journal: memory}\nproviders: []\n");
    let script = "sh -c 'setsid sleep 0.05 & echo $!'; read line; exit 3"; // a daemon's group
    let mut command = Command::new("python3");
    command
        .args(["-c", wrapper, BINARY, "exec", "--", "sh", "-c", script])
        .current_dir(folder.path());
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child =
        tokio::process::Command::from(command).kill_on_drop(true).spawn().expect("python3");
    let mut out = tokio::io::BufReader::new(child.stdout.take().expect("it is piped"));
    let mut orphan = String::new();
    tokio::io::AsyncBufReadExt::read_line(&mut out, &mut orphan).await.expect("its id");
    let process = std::path::PathBuf::from("/proc").join(orphan.trim());
    let gone = async {
        while process.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let gone = tokio::time::timeout(Duration::from_secs(10), gone).await;
    let status = std::fs::read_to_string(process.join("status")).unwrap_or_default();
    assert!(gone.is_ok(), "it is still there: {status}");
    drop(child.stdin.take());
    let ended = tokio::time::timeout(Duration::from_secs(10), child.wait()).await;
    assert_eq!(ended.expect("it ends").expect("in order").code(), Some(3));
}

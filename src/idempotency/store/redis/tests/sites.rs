//! Redis behind sentinels, as a cluster, and behind TLS.

use super::*;

async fn at(url: &str, server: &Server, wait_replicas: u32) -> Redis {
    let address = Address::parse(url).expect("a URL");
    connect(Options { address, wait_replicas, ..server.options(1) }).await
}

#[tokio::test]
async fn a_master_that_sentinels_name_is_found_again_after_a_failover() {
    let mut master = Server::start().await;
    let replica = Server::with(&["--replicaof", "127.0.0.1", &master.port.to_string()]).await;
    let sentinel = Server::sentinel(master.port).await;
    let url = format!("redis+sentinel://127.0.0.1:1,127.0.0.1:{}/main", sentinel.port);
    let one = at(&url, &master, 1).await;
    eventually("the replica follows", async || one.reserve(id(1), asked(0)).await.is_ok()).await;
    let epoch = one.taken(1).await.epoch;
    let known = async || {
        let replicas = sentinel.command(&["SENTINEL", "REPLICAS", "main"]).await;
        matches!(replicas, redis::Value::Array(found) if !found.is_empty())
    };
    eventually("the sentinel knows the replica", known).await;
    // Killed, and the sentinel told so: it need not find out first.
    master.kill();
    let failover = async || sentinel.try_command(&["SENTINEL", "FAILOVER", "main"]).await.is_ok();
    eventually("the sentinel begins a failover", failover).await;
    eventually("the new master is asked", async || {
        one.settle(id(1), epoch, completed()).await == Ok(true)
    })
    .await;
    assert_eq!(replica.text(&["HGET", &key(1, "claim"), "state"]).await, "completed");
}

#[tokio::test]
async fn a_server_that_was_demoted_is_left() {
    let (first, second) = (Server::start().await, Server::start().await);
    let sentinel = Server::sentinel(first.port).await;
    let url = format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port);
    let one = at(&url, &first, 0).await;
    let epoch = one.claim(1, 0).await;
    // As a failover leaves it: the old master follows the new one, and connections stay.
    second.command(&["REPLICAOF", "127.0.0.1", &first.port.to_string()]).await;
    eventually("it follows", async || {
        second.text(&["INFO", "replication"]).await.contains("master_link_status:up")
    })
    .await;
    second.command(&["REPLICAOF", "NO", "ONE"]).await;
    sentinel.command(&["SENTINEL", "REMOVE", "main"]).await;
    let port = second.port.to_string();
    sentinel.command(&["SENTINEL", "MONITOR", "main", "127.0.0.1", &port, "1"]).await;
    first.command(&["REPLICAOF", "127.0.0.1", &port]).await;
    assert!(one.settles(1, epoch, completed()).await);
    assert_eq!(second.text(&["HGET", &key(1, "claim"), "state"]).await, "completed");
}

#[tokio::test]
async fn a_cluster_keeps_each_key_in_one_slot() {
    let mut nodes = Vec::new();
    for (from, to) in [(0, 8191), (8192, 16383)] {
        let node = Server::with(&["--cluster-enabled", "yes"]).await;
        node.command(&["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &to.to_string()]).await;
        nodes.push(node);
    }
    nodes[1].command(&["CLUSTER", "SET-CONFIG-EPOCH", "2"]).await;
    nodes[0].command(&["CLUSTER", "MEET", "127.0.0.1", &nodes[1].port.to_string()]).await;
    for node in &nodes {
        eventually("the cluster is up", async || {
            let info = node.text(&["CLUSTER", "INFO"]).await;
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2")
        })
        .await;
    }
    let url = format!("redis+cluster://127.0.0.1:1,127.0.0.1:{}", nodes[0].port);
    let one = at(&url, &nodes[0], 0).await;
    let two =
        connect(Options { address: Address::parse(&url).expect("a URL"), ..nodes[1].options(2) })
            .await;
    for n in 1..=20 {
        let epoch = one.claim(n, 0).await;
        let (told, ()) = tokio::join!(two.told(id(n), epoch, Duration::from_secs(20)), async {
            assert!(one.settles(n, epoch, completed()).await);
        });
        assert!(matches!(told, Some(Told::Answer(_))));
        assert_eq!(two.word(n).await, "completed");
    }
    for node in &nodes {
        assert!(node.number(&["DBSIZE"]).await >= 2, "both took part");
    }
    let epoch = one.claim(30, 0).await;
    one.0.held.age(&id(30), LEASE);
    assert_eq!(one.holds(id(30), epoch).await, Ok(true));
    one.secret(b"x").await.expect("it answers");
    one.pause(&[1; 32], LEASE).await.expect("it answers");
    assert_eq!(one.take_rate(&[1; 32], 1, LEASE).await.expect("it answers"), Ok(()));
    let settings = one.warnings().await;
    assert!(settings.iter().all(|warning| warning.contains("restart")), "{settings:?}");

    // A node waits for its own replicas, and this one has none.
    let waits = at(&url, &nodes[0], 1).await;
    let missed = Unavailable::NotReplicated { acknowledged: 0, wanted: 1 };
    assert_eq!(waits.reserve(id(40), asked(0)).await.expect_err("no replica has it"), missed);
    assert_eq!(one.word(40).await, "absent");
}

#[tokio::test]
async fn tls_is_verified() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let files = tempfile::tempdir().expect("a folder");
    let path = |name: &str| files.path().join(name).display().to_string();
    std::fs::write(path("cert"), made.cert.pem()).expect("it is written");
    std::fs::write(path("key"), made.signing_key.serialize_pem()).expect("it is written");
    let probe = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = probe.local_addr().expect("it is bound").port();
    drop(probe);
    let (cert, key, tls) = (path("cert"), path("key"), port.to_string());
    let server = Server::with(&[
        "--tls-port",
        &tls,
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &cert,
        "--tls-auth-clients",
        "no",
    ])
    .await;
    let address = Address::parse(&format!("rediss://localhost:{port}")).expect("a URL");
    let options = Options { address, ..server.options(1) };
    let distrusted = Redis::connect(options.clone(), &TaskTracker::new()).await;
    assert!(matches!(distrusted, Err(Unavailable::Unreachable(_))), "{distrusted:?}");
    let roots = Some(made.cert.pem().into_bytes());
    let one = connect(Options { roots, ..options }).await;
    let epoch = one.claim(1, 0).await;
    assert!(one.settles(1, epoch, completed()).await);
}

//! Drains: what is under way ends, and nothing more is taken.

use super::*;

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

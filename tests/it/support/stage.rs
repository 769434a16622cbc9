//! A provider, a sidecar with one route for every host, and requests to a scenario.

use std::sync::Arc;

use http::Method;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::provider::{Options, Provider};
use crate::support::{Answer, Client, Samekey};

/// All that a test of one route needs; its requests go to the scenario `s`.
pub(crate) struct Stage {
    pub(crate) provider: Provider,
    pub(crate) samekey: Samekey,
    pub(crate) client: Client,
}

impl Stage {
    /// Starts all with a route named `r`; `blocks` are its further keys, in flow style.
    /// The provider takes every request for a new order, whatever its key.
    pub(crate) async fn new(blocks: &str) -> Self {
        let comma = if blocks.is_empty() { "" } else { ", " };
        Self::configured(&format!(
            "routes: [{{name: r, match: {{hosts: ['*']}}{comma}{blocks}}}]\n"
        ))
        .await
    }

    /// Starts all with these routes and defaults.
    pub(crate) async fn configured(rest: &str) -> Self {
        let options = Options { honours_keys: false, ..Options::default() };
        let provider = Provider::start(options).await.expect("a provider");
        let samekey = Samekey::beside(&provider, rest).await;
        let client = Client::through(&samekey);
        Self { provider, samekey, client }
    }

    /// Starts all with a route named `r`, and `state` as given; `blocks` as for [`new`](Self::new).
    pub(crate) async fn keeping(state: &str, blocks: &str) -> Self {
        let options = Options { honours_keys: false, ..Options::default() };
        let provider = Provider::start(options).await.expect("a provider");
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        let config = format!(
            "listeners: [{{address: '127.0.0.1:0'}}]\nadmin: {{address: '127.0.0.1:0'}}\n\
             state: {state}\nroutes: [{{name: r, match: {{hosts: ['*']}}, {blocks}}}]\n"
        );
        std::fs::write(folder.path().join("samekey.yaml"), config).expect("written");
        let samekey = Samekey::run_in(folder).await;
        let client = Client::through(&samekey);
        Self { provider, samekey, client }
    }

    /// Starts all with one route, and `state` as given.
    pub(crate) async fn with_state(state: &str) -> Self {
        let provider = Provider::start(Options::default()).await.expect("a provider");
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        let config = format!(
            "listeners: [{{address: '127.0.0.1:0'}}]\nadmin: {{address: '127.0.0.1:0'}}\n\
             state: {state}\nroutes: [{{name: r, match: {{hosts: ['*']}}}}]\n"
        );
        std::fs::write(folder.path().join("samekey.yaml"), config).expect("written");
        let samekey = Samekey::run_in(folder).await;
        let client = Client::through(&samekey);
        Self { provider, samekey, client }
    }

    /// Plays a script from here on, and forgets what came before.
    pub(crate) fn script(&self, steps: &str) {
        self.provider.script("s", steps);
    }

    /// How often the provider was asked since the script began.
    pub(crate) fn sent(&self) -> usize {
        self.provider.seen("s").len()
    }

    /// The keys that the provider saw, in order; empty where there was none.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.provider.seen("s").into_iter().map(|seen| seen.key.unwrap_or_default()).collect()
    }

    /// The bodies that the provider saw, in order.
    pub(crate) fn bodies(&self) -> Vec<String> {
        self.provider.seen("s").into_iter().map(|seen| seen.body).collect()
    }

    /// The targets that the provider saw, in order, without the scenario.
    pub(crate) fn targets(&self) -> Vec<String> {
        let seen = self.provider.seen("s").into_iter();
        seen.map(|seen| seen.path.strip_prefix("/s/s").unwrap_or(&seen.path).to_owned()).collect()
    }

    /// A field's first value in the last request that the provider saw; empty where there is none.
    pub(crate) fn field(&self, name: &str) -> String {
        let last = self.provider.seen("s").pop().expect("a request came");
        let mut fields = last.headers.into_iter();
        fields.find(|(n, _)| n.eq_ignore_ascii_case(name)).map_or_else(String::new, |(_, v)| v)
    }

    /// The URL of a path in the scenario.
    pub(crate) fn url(&self, path: &str) -> String {
        self.provider.ports.http_url(&format!("/s/s{path}"))
    }

    /// Orders a job.
    pub(crate) async fn post(&self, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut all = vec![("content-type", "application/json")];
        all.extend_from_slice(headers);
        self.client.send(Method::POST, &self.url("/v1/jobs"), &all, body).await
    }

    /// Orders a job, with this key of the client's own.
    pub(crate) async fn order(&self, key: &str) -> Answer {
        self.post(&[("idempotency-key", key)], ORDER).await
    }

    /// Begins to order a job on a connection of its own, whose end is the test's to decide.
    pub(crate) async fn begin(&self, headers: &[(&str, &str)], body: &str) -> TcpStream {
        self.write(headers, body.len(), body).await
    }

    /// As [`begin`](Self::begin), promising `length` bytes of a body and sending these.
    pub(crate) async fn write(
        &self,
        headers: &[(&str, &str)],
        length: usize,
        body: &str,
    ) -> TcpStream {
        let mut stream = TcpStream::connect(self.samekey.proxy).await.expect("it listens");
        let (url, host) = (self.url("/v1/jobs"), self.provider.ports.http_addr);
        let fields: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let fields = fields.concat();
        let text = format!(
            "POST {url} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n{fields}\r\n{body}"
        );
        stream.write_all(text.as_bytes()).await.expect("it takes them");
        stream
    }

    /// Waits until no client waits for the route: those that hung up were noticed.
    pub(crate) async fn noticed(&self) {
        self.samekey.until("samekey_inflight_exchanges{route=\"r\"}", 0.0).await;
    }

    /// Waits until the route has counted an idempotency event so often.
    pub(crate) async fn counted(&self, event: &str, times: u32) {
        let series = format!("samekey_idempotency_total{{event=\"{event}\",route=\"r\"}}");
        self.samekey.until(&series, f64::from(times)).await;
    }
}

impl Answer {
    /// What a test wants to know first: the status, and a problem's slug where it is one.
    pub(crate) fn said(&self) -> (u16, String) {
        let problem = self.header("content-type") == "application/problem+json";
        let slug = if problem {
            let kind = self.json();
            let kind = kind.get("type").and_then(Value::as_str).expect("a problem has a type");
            kind.strip_prefix("urn:samekey:").expect("a type of ours").to_owned()
        } else {
            String::new()
        };
        (self.status.as_u16(), slug)
    }
}

/// The body of an order.
pub(crate) const ORDER: &str = r#"{"a": 1}"#;

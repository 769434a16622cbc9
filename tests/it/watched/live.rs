//! A real Prometheus scrapes a real run: every rule and every panel comes to something, and alerts fire.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::dashboard::expressions;
use super::server::Prometheus;
use super::{all, config, metrics_in, rules, series_in, word, yaml};
use crate::provider::{Options, Provider};
use crate::support::program::{folder_with, samekey as command};
use crate::support::{Client, Samekey, client};

/// A provider, and a sidecar with a route for each feature that counts something.
struct Yard {
    provider: Provider,
    samekey: Samekey,
    client: Client,
}

fn routes(application: std::net::SocketAddr) -> String {
    let of = |name: &str, methods: &str, rest: &str| {
        format!(
            "  - {{name: {name}, match: {{hosts: [localhost], methods: [{methods}], \
             paths: ['/s/{name}/**']}}, {rest}}}\n"
        )
    };
    let retry = "retry: {backoff: {initial: 1ms, max: 5ms}}";
    let lookup = "lookup: {request: '/s/sought/list?key={key}', items: /movies, match: /key, \
                  tag: {json: /key}, answer: {success: true}}";
    let estimate = "estimate: {path: /s/paid/estimate, json: /credits, at_most: 50}";
    [
        "listeners:\n  - {address: '127.0.0.1:0'}\n".to_owned(),
        format!(
            "  - {{address: '127.0.0.1:0', mode: reverse, upstream: 'http://{application}'}}\n"
        ),
        "admin: {address: '127.0.0.1:0'}\nstate: {dir: state}\nproviders: []\n".to_owned(),
        "upstream: {roots: provider-ca.pem}\nintercept: {except: ['127.0.0.1']}\nroutes:\n"
            .to_owned(),
        "  - {name: hooks, match: {hosts: ['127.0.0.1'], paths: ['/s/app/**']}, \
         inbox: {identity: {json: /id}}}\n"
            .to_owned(),
        of(
            "paid",
            "POST",
            &format!(
                "breaker: {{statuses: [402], reset_after: 1h}}, {estimate}, \
                                     idempotency: {{capture: {{cost: /cost}}}}"
            ),
        ),
        of("status", "GET", "kind: poll"),
        of("files", "GET", "kind: fetch"),
        of("shaped", "POST", "schema: order.json"),
        of("sought", "POST", &format!("idempotency: {{upstream_dedupes: false}}, {lookup}")),
        of(
            "strained",
            "GET",
            "retry: {backoff: {initial: 1ms, max: 5ms}, \
                               budget: {ratio: 0.01, min_per_second: 0, burst: 1}}",
        ),
        of("limited", "POST", "limits: {concurrency: 2}"),
        of("unsure", "POST", &format!("idempotency: {{upstream_dedupes: false}}, {retry}")),
        of("jobs", "POST", &format!("idempotency: {{upstream_dedupes: true}}, {retry}")),
    ]
    .concat()
}

impl Yard {
    async fn new() -> Self {
        let provider = Provider::start(Options::default()).await.expect("a provider");
        let folder = folder_with(&routes(provider.ports.http_addr));
        for (name, text) in [
            ("provider-ca.pem", provider.ports.ca_pem.as_str()),
            ("order.json", r#"{"type": "object", "required": ["model"]}"#),
        ] {
            std::fs::write(folder.path().join(name), text).expect("written");
        }
        // Nobody listens there, so each span is lost.
        let traces = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"),
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ];
        let samekey = Samekey::run_with(Arc::new(folder), &traces).await;
        let client = Client::through(&samekey);
        Self { provider, samekey, client }
    }

    /// Asks the scenario of a route; the path, the credential and the body are marked.
    async fn ask(&self, method: Method, route: &str, fields: &[(&str, &str)], body: &str) -> u16 {
        let path = if method == Method::GET { "mark-path" } else { "v1/jobs" };
        let url = self.provider.ports.https_url(&format!("/s/{route}/{path}?mark=query"));
        let mut all = vec![
            ("content-type", "application/json"),
            ("authorization", "Bearer mark-secret"),
            ("user-agent", "mark-agent"),
        ];
        all.extend_from_slice(fields);
        self.client.send(method, &url, &all, body).await.status.as_u16()
    }

    async fn post(&self, route: &str, fields: &[(&str, &str)], body: &str) -> u16 {
        self.ask(Method::POST, route, fields, body).await
    }

    /// Something of everything; `round` is put into keys and identities.
    async fn traffic(&self, round: u32) {
        let key = format!("mark-key-{round}");
        let keyed = [("samekey-key", key.as_str())];
        self.provider.script("jobs", "429 retry_after_ms=1; 503; reset_after");
        assert_eq!(self.post("jobs", &keyed, r#"{"mark": "body"}"#).await, 201);
        assert_eq!(self.post("jobs", &keyed, r#"{"mark": "body"}"#).await, 201, "replayed");
        assert_eq!(self.post("jobs", &keyed, r#"{"mark": "other"}"#).await, 422, "reused");
        self.provider.script("unsure", "reset_after");
        assert_eq!(self.post("unsure", &keyed, "{}").await, 502);
        self.provider.script("strained", "503 x9");
        for _ in 0..3 {
            assert_eq!(self.ask(Method::GET, "strained", &[], "").await, 503);
        }
        for route in ["status", "files"] {
            self.ask(Method::GET, route, &[], "").await;
        }
        for (body, status) in [("{}", 400), (r#"{"model": "mark"}"#, 201)] {
            assert_eq!(self.post("shaped", &[], body).await, status);
        }
        for route in ["sought", "limited"] {
            assert_eq!(self.post(route, &[], "{}").await, 201);
        }
        // Two that are affordable, one that is not; the second says that the credit is gone.
        self.provider.script(
            "paid",
            r#"200 body={"credits":1}; 201 body={"cost":2.5}; 200 body={"credits":99}"#,
        );
        let credential = format!("Bearer mark-secret-{round}");
        let of_round = [("authorization", credential.as_str())];
        assert_eq!(self.post("paid", &of_round, "{}").await, 201);
        assert_eq!(self.post("paid", &of_round, "{}").await, 402);
        self.deliver(&format!(r#"{{"id": "mark-{round}"}}"#)).await;
        self.strangers().await;
    }

    /// A webhook, as its provider sends it.
    async fn deliver(&self, body: &str) {
        let to = self.samekey.listeners[1];
        let uri = format!("http://{to}/s/app/echo").parse().expect("a URL");
        let mut request = client::request(Method::POST, &uri, &[], body);
        *request.uri_mut() = "/s/app/echo".parse().expect("a path");
        let stream = TcpStream::connect(to).await.expect("it listens");
        let answer = client::over_http1(stream, request).await.expect("an answer");
        assert_eq!(answer.status, 200);
    }

    /// A client that distrusts the CA, a tunnel, a method and a path that no route knows.
    async fn strangers(&self) {
        let ca = &self.provider.ports.ca_pem;
        let stranger = Client::trusting(&self.samekey, ca);
        let url = self.provider.ports.https_url("/s/jobs/v1/jobs");
        stranger.try_send(Method::POST, &url, &[], "{}").await.expect_err("it distrusts");
        let authority = self.provider.ports.https_addr.to_string();
        drop(client::connect(self.samekey.proxy, &authority).await.expect("a tunnel"));
        let odd: Method = "MARK".parse().expect("a method");
        let url = self.provider.ports.http_url("/s/mark-scenario/mark-path");
        self.client.send(odd, &url, &[], "").await;
    }

    /// The job of kubernetes.yml, told of this sidecar as a cluster would: as a pod that runs,
    /// as one that has ended, and by a port of another name.
    fn jobs(&self) -> Value {
        let file = yaml(&config("prometheus").join("kubernetes.yml"));
        let mut pods = file["scrape_configs"][0].clone();
        let found = pods.as_object_mut().expect("a job").remove("kubernetes_sd_configs");
        assert_eq!(found, Some(json!([{"role": "pod"}])));
        let pod = |pod: &str, port: &str, phase: &str| {
            json!({"targets": [self.samekey.admin.to_string()], "labels": {
                "__meta_kubernetes_pod_container_port_name": port,
                "__meta_kubernetes_pod_phase": phase,
                "__meta_kubernetes_namespace": "shop",
                "__meta_kubernetes_pod_name": pod,
                "__meta_kubernetes_pod_label_app_kubernetes_io_name": "orders",
            }})
        };
        pods["job_name"] = "pods".into();
        pods["static_configs"] = json!([
            pod("runs", "samekey-metrics", "Running"),
            pod("ended", "samekey-metrics", "Succeeded"),
            pod("other", "http", "Running"),
        ]);
        json!([
            {"job_name": "samekey", "static_configs": [{"targets": [self.samekey.admin.to_string()]}]},
            pods,
        ])
    }
}

#[tokio::test]
async fn a_prometheus_that_scrapes_a_run_sees_all_of_it() {
    let yard = Yard::new().await;
    let prometheus = Prometheus::start(&yard.jobs()).await;
    // Twice, with a scrape between: what came with the first traffic grows in the second.
    yard.traffic(1).await;
    prometheus.until(r#"samekey_exchanges_total{job="samekey", source="stored"} == 1"#).await;
    yard.traffic(2).await;
    prometheus.until(r#"samekey_exchanges_total{job="samekey", source="stored"} == 2"#).await;

    for (job, wanted) in [("samekey", ["", ""]), ("pods", ["runs", "shop"])] {
        let up = prometheus.query(&format!("up{{job=\"{job}\"}}")).await;
        assert_eq!(up.len(), 1, "{up:?}");
        let label = |name| word(&up[0]["metric"], name);
        assert_eq!((["pod", "namespace"].map(label), &up[0]["value"][1]), (wanted, &json!("1")));
    }
    each_rule_is_well_and_comes_to_something(&prometheus).await;
    for (title, expression) in
        expressions("1m").iter().filter(|(title, _)| title != "Config loaded")
    {
        let found = prometheus.until(expression).await;
        assert!(!found.is_empty(), "{title}");
    }
    alerts_name_metrics_that_there_are(&yard.samekey.metrics().await);
    nothing_of_the_traffic_is_in_a_label(&prometheus).await;
    alerts_fire(&yard, &prometheus).await;
}

async fn each_rule_is_well_and_comes_to_something(prometheus: &Prometheus) {
    for name in rules().iter().filter_map(|rule| rule["record"].as_str()) {
        prometheus.until(name).await;
    }
    let mut seen = 0;
    for group in all(&prometheus.api("rules").await, "groups") {
        for rule in all(group, "rules") {
            let said = (word(rule, "health"), word(rule, "lastError"));
            assert_eq!(said, ("ok", ""), "{rule}");
            seen += 1;
        }
    }
    assert_eq!(seen, rules().len());
}

/// An alert on a metric that nobody has would be quiet for ever.
fn alerts_name_metrics_that_there_are(metrics: &str) {
    let mut known = series_in(metrics);
    known.extend(rules().iter().filter_map(|rule| rule["record"].as_str()).map(str::to_owned));
    for rule in rules() {
        let unknown: Vec<_> = metrics_in(word(&rule, "expr")).difference(&known).cloned().collect();
        assert!(unknown.is_empty(), "{rule}: {unknown:?}");
    }
}

const LABELS: [&str; 26] = [
    "__name__",
    "alertname",
    "alertstate",
    "check",
    "direction",
    "event",
    "instance",
    "job",
    "key",
    "kind",
    "le",
    "listener",
    "method",
    "namespace",
    "operation",
    "outcome",
    "pod",
    "reason",
    "result",
    "route",
    "service",
    "severity",
    "side",
    "source",
    "status",
    "version",
];

async fn nothing_of_the_traffic_is_in_a_label(prometheus: &Prometheus) {
    let found = prometheus.api("labels").await;
    let names: BTreeSet<&str> =
        found.as_array().expect("names").iter().filter_map(Value::as_str).collect();
    assert_eq!(names, BTreeSet::from(LABELS));
    for name in names {
        let values = prometheus.api(&format!("label/{name}/values")).await.to_string();
        let marked = values.to_lowercase().contains("mark");
        assert!(!marked && !values.contains("jobs?"), "{name}: {values}");
    }
}

fn alert(name: &str, state: &str) -> String {
    format!(r#"ALERTS{{job="samekey", alertname="{name}", alertstate="{state}"}}"#)
}

/// As they are shipped; those that wait for minutes are seen to wait.
async fn alerts_fire(yard: &Yard, prometheus: &Prometheus) {
    for name in ["SamekeyClientsDistrustCA", "SamekeyKeysReused", "SamekeySpendRefused"] {
        prometheus.until(&alert(name, "firing")).await;
    }
    for name in ["SamekeyUnknownOutcomesOpen", "SamekeyRetryBudgetExhausted", "SamekeySpansDropped"]
    {
        prometheus.until(&alert(name, "pending")).await;
    }
    let good = std::fs::read_to_string(yard.samekey.config()).expect("it is there");
    std::fs::write(yard.samekey.config(), format!("{good}nonsense: 1\n")).expect("written");
    prometheus.until(&alert("SamekeyConfigReloadFailed", "firing")).await;
    std::fs::write(yard.samekey.config(), good).expect("written");
    prometheus.until_none(&alert("SamekeyConfigReloadFailed", "firing")).await;

    for state in ["landed", "absent"] {
        let path = "/api/exchanges?state=unknown&route=unsure";
        let listed = client::get(yard.samekey.admin, path).await.json();
        let id = listed["exchanges"][0]["id"].as_str().expect("one that is open");
        let resolved = command(yard.samekey.path(), &["ledger", "resolve", id, state]).await;
        assert_eq!(resolved.code, Some(0), "{}", resolved.err);
    }
    prometheus.until_none(&alert("SamekeyUnknownOutcomesOpen", "pending")).await;

    yard.samekey.signal(rustix::process::Signal::KILL);
    prometheus.until(&alert("SamekeyDown", "pending")).await;
}

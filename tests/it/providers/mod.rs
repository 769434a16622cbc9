//! The rows of what known providers promise, each end to end: a sidecar with a route for
//! the provider, a simulator that keeps its promises, and its books of effects and credits.

mod background;
mod generation;
mod images;
mod movies;
mod programs;
mod sdks;
mod thousand;

use std::time::Duration;

use http::{Method, Uri};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::provider::apis::Name;
use crate::provider::apis::desk::Books;
use crate::provider::request::Seen;
use crate::provider::{Options, Provider};
use crate::support::{Answer, Client, Samekey, client};

/// One provider's API behind a sidecar.
pub(super) struct Counter {
    pub(super) provider: Provider,
    pub(super) samekey: Samekey,
    pub(super) client: Client,
    pub(super) api: Name,
}

impl Counter {
    /// Opens with one route for all of the API; `blocks` are its further keys, in flow style.
    pub(super) async fn new(api: Name, blocks: &str) -> Self {
        Self::with_routes(api, &format!("[{{name: r, match: {{hosts: ['*']}}, {blocks}}}]")).await
    }

    /// Opens with a route for GETs that are polls, and one for the rest of the API.
    pub(super) async fn polling(api: Name, poll: &str, rest: &str) -> Self {
        let routes = format!(
            "[{{name: poll, match: {{hosts: ['*'], methods: [GET]}}, kind: poll, {poll}}}, \
             {{name: r, match: {{hosts: ['*']}}, {rest}}}]"
        );
        Self::with_routes(api, &routes).await
    }

    /// Opens with these routes, in flow style.
    pub(super) async fn with_routes(api: Name, routes: &str) -> Self {
        let options = Options { apis: vec![api], ..Options::default() };
        let provider = Provider::start(options).await.expect("a provider");
        let samekey = Samekey::beside(&provider, &format!("routes: {routes}\n")).await;
        let client = Client::through(&samekey);
        Self { provider, samekey, client, api }
    }

    /// Opens with one route, of a preset, which `blocks` change.
    pub(super) async fn preset(api: Name, preset: &str, blocks: &str) -> Self {
        Self::with_routes(api, &format!("[{}]", started(preset, blocks))).await
    }

    /// Opens with an application, too, whose webhooks a route takes in, and with this
    /// route for the API.
    pub(super) async fn with_inbox(api: Name, inbox: &str, route: &str) -> (Self, Provider) {
        let application = Provider::start(Options::default()).await.expect("an application");
        let options = Options { apis: vec![api], ..Options::default() };
        let provider = Provider::start(options).await.expect("a provider");
        let at = application.ports.http_addr;
        let config = format!(
            "listeners: [{{address: '127.0.0.1:0'}}, {{address: '127.0.0.1:0', mode: reverse, \
             upstream: 'http://{at}'}}]\n\
             routes: [{{name: hooks, match: {{hosts: ['127.0.0.1']}}, inbox: {{{inbox}}}}}, {route}]\n"
        );
        let samekey = Samekey::beside(&provider, &config).await;
        let client = Client::through(&samekey);
        (Self { provider, samekey, client, api }, application)
    }

    /// Where webhooks are to go, with [`with_inbox`](Self::with_inbox).
    pub(super) fn hook(&self) -> String {
        format!("http://{}{HOOK}", self.samekey.listeners[1])
    }

    /// Waits until the inbox has counted an event so often.
    pub(super) async fn hooked(&self, event: &str, times: u32) {
        let series = format!("samekey_inbox_total{{event=\"{event}\",route=\"hooks\"}}");
        self.samekey.until(&series, f64::from(times)).await;
    }

    /// Posts a webhook as the provider does.
    pub(super) async fn call_back(&self, fields: &[(&str, &str)], body: &str) -> u16 {
        let mut all = vec![("content-type", "application/json")];
        all.extend_from_slice(fields);
        post(&self.hook(), HOOK, &all, body).await.status.as_u16()
    }

    /// Waits until what receivers of webhooks answered is this.
    pub(super) async fn delivered(&self, wanted: &[u16]) {
        let reached = async {
            while self.books().deliveries != wanted {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let reached = tokio::time::timeout(Duration::from_secs(20), reached).await;
        assert!(reached.is_ok(), "{:?}", self.books().deliveries);
    }

    /// Ends the sidecar without a warning, and starts it again.
    pub(super) async fn kill(&mut self) {
        self.samekey.signal(Signal::KILL);
        self.samekey.ended().await;
        self.samekey = Samekey::run_in(self.samekey.folder.clone()).await;
        self.client = Client::through(&self.samekey);
    }

    /// Plays a script from here on, and closes the books of what came before.
    pub(super) fn script(&self, steps: &str) {
        self.provider.script(self.api.as_str(), steps);
    }

    /// Changes what the account may do.
    pub(super) fn terms(&self, changes: &Value) {
        self.provider.sites.terms(self.api, changes);
    }

    pub(super) fn books(&self) -> Books {
        self.provider.sites.books(self.api.as_str())
    }

    /// Effects and the credits spent on them.
    pub(super) fn spent(&self) -> (usize, u64) {
        let books = self.books();
        (books.effects, books.spent)
    }

    /// What the provider was asked, in order.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.provider.seen(self.api.as_str())
    }

    pub(super) fn sent(&self) -> usize {
        self.seen().len()
    }

    /// The keys that the provider saw, in order; empty where there was none.
    pub(super) fn keys(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.key.unwrap_or_default()).collect()
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.provider.ports.authority(self.api))
    }

    /// Asks for something that costs.
    pub(super) async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl ToString,
    ) -> Answer {
        self.try_post(path, headers, &body.to_string()).await.expect("an answer came")
    }

    /// As [`post`](Self::post), for answers that may not come.
    pub(super) async fn try_post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Answer, String> {
        let mut all = headers.to_vec();
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            all.push(("content-type", "application/json"));
        }
        all.push(self.credential());
        self.client.try_send(Method::POST, &self.url(path), &all, body).await
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.client.send(Method::GET, &self.url(path), &[self.credential()], "").await
    }

    /// Asks the provider itself, without a sidecar.
    pub(super) async fn post_directly(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl ToString,
    ) -> Answer {
        let mut all = vec![("content-type", "application/json"), self.credential()];
        all.extend_from_slice(headers);
        let url = self.url(path).replace("localhost", "127.0.0.1");
        post(&url, path, &all, &body.to_string()).await
    }

    /// How often the provider was asked by this method.
    pub(super) fn asked(&self, method: &str) -> usize {
        self.seen().iter().filter(|seen| seen.method == method).count()
    }

    /// Closes the breakers, as an operator does.
    pub(super) async fn reset_breakers(&self) {
        let path = "/api/breakers/reset";
        let answer = post(&format!("http://{}{path}", self.samekey.admin), path, &[], "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// What the admin side answers.
    pub(super) async fn admin(&self, path: &str) -> Value {
        client::get(self.samekey.admin, path).await.json()
    }

    /// The newest row of the ledger.
    pub(super) async fn row(&self) -> Value {
        let list = self.admin("/api/exchanges?limit=1").await;
        list.pointer("/exchanges/0").cloned().expect("a row")
    }

    fn credential(&self) -> (&'static str, &'static str) {
        match self.api {
            Name::Background | Name::Movies | Name::Images => ("x-api-key", CREDENTIAL),
            Name::Generation
            | Name::Charges
            | Name::Completions
            | Name::Storage
            | Name::Repository => ("authorization", BEARER),
        }
    }
}

/// A route that starts from a preset's, on the simulators' host.
pub(super) fn started(preset: &str, blocks: &str) -> String {
    format!("{{preset: {preset}, match: {{hosts: [localhost]}}, {blocks}}}")
}

/// A field of a request that the provider saw; empty where there is none.
pub(super) fn field(seen: &Seen, name: &str) -> String {
    let found = seen.headers.iter().find(|(field, _)| field.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.clone()).unwrap_or_default()
}

/// Posts to a server itself.
async fn post(url: &str, path: &str, fields: &[(&str, &str)], body: &str) -> Answer {
    let uri: Uri = url.parse().expect("a URL");
    let mut request = client::request(Method::POST, &uri, fields, body);
    *request.uri_mut() = path.parse().expect("a path");
    let authority = uri.authority().expect("a host").as_str();
    let stream = TcpStream::connect(authority).await.expect("it listens");
    client::over_http1(stream, request).await.expect("an answer")
}

/// What an answer says of its exchange: status, attempts, why it ended.
pub(super) fn told(answer: &Answer) -> (u16, &str, &str) {
    (answer.status.as_u16(), answer.header("samekey-attempts"), answer.header("samekey-stop"))
}

/// A text of an answer's JSON.
pub(super) fn text(answer: &Answer, pointer: &str) -> String {
    answer.json().pointer(pointer).unwrap_or(&json!(null)).as_str().unwrap_or_default().to_owned()
}

/// Waits that do not slow a test down.
pub(super) const FAST: &str = "backoff: {initial: 1ms, max: 2ms}";
/// Where an application takes its webhooks.
const HOOK: &str = "/s/s/echo";
/// What is said where there is no credit.
pub(super) const OUT_OF_CREDIT: (u16, &str) = (402, "insufficient-credits");
/// What the provider has to be shown, and nobody else may see.
pub(super) const CREDENTIAL: &str = "secret-of-the-account";
const BEARER: &str = "Bearer secret-of-the-account";
/// How a client names a business event to samekey.
pub(super) const EVENT: &str = "samekey-key";

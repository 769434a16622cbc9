//! The rows of what known providers promise, each end to end: a sidecar with a route for
//! the provider, a simulator that keeps its promises, and its books of effects and credits.

mod background;
mod generation;
mod images;
mod movies;
mod programs;
mod sdks;
mod thousand;

use http::Method;
use serde_json::{Value, json};

use crate::provider::api::Seen;
use crate::provider::apis::Name;
use crate::provider::apis::desk::Books;
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
            Name::Generation | Name::Charges | Name::Completions => ("authorization", BEARER),
        }
    }
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
/// What the provider has to be shown, and nobody else may see.
pub(super) const CREDENTIAL: &str = "secret-of-the-account";
const BEARER: &str = "Bearer secret-of-the-account";
/// How a client names a business event to samekey.
pub(super) const EVENT: &str = "samekey-key";

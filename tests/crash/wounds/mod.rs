//! Wounds other than death: to the disk, to the journal's file, to the clock.

mod clock;
mod command;
mod damage;
mod disk;

use serde_json::Value;

use crate::order::{Identity, Order, said};
use crate::sidecar::Sidecar;
use crate::support::Answer;
use crate::upstream::{Keys, Upstream};

/// An upstream that fails by script alone, and a sidecar with one route.
struct Scene {
    upstream: Upstream,
    sidecar: Sidecar,
}

impl Scene {
    /// Starts the upstream. `idempotency` holds further keys of that block, in flow style.
    async fn new(keys: Keys, idempotency: &str) -> Self {
        let dedupes = keys == Keys::Honoured;
        let config = format!(
            "listeners: [{{address: '127.0.0.1:0'}}]\nadmin: {{address: '127.0.0.1:0'}}\n\
             state: {{dir: state, journal: disk}}\n\
             routes: [{{name: r, match: {{hosts: ['*']}}, retry: {{attempts: 1}}, \
             idempotency: {{upstream_dedupes: {dedupes}{idempotency}}}}}]\n"
        );
        Self { upstream: Upstream::start(keys, 0, 0).await, sidecar: Sidecar::new(&config) }
    }

    /// As [`new`](Self::new), with the sidecar up.
    async fn up(keys: Keys, idempotency: &str) -> Self {
        let mut scene = Self::new(keys, idempotency).await;
        scene.sidecar.start(None).await.expect("it starts");
        scene
    }

    /// An order whose client has a key of its own: the event's name.
    fn order(&self, event: &str) -> Order {
        Order::new(event.to_owned(), Identity::ClientKey, self.upstream.http)
    }

    /// Orders once.
    async fn ask(&mut self, event: &str) -> Answer {
        self.order(event).ask(self.sidecar.proxy()).await.expect("an answer")
    }

    /// Orders once, and says what was answered: the status and a problem's slug.
    async fn said(&mut self, event: &str) -> (u16, String) {
        self.ask(event).await.said()
    }

    /// Orders what was ordered before, and gets it from the record.
    async fn replays(&mut self, event: &str) {
        let answer = self.ask(event).await;
        let stored = answer.header("samekey-replay") == "stored";
        assert!(answer.status == 201 && stored, "{event}: {}", said(&answer));
    }
}

/// What a run wrote, whether as text or as one JSON object a line.
fn plain(lines: &[String]) -> String {
    let texts = lines.iter().map(|line| match serde_json::from_str::<Value>(line) {
        Ok(Value::Object(members)) => {
            let texts = members.values().filter_map(Value::as_str);
            texts.collect::<Vec<_>>().join("\n")
        }
        Ok(_) | Err(_) => line.clone(),
    });
    texts.collect::<Vec<_>>().join("\n")
}

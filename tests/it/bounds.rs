//! The bounds of what is remembered: each that the config says is the one that holds.

use http::Method;

use crate::support::Stage;

/// A route whose polls are answered from memory for an hour.
const POLLED: &str = "kind: poll, interval: 1h";

impl Stage {
    /// Asks about a job; how the answer came here.
    async fn poll(&self, job: &str) -> String {
        let fields = [("authorization", "Bearer a")];
        let url = self.url(&format!("/echo?job={job}"));
        let answer = self.client.send(Method::GET, &url, &fields, "").await;
        assert_eq!(answer.status, 200);
        answer.header("samekey-replay").to_owned()
    }
}

#[tokio::test]
async fn so_many_jobs_and_bytes_are_remembered_for_polls() {
    for (bound, one, two) in [
        ("", "stored", "stored"),
        (", polled_jobs: 2", "stored", "stored"),
        (", polled_jobs: 1", "stored", ""),
        (", polled_memory: 1B", "", ""),
    ] {
        let stage = Stage::keeping(&format!("{{dir: state{bound}}}"), POLLED).await;
        let [_, again, _, first] = [
            stage.poll("a").await,
            stage.poll("a").await,
            stage.poll("b").await,
            stage.poll("a").await,
        ];
        assert_eq!((again.as_str(), first.as_str()), (one, two), "{bound}");
    }
}

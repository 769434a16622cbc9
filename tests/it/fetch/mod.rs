//! Downloads that break off and go on: the bytes are right, or the transfer visibly fails.

mod wherever;

use bytes::Bytes;
use http::{Method, Uri};
use http_body_util::BodyExt as _;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::provider::download::{mix, pieces};
use crate::provider::{Options, Provider};
use crate::support::client::request;
use crate::support::program::ran;
use crate::support::{Client, Samekey};

/// A route of downloads; waits are short, and the budget is what a test needs.
const FETCH: &str = "
providers: []
routes:
  - name: r
    match: {hosts: ['*']}
    kind: fetch
    limits: {concurrency: 1}
    retry: {attempts: 3, backoff: {initial: 1ms, max: 5ms}, body_idle_timeout: 300ms, budget: {burst: 10000}}
";

struct Yard {
    provider: Provider,
    samekey: Samekey,
    client: Client,
}

/// Which protocols a download goes over.
#[derive(Clone, Copy, Debug)]
enum Over {
    /// HTTP/1 on both sides.
    Plain,
    /// HTTP/1 to the client, and what the provider offers first upstream.
    Tls,
    /// HTTP/2 to the client.
    Http2,
}

const ALL: [Over; 3] = [Over::Plain, Over::Tls, Over::Http2];

/// What a client got of a file.
#[derive(Debug, PartialEq, Eq)]
struct Came {
    status: u16,
    bytes: u64,
    /// Whether these are the bytes of the file that its head named, up to there.
    right: bool,
    /// Whether it ended as its framing promised.
    whole: bool,
}

fn came(bytes: u64, whole: bool) -> Came {
    Came { status: 200, bytes, right: true, whole }
}

async fn yard(config: &str) -> Yard {
    yard_with(config, Options::default()).await
}

async fn yard_with(config: &str, options: Options) -> Yard {
    let provider = Provider::start(options).await.expect("a provider");
    let samekey = Samekey::beside(&provider, config).await;
    let client = Client::through(&samekey);
    Yard { provider, samekey, client }
}

impl Yard {
    /// Downloads a file of this size while the provider plays a script.
    async fn get(&self, over: Over, size: u64, steps: &str) -> Came {
        self.ask(over, size, steps, &[]).await
    }

    async fn ask(&self, over: Over, size: u64, steps: &str, fields: &[(&str, &str)]) -> Came {
        self.provider.script("s", steps);
        let path = format!("/s/s/files/clip?size={size}");
        let url = match over {
            Over::Plain => self.provider.ports.http_url(&path),
            Over::Tls | Over::Http2 => self.provider.ports.https_url(&path),
        };
        let uri: Uri = url.parse().expect("a URL");
        let mut request = request(Method::GET, &uri, fields, "");
        let response = match over {
            Over::Plain => {
                let stream = TcpStream::connect(self.samekey.proxy).await.expect("it listens");
                over_http1(stream, request).await
            }
            Over::Tls => {
                *request.uri_mut() = path.parse().expect("a path");
                over_http1(self.client.tls(&uri).await.expect("a tunnel"), request).await
            }
            Over::Http2 => {
                request.headers_mut().remove("host");
                let stream = self.client.clone().h2().tls(&uri).await.expect("a tunnel");
                let made = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
                let (mut sender, connection) = made.expect("a connection");
                tokio::spawn(connection);
                sender.send_request(request).await.expect("an answer")
            }
        };
        read(response).await
    }

    /// What the attempts since the script began asked for.
    fn ranges(&self) -> Vec<String> {
        let field = |fields: &[(String, String)]| {
            let mut found = fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("range"));
            found.next().map(|(_, value)| value.clone()).unwrap_or_default()
        };
        self.provider.seen("s").iter().map(|seen| field(&seen.headers)).collect()
    }

    /// How many downloads broke off with this result.
    async fn resumes(&self, result: &str) -> u64 {
        let series = format!("samekey_resumes_total{{result=\"{result}\",route=\"r\"}} ");
        let text = self.samekey.metrics().await;
        let count = text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok());
        count.expect("it stands there from the start")
    }
}

async fn over_http1<IO>(
    io: IO,
    request: http::Request<http_body_util::Full<Bytes>>,
) -> http::Response<hyper::body::Incoming>
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.expect("a connection");
    tokio::spawn(connection);
    sender.send_request(request).await.expect("an answer")
}

/// Reads a file to its end and compares it as it comes; nothing of it is kept.
async fn read(response: http::Response<hyper::body::Incoming>) -> Came {
    let (head, mut body) = response.into_parts();
    let status = head.status.as_u16();
    // Of a part, what it says it is.
    let range = head.headers.get("content-range").and_then(|range| range.to_str().ok());
    let first = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next());
    let first = first.and_then(|first| first.parse().ok()).unwrap_or(0);
    // And of which file: its head says so.
    let tag = head.headers.get("etag").and_then(|tag| tag.to_str().ok()).unwrap_or("\"a\"");
    let tag = tag.trim_start_matches("W/").trim_matches('"');
    let mut file = pieces(tag, first, u64::from(u32::MAX));
    let mut wanted = Bytes::new();
    let (mut bytes, mut right, mut whole) = (0, true, true);
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            whole = false;
            break;
        };
        let Ok(mut data) = frame.into_data() else { continue };
        bytes += data.len() as u64;
        while !data.is_empty() {
            if wanted.is_empty() {
                wanted = file.next().expect("the file is longer");
            }
            let here = data.len().min(wanted.len());
            right &= data.split_to(here) == wanted.split_to(here);
        }
    }
    Came { status, bytes, right, whole }
}

#[tokio::test]
async fn a_download_that_is_cut_goes_on_where_it_stopped() {
    let yard = yard(FETCH).await;
    for over in ALL {
        for (steps, ranges) in [
            ("ok cut_at=50000", &["", "bytes=50000-99999"][..]),
            ("ok chunked cut_at=50000", &["", "bytes=50000-"]),
            (
                "ok cut_at=20000; ok cut_at=70000; 503; ok chunked cut_at=80000",
                &[
                    "",
                    "bytes=20000-99999",
                    "bytes=70000-99999",
                    "bytes=70000-99999",
                    "bytes=80000-99999",
                ],
            ),
            ("ok cut_at=50000 cut_by=hang", &["", "bytes=50000-99999"]),
            ("503; ok cut_at=50000", &["", "", "bytes=50000-99999"]),
        ] {
            assert_eq!(
                yard.get(over, 100_000, steps).await,
                came(100_000, true),
                "{over:?} {steps}"
            );
            assert_eq!(yard.ranges(), ranges, "{over:?} {steps}");
        }
        // A reset may take bytes along that were on their way.
        for cut_by in ["reset", "failed_stream"] {
            let steps = format!("ok cut_at=50000 cut_by={cut_by}; ok cut_at=90000 cut_by={cut_by}");
            assert_eq!(
                yard.get(over, 100_000, &steps).await,
                came(100_000, true),
                "{over:?} {steps}"
            );
        }
    }
    for result in ["changed", "refused", "gave_up"] {
        assert_eq!(yard.resumes(result).await, 0, "{result}");
    }
}

#[tokio::test]
async fn a_clients_own_range_is_resumed_within_it() {
    let yard = yard(FETCH).await;
    for (range, first, count, asked) in [
        ("bytes=10000-79999", 10_000, 70_000, "bytes=50000-79999"),
        ("bytes=10000-", 10_000, 90_000, "bytes=50000-99999"),
        ("bytes=-60000", 40_000, 60_000, "bytes=50000-99999"),
    ] {
        for over in ALL {
            let fields = &[("range", range), ("if-none-match", "\"z\"")];
            let found = yard.ask(over, 100_000, "ok cut_at=50000", fields).await;
            let wanted = Came { status: 206, ..came(count, true) };
            assert_eq!(found, wanted, "{over:?} {range} from {first}");
            assert_eq!(yard.ranges(), [range, asked]);
            let seen = yard.provider.seen("s");
            let has = |n: usize, name: &str| {
                seen[n].headers.iter().any(|(field, _)| field.eq_ignore_ascii_case(name))
            };
            assert!(has(0, "if-none-match") && !has(1, "if-none-match") && has(1, "if-range"));
        }
    }
}

#[tokio::test]
async fn whatever_is_not_the_rest_ends_in_a_visible_truncation() {
    let yard = yard(FETCH).await;
    for (rest, result) in [
        ("ok lie=whole", "refused"),
        ("ok lie=early", "refused"),
        ("ok lie=late", "refused"),
        ("ok lie=short", "refused"),
        ("ok lie=total", "refused"),
        ("ok lie=no_range", "refused"),
        ("ok lie=two_ranges", "refused"),
        ("ok lie=longer", "refused"),
        ("ok lie=surplus", "refused"),
        ("ok lie=surplus chunked", "refused"),
        ("ok lie=weak", "changed"), // `If-Range` cannot hold, and all of it comes
        ("ok lie=no_tag", "refused"),
        ("ok lie=coded", "refused"),
        ("ok lie=multipart", "refused"),
        ("ok lie=unsatisfiable", "refused"),
        ("ok lie=failed", "changed"),
        ("ok tag=b", "changed"),
        ("ok tag=b chunked", "changed"),
        ("404", "refused"),
        ("503 forever", "gave_up"),
        ("reset_after forever", "gave_up"),
    ] {
        for over in ALL {
            for first in ["ok cut_at=50000", "ok chunked cut_at=50000"] {
                let before = yard.resumes(result).await;
                let steps = format!("{first}; {rest}");
                let found = yard.get(over, 100_000, &steps).await;
                assert!(found.right && !found.whole, "{over:?} {steps}: {found:?}");
                assert!(found.bytes >= 50_000, "{over:?} {steps}: {found:?}");
                assert_eq!(yard.resumes(result).await, before + 1, "{over:?} {steps}");
            }
        }
    }
}

#[tokio::test]
async fn what_cannot_be_proved_is_not_resumed() {
    let yard = yard(FETCH).await;
    for over in ALL {
        for lie in ["weak", "no_tag", "no_ranges", "multipart"] {
            // A `multipart/byteranges` of a 200 is nonsense, and no reason to guess.
            let steps = format!("ok lie={lie} cut_at=50000");
            let before = yard.resumes("refused").await;
            let found = yard.get(over, 100_000, &steps).await;
            assert_eq!(found, came(50_000, false), "{over:?} {lie}");
            assert_eq!(yard.ranges(), [""], "{over:?} {lie}");
            assert_eq!(yard.resumes("refused").await, before + 1, "{over:?} {lie}");
        }
    }
}

#[tokio::test]
async fn a_route_that_may_not_resume_does_not() {
    for (config, told) in [
        (FETCH.replace("kind: fetch", "kind: read"), "another kind"),
        (FETCH.replace("kind: fetch", "kind: fetch\n    mode: observe"), "it observes"),
        (FETCH.replace("attempts: 3", "attempts: 1"), "one attempt"),
    ] {
        let yard = yard(&config).await;
        let found = yard.get(Over::Plain, 100_000, "ok cut_at=50000").await;
        assert_eq!(found, came(50_000, false), "{told}");
        assert_eq!(yard.ranges().len(), 1, "{told}");
    }
}

#[tokio::test]
async fn an_empty_budget_is_a_visible_truncation() {
    let budget = "ratio: 0, min_per_second: 0, burst: 2";
    let yard = yard(&FETCH.replace("burst: 10000", budget)).await;
    // Two tokens pay for one resume.
    let steps = "ok cut_at=50000; ok cut_at=60000";
    assert_eq!(yard.get(Over::Plain, 100_000, steps).await, came(60_000, false));
    assert_eq!((yard.resumes("resumed").await, yard.resumes("gave_up").await), (1, 1));
    let series = r#"samekey_retry_stopped_total{reason="budget",route="r"}"#;
    yard.samekey.until(series, 1.0).await;
    yard.samekey
        .logged(&["\"resume\":\"gave_up\"", "\"stop\":\"budget\"", "\"delivered\":false"])
        .await;
}

#[tokio::test]
async fn the_ledger_has_the_attempts_of_a_resumed_download() {
    let yard = yard(FETCH).await;
    let found = yard.get(Over::Plain, 100_000, "ok cut_at=50000; 503").await;
    assert_eq!(found, came(100_000, true));
    for (series, wanted) in [
        (r#"samekey_attempts_total{outcome="done",route="r"}"#, 2.0),
        (r#"samekey_attempts_total{outcome="failed",route="r"}"#, 1.0),
        (r#"samekey_retries_total{reason="reset",route="r"}"#, 1.0),
        (r#"samekey_retries_total{reason="status_5xx",route="r"}"#, 1.0),
    ] {
        yard.samekey.until(series, wanted).await;
    }
    let admin = yard.samekey.admin;
    for (steps, state) in [("", "completed"), ("ok cut_at=50000; ok tag=b", "failed")] {
        if !steps.is_empty() {
            assert_eq!(yard.get(Over::Plain, 100_000, steps).await, came(50_000, false));
        }
        let row = loop {
            let path = format!("/api/exchanges?state={state}");
            let rows = crate::support::client::get(admin, &path).await.json();
            if let Some(row) = rows["exchanges"].as_array().and_then(|rows| rows.first()) {
                break row.clone();
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        };
        let outcomes: Vec<_> = row["attempts"].as_array().expect("attempts").clone();
        let told = outcomes.iter().map(|attempt| attempt["outcome"].as_str().unwrap_or_default());
        let wanted = if state == "completed" { "done failed done" } else { "done done" };
        assert_eq!(told.collect::<Vec<_>>().join(" "), wanted, "{row:#}");
    }
}

//! A client that wants one thing done, and asks until it knows what came of it.

use std::net::SocketAddr;
use std::time::Duration;

use http::Method;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::support::Answer;
use crate::support::client::{over_http1, request};

/// Where the sidecar is by now; `None` while it is down.
pub(crate) type Whereabouts = watch::Receiver<Option<SocketAddr>>;

/// The sidecars that a client can go through; it takes them in turns.
#[derive(Clone, Debug)]
pub(crate) struct Doors {
    all: Vec<Whereabouts>,
    turn: usize,
}

impl Doors {
    /// One at least; the first that is tried is the one whose turn it is.
    pub(crate) fn new(all: Vec<Whereabouts>, turn: usize) -> Self {
        Self { all, turn }
    }

    /// The next that is up; waits where none is.
    async fn next(&mut self) -> Option<SocketAddr> {
        self.turn += 1;
        for nth in 0..self.all.len() {
            let up = *self.all[(self.turn + nth) % self.all.len()].borrow();
            if up.is_some() {
                return up;
            }
        }
        let turn = self.turn % self.all.len();
        let up = timeout(STUCK, self.all[turn].wait_for(Option::is_some)).await;
        up.ok().and_then(|up| up.ok().and_then(|at| *at))
    }
}

/// What makes an order the same order when it is placed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// `Idempotency-Key`.
    ClientKey,
    /// `Samekey-Key`.
    Wish,
    /// The route's template.
    Template,
    /// Nothing: an equal request adopts the orphan.
    Keyless,
    /// `Idempotency-Key` on a route that soon forgets; asked once, food for the sweep.
    Brief,
}

/// One business event, and what its client knows of it.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) event: String,
    pub(crate) identity: Identity,
    pub(crate) end: Option<End>,
    /// What each try came to, for whom has to understand a failure.
    pub(crate) tries: Vec<String>,
    /// How soon its client hangs up at first, where it has no patience; it asks again.
    pub(crate) haste: Option<Duration>,
    /// Whether asking again may help where the outcome is unknown: who waited for another's
    /// exchange is told that, though the next request may be sent.
    pub(crate) insists: bool,
    upstream: SocketAddr,
}

/// How an order ends for its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The last byte of a 201 came, for this job.
    Done(String),
    /// `outcome-unknown`, in this exchange.
    Unknown(String),
    /// `response-not-retained`: it landed, in this exchange.
    Landed(String),
    /// Without a key: an answer of the upstream's own came whole, and whoever asks again
    /// means another order.
    Delivered(u16),
    /// Asked once only.
    Left,
    /// It got no answer that ends it, for longer than any restart takes.
    Stuck,
}

impl Order {
    pub(crate) fn new(event: String, identity: Identity, upstream: SocketAddr) -> Self {
        Self {
            event,
            identity,
            end: None,
            tries: Vec::new(),
            haste: None,
            insists: false,
            upstream,
        }
    }

    /// Whether asking again asks for the same. Without a key it does only where nothing
    /// was delivered.
    pub(crate) fn may_be_asked_again(&self) -> bool {
        match self.identity {
            Identity::ClientKey | Identity::Wish | Identity::Template => true,
            Identity::Keyless => matches!(self.end, Some(End::Unknown(_) | End::Landed(_))),
            Identity::Brief => false,
        }
    }

    /// Asks until it knows, through however many deaths of the sidecar.
    pub(crate) async fn see_through(&mut self, mut doors: Doors) {
        let started = Instant::now();
        while self.end.is_none() {
            let Some(proxy) = doors.next().await else {
                self.end = Some(End::Stuck);
                return;
            };
            self.end = self.attempt(proxy).await;
            if self.end.is_some() {
                return;
            }
            if started.elapsed() > STUCK {
                self.end = Some(End::Stuck);
            } else {
                sleep(BACKOFF).await;
            }
        }
    }

    /// Asks once; `None` where a client would ask again.
    async fn attempt(&mut self, proxy: SocketAddr) -> Option<End> {
        let hurries = self.tries.len() < HURRIED;
        let patience = self.haste.filter(|_| hurries).unwrap_or(PATIENCE);
        let asked = timeout(patience, self.ask(proxy)).await;
        let asked = asked.unwrap_or_else(|_late| Err("hung up".to_owned()));
        self.tries.push(match &asked {
            Ok(answer) if answer.whole => said(answer),
            Ok(answer) => format!("half of {}", answer.status),
            Err(error) => error.clone(),
        });
        let end = asked.ok().filter(|answer| answer.whole).and_then(|answer| self.means(&answer));
        if self.identity == Identity::Brief { end.or(Some(End::Left)) } else { end }
    }

    /// Asks once, as ever.
    pub(crate) async fn ask(&self, proxy: SocketAddr) -> Result<Answer, String> {
        let (event, upstream) = (&self.event, self.upstream);
        let path = match self.identity {
            Identity::ClientKey | Identity::Wish | Identity::Keyless => "v1/jobs",
            Identity::Template => "v2/jobs",
            Identity::Brief => "v1/brief",
        };
        let uri = format!("http://{upstream}/s/{event}/{path}").parse().expect("a URL");
        let mut headers = vec![("content-type", "application/json")];
        match self.identity {
            Identity::ClientKey | Identity::Brief => headers.push(("idempotency-key", event)),
            Identity::Wish => headers.push(("samekey-key", event)),
            Identity::Template | Identity::Keyless => {}
        }
        let body = format!("{{\"order\": \"{event}\", \"of\": \"one thing\"}}");
        let request = request(Method::POST, &uri, &headers, &body);
        let asked = async {
            let stream = TcpStream::connect(proxy).await.map_err(|error| error.to_string())?;
            over_http1(stream, request).await
        };
        timeout(PATIENCE, asked).await.unwrap_or_else(|_late| Err("no answer in time".to_owned()))
    }

    fn means(&self, answer: &Answer) -> Option<End> {
        let (status, slug) = answer.said();
        match (status, slug.as_str()) {
            (200..300, _) => Some(End::Done(job(answer))),
            (409, "outcome-unknown") if self.insists && !self.is_told_again() => None,
            (409, "outcome-unknown") => Some(End::Unknown(exchange(answer))),
            (409, "response-not-retained") => Some(End::Landed(exchange(answer))),
            (_, "") if self.identity == Identity::Keyless => Some(End::Delivered(status)),
            _ => None,
        }
    }

    /// Whether the last answers were one and the same unknown outcome.
    fn is_told_again(&self) -> bool {
        let last = self.tries.iter().rev().take(INSISTED);
        last.filter(|said| said.contains("outcome-unknown")).count() == INSISTED
    }
}

/// What a whole answer said, in a line.
pub(crate) fn said(answer: &Answer) -> String {
    let (status, slug) = answer.said();
    let (replay, attempts) = (answer.header("samekey-replay"), answer.header("samekey-attempts"));
    [status.to_string().as_str(), &slug, replay, "after", attempts].join(" ")
}

/// The job that an answer is about.
pub(crate) fn job(answer: &Answer) -> String {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    body["id"].as_str().unwrap_or_default().to_owned()
}

/// The exchange that a problem's detail names.
pub(crate) fn exchange(answer: &Answer) -> String {
    let problem = answer.json();
    let detail = problem["detail"].as_str().unwrap_or_default();
    let (_, rest) = detail.split_once("exchange ").unwrap_or_default();
    rest.chars().take_while(char::is_ascii_alphanumeric).collect()
}

/// Answers that say the same before it is believed.
const INSISTED: usize = 3;
/// Tries that a client in haste cuts short.
const HURRIED: usize = 2;
/// Longer than an attempt and its retries, shorter than a client's own patience.
const PATIENCE: Duration = Duration::from_secs(15);
/// Longer than two restarts take on a machine with other work.
const STUCK: Duration = Duration::from_secs(45);
/// A client's pause between two tries.
const BACKOFF: Duration = Duration::from_millis(15);

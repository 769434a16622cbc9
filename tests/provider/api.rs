//! The provider's API: jobs that are created once a key, and books of what was seen.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::answer::Answer;
use super::apis::sites::{Asking, Sites, Visit};
use super::book::Book;
use super::download;
use super::faults::Faults;
use super::job::Job;
use super::listing;
use super::request::{Head, Received, Seen};
use super::script::{BadScript, Cut, Kind, Script, Step, Then};

/// All that the provider knows, shared by its listeners.
pub(crate) struct Sim {
    started: Instant,
    honours_keys: bool,
    book: Option<Book>,
    faults: Option<Faults>,
    scenarios: Mutex<BTreeMap<String, Scenario>>,
    /// Requests seen in all; moves whenever one arrives.
    arrivals: watch::Sender<u64>,
    /// How often held answers were let go.
    releases: watch::Sender<u64>,
    /// How many of the next connections are reset as they are accepted.
    refusals: AtomicU64,
    /// The whole APIs, beside the one that is served here.
    pub(crate) sites: Sites,
}

struct Scenario {
    script: Script,
    honours_keys: bool,
    jobs: Vec<Job>,
    by_key: HashMap<String, usize>,
    seen: Vec<Seen>,
}

/// One request, the step that it meets, and where its row stands.
pub(crate) struct Turn {
    pub(crate) head: Head,
    pub(crate) step: Step,
    scenario: String,
    row: usize,
    releases_seen: u64,
}

/// What the wire is to do.
pub(crate) enum Act {
    Answer(Answer),
    Cut(Cut),
    Garbage,
}

impl Sim {
    pub(crate) fn new(
        honours_keys: bool,
        book: Option<Book>,
        faults: Option<Faults>,
        sites: Sites,
    ) -> Self {
        Self {
            started: Instant::now(),
            honours_keys,
            book,
            faults,
            scenarios: Mutex::default(),
            arrivals: watch::Sender::new(0),
            releases: watch::Sender::new(0),
            refusals: AtomicU64::new(0),
            sites,
        }
    }

    /// Gives `scenario` a script and forgets what it did before.
    pub(crate) fn script(&self, scenario: &str, steps: &str) -> Result<(), BadScript> {
        let script = Script::parse(steps)?;
        let fresh = Scenario { script, ..Scenario::new(self.honours_keys) };
        self.sites.close(scenario);
        self.books().insert(scenario.to_owned(), fresh);
        Ok(())
    }

    /// Sets whether a repeated key has one effect; each scenario has its own switch.
    pub(crate) fn honour_keys(&self, scenario: &str, honours_keys: bool) {
        self.with(scenario, |it| it.honours_keys = honours_keys);
    }

    /// How many jobs `scenario` has created, or its API made effects.
    pub(crate) fn effects(&self, scenario: &str) -> usize {
        self.with(scenario, |it| it.jobs.len()) + self.sites.effects(scenario)
    }

    /// The requests of `scenario`, in the order in which their heads came.
    pub(crate) fn seen(&self, scenario: &str) -> Vec<Seen> {
        self.with(scenario, |it| it.seen.clone())
    }

    /// Waits until `scenario` has seen `count` requests.
    pub(crate) async fn arrived(&self, scenario: &str, count: usize) {
        let mut arrivals = self.arrivals.subscribe();
        while self.with(scenario, |it| it.seen.len()) < count {
            arrivals.changed().await.expect("the sender is this provider's own");
        }
    }

    /// Lets every answer go that a `held` step withholds by now.
    pub(crate) fn release(&self) {
        self.releases.send_modify(|count| *count += 1);
    }

    /// Resets the next `count` connections as they are accepted, before TLS.
    pub(crate) fn refuse_connections(&self, count: u64) {
        self.refusals.store(count, Ordering::Relaxed);
    }

    /// Whether the connection accepted now is one of those.
    pub(crate) fn refuses(&self) -> bool {
        let less = |count: u64| count.checked_sub(1);
        self.refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    /// Forgets every scenario.
    pub(crate) fn forget(&self) {
        self.books().clear();
        self.sites.close_all();
    }

    /// Everything, for a reader outside this program.
    pub(crate) fn report(&self) -> Value {
        let names: Vec<_> = self.books().keys().cloned().collect();
        names.into_iter().map(|name| (name.clone(), self.report_on(&name))).collect()
    }

    /// The rows of one scenario and their sums.
    pub(crate) fn report_on(&self, scenario: &str) -> Value {
        let seen = self.seen(scenario);
        let keys: BTreeSet<_> = seen.iter().filter_map(|row| row.key.clone()).collect();
        json!({
            "effects": self.effects(scenario),
            "requests": seen.len(),
            "keys": keys,
            "books": self.sites.books(scenario),
            "seen": seen,
        })
    }

    /// Writes a request into the books and takes the step that it meets.
    pub(crate) fn begin(&self, head: Head) -> Turn {
        let (scenario, _) = head.split();
        let scenario = scenario.to_owned();
        let releases_seen = *self.releases.borrow();
        let at = self.started.elapsed();
        let (step, row) = self.with(&scenario, |it| {
            let faults = self.faults.filter(|faults| faults.meet(&head.method));
            let by_lot = || faults.and_then(|faults| faults.draw(&scenario, it.seen.len()));
            let step = it.script.next().or_else(by_lot).unwrap_or_default();
            it.seen.push(Seen::new(at, &head, &step));
            (step, it.seen.len() - 1)
        });
        self.arrivals.send_modify(|count| *count += 1);
        Turn { head, step, scenario, row, releases_seen }
    }

    /// What is done before the body is read, if anything.
    pub(crate) fn before(turn: &Turn) -> Option<Act> {
        match turn.step.kind {
            Kind::Before(cut) => Some(Act::Cut(cut)),
            Kind::Early(status) => {
                let mut answer = Answer::from_step(status, &turn.step);
                answer.then = Then::Close;
                Some(Act::Answer(answer))
            }
            Kind::Good | Kind::Status(_) | Kind::After(_) | Kind::Garbage | Kind::Hundred => None,
        }
    }

    /// What is done once the body is read: effects first, then faults.
    pub(crate) async fn after(&self, turn: &Turn, received: &Received) -> Act {
        self.enter(turn, received);
        let visit = turn.visit();
        let asking = visit.as_ref().map(|visit| self.sites.begin(visit));
        let serve = |forced| match (&visit, &asking) {
            (Some(visit), Some(asking)) => self.visit(turn, received, (visit, asking), forced),
            _ => self.serve(turn, received),
        };
        let step = &turn.step;
        let act = match step.kind {
            Kind::Good | Kind::Hundred => Act::Answer(serve(None).dressed(step)),
            Kind::Status(status) => {
                if step.effect {
                    serve(Some(status));
                }
                let error = |visit| self.sites.error(visit, status).dressed(step);
                let answer = visit.as_ref().map(error);
                Act::Answer(answer.unwrap_or_else(|| Answer::from_step(status, step)))
            }
            Kind::After(cut) => {
                serve(None);
                Act::Cut(cut)
            }
            Kind::Garbage => {
                serve(None);
                Act::Garbage
            }
            Kind::Before(cut) => Act::Cut(cut),
            Kind::Early(status) => Act::Answer(Answer::from_step(status, step)),
        };
        self.withhold(turn).await;
        self.with(&turn.scenario, |it| it.jobs.iter_mut().for_each(|job| job.finish(turn)));
        if let Some(visit) = &visit {
            self.sites.ended(visit);
        }
        act
    }

    /// Asks the whole API that the request came to.
    fn visit(
        &self,
        turn: &Turn,
        received: &Received,
        (visit, asking): (&Visit<'_>, &Asking),
        forced: Option<u16>,
    ) -> Answer {
        let (_, target) = turn.head.split();
        let lingers = turn.lingers();
        let (answer, effects) =
            self.sites.serve(visit, (target, received), asking, (lingers, forced));
        for effect in &effects {
            if let Some(book) = &self.book {
                book.enter(&effect.id, effect.key.as_deref(), &effect.event);
            }
        }
        answer
    }

    async fn withhold(&self, turn: &Turn) {
        tokio::time::sleep(turn.step.wait).await;
        if turn.step.held {
            let mut releases = self.releases.subscribe();
            let let_go = releases.wait_for(|count| *count > turn.releases_seen).await;
            let_go.expect("the sender is this provider's own");
        }
    }

    fn enter(&self, turn: &Turn, received: &Received) {
        self.with(&turn.scenario, |it| {
            // The books may have been closed while the body came in.
            if let Some(row) = it.seen.get_mut(turn.row) {
                row.whole = true;
                row.body_bytes = received.bytes;
                row.body_digest.clone_from(&received.digest);
                row.body = String::from_utf8_lossy(received.first()).into_owned();
                row.trailers.clone_from(&received.trailers);
            }
        });
    }

    /// The API itself.
    fn serve(&self, turn: &Turn, received: &Received) -> Answer {
        let (_, path) = turn.head.split();
        let path = path.split('?').next().unwrap_or(path);
        let words: Vec<_> = path.split('/').skip(1).collect();
        let good = |body: Value| Answer::json(200, &body);
        match (turn.head.method.as_str(), words.as_slice()) {
            (_, ["echo"]) => Answer::echo(&turn.head, received),
            (_, ["inspect"]) => good(self.with(&turn.scenario, |it| json!(it.seen.get(turn.row)))),
            (_, ["sink"]) => good(json!({"bytes": received.bytes, "digest": received.digest})),
            ("GET" | "HEAD", ["files", _]) => download::answer(&turn.head, &turn.step),
            (_, ["bytes", count]) => Answer::zeros(count.parse().unwrap_or(0)),
            (_, ["status", status]) => {
                let status = status.parse().unwrap_or(404);
                Answer::json(status, &json!({"status": status}))
            }
            ("GET", ["v2", "movies"]) => {
                self.with(&turn.scenario, |it| listing::page(&it.jobs, &turn.head.target))
            }
            ("GET", ["v2", "by-name", name]) => {
                self.with(&turn.scenario, |it| listing::named(&it.jobs, name))
            }
            ("POST" | "PUT" | "PATCH", ["v1" | "v2", ..]) => self.create(turn, received),
            ("GET" | "HEAD", ["v1" | "v2", .., id]) => self.job(turn, id),
            _ => Answer::json(404, &json!({"error": {"code": "not_found"}})),
        }
    }

    fn create(&self, turn: &Turn, received: &Received) -> Answer {
        let key = turn.head.field("idempotency-key").map(str::to_owned);
        self.with(&turn.scenario, |it| {
            let known = key.as_ref().filter(|_| it.honours_keys).and_then(|key| it.by_key.get(key));
            if let Some((n, job)) = known.and_then(|&n| Some((n, it.jobs.get(n)?))) {
                return job.again(n + 1, &received.digest);
            }
            let n = it.jobs.len() + 1;
            let job = Job {
                id: format!("job-{}-{n}", turn.scenario),
                key: key.clone(),
                digest: received.digest.clone(),
                asked: serde_json::from_slice(&received.kept).unwrap_or_default(),
                running: turn.lingers(),
            };
            let answer = Answer::json(201, &job.shown(n));
            if let Some(book) = &self.book {
                book.enter(&job.id, key.as_deref(), &event(&received.kept));
            }
            it.by_key.extend(key.map(|key| (key, n - 1)));
            it.jobs.push(job);
            answer
        })
    }

    fn job(&self, turn: &Turn, id: &str) -> Answer {
        let found = self.with(&turn.scenario, |it| {
            let n = it.jobs.iter().position(|job| job.id == id)?;
            it.jobs.get(n).map(|job| job.shown(n + 1))
        });
        let missing = || Answer::json(404, &json!({"error": {"code": "not_found"}}));
        found.map_or_else(missing, |job| Answer::json(200, &job))
    }

    fn with<T>(&self, scenario: &str, act: impl FnOnce(&mut Scenario) -> T) -> T {
        let mut books = self.books();
        let fresh = || Scenario::new(self.honours_keys);
        act(books.entry(scenario.to_owned()).or_insert_with(fresh))
    }

    fn books(&self) -> MutexGuard<'_, BTreeMap<String, Scenario>> {
        self.scenarios.lock().expect("nothing panics over the books")
    }
}

impl Scenario {
    fn new(honours_keys: bool) -> Self {
        Self {
            script: Script::default(),
            honours_keys,
            jobs: Vec::new(),
            by_key: HashMap::new(),
            seen: Vec::new(),
        }
    }
}

impl Turn {
    /// Whether the answer is withheld after its effect.
    fn lingers(&self) -> bool {
        self.step.held || !self.step.wait.is_zero()
    }

    /// The request, as the whole API that it came to sees it.
    fn visit(&self) -> Option<Visit<'_>> {
        let name = self.head.api?;
        Some(Visit { name, scenario: &self.scenario, head: &self.head })
    }
}

/// The business event that a request for a job is about.
fn event(body: &[u8]) -> String {
    let asked: Value = serde_json::from_slice(body).unwrap_or_default();
    asked.get("order").and_then(Value::as_str).unwrap_or_default().to_owned()
}

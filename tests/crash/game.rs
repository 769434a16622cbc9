//! Rounds of orders and deaths in one state directory, and what is looked at after each.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use samekey::failpoint::Failpoint;
use tokio::time::sleep;

use crate::check::{book_agrees, described, stays, unknowns_are_listed};
use crate::customers::{Customers, IDENTITIES};
use crate::ledger::{self, Truth};
use crate::order::{Doors, End, Identity, Order};
use crate::plan::{Dealer, Kill, Plan};
use crate::sidecar::{Sidecar, Started};
use crate::tally::{AT_REST, Tally};
use crate::upstream::{Keys, Upstream};

/// What is played, and how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) keys: Keys,
    /// `state.journal`.
    pub(crate) journal: &'static str,
    pub(crate) seed: u64,
    /// Deaths amid orders after which it ends, once every place had its turn; without
    /// any, one round is played.
    pub(crate) kills: u64,
    /// Of a hundred requests, those that the upstream fails by itself.
    pub(crate) faults: u8,
    /// Of so many lanes that play the same, which this is.
    pub(crate) lane: (usize, usize),
}

/// One lane: one state directory, whatever happens to it.
struct Game {
    setting: Setting,
    name: String,
    rng: StdRng,
    upstream: Arc<Upstream>,
    sidecar: Sidecar,
    /// All orders that came to an end.
    orders: Vec<Order>,
    tally: Tally,
}

/// Plays one lane to its end, or to the first round in which something is wrong.
pub(crate) async fn play(setting: Setting) -> Tally {
    let Setting { keys, seed, faults, lane, .. } = setting;
    let upstream = Arc::new(Upstream::start(keys, seed, faults).await);
    let mut game = Game {
        setting,
        name: format!("{}{}", if keys == Keys::Honoured { "h" } else { "i" }, lane.0),
        rng: StdRng::seed_from_u64(seed),
        upstream,
        sidecar: Sidecar::new(&config(setting)),
        orders: Vec::new(),
        tally: Tally::default(),
    };
    let mut dealer = Dealer::new(seed, keys == Keys::Ignored, lane);
    let mut round = 0;
    loop {
        let plan = (setting.kills > 0).then(|| dealer.next());
        let played = game.round(round, plan).await;
        game.tally.violations.extend(played.err());
        if !game.tally.violations.is_empty() {
            let told = format!("lane {} round {round}, {plan:?}, {setting:?}", game.name);
            game.tally.violations.insert(0, told);
            break;
        }
        round += 1;
        if game.tally.survived() >= setting.kills && dealer.is_through() {
            break;
        }
    }
    game.closed()
}

impl Game {
    /// One plan, a calm afterwards in which all is looked at, and a death at rest.
    async fn round(&mut self, round: u32, plan: Option<Plan>) -> Result<(), String> {
        let name = format!("{}-{round}", self.name);
        let orders = match plan {
            Some(Plan::Resolve(truth)) => vec![self.die_over_resolve(&name, truth).await?],
            Some(Plan::Storm(kill)) => {
                let mut customers = self.customers(&name, kill.script());
                self.storm(kill, &mut customers).await?;
                if self.rng.random_bool(0.5) {
                    let again = Kill::random(&mut self.rng);
                    self.storm(again, &mut customers).await?;
                }
                customers.close();
                self.sidecar.start(None).await?;
                customers.orders().await
            }
            None => {
                self.sidecar.start(None).await?;
                let mut customers = self.customers(&name, None);
                customers.have_left().await;
                customers.orders().await
            }
        };
        self.look(orders).await?;
        if self.setting.kills > 0 {
            self.sidecar.kill().await?;
            self.tally.killed(AT_REST);
        }
        Ok(())
    }

    fn customers(&mut self, name: &str, script: Option<&'static str>) -> Customers {
        let doors = [self.sidecar.whereabouts()];
        Customers::enter(name, self.rng.random(), &self.upstream, (script, IDENTITIES), &doors)
    }

    fn doors(&self) -> Doors {
        Doors::new(vec![self.sidecar.whereabouts()], 0)
    }

    /// Starts the sidecar among its customers, and sees it dead.
    async fn storm(&mut self, kill: Kill, customers: &mut Customers) -> Result<(), String> {
        let place = kill.failpoint();
        if self.sidecar.start(place.as_deref()).await? == Started::Died {
            self.tally.killed(kill.word());
            return Ok(());
        }
        tokio::select! {
            died = self.sidecar.died() => {
                self.tally.killed(kill.word());
                return died;
            }
            () = moment(kill, customers) => {}
        }
        if place.is_some() {
            self.tally.missed(kill.word());
        }
        self.sidecar.kill().await?;
        self.tally.killed(if place.is_some() { "random" } else { kill.word() });
        Ok(())
    }

    /// Holds what came of these orders, and of some before them, against book and ledger.
    async fn look(&mut self, mut orders: Vec<Order>) -> Result<(), String> {
        let book = self.upstream.effects();
        let mut wrong = book_agrees(&orders, &book, self.setting.keys);
        self.count(&orders);
        if self.setting.journal == "disk" {
            wrong.extend(unknowns_are_listed(&orders, self.sidecar.admin()).await);
        }
        let earlier = self.orders.sample(&mut self.rng, EARLIER).cloned().collect::<Vec<_>>();
        let proxy = self.sidecar.proxy();
        for order in orders.iter().chain(&earlier).filter(|order| order.may_be_asked_again()) {
            match stays(order, proxy).await {
                Ok(()) if matches!(order.end, Some(End::Done(_))) => self.tally.replays += 1,
                Ok(()) => {}
                Err(violation) => wrong.push(violation),
            }
        }
        if self.setting.journal == "disk" {
            wrong.extend(self.settle(&mut orders).await.err());
        }
        // Whoever asked again, and whatever was settled, has added nothing.
        let touched: Vec<_> = orders.iter().chain(&earlier).cloned().collect();
        wrong.extend(book_agrees(&touched, &self.upstream.effects(), self.setting.keys));
        self.orders.extend(orders);
        let mut told = String::new();
        for violation in &wrong {
            writeln!(told, "{violation}").expect("memory takes it");
        }
        if wrong.is_empty() { Ok(()) } else { Err(told) }
    }

    fn count(&mut self, orders: &[Order]) {
        let ended = |is: fn(&End) -> bool| {
            orders.iter().filter(|order| order.end.as_ref().is_some_and(is)).count()
        };
        self.tally.orders += orders.len();
        self.tally.unknowns += ended(|end| matches!(end, End::Unknown(_)));
        self.tally.landed += ended(|end| matches!(end, End::Landed(_)));
    }

    /// Settles a few unknown outcomes by what the book says of them.
    async fn settle(&mut self, orders: &mut [Order]) -> Result<(), String> {
        let unknown = orders.iter_mut().filter(|order| matches!(order.end, Some(End::Unknown(_))));
        for order in unknown.take(SETTLED) {
            let landed = self.upstream.count(&order.event) > 0;
            let truth = if landed { Truth::Landed } else { Truth::Absent };
            self.resolve(order, truth).await?;
            self.after_resolve(order, truth).await?;
        }
        Ok(())
    }

    async fn resolve(&mut self, order: &Order, truth: Truth) -> Result<(), String> {
        let Some(End::Unknown(exchange)) = &order.end else { return Ok(()) };
        let answer = ledger::resolve(self.sidecar.admin(), exchange, truth).await;
        let answer = answer.map_err(|error| described(order, &format!("resolve: {error}")))?;
        if answer.status != 200 {
            let wrong = format!("resolve {truth:?}: {} {}", answer.status, answer.text());
            return Err(described(order, &wrong));
        }
        self.tally.resolved += 1;
        Ok(())
    }

    /// What a settled order is told: landed stays so, absent may be had once.
    async fn after_resolve(&mut self, order: &mut Order, truth: Truth) -> Result<(), String> {
        let Some(End::Unknown(exchange)) = order.end.take() else { return Ok(()) };
        if truth == Truth::Landed {
            order.end = Some(End::Landed(exchange));
            return stays(order, self.sidecar.proxy()).await;
        }
        order.tries.push("resolved as absent".to_owned());
        order.see_through(self.doors()).await;
        match &order.end {
            Some(End::Done(_) | End::Delivered(_)) => Ok(()),
            // The upstream may fail it once more.
            Some(End::Unknown(again)) if *again != exchange => Ok(()),
            _ => Err(described(order, "it was resolved as absent")),
        }
    }

    /// One unknown outcome whose resolution dies amid its transaction: all of it holds, or nothing.
    async fn die_over_resolve(&mut self, name: &str, truth: Truth) -> Result<Order, String> {
        let word = Failpoint::InResolve.as_str();
        if self.sidecar.start(Some(word)).await? == Started::Died {
            return Err("it died of in-resolve before anybody resolved".to_owned());
        }
        let identities = [Identity::ClientKey, Identity::Wish, Identity::Template];
        let identity = *identities.choose(&mut self.rng).expect("there are three");
        let mut order = Order::new(format!("{name}-r"), identity, self.upstream.http);
        let steps = if truth == Truth::Landed { "500 effect; ok" } else { "500; ok" };
        self.upstream.script(&order.event, steps).await;
        order.see_through(self.doors()).await;
        let Some(End::Unknown(exchange)) = order.end.clone() else {
            return Err(described(&order, "its outcome is known"));
        };
        let cut = ledger::resolve(self.sidecar.admin(), &exchange, truth).await;
        if let Ok(answer) = cut {
            let wrong = format!("in-resolve was not passed: {} {}", answer.status, answer.text());
            return Err(described(&order, &wrong));
        }
        self.sidecar.died().await?;
        self.tally.killed(word);
        self.sidecar.start(None).await?;
        let state = ledger::state(self.sidecar.admin(), &exchange).await?;
        if state == "unknown" {
            stays(&order, self.sidecar.proxy()).await?;
            self.resolve(&order, truth).await?;
        }
        self.after_resolve(&mut order, truth).await?;
        let (count, end) = (self.upstream.count(&order.event), &order.end);
        if count == 1 { Ok(order) } else { Err(format!("{word}: {count} effects, {end:?}")) }
    }

    /// The sums, once nothing more is asked.
    fn closed(mut self) -> Tally {
        let book = self.upstream.effects();
        self.tally.effects = book.values().map(Vec::len).sum();
        self.tally
    }
}

/// Waits for the moment in which a kill of that kind is due; for a place of the code, until
/// nothing is left that could pass it.
async fn moment(kill: Kill, customers: &mut Customers) {
    match kill {
        Kill::After(wait) => sleep(wait).await,
        Kill::Delivered(nth) => {
            customers.delivered(nth).await;
        }
        Kill::At(Failpoint::DuringSweep, _) => {
            customers.have_left().await;
            sleep(SWEEP_MAX).await;
        }
        Kill::At(..) => customers.have_left().await,
    }
}

/// A sidecar's config: one route for each kind of identity.
fn config(Setting { keys, journal, lane, .. }: Setting) -> String {
    let dedupes = keys == Keys::Honoured;
    let durability = if lane.0 % 2 == 1 { "power" } else { "process" };
    let retry = "{attempts: 3, attempt_timeout: 400ms, backoff: {initial: 5ms, max: 20ms}, \
                 budget: {ratio: 1, min_per_second: 100, burst: 1000}}";
    let idempotency = |more: &str| format!("{{upstream_dedupes: {dedupes}, {more}}}");
    let route = |name: &str, path: &str, more: &str| {
        format!(
            "- {{name: {name}, match: {{hosts: ['*'], paths: ['/s/*/{path}']}}, \
             retry: {retry}, idempotency: {}}}\n",
            idempotency(more)
        )
    };
    let routes = [
        route("named", "v2/jobs", "identity: 'order-{json:/order}'"),
        route("brief", "v1/brief", "ttl: 1s, keep_key: 0s"),
        route("plain", "v1/jobs", "adopt_orphans: 10m"),
    ];
    format!(
        "listeners: [{{address: '127.0.0.1:0'}}]\nadmin: {{address: '127.0.0.1:0'}}\n\
         state: {{dir: state, journal: {journal}, durability: {durability}}}\nroutes:\n{}",
        routes.concat()
    )
}

/// Orders of rounds before that are asked for again in each round.
const EARLIER: usize = 12;
/// Unknown outcomes that are settled in each round.
const SETTLED: usize = 4;
/// How long a sweep of expired rows is waited for.
const SWEEP_MAX: Duration = Duration::from_secs(8);

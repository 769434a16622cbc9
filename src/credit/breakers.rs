//! The breakers that are open, one a credential and upstream.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use dashmap::DashMap;
use tokio::time::Instant;

use crate::credit::Account;
use crate::credit::breaker::{Breaker, Pass};
use crate::metrics::{CreditMetrics, Raised};

/// Who is held back for want of credit; a clone shares it.
#[derive(Clone, Debug)]
pub struct Breakers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    accounts_max: usize,
    open: DashMap<Account, Entry>,
    /// How many there are: at zero, which is the rule, nobody looks.
    count: AtomicUsize,
    /// Numbers those that go first.
    trials: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    breaker: Breaker,
    /// The route that opened it.
    route: String,
    cause: Cause,
    opened: (Instant, SystemTime),
    _counted: Raised,
}

/// What a breaker was opened by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The answer to an effect.
    Answer,
    /// A balance.
    Balance,
}

impl Cause {
    /// What a client is told.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answer => "the upstream lately said that this credential is out of credit",
            Self::Balance => "this credential's balance is below what the route wants it to be",
        }
    }
}

/// What a request has to do.
#[derive(Debug)]
pub enum Admission {
    /// Go: nothing is known against it.
    Go,
    /// Go first, and say what came of it.
    GoFirst(Trial),
    /// Do not go.
    Refused {
        /// Why not.
        cause: Cause,
        /// When asking again may help.
        wait: Duration,
    },
}

/// The right to go first; dropped without a word, the next one has it.
#[derive(Debug)]
pub struct Trial {
    breakers: Breakers,
    account: Account,
    number: u64,
}

/// A breaker, as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The route that opened it.
    pub route: String,
    /// The upstream.
    pub origin: String,
    /// When it was opened.
    pub opened_at: SystemTime,
    /// When the next one may go; in the past where nobody came since.
    pub resets_at: SystemTime,
}

impl Breakers {
    /// Nobody is held back yet; so many credentials will be at most.
    pub fn new(accounts_max: usize) -> Self {
        let (open, count, trials) = (DashMap::new(), AtomicUsize::new(0), AtomicU64::new(0));
        Self(Arc::new(Inner { accounts_max, open, count, trials }))
    }

    /// What a request of `account` has to do at `now`.
    pub fn ask(&self, account: &Account, now: Instant) -> Admission {
        if self.is_empty() {
            return Admission::Go;
        }
        let Some(mut entry) = self.0.open.get_mut(account) else { return Admission::Go };
        let number = self.0.trials.fetch_add(1, Ordering::Relaxed);
        match entry.breaker.ask(now, number) {
            Pass::GoFirst => {
                let (breakers, account) = (self.clone(), account.clone());
                Admission::GoFirst(Trial { breakers, account, number })
            }
            Pass::Refused(wait) => Admission::Refused { cause: entry.cause, wait },
        }
    }

    /// Holds `account` back for as long as `after`; true where it was not before.
    pub fn open(
        &self,
        account: &Account,
        cause: Cause,
        (now, after): (Instant, Duration),
        metrics: &CreditMetrics,
    ) -> bool {
        if let Some(mut entry) = self.0.open.get_mut(account) {
            entry.breaker.reopen(now, after);
            return false;
        }
        // Until the sweep makes room, no more are held back: the price of a bound.
        if self.0.open.len() >= self.0.accounts_max {
            return false;
        }
        let mut made = false;
        let mut entry = self.0.open.entry(account.clone()).or_insert_with(|| {
            made = true;
            self.0.count.fetch_add(1, Ordering::AcqRel);
            Entry {
                breaker: Breaker::new(now, after),
                route: metrics.route().to_owned(),
                cause,
                opened: (now, SystemTime::now()),
                _counted: metrics.breaker(),
            }
        });
        if !made {
            entry.breaker.reopen(now, after);
        }
        made
    }

    /// Holds `account` back no longer; true where it was.
    pub fn close(&self, account: &Account) -> bool {
        if self.is_empty() {
            return false;
        }
        self.counted(self.0.open.remove(account).is_some())
    }

    /// Whether nobody of `account` may go at `now`.
    pub fn holds(&self, account: &Account, now: Instant) -> bool {
        let holds = || self.0.open.get(account).is_some_and(|entry| entry.breaker.holds(now));
        !self.is_empty() && holds()
    }

    /// Closes those that `route` opened, or all; says how many they were.
    pub fn reset(&self, route: Option<&str>) -> usize {
        self.drop_where(|entry| route.is_none_or(|route| entry.route == route))
    }

    /// Those that are open, oldest first.
    pub fn list(&self) -> Vec<Shown> {
        let mut shown: Vec<Shown> = self.0.open.iter().map(|entry| shown(&entry)).collect();
        shown.sort_by_key(|shown| shown.opened_at);
        shown
    }

    /// Forgets those whose time was over long ago: nobody came.
    pub fn sweep(&self, now: Instant) {
        self.drop_where(|entry| now >= entry.breaker.until() + FORGOTTEN_AFTER);
    }

    fn is_empty(&self) -> bool {
        self.0.count.load(Ordering::Acquire) == 0
    }

    fn drop_where(&self, is_over: impl Fn(&Entry) -> bool) -> usize {
        let mut dropped = 0;
        self.0.open.retain(|_, entry| {
            let gone = self.counted(is_over(entry));
            dropped += usize::from(gone);
            !gone
        });
        dropped
    }

    /// Counts one less where there is one less.
    fn counted(&self, gone: bool) -> bool {
        if gone {
            self.0.count.fetch_sub(1, Ordering::AcqRel);
        }
        gone
    }
}

fn shown(entry: &dashmap::mapref::multiple::RefMulti<'_, Account, Entry>) -> Shown {
    let (opened, opened_at) = entry.opened;
    let lasts = entry.breaker.until().saturating_duration_since(opened);
    Shown {
        route: entry.route.clone(),
        origin: entry.key().origin.to_string(),
        opened_at,
        resets_at: opened_at.checked_add(lasts).unwrap_or(opened_at),
    }
}

impl Trial {
    /// It was answered well: there is credit again. True where that closed the breaker.
    pub fn succeed(self) -> bool {
        let awaited = |_: &Account, entry: &Entry| entry.breaker.awaits(self.number);
        let breakers = &self.breakers;
        breakers.counted(breakers.0.open.remove_if(&self.account, awaited).is_some())
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Some(mut entry) = self.breakers.0.open.get_mut(&self.account) {
            entry.breaker.first_failed(self.number, Instant::now());
        }
    }
}

/// Whoever wanted to go first had all this time.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credit::balance::tests::account;
    use crate::metrics::Metrics;

    const ACCOUNTS_MAX: usize = 8;
    const AFTER: Duration = Duration::from_mins(5);

    struct Bench {
        breakers: Breakers,
        metrics: Metrics,
    }

    impl Bench {
        fn new() -> Self {
            Self { breakers: Breakers::new(ACCOUNTS_MAX), metrics: Metrics::new() }
        }

        fn open(&self, nth: usize, route: &str) -> bool {
            let metrics = self.metrics.credit(route);
            let when = (Instant::now(), AFTER);
            self.breakers.open(&account(nth), Cause::Answer, when, &metrics)
        }

        fn ask(&self, nth: usize) -> Admission {
            self.breakers.ask(&account(nth), Instant::now())
        }

        fn first(&self, nth: usize) -> Trial {
            match self.ask(nth) {
                Admission::GoFirst(trial) => trial,
                other => panic!("{other:?}"),
            }
        }

        fn gauge(&self, route: &str) -> String {
            let text = self.metrics.text();
            let series = format!("samekey_breakers_open{{route=\"{route}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&series)).unwrap_or("none").to_owned()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_credential_is_held_back_and_no_other() {
        let bench = Bench::new();
        assert!(bench.open(1, "r"));
        assert!(!bench.open(1, "r"), "it is already");
        let Admission::Refused { wait, cause } = bench.ask(1) else { panic!("it is held back") };
        assert_eq!((wait, cause), (AFTER, Cause::Answer));
        assert!(matches!(bench.ask(2), Admission::Go), "another credential");
        let observed = Account { observed: true, ..account(1) };
        assert!(matches!(bench.breakers.ask(&observed, Instant::now()), Admission::Go));
        assert_eq!(bench.gauge("r"), "1");
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_goes_first_decides() {
        let bench = Bench::new();
        bench.open(1, "r");
        tokio::time::advance(AFTER).await;
        let first = bench.first(1);
        assert!(matches!(bench.ask(1), Admission::Refused { .. }));
        drop(first);
        let second = bench.first(1);
        assert!(second.succeed());
        assert!(matches!(bench.ask(1), Admission::Go));
        assert_eq!(bench.gauge("r"), "0");
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_of_a_breaker_that_is_gone_does_not_close_the_next() {
        let bench = Bench::new();
        bench.open(1, "r");
        tokio::time::advance(AFTER).await;
        let old = bench.first(1);
        bench.breakers.reset(None);
        bench.open(1, "r");
        tokio::time::advance(AFTER).await;
        let new = bench.first(1);
        assert!(!old.succeed());
        assert!(matches!(bench.ask(1), Admission::Refused { .. }), "the new one is out");
        assert!(new.succeed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_operator_resets_a_route_or_all() {
        let bench = Bench::new();
        for (nth, route) in [(1, "a"), (2, "a"), (3, "b"), (4, "c")] {
            bench.open(nth, route);
        }
        assert_eq!(bench.breakers.reset(Some("x")), 0);
        assert_eq!(bench.breakers.reset(Some("a")), 2);
        assert!(matches!(bench.ask(1), Admission::Go));
        assert!(matches!(bench.ask(3), Admission::Refused { .. }));
        let routes: Vec<_> = bench.breakers.list().into_iter().map(|shown| shown.route).collect();
        assert_eq!(routes.len(), 2, "{routes:?}");
        assert_eq!((bench.breakers.reset(None), bench.breakers.list().len()), (2, 0));
        assert_eq!([bench.gauge("a"), bench.gauge("b"), bench.gauge("c")], ["0"; 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_operator_sees_until_when() {
        let bench = Bench::new();
        bench.open(1, "r");
        let [shown] = &bench.breakers.list()[..] else { panic!("there is one") };
        assert_eq!((shown.route.as_str(), shown.origin.as_str()), ("r", "https://api.test"));
        assert_eq!(shown.resets_at, shown.opened_at + AFTER);
    }

    #[tokio::test(start_paused = true)]
    async fn invented_credentials_do_not_fill_the_memory() {
        let bench = Bench::new();
        assert!((0..ACCOUNTS_MAX).all(|nth| bench.open(nth, "r")), "under and at the bound");
        assert!(!bench.open(ACCOUNTS_MAX, "r"), "over it");
        assert!(matches!(bench.ask(ACCOUNTS_MAX), Admission::Go), "nothing is made worse");
        assert!(matches!(bench.ask(0), Admission::Refused { .. }), "who is held back stays so");
        let over = Instant::now() + AFTER + FORGOTTEN_AFTER;
        bench.breakers.sweep(over - Duration::from_millis(1));
        assert!(!bench.open(ACCOUNTS_MAX, "r"), "a breaker waits for whoever goes first");
        bench.breakers.sweep(over);
        assert_eq!(bench.gauge("r"), "0");
        assert!(bench.open(ACCOUNTS_MAX, "r"));
    }
}

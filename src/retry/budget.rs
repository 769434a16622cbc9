//! What a route may add to its traffic by retrying.
//!
//! A bucket of tokens: first attempts that succeed deposit a share of one, a
//! trickle of them comes with time, and each retry is paid for before it waits.
//! In a full outage nothing is deposited, so the load added is what was saved up
//! and the trickle, however many ask.
//!
//! # Invariants
//!
//! - Sums are integers: a ratio of 0.3 is 0.3, after a billion deposits too.
//! - The balance is never below zero and never above `burst`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tokio::time::Instant;

/// The `budget` of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Thousandths of a retry that each successful first attempt earns.
    pub ratio_milli: u32,
    /// Retries that each second earns.
    pub per_second: u32,
    /// The most retries that can be saved up.
    pub burst: u32,
}

/// What a retry costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// Nothing: the first retry of an attempt that was never sent or refused.
    Free,
    /// A third: the upstream throttled, and said for how long.
    Third,
    /// A token: the upstream failed.
    One,
    /// Two: nobody knows what became of the attempt.
    Two,
}

impl Cost {
    fn units(self) -> u64 {
        match self {
            Self::Free => 0,
            Self::Third => TOKEN / 3,
            Self::One => TOKEN,
            Self::Two => TOKEN * 2,
        }
    }
}

/// Proof that a retry was paid for; it can be handed back once.
#[must_use = "a retry that is not made is refunded"]
#[derive(Debug)]
pub struct Receipt {
    units: u64,
}

/// A retry that is paid for; dropped before it is made, it gives the tokens back.
#[derive(Debug)]
pub struct Paid {
    budget: Budget,
    receipt: Option<Receipt>,
}

impl Paid {
    /// A retry that `receipt` of `budget` pays for.
    pub fn with(budget: &Budget, receipt: Receipt) -> Self {
        Self { budget: budget.clone(), receipt: Some(receipt) }
    }

    /// Notes that it is made.
    pub fn spend(mut self) {
        self.receipt = None;
    }
}

impl Drop for Paid {
    fn drop(&mut self) {
        if let Some(receipt) = self.receipt.take() {
            self.budget.refund(receipt);
        }
    }
}

/// The balance of one route, shared by all its exchanges.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Account>);

#[derive(Debug)]
struct Account {
    ratio_milli: AtomicU32,
    per_second: AtomicU32,
    burst: AtomicU32,
    /// In units; see [`TOKEN`].
    balance: AtomicU64,
    /// What `credited` counts from.
    opened: Instant,
    /// Up to when the trickle is in the balance: nanoseconds after `opened`.
    credited: AtomicU64,
}

impl Budget {
    /// Opens a budget, full.
    pub fn new(terms: Terms, now: Instant) -> Self {
        Self(Arc::new(Account {
            ratio_milli: AtomicU32::new(terms.ratio_milli),
            per_second: AtomicU32::new(terms.per_second),
            burst: AtomicU32::new(terms.burst),
            balance: AtomicU64::new(u64::from(terms.burst) * TOKEN),
            opened: now,
            credited: AtomicU64::new(0),
        }))
    }

    /// Credits a first attempt that succeeded.
    ///
    /// Each good exchange does this, so it reads no clock, and it writes nothing
    /// while the bucket is full: on a healthy route all cores only read. That the
    /// trickle comes later makes no difference to the sum, capped or not.
    pub fn deposit(&self) {
        let ratio = u64::from(self.0.ratio_milli.load(Ordering::Relaxed));
        self.0.add(ratio * (TOKEN / 1000));
    }

    /// Pays for a retry, if the balance allows it.
    pub fn withdraw(&self, cost: Cost, now: Instant) -> Option<Receipt> {
        let units = cost.units();
        if units == 0 {
            return Some(Receipt { units });
        }
        self.0.trickle(now);
        let full = self.0.full();
        let pay = |balance: u64| balance.min(full).checked_sub(units);
        let paid = self.0.balance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay);
        paid.ok().map(|_before| Receipt { units })
    }

    /// Takes a payment back: its retry was not made.
    #[expect(clippy::needless_pass_by_value, reason = "a receipt is handed back once")]
    pub fn refund(&self, receipt: Receipt) {
        self.0.add(receipt.units);
    }

    /// The whole tokens there are.
    pub fn whole_tokens(&self, now: Instant) -> u64 {
        self.0.trickle(now);
        self.0.balance.load(Ordering::Relaxed).min(self.0.full()) / TOKEN
    }

    /// Puts new terms in force; the balance stays, down to the new `burst`.
    pub fn retune(&self, terms: Terms, now: Instant) {
        // What time has earned so far was earned at the old rate.
        self.0.trickle(now);
        self.0.ratio_milli.store(terms.ratio_milli, Ordering::Relaxed);
        self.0.per_second.store(terms.per_second, Ordering::Relaxed);
        self.0.burst.store(terms.burst, Ordering::Relaxed);
        self.0.balance.fetch_min(self.0.full(), Ordering::Relaxed);
    }
}

impl Account {
    fn full(&self) -> u64 {
        u64::from(self.burst.load(Ordering::Relaxed)) * TOKEN
    }

    fn add(&self, units: u64) {
        if self.balance.load(Ordering::Relaxed) >= self.full() {
            return;
        }
        let grow = |balance: u64| {
            let full = self.full();
            (balance < full).then(|| balance.saturating_add(units).min(full))
        };
        match self.balance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow) {
            // Full by now: nothing is owed to anyone.
            Ok(_) | Err(_) => (),
        }
    }

    /// Adds what time has earned since the last call. A `now` that is earlier
    /// than one seen before earns nothing.
    fn trickle(&self, now: Instant) {
        let rate = u128::from(self.per_second.load(Ordering::Relaxed)) * u128::from(TOKEN);
        let passed = now.saturating_duration_since(self.opened).as_nanos();
        let credited = self.credited.load(Ordering::Relaxed);
        let owed = passed.saturating_sub(u128::from(credited));
        let units = owed * rate / SECOND;
        // Only the time that whole units stand for is used up, rounded against
        // us: asking often neither loses nor earns a part of a unit. At a rate of
        // zero all of it is, or a later rate would be paid for it.
        let used = if rate == 0 { owed } else { (units * SECOND).div_ceil(rate) };
        if used == 0 {
            return;
        }
        let until = credited.saturating_add(u64::try_from(used).unwrap_or(u64::MAX));
        // Who loses the race leaves it to the winner, who saw the same time pass.
        let order = Ordering::Relaxed;
        if self.credited.compare_exchange(credited, until, order, order).is_ok() {
            self.add(u64::try_from(units).unwrap_or(u64::MAX));
        }
    }
}

/// Units in a token: a thousandth and a third of it are both whole.
const TOKEN: u64 = 3000;

/// Nanoseconds in a second.
const SECOND: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn open(ratio_milli: u32, per_second: u32, burst: u32) -> (Budget, Instant) {
        let now = Instant::now();
        (Budget::new(Terms { ratio_milli, per_second, burst }, now), now)
    }

    fn drain(budget: &Budget, cost: Cost, now: Instant) -> u32 {
        let mut paid = 0;
        while budget.withdraw(cost, now).is_some() {
            paid += 1;
        }
        paid
    }

    fn units(budget: &Budget) -> u64 {
        budget.0.balance.load(Ordering::Relaxed)
    }

    #[test]
    fn every_ratio_is_exact() {
        // tower truncates 1/ratio: 0.3 becomes a third, 0.6 to 0.9 become 1.
        for tenth in [1, 2, 3, 4, 6, 7, 9, 10] {
            let (budget, now) = open(tenth * 100, 0, 1000);
            assert_eq!(drain(&budget, Cost::One, now), 1000);
            (0..1000).for_each(|_| budget.deposit());
            assert_eq!(drain(&budget, Cost::One, now), tenth * 100, "0.{tenth}");
            assert_eq!(units(&budget), 0);
        }
    }

    #[test]
    fn costs_are_what_they_say() {
        for (cost, wanted) in [(Cost::Third, 30), (Cost::One, 10), (Cost::Two, 5)] {
            let (budget, now) = open(0, 0, 10);
            assert_eq!(drain(&budget, cost, now), wanted, "{cost:?}");
            assert_eq!(units(&budget), 0, "{cost:?}");
            assert!(budget.withdraw(Cost::Free, now).is_some());
        }
    }

    #[test]
    fn time_earns_a_trickle_up_to_the_burst() {
        let (budget, now) = open(0, 2, 5);
        drain(&budget, Cost::One, now);
        for (millis, tokens) in [(0, 0), (499, 0), (500, 1), (1000, 2), (2500, 5), (99_000, 5)] {
            assert_eq!(
                budget.whole_tokens(now + Duration::from_millis(millis)),
                tokens,
                "{millis}"
            );
        }
        assert_eq!(drain(&budget, Cost::One, now + Duration::from_secs(99)), 5);
    }

    #[test]
    fn asking_often_loses_nothing() {
        let (budget, now) = open(0, 1, 100);
        drain(&budget, Cost::One, now);
        // 7 µs is less than two units.
        for step in 0..200_000_u64 {
            budget.whole_tokens(now + Duration::from_micros(step * 7));
        }
        assert_eq!(budget.whole_tokens(now + Duration::from_millis(1400)), 1);
        assert!((4199..=4200).contains(&units(&budget)), "{}", units(&budget));
    }

    #[test]
    fn a_clock_that_goes_back_earns_nothing_and_breaks_nothing() {
        let (budget, now) = open(0, 1, 10);
        let later = now + Duration::from_secs(3);
        drain(&budget, Cost::One, later);
        assert!(budget.withdraw(Cost::One, now).is_none());
        assert!(budget.withdraw(Cost::One, later).is_none());
        assert_eq!(budget.whole_tokens(later + Duration::from_secs(1)), 1);
    }

    #[test]
    fn a_refund_restores_the_balance_and_no_more() {
        let (budget, now) = open(0, 0, 10);
        let receipt = budget.withdraw(Cost::Two, now).expect("it is full");
        assert_eq!(budget.whole_tokens(now), 8);
        budget.refund(receipt);
        assert_eq!(budget.whole_tokens(now), 10);
        let receipt = budget.withdraw(Cost::Two, now).expect("it is full");
        budget.retune(Terms { ratio_milli: 0, per_second: 0, burst: 9 }, now);
        budget.refund(receipt);
        assert_eq!(budget.whole_tokens(now), 9);
    }

    #[test]
    fn a_reload_keeps_the_balance() {
        let (budget, now) = open(0, 0, 10);
        drain(&budget, Cost::One, now);
        let terms = |per_second, burst| Terms { ratio_milli: 0, per_second, burst };
        let hour = now + Duration::from_hours(1);
        budget.retune(terms(10, 100), hour);
        assert_eq!(budget.whole_tokens(hour), 0, "the hour before earned nothing");
        assert_eq!(budget.whole_tokens(hour + Duration::from_secs(5)), 50);
        budget.retune(terms(0, 20), hour + Duration::from_secs(5));
        assert_eq!(budget.whole_tokens(hour + Duration::from_secs(5)), 20);
        budget.retune(terms(0, 100), hour + Duration::from_secs(9));
        assert_eq!(budget.whole_tokens(hour + Duration::from_secs(99)), 20);
    }

    #[test]
    fn many_at_once_never_overdraw() {
        let (budget, now) = open(0, 0, 1000);
        let paid: u32 = std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(|| drain(&budget, Cost::Third, now)));
            threads.into_iter().map(|thread| thread.join().expect("no thread panics")).sum()
        });
        assert_eq!(paid, 3000);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Deposit,
        Withdraw(Cost),
        Refund,
        Jump(i64),
        Retune(Terms),
    }

    fn terms() -> impl Strategy<Value = Terms> {
        let wide = (any::<u32>(), any::<u32>(), any::<u32>());
        let usual = (0_u32..2000, 0_u32..20, 0_u32..200);
        prop_oneof![wide, usual].prop_map(|(ratio_milli, per_second, burst)| Terms {
            ratio_milli,
            per_second,
            burst,
        })
    }

    fn step() -> impl Strategy<Value = Step> {
        let cost =
            prop_oneof![Just(Cost::Free), Just(Cost::Third), Just(Cost::One), Just(Cost::Two)];
        prop_oneof![
            4 => Just(Step::Deposit),
            6 => cost.prop_map(Step::Withdraw),
            1 => Just(Step::Refund),
            2 => (-2_000_000_000_i64..4_000_000_000).prop_map(Step::Jump),
            1 => terms().prop_map(Step::Retune),
        ]
    }

    proptest! {
        #[test]
        fn the_balance_stays_between_zero_and_burst(
            start in terms(), script in prop::collection::vec(step(), 0..200),
        ) {
            let opened = Instant::now() + Duration::from_secs(10_000);
            let budget = Budget::new(start, opened);
            let (mut now, mut burst, mut receipts) = (opened, start.burst, Vec::new());
            for step in script {
                let before = units(&budget);
                match step {
                    Step::Deposit => budget.deposit(),
                    Step::Withdraw(cost) => match budget.withdraw(cost, now) {
                        Some(receipt) => receipts.push(receipt),
                        None => prop_assert!(before < cost.units()),
                    },
                    Step::Refund => receipts.pop().into_iter().for_each(|r| budget.refund(r)),
                    Step::Jump(by) if by < 0 => now -= Duration::from_nanos(by.unsigned_abs()),
                    Step::Jump(by) => now += Duration::from_nanos(by.unsigned_abs()),
                    Step::Retune(terms) => {
                        burst = terms.burst;
                        budget.retune(terms, now);
                    }
                }
                prop_assert!(units(&budget) <= u64::from(burst) * TOKEN);
                prop_assert!(budget.whole_tokens(now) <= u64::from(burst));
            }
        }

        #[test]
        fn an_outage_adds_the_savings_and_the_trickle_and_no_more(
            per_second in 0_u32..50, burst in 0_u32..500,
            pauses in prop::collection::vec(0_u64..3_000_000_000, 1..100),
        ) {
            let (budget, start) = open(200, per_second, burst);
            let (mut now, mut paid) = (start, 0_u64);
            for pause in pauses {
                now += Duration::from_nanos(pause);
                paid += u64::from(drain(&budget, Cost::One, now));
            }
            let nanos = (now - start).as_nanos();
            let earned = nanos * u128::from(per_second) / SECOND;
            prop_assert!(u128::from(paid) <= u128::from(burst) + earned);
        }
    }
}

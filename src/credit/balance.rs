//! What a credential had left when it was asked for last, and when to ask again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use tokio::time::Instant;

use crate::credit::{Account, Amount, Place};

/// The balances of all credentials; a clone shares them.
#[derive(Clone, Debug)]
pub struct Balances(Arc<Known>);

#[derive(Debug)]
struct Known {
    balances_max: usize,
    balances: DashMap<Asked, Arc<Balance>>,
}

/// Whose balance it is, and where it is read.
type Asked = (Account, Arc<Place>);

/// One balance.
#[derive(Debug, Default)]
pub struct Balance {
    /// Held by whoever asks: one at a time. Dropped on the way, it leaves the next to ask.
    pub(super) asking: tokio::sync::Mutex<()>,
    reading: Mutex<Option<Reading>>,
}

/// What came of asking.
#[derive(Clone, Debug)]
pub struct Reading {
    /// What is left; `None`: nobody says.
    pub left: Option<Amount>,
    /// When that was.
    pub at: Instant,
}

/// How a balance stands to what must be left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is enough.
    Enough,
    /// It is not.
    Low,
    /// Nobody says.
    Unread,
}

/// What a request has to do about the balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: what is known will do.
    Nothing,
    /// Ask, unless somebody else does: then what is known will do.
    Ask,
    /// Ask, or wait for whoever does.
    Know,
}

impl Reading {
    /// How it stands to what must be left.
    pub fn standing(&self, at_least: &Amount) -> Standing {
        match &self.left {
            None => Standing::Unread,
            Some(left) if left < at_least => Standing::Low,
            Some(_) => Standing::Enough,
        }
    }
}

/// What a request at `now` has to do, where a reading is used for as long as `every`.
///
/// A low one is used as long as somebody is `held` back for it, and no longer: once that is
/// over, or an operator has ended it, asking is cheaper than an effect that is refused.
pub fn need(
    reading: Option<&Reading>,
    (at_least, every): (&Amount, Duration),
    held: bool,
    now: Instant,
) -> Need {
    let Some(reading) = reading else { return Need::Know };
    let fresh = now < reading.at + every;
    match reading.standing(at_least) {
        Standing::Low if !held => Need::Know,
        Standing::Low | Standing::Enough | Standing::Unread if fresh => Need::Nothing,
        Standing::Low | Standing::Enough | Standing::Unread => Need::Ask,
    }
}

impl Balances {
    /// None is known yet; so many will be at most.
    pub fn new(balances_max: usize) -> Self {
        Self(Arc::new(Known { balances_max, balances: DashMap::new() }))
    }

    /// The balance of one credential; `None` where no further one is kept.
    pub(super) fn of(&self, account: &Account, place: &Arc<Place>) -> Option<Arc<Balance>> {
        let asked = (account.clone(), place.clone());
        let Known { balances_max, balances } = &*self.0;
        if let Some(known) = balances.get(&asked) {
            return Some(known.clone());
        }
        // Until the sweep makes room, no more are asked for: the price of a bound.
        (balances.len() < *balances_max).then(|| balances.entry(asked).or_default().clone())
    }

    /// Forgets what nobody has asked for in a long time; called every few seconds.
    pub fn sweep(&self, now: Instant) {
        self.0.balances.retain(|_, balance| {
            let old = |reading: Reading| now >= reading.at + KEPT_FOR;
            Arc::strong_count(balance) > 1 || balance.last().is_some_and(|last| !old(last))
        });
    }
}

impl Balance {
    /// What came of asking last.
    pub fn last(&self) -> Option<Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what came of asking, and says what came of it before.
    pub fn note(&self, reading: Reading) -> Option<Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner).replace(reading)
    }
}

/// As long as `preflight.every` can be.
const KEPT_FOR: Duration = Duration::from_hours(24);

#[cfg(test)]
pub(super) mod tests {
    use http::uri::PathAndQuery;

    use super::*;
    use crate::exchange::{Origin, Pointer};

    const BALANCES_MAX: usize = 8;
    const EVERY: Duration = Duration::from_mins(1);
    const NEARLY: Duration = Duration::from_millis(59_999);

    /// The credential of that number, at `https://api.test`.
    pub(in crate::credit) fn account(nth: usize) -> Account {
        let mut caller = [1; 32];
        caller[..8].copy_from_slice(&nth.to_be_bytes());
        let origin = Origin::parse("https://api.test").expect("an origin");
        Account { origin, caller, observed: false }
    }

    fn place() -> Arc<Place> {
        let json = Pointer::parse("/credits").expect("a pointer");
        Arc::new(Place { path: PathAndQuery::from_static("/account"), json })
    }

    fn amount(text: &str) -> Amount {
        Amount::parse(text).expect("a number")
    }

    #[tokio::test(start_paused = true)]
    async fn a_reading_is_used_for_so_long() {
        let (now, one) = (Instant::now(), amount("1"));
        let check = |left: Option<&str>, held: bool, age: Duration, wanted: Need| {
            let reading = Reading { left: left.map(amount), at: now };
            let found = need(Some(&reading), (&one, EVERY), held, now + age);
            assert_eq!(found, wanted, "{left:?} {held} after {age:?}");
        };
        for held in [false, true] {
            for left in [Some("1"), Some("1.0001"), None] {
                check(left, held, NEARLY, Need::Nothing);
                check(left, held, EVERY, Need::Ask);
            }
        }
        for left in [Some("0.9999"), Some("-3")] {
            check(left, true, NEARLY, Need::Nothing);
            check(left, true, EVERY, Need::Ask);
            check(left, false, Duration::ZERO, Need::Know);
        }
        assert_eq!(need(None, (&one, EVERY), false, now), Need::Know);
    }

    #[test]
    fn a_balance_is_low_below_what_must_be_left() {
        for (left, wanted) in [
            (Some("0.99"), Standing::Low),
            (Some("1"), Standing::Enough),
            (Some("1.01"), Standing::Enough),
            (None, Standing::Unread),
        ] {
            let reading = Reading { left: left.map(amount), at: Instant::now() };
            assert_eq!(reading.standing(&amount("1.0")), wanted, "{left:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn invented_credentials_do_not_fill_the_memory() {
        let (balances, place) = (Balances::new(BALANCES_MAX), place());
        let read = |nth: usize| {
            let balance = balances.of(&account(nth), &place);
            balance.map(|balance| balance.note(Reading { left: None, at: Instant::now() }))
        };
        assert!((0..BALANCES_MAX).all(|nth| read(nth).is_some()), "under and at the bound");
        assert!(read(BALANCES_MAX).is_none(), "over it");
        assert!(read(0).is_some(), "who is known stays so");
        tokio::time::advance(KEPT_FOR).await;
        balances.sweep(Instant::now());
        assert!(read(BALANCES_MAX).is_some());
    }
}

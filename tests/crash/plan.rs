//! When a sidecar is killed: at a place in its code, or at a moment.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use samekey::failpoint::Failpoint;

use crate::ledger::Truth;

/// What one round of the game is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Orders, and a death amid them.
    Storm(Kill),
    /// An unknown outcome is settled, and the sidecar dies over it.
    Resolve(Truth),
}

/// What kills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kill {
    /// A place of the code, when it is passed for the nth time.
    At(Failpoint, u64),
    /// A moment after the first order.
    After(Duration),
    /// The moment in which the nth client has its answer.
    Delivered(u32),
}

impl Kill {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::At(place, _) => place.as_str(),
            Self::After(_) => "random",
            Self::Delivered(_) => "delivered",
        }
    }

    /// What arms the place.
    pub(crate) fn failpoint(self) -> Option<String> {
        match self {
            Self::At(place, nth) => Some(format!("{}:{nth}", place.as_str())),
            Self::After(_) | Self::Delivered(_) => None,
        }
    }

    /// A script for the orders, without which the place would seldom be passed.
    pub(crate) fn script(self) -> Option<&'static str> {
        match self {
            Self::At(Failpoint::BetweenAttempts, _) => Some("429; 429; ok"),
            Self::At(Failpoint::MidRequest, _) => Some("slow 60"),
            Self::At(..) | Self::After(_) | Self::Delivered(_) => None,
        }
    }

    /// A moment of this round.
    pub(crate) fn random(rng: &mut StdRng) -> Self {
        Self::After(Duration::from_millis(rng.random_range(1..250)))
    }
}

/// Deals plans: every place comes up before any comes again.
pub(crate) struct Dealer {
    rng: StdRng,
    hand: Vec<Plan>,
    places: Vec<Failpoint>,
}

impl Dealer {
    /// Places that can be met; of `lanes` dealers that play the same, `lane` has its share.
    pub(crate) fn new(seed: u64, has_unknowns: bool, (lane, lanes): (usize, usize)) -> Self {
        let all = Failpoint::ALL.into_iter();
        let places: Vec<_> =
            all.filter(|place| has_unknowns || *place != Failpoint::InResolve).collect();
        let share = places.into_iter().skip(lane).step_by(lanes.max(1)).collect();
        Self { rng: StdRng::seed_from_u64(seed), hand: Vec::new(), places: share }
    }

    /// The next round's plan.
    pub(crate) fn next(&mut self) -> Plan {
        if self.hand.is_empty() {
            self.deal();
        }
        self.hand.pop().expect("it was dealt")
    }

    /// Whether all that was dealt was played.
    pub(crate) fn is_through(&self) -> bool {
        self.hand.is_empty()
    }

    fn deal(&mut self) {
        for place in self.places.clone() {
            let plan = match place {
                Failpoint::InResolve => {
                    let landed = self.rng.random_bool(0.5);
                    Plan::Resolve(if landed { Truth::Landed } else { Truth::Absent })
                }
                // The first is swept at the start, the next amid the traffic.
                Failpoint::DuringSweep => Plan::Storm(Kill::At(place, self.rng.random_range(1..3))),
                _ => Plan::Storm(Kill::At(place, self.rng.random_range(1..12))),
            };
            self.hand.push(plan);
        }
        for _ in 0..2 {
            self.hand.push(Plan::Storm(Kill::random(&mut self.rng)));
        }
        self.hand.push(Plan::Storm(Kill::Delivered(self.rng.random_range(1..15))));
        self.hand.shuffle(&mut self.rng);
    }
}

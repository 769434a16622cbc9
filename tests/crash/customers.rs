//! A crowd of clients, each placing one order after another while a storm lasts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::order::{Doors, End, Identity, Order, Whereabouts};
use crate::upstream::{Keys, Upstream};

/// The clients of one round.
pub(crate) struct Customers {
    tasks: JoinSet<Vec<Order>>,
    closing: Arc<AtomicBool>,
    /// One word for each answer whose last byte came; closed once all have left.
    delivered: mpsc::UnboundedReceiver<()>,
}

/// What one client needs to know.
struct Customer {
    name: String,
    rng: StdRng,
    upstream: Arc<Upstream>,
    script: Option<&'static str>,
    doors: Doors,
    identities: &'static [Identity],
    closing: Arc<AtomicBool>,
    delivered: mpsc::UnboundedSender<()>,
}

impl Customers {
    /// Lets them in. Their events begin with `name`; each scenario gets `script`, if any,
    /// and they go through all `doors` in turns.
    pub(crate) fn enter(
        name: &str,
        seed: u64,
        upstream: &Arc<Upstream>,
        (script, identities): (Option<&'static str>, &'static [Identity]),
        doors: &[Whereabouts],
    ) -> Self {
        let (tell, delivered) = mpsc::unbounded_channel();
        let closing = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for nth in 0..CUSTOMERS {
            let customer = Customer {
                name: format!("{name}-{nth}"),
                rng: StdRng::seed_from_u64(seed.wrapping_add(nth)),
                upstream: upstream.clone(),
                script,
                doors: Doors::new(doors.to_vec(), usize::try_from(nth).unwrap_or_default()),
                identities,
                closing: closing.clone(),
                delivered: tell.clone(),
            };
            tasks.spawn(customer.shop());
        }
        Self { tasks, closing, delivered }
    }

    /// Waits until so many answers were delivered, or all clients have left; whether they were.
    pub(crate) async fn delivered(&mut self, count: u32) -> bool {
        for _ in 0..count {
            if self.delivered.recv().await.is_none() {
                return false;
            }
        }
        true
    }

    /// Waits until all have left by themselves.
    pub(crate) async fn have_left(&mut self) {
        while self.delivered.recv().await.is_some() {}
    }

    /// Lets nobody begin another order.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// All that they ordered, once each knows what came of it.
    pub(crate) async fn orders(self) -> Vec<Order> {
        self.close();
        self.tasks.join_all().await.into_iter().flatten().collect()
    }
}

impl Customer {
    async fn shop(mut self) -> Vec<Order> {
        let mut orders = Vec::new();
        while orders.len() < ORDERS_MAX && !self.closing.load(Ordering::Relaxed) {
            let event = format!("{}-{}", self.name, orders.len());
            let identity = *self.identities.choose(&mut self.rng).expect("some are given");
            if let Some(script) = self.script {
                self.upstream.script(&event, script).await;
            }
            let mut order = Order::new(event, identity, self.upstream.http);
            order.insists = self.upstream.keys == Keys::Honoured;
            // Without an identity, who hangs up on an answer asks for another order.
            if order.may_be_asked_again() && self.rng.random_bool(0.25) {
                order.haste = Some(Duration::from_millis(self.rng.random_range(1..25)));
            }
            order.see_through(self.doors.clone()).await;
            if matches!(order.end, Some(End::Done(_))) {
                // Whoever counts may have heard enough.
                let _unheard = self.delivered.send(());
            }
            orders.push(order);
        }
        orders
    }
}

/// What an order can be known by, as often as it is to come up.
pub(crate) const IDENTITIES: &[Identity] = &[
    Identity::ClientKey,
    Identity::ClientKey,
    Identity::Wish,
    Identity::Template,
    Identity::Template,
    Identity::Keyless,
    Identity::Keyless,
    Identity::Brief,
];
/// Enough that one sidecar has several exchanges open whenever it dies.
const CUSTOMERS: u64 = 4;
/// How much a storm can grow to while nothing kills.
const ORDERS_MAX: usize = 12;

//! What outlives a reload, of all routes.

use dashmap::DashMap;
use tokio::time::Instant;

use crate::config::State;
use crate::credit::Accounts;
use crate::inbox::Trays;
use crate::limit::Gates;
use crate::metrics::Metrics;
use crate::pipeline::Lasting;
use crate::poll::Board;
use crate::retry::Budget;
use crate::route::Route;

/// What routes saved, spent and remember, by their names.
pub(super) struct Kept {
    pub(super) gates: Gates,
    pub(super) accounts: Accounts,
    pub(super) budgets: DashMap<String, Budget>,
    pub(super) polls: Board,
    pub(super) trays: Trays,
}

impl Kept {
    pub(super) fn new(state: &State, gates: Gates, trays: Trays) -> Self {
        let (accounts, budgets) = (Accounts::new(state.credit_accounts), DashMap::new());
        let polls = Board::new(state.polls);
        Self { gates, accounts, budgets, polls, trays }
    }

    /// What of it is one route's.
    pub(super) fn of(&self, route: &Route, metrics: &Metrics) -> Lasting {
        let now = Instant::now();
        let terms = route.retry.budget;
        let made = || Budget::new(terms, now);
        let budget = self.budgets.entry(route.name.clone()).or_insert_with(made).clone();
        budget.retune(terms, now); // what was saved and spent stays so
        let metrics = match route.provenance.built_in() {
            Some(_) => metrics.route_once_used(&route.name),
            None => metrics.route(&route.name),
        };
        metrics.budget(budget.whole_tokens(now));
        Lasting {
            budget,
            gate: self.gates.of(&route.name, &route.limits),
            accounts: self.accounts.clone(),
            polls: self.polls.clone(),
            tray: route.inbox.is_some().then(|| self.trays.of(&route.name)),
            metrics,
        }
    }

    /// What is past its time goes.
    pub(super) fn sweep(&self, now: Instant) {
        self.gates.sweep(now);
        self.accounts.sweep(now);
        self.polls.sweep(now);
        self.trays.sweep();
    }
}

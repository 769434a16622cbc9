//! What the admin side is told about the sidecar.

use std::sync::Arc;

use serde_json::json;
use tokio::time::Instant;

use crate::admin::Desk;
use crate::app::{Core, ledger, reload};

pub(super) fn of(core: &Arc<Core>) -> Desk {
    let (refresh, status, routes, reload) =
        (core.clone(), core.clone(), core.clone(), core.clone());
    Desk {
        metrics: core.metrics.clone(),
        refresh: Arc::new(move || refresh.refresh()),
        draining: core.house.draining.clone(),
        status: Arc::new(move || status.status()),
        routes: Arc::new(move || routes.routes()),
        reload: Arc::new(move || reload::now(&reload)),
        breakers: core.kept.accounts.breakers.clone(),
        books: ledger::books(&core.commons),
        expose: core.config.load().admin.expose,
    }
}

impl Core {
    /// Brings the gauges up to date that nobody touches as they change.
    fn refresh(&self) {
        let now = Instant::now();
        for budget in &self.kept.budgets {
            self.metrics.route_once_used(budget.key()).budget(budget.value().whole_tokens(now));
        }
        let (entries, bytes) = self.commons.store.size();
        self.metrics.store_size(entries, bytes);
        self.metrics.minted(self.house.authority.minted());
    }

    fn status(&self) -> serde_json::Value {
        let config = self.config.load();
        let (listeners, admin) = &self.addresses;
        let (entries, bytes) = self.commons.store.size();
        let listeners: Vec<String> = listeners.iter().map(ToString::to_string).collect();
        let up = self.started.elapsed().map_or(0, |up| up.as_secs());
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "up_seconds": up,
            "listeners": listeners,
            "admin": admin.to_string(),
            "config": config.source.to_string(),
            "routes": config.routes.len(),
            "inbox_waiting": self.kept.trays.waiting(),
            "draining": self.house.draining.is_cancelled(),
            "store": {
                "kind": self.commons.store.kind(),
                "entries": entries,
                "bytes": bytes,
                "commits": self.commons.store.journal().map(|journal| journal.books().commits()),
            },
        })
    }

    fn routes(&self) -> serde_json::Value {
        let config = self.config.load();
        let now = Instant::now();
        let routes: Vec<serde_json::Value> = config
            .routes
            .iter()
            .map(|route| {
                let tokens = self.kept.budgets.get(&route.name).map(|own| own.whole_tokens(now));
                json!({
                    "name": route.name,
                    "preset": route.provenance.preset(),
                    "written": route.provenance.begins().map(|place| place.to_string()),
                    "kind": route.kind.map(|kind| format!("{kind:?}").to_lowercase()),
                    "mode": format!("{:?}", route.mode).to_lowercase(),
                    "upstream_dedupes": route.rules.upstream_dedupes,
                    "budget_tokens": tokens,
                })
            })
            .collect();
        json!({"routes": routes})
    }
}

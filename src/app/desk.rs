//! What the admin side is told about the sidecar.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::admin::Desk;
use crate::app::{Core, ledger, reload};
use crate::journal::Fault;
use crate::metrics::{Operation, UnknownKey};
use crate::retry::Attempts;

pub(super) fn of(core: &Arc<Core>) -> Desk {
    let (refresh, status, routes, reload) =
        (core.clone(), core.clone(), core.clone(), core.clone());
    Desk {
        metrics: core.metrics.clone(),
        refresh: Arc::new(move || {
            let core = refresh.clone();
            Box::pin(async move { core.refresh().await })
        }),
        leaving: core.leaving.clone(),
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
    async fn refresh(&self) {
        let now = Instant::now();
        for budget in &self.kept.budgets {
            self.metrics.route_once_used(budget.key()).budget(budget.value().whole_tokens(now));
        }
        let (entries, bytes) = self.commons.store.size();
        self.metrics.store_size(entries, bytes);
        self.metrics.minted(self.house.authority.minted());
        self.count_unknowns().await;
    }

    /// Counted off the ledger, so that a crash and a resolution are in it. Where that takes
    /// too long, the figures stay as they were: a scrape must not hang on a disk.
    async fn count_unknowns(&self) {
        let counting = async {
            let store = &self.commons.store;
            // However many scrape, one counts, and only what was written since the last time.
            let mut counted_at = self.counted_at.lock().await;
            let commits = store.journal().map(|journal| journal.books().commits());
            if commits.is_some() && *counted_at == commits {
                return Ok(None);
            }
            let counted = store.tally_unknowns().await?;
            *counted_at = commits;
            Ok::<_, Fault>(Some(counted))
        };
        match timeout(COUNTED_WITHIN, counting).await {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(counted))) => {
                let key = |closed| if closed { UnknownKey::Closed } else { UnknownKey::Loose };
                let counted = counted.into_iter();
                let counted = counted.map(|each| ((each.route, key(each.closed)), each.count));
                self.metrics.unknowns(&counted.collect());
            }
            Ok(Err(_)) | Err(_) => self.metrics.store_error(Operation::Unknowns),
        }
    }

    /// The further proxy that is gone through, without what it is told.
    pub(super) fn upstream_proxy(&self) -> Option<String> {
        self.config.load().upstream.proxy.as_ref().map(|proxy| proxy.origin.to_string())
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
            "upstream_proxy": self.upstream_proxy(),
            "routes": config.routes.len(),
            "inbox_waiting": self.kept.trays.waiting(),
            "draining": self.leaving.is_cancelled(),
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
                    "own": route.provenance.built_in().is_none(),
                    "preset": route.provenance.preset(),
                    "written": route.provenance.begins().map(|place| place.to_string()),
                    "kind": route.kind.map(|kind| format!("{kind:?}").to_lowercase()),
                    "mode": format!("{:?}", route.mode).to_lowercase(),
                    "hosts": route.matcher.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(),
                    "attempts": match route.retry.attempts {
                        Attempts::AtMost(most) => json!(most),
                        Attempts::Unlimited => json!("unlimited"),
                    },
                    "deadline_seconds": route.retry.deadline.after.as_secs_f64(),
                    "upstream_dedupes": route.rules.upstream_dedupes,
                    "budget_tokens": tokens,
                })
            })
            .collect();
        json!({"routes": routes})
    }
}

/// Prometheus waits ten seconds for a scrape.
const COUNTED_WITHIN: Duration = Duration::from_secs(2);

//! Exchanges under way whose key is nobody's: until they end, no row is written of them.

use std::sync::Arc;

use dashmap::DashMap;

use crate::journal::NewRow;
use crate::journal::ledger::{Entry, Filter};

/// Those exchanges, by the parts of their names; a clone shares them.
#[derive(Clone, Debug, Default)]
pub struct Running(Arc<DashMap<(u64, u32), NewRow>>);

/// One of them; dropped, it is over.
#[derive(Debug)]
pub(super) struct Run {
    running: Running,
    name: (u64, u32),
}

impl Running {
    /// Notes one as it begins.
    pub(super) fn begin(&self, row: NewRow) -> Run {
        let name = (row.seq, row.instance);
        self.0.insert(name, row);
        Run { running: self.clone(), name }
    }

    /// Those that `filter` wants.
    pub fn list(&self, filter: &Filter) -> Vec<Entry> {
        let all = self.0.iter().map(|row| Entry::of(row.value().clone()));
        all.filter(|entry| filter.wants(entry)).collect()
    }

    /// One of them.
    pub fn show(&self, name: (u64, u32)) -> Option<Entry> {
        self.0.get(&name).map(|row| Entry::of(row.value().clone()))
    }
}

impl Run {
    /// What is known of it.
    pub(super) fn end(self) -> Option<NewRow> {
        self.running.0.remove(&self.name).map(|(_, row)| row)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.running.0.remove(&self.name);
    }
}

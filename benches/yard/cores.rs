//! Gives the proxy a core to itself, where there are two.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::yard::Fault;

/// One core for the proxy, the others for everything else.
#[derive(Clone)]
pub(crate) struct Cores(Option<(CpuSet, CpuSet)>);

impl Cores {
    /// Splits what this process may use, and takes the larger part for itself.
    pub(crate) fn split() -> Result<Self, Fault> {
        let all = sched_getaffinity(None)?;
        let mut usable = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core));
        let (Some(first), Some(_second)) = (usable.next(), usable.next()) else {
            return Ok(Self(None));
        };
        let (mut own, mut rest) = (CpuSet::new(), all);
        own.set(first);
        rest.unset(first);
        sched_setaffinity(None, &rest)?;
        Ok(Self(Some((own, rest))))
    }

    /// Whether the proxy has a core to itself.
    pub(crate) fn is_split(&self) -> bool {
        self.0.is_some()
    }

    /// Starts a process on the proxy's core: a child begins where its parent thread is.
    pub(crate) fn for_proxy<T>(
        &self,
        start: impl FnOnce() -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let Some((own, rest)) = &self.0 else { return start() };
        sched_setaffinity(None, own)?;
        let started = start();
        sched_setaffinity(None, rest)?;
        started
    }
}

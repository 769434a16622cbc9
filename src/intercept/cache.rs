//! As many leaves as were asked for, the least used leaving first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where the leaf of one host is, or will be.
pub(super) type Slot<T> = Arc<Mutex<Option<T>>>;

/// Slots by host name, at most so many.
pub(super) struct Cache<T> {
    capacity: usize,
    all: Mutex<All<T>>,
}

struct All<T> {
    /// Counts the questions: a clock that orders them.
    asked: u64,
    slots: HashMap<String, Kept<T>>,
}

struct Kept<T> {
    slot: Slot<T>,
    asked_last: u64,
}

impl<T> Cache<T> {
    /// Keeps up to `capacity` slots, and at least one.
    pub(super) fn new(capacity: usize) -> Self {
        let all = All { asked: 0, slots: HashMap::new() };
        Self { capacity: capacity.max(1), all: Mutex::new(all) }
    }

    /// The slot of `host`: one and the same, however many ask before it is filled.
    pub(super) fn slot(&self, host: &str) -> Slot<T> {
        let mut all = held(&self.all);
        all.asked += 1;
        let now = all.asked;
        if let Some(kept) = all.slots.get_mut(host) {
            kept.asked_last = now;
            return Arc::clone(&kept.slot);
        }
        if all.slots.len() >= self.capacity {
            all.drop_oldest();
        }
        let slot = Slot::default();
        let kept = Kept { slot: Arc::clone(&slot), asked_last: now };
        all.slots.insert(host.to_owned(), kept);
        slot
    }
}

impl<T> All<T> {
    /// A walk over all: it comes before a signature, beside which it is cheap.
    fn drop_oldest(&mut self) {
        let oldest = self.slots.iter().min_by_key(|(_, kept)| kept.asked_last);
        if let Some(host) = oldest.map(|(host, _)| host.clone()) {
            self.slots.remove(&host);
        }
    }
}

/// Locks; what a panic left behind is whole, for each section here is one step.
pub(super) fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks for each letter in turn; says which were found filled by an earlier question.
    fn check(capacity: usize, asked: &str, found: &str) {
        let cache = Cache::new(capacity);
        let hits: String = asked
            .chars()
            .map(|host| {
                let slot = cache.slot(&host.to_string());
                let hit = held(&slot).replace(()).is_some();
                assert!(held(&cache.all).slots.len() <= capacity.max(1));
                if hit { '+' } else { '-' }
            })
            .collect();
        assert_eq!(hits, found, "capacity {capacity}, asked {asked}");
    }

    #[test]
    fn the_least_used_leaves_when_one_too_many_comes() {
        check(3, "abab", "--++");
        check(3, "abcabc", "---+++");
        check(3, "abcdbcda", "----+++-");
        check(3, "abcadab", "---+-+-");
        check(1, "aabba", "-+-+-");
        check(0, "aab", "-+-");
    }
}

//! Which keys providers are asked for, and how many of them at one time.

use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::idempotency::lookup::course::Course;
use crate::idempotency::scope::RecordId;
use crate::idempotency::store::Open;

/// Keys whose outcome is unknown, and what providers said of them; a clone shares them.
#[derive(Clone, Debug)]
pub struct Lookups(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    courses: DashMap<RecordId, Arc<Mutex<Course>>>,
    followed: DashMap<RecordId, ()>,
    turns: Arc<Semaphore>,
    most: Most,
    tasks: TaskTracker,
}

/// How much is asked for in the background, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Most {
    /// Keys, each with the credentials of its request; past it, a key waits for whoever asks
    /// for it.
    pub followed: usize,
    /// Of them, those read at one time: a provider that was away is not met by all at once.
    pub turns: usize,
}

impl Most {
    /// Keys of which readings are remembered; past it, those that nobody follows begin anew.
    fn courses(self) -> usize {
        self.followed.saturating_mul(COURSES_PER_FOLLOWED)
    }
}

/// The right to ask for a key in the background; dropped, another may.
#[derive(Debug)]
pub(super) struct Following {
    lookups: Lookups,
    id: RecordId,
}

impl Lookups {
    /// Asks in `tasks`, for which nobody waits: what was not learned is unknown as before.
    pub fn new(most: Most, tasks: TaskTracker) -> Self {
        Self(Arc::new(Inner {
            courses: DashMap::new(),
            followed: DashMap::new(),
            turns: Arc::new(Semaphore::new(most.turns)),
            most,
            tasks,
        }))
    }

    /// What is known of a key so far; none where there is no room to remember it.
    pub(super) fn course(&self, id: RecordId, open: &Open) -> Option<Arc<Mutex<Course>>> {
        if let Some(known) = self.0.courses.get(&id) {
            return Some(known.clone());
        }
        if self.0.courses.len() >= self.0.most.courses() {
            self.0.courses.retain(|id, _| self.0.followed.contains_key(id));
        }
        if self.0.courses.len() >= self.0.most.courses() {
            return None;
        }
        let fresh = || Arc::new(Mutex::new(Course::new(life(open), quiet_since(open))));
        Some(self.0.courses.entry(id).or_insert_with(fresh).clone())
    }

    /// Forgets a key that is settled.
    pub(super) fn forget(&self, id: &RecordId) {
        self.0.courses.remove(id);
    }

    /// Takes a key up, unless it is already, or there is no room.
    pub(super) fn follow(&self, id: RecordId) -> Option<Following> {
        if self.0.followed.len() >= self.0.most.followed || self.0.followed.insert(id, ()).is_some()
        {
            return None;
        }
        Some(Following { lookups: self.clone(), id })
    }

    /// Keys that are followed at one time, at most.
    pub(super) fn followed_max(&self) -> usize {
        self.0.most.followed
    }

    /// Those who may ask at one time.
    pub(super) fn turns(&self) -> &Arc<Semaphore> {
        &self.0.turns
    }

    /// Where goes on what nobody waits for.
    pub(super) fn tasks(&self) -> &TaskTracker {
        &self.0.tasks
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.lookups.0.followed.remove(&self.id);
    }
}

/// Which life of a key it is, here and in what replicas share.
pub(super) fn life(open: &Open) -> (u64, Option<u64>) {
    (open.epoch, open.shared)
}

/// Since when nothing is under way for it.
pub(super) fn quiet_since(open: &Open) -> Instant {
    let now = Instant::now();
    // This clock began with the machine: what was before that counts from now on.
    now.checked_sub(open.quiet).unwrap_or(now)
}

/// What is remembered of a key is small beside what it takes to follow it, and spares the
/// provider a question where its key is repeated.
const COURSES_PER_FOLLOWED: usize = 10;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::exchange::id::ExchangeId;

    const MOST: Most = Most { followed: 3, turns: 1 };

    fn id(n: usize) -> RecordId {
        RecordId(*blake3::hash(&n.to_be_bytes()).as_bytes())
    }

    fn open() -> Open {
        Open {
            fingerprint: None,
            exchange: ExchangeId::from_parts(1, 1),
            age: None,
            quiet: Duration::ZERO,
            tag: None,
            epoch: 1,
            shared: None,
        }
    }

    #[tokio::test]
    async fn a_key_is_followed_once_and_no_more_than_so_many_are() {
        let lookups = Lookups::new(MOST, TaskTracker::new());
        let first = lookups.follow(id(0)).expect("there is room");
        assert!(lookups.follow(id(0)).is_none(), "it is followed already");
        let more: Vec<_> = (1..MOST.followed).filter_map(|n| lookups.follow(id(n))).collect();
        assert_eq!(more.len(), MOST.followed - 1, "under and at the bound");
        assert!(lookups.follow(id(MOST.followed)).is_none(), "there is no room");
        drop(first);
        assert!(lookups.follow(id(MOST.followed)).is_some());
    }

    #[tokio::test]
    async fn what_is_remembered_gives_way_unless_it_is_followed() {
        let lookups = Lookups::new(MOST, TaskTracker::new());
        let _following = lookups.follow(id(0));
        let courses = 10 * MOST.followed;
        for n in 0..courses {
            lookups.course(id(n), &open()).expect("there is room");
        }
        assert_eq!(lookups.0.courses.len(), courses);
        let kept = lookups.course(id(0), &open()).expect("it is there");
        lookups.course(id(courses), &open()).expect("the others gave way");
        assert_eq!(lookups.0.courses.len(), 2);
        assert!(Arc::ptr_eq(&kept, &lookups.course(id(0), &open()).expect("it is there")));
    }
}

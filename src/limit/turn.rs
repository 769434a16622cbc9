//! The slots and the rate of one caller: a fair queue, and a window that slides.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::limit::Rate;

/// What one caller has taken of its limits.
#[derive(Debug, Default)]
pub struct Turns {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    taken: u32,
    queue: VecDeque<oneshot::Sender<Slot>>,
    /// When the last attempts went: as many as the rate allows in its stretch.
    sent: VecDeque<Instant>,
    /// When the newest of them no longer counts.
    rate_free_at: Option<Instant>,
}

/// A slot; dropping it hands it to whoever has waited longest.
#[derive(Debug)]
pub struct Slot(Option<Arc<Turns>>);

/// A slot, or a place in the queue for one.
#[derive(Debug)]
pub enum Taken {
    /// A slot.
    Slot(Slot),
    /// The slot comes through here.
    Queued(oneshot::Receiver<Slot>),
}

impl Turns {
    /// Takes one of `limit` slots, or a place behind those who wait already.
    pub fn take(self: &Arc<Self>, limit: NonZeroU32) -> Taken {
        let mut state = self.lock();
        // Those who gave up waiting are not to be waited for.
        while state.queue.front().is_some_and(oneshot::Sender::is_closed) {
            state.queue.pop_front();
        }
        if state.taken < limit.get() && state.queue.is_empty() {
            state.taken += 1;
            return Taken::Slot(Slot(Some(self.clone())));
        }
        let (sender, receiver) = oneshot::channel();
        state.queue.push_back(sender);
        Taken::Queued(receiver)
    }

    /// Takes a place in the rate, or says when there will be one.
    ///
    /// The window slides: no stretch of `rate.per` ever sees more than `rate.count`,
    /// which a bucket that refills while it is being emptied does not promise.
    ///
    /// # Errors
    ///
    /// The time from which there is a place.
    pub fn take_rate(&self, rate: Rate, now: Instant) -> Result<(), Instant> {
        let mut state = self.lock();
        let count = usize::try_from(rate.count.get()).unwrap_or(usize::MAX);
        while state.sent.len() > count {
            state.sent.pop_front(); // a reload lowered the rate
        }
        if state.sent.len() == count
            && let Some(oldest) = state.sent.front().copied()
        {
            let free = oldest + rate.per;
            if now < free {
                return Err(free);
            }
            state.sent.pop_front();
        }
        state.sent.push_back(now);
        state.rate_free_at = Some(now + rate.per);
        Ok(())
    }

    /// Whether nothing is taken, and nothing that was still counts.
    pub fn is_fresh(&self, now: Instant) -> bool {
        let state = self.lock();
        state.taken == 0 && state.rate_free_at.is_none_or(|free| now >= free)
    }

    fn release(self: &Arc<Self>) {
        loop {
            let mut state = self.lock();
            let Some(next) = state.queue.pop_front() else {
                state.taken = state.taken.saturating_sub(1);
                return;
            };
            drop(state); // a slot that comes back from a closed channel locks again
            match next.send(Slot(Some(self.clone()))) {
                Ok(()) => return,
                Err(mut slot) => drop(slot.0.take()), // the turn goes to the next in line
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limit(slots: u32) -> NonZeroU32 {
        NonZeroU32::new(slots).expect("not zero")
    }

    fn slot(taken: Taken) -> Slot {
        match taken {
            Taken::Slot(slot) => slot,
            Taken::Queued(_) => panic!("no slot was free"),
        }
    }

    fn queued(taken: Taken) -> oneshot::Receiver<Slot> {
        match taken {
            Taken::Slot(_) => panic!("a slot was free"),
            Taken::Queued(receiver) => receiver,
        }
    }

    #[test]
    fn slots_go_to_who_waited_longest_and_skip_who_left() {
        let turns = Arc::new(Turns::default());
        let held = slot(turns.take(limit(1)));
        let left = queued(turns.take(limit(1)));
        let mut second = queued(turns.take(limit(1)));
        let mut third = queued(turns.take(limit(1)));
        drop(left);
        drop(held);
        let held = second.try_recv().expect("the slot passed over the one who left");
        assert!(third.try_recv().is_err());
        drop(held);
        let held = third.try_recv().expect("then the next");
        drop(held);
        drop(slot(turns.take(limit(1))));
        assert!(turns.is_fresh(Instant::now()));
    }

    #[test]
    fn who_left_the_queue_leaves_nothing_behind() {
        let turns = Arc::new(Turns::default());
        let held = slot(turns.take(limit(1)));
        drop(queued(turns.take(limit(1))));
        drop(held);
        assert_eq!(Arc::strong_count(&turns), 1);
    }

    #[test]
    fn a_slot_that_is_sent_and_never_taken_comes_back() {
        let turns = Arc::new(Turns::default());
        let held = slot(turns.take(limit(1)));
        let waits = queued(turns.take(limit(1)));
        drop(held); // into the channel
        drop(waits); // and never received
        drop(slot(turns.take(limit(1))));
    }

    #[tokio::test(start_paused = true)]
    async fn no_stretch_of_time_sees_more_than_the_rate() {
        let turns = Turns::default();
        let rate = Rate { count: limit(2), per: Duration::from_secs(1) };
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(turns.take_rate(rate, at(0)), Ok(()));
        assert_eq!(turns.take_rate(rate, at(900)), Ok(()));
        assert_eq!(turns.take_rate(rate, at(950)), Err(at(1000)));
        assert_eq!(turns.take_rate(rate, at(1000)), Ok(()));
        assert_eq!(turns.take_rate(rate, at(1001)), Err(at(1900)));
    }
}

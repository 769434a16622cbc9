//! What waits to be written, in order; and when the writer is woken for it.
//!
//! A commit costs the same for one operation as for many, and so does waking a thread.
//! So the writer is woken for what somebody waits for, and takes with it what nobody
//! does; and where several came together lately, it lets the others catch up first. What
//! may well be needless by then is put off for a moment, and comes last.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Operations in the order in which they were handed over.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    wake: Condvar,
}

struct State<T> {
    jobs: VecDeque<T>,
    /// What is put off, and since when.
    put_off: VecDeque<(Instant, T)>,
    /// Whether that is over for what is put off now.
    hurried: bool,
    /// How many of them somebody waits for.
    urgent: usize,
    writer: Writer,
    closed: bool,
}

/// What the writer is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    /// It works, or has been woken.
    Busy,
    /// It waits for anything.
    Idle,
    /// It knows of what nobody waits for, and waits for what somebody does.
    Dozing,
    /// It has something to do, and lets more come together.
    Lingering,
}

/// Whether somebody waits for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Somebody does.
    Now,
    /// Nobody does: it may wait for a commit that happens anyway.
    Later,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        let state = State {
            jobs: VecDeque::new(),
            put_off: VecDeque::new(),
            hurried: false,
            urgent: 0,
            writer: Writer::Busy,
            closed: false,
        };
        Self { state: Mutex::new(state), wake: Condvar::new() }
    }

    /// Hands one over.
    pub(super) fn push(&self, job: T, urgency: Urgency) {
        let mut state = self.lock();
        state.jobs.push_back(job);
        state.urgent += usize::from(urgency == Urgency::Now);
        let wakes = match (state.writer, urgency) {
            (Writer::Idle, _) | (Writer::Dozing, Urgency::Now) => true,
            (Writer::Lingering | Writer::Dozing, _) => state.jobs.len() >= GROUP_MAX,
            (Writer::Busy, _) => false,
        };
        if wakes {
            state.writer = Writer::Busy;
            self.wake.notify_one();
        }
    }

    /// Hands over one that changes nothing once another was done that may come before it;
    /// it is put off for a moment, and its order does not matter.
    pub(super) fn put_off(&self, job: T) {
        let mut state = self.lock();
        state.put_off.push_back((Instant::now(), job));
        if state.writer == Writer::Idle {
            state.writer = Writer::Busy;
            self.wake.notify_one();
        }
    }

    /// What is put off so far comes with the next commit.
    pub(super) fn hurry(&self) {
        self.lock().hurried = true;
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        let state = self.lock();
        state.jobs.len() + state.put_off.len()
    }

    /// No more will come; what is there is still taken.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    /// Takes what belongs into one commit, where `usual` came together lately; `None` once
    /// it is closed and empty.
    pub(super) fn take(&self, usual: usize) -> Option<Vec<T>> {
        let mut state = self.lock();
        loop {
            if state.jobs.is_empty() && state.put_off.is_empty() {
                if state.closed {
                    return None;
                }
                state.writer = Writer::Idle;
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            } else if state.urgent == 0 && !state.closed && state.jobs.len() < GROUP_MAX {
                let patient;
                (state, patient) = self.pause(state, Writer::Dozing, LATER);
                if !patient {
                    break;
                }
            } else {
                break;
            }
        }
        // Alone, it is not kept waiting: one client that orders one thing after another.
        if usual >= CROWD && state.jobs.len() < usual && !state.closed {
            (state, _) = self.pause(state, Writer::Lingering, LINGER);
        }
        state.writer = Writer::Busy;
        let count = state.jobs.len().min(GROUP_MAX);
        let mut group: Vec<T> = state.jobs.drain(..count).collect();
        // Whether those that are left are urgent is not worth a second list.
        state.urgent = state.jobs.len();
        state.catch_up(&mut group);
        Some(group)
    }

    /// Waits to be woken; false where that took too long.
    fn pause<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<T>>,
        writer: Writer,
        patience: Duration,
    ) -> (MutexGuard<'a, State<T>>, bool) {
        state.writer = writer;
        let waited = self
            .wake
            .wait_timeout_while(state, patience, |state| state.writer == writer && !state.closed);
        let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        (state, !timeout.timed_out())
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    /// Adds what was put off for long enough.
    fn catch_up(&mut self, group: &mut Vec<T>) {
        let all = self.hurried || self.closed;
        while group.len() < GROUP_MAX
            && let Some((since, job)) = self.put_off.pop_front()
        {
            // Where nothing else is done, it is not put off for another round.
            if !all && !group.is_empty() && since.elapsed() < LATER {
                self.put_off.push_front((since, job));
                return;
            }
            group.push(job);
        }
        self.hurried &= !self.put_off.is_empty();
    }
}

impl<T> std::fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Enough to share a commit's cost, and few enough that nobody waits long for it.
const GROUP_MAX: usize = 64;
/// So many that came together are a crowd, of which the others are as good as here.
const CROWD: usize = 4;
/// How long those are waited for.
const LINGER: Duration = Duration::from_millis(1);
/// How long what nobody waits for may wait for a commit of its own.
const LATER: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    #[test]
    fn what_was_handed_over_is_taken_in_order_and_in_groups() {
        let queue = Queue::new();
        (0..=GROUP_MAX).for_each(|nth| queue.push(nth, Urgency::Now));
        let first = queue.take(1).expect("they wait");
        assert_eq!(first, (0..GROUP_MAX).collect::<Vec<_>>());
        assert_eq!(queue.take(GROUP_MAX), Some(vec![GROUP_MAX]), "it is not waited for for ever");
        queue.push(7, Urgency::Later);
        queue.close();
        assert_eq!(queue.take(1), Some(vec![7]), "what is there is taken");
        assert_eq!(queue.take(1), None);
    }

    #[test]
    fn what_nobody_waits_for_goes_with_the_next_that_somebody_does() {
        let queue = Arc::new(Queue::new());
        queue.push("later", Urgency::Later);
        let taker = queue.clone();
        let writer = thread::spawn(move || taker.take(1));
        queue.push("now", Urgency::Now);
        let group = writer.join().expect("it does not panic").expect("they wait");
        assert!(group == ["later", "now"] || group == ["later"], "{group:?}");
        queue.push("alone", Urgency::Later);
        let alone = queue.take(1).expect("it goes by itself in a while");
        assert!(alone.ends_with(&["alone"]), "{alone:?}");
    }

    #[test]
    fn what_is_put_off_comes_last_and_in_a_moment() {
        let queue = Queue::new();
        queue.put_off("put off");
        queue.push("now", Urgency::Now);
        assert_eq!(queue.take(1), Some(vec!["now"]), "not yet");
        assert_eq!(queue.take(1), Some(vec!["put off"]), "it goes by itself in a while");
        queue.put_off("put off");
        queue.push("now", Urgency::Now);
        queue.hurry();
        assert_eq!(queue.take(1), Some(vec!["now", "put off"]));
        queue.put_off("put off");
        queue.close();
        assert_eq!(queue.take(1), Some(vec!["put off"]));
        assert_eq!(queue.take(1), None);
    }

    #[test]
    fn whoever_pushes_wakes_an_idle_writer() {
        let queue = Arc::new(Queue::new());
        let taker = queue.clone();
        let writer = thread::spawn(move || {
            std::iter::from_fn(|| taker.take(1)).flatten().collect::<Vec<usize>>()
        });
        for nth in 0..1000 {
            let urgency = if nth % 3 == 0 { Urgency::Later } else { Urgency::Now };
            queue.push(nth, urgency);
        }
        queue.close();
        assert_eq!(writer.join().expect("it ends"), (0..1000).collect::<Vec<_>>());
    }
}

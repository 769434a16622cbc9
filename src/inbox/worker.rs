//! Brings what waits on one route to its application, until it has it.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::exchange::{Failure, Origin, Response};
use crate::inbox::delivery::{Bounds, Came, Facts, Next, came, next};
use crate::inbox::identity::DeliveryId;
use crate::inbox::line::{Turn, Waits};
use crate::inbox::parcel::Parcel;
use crate::inbox::{Means, Terms, Tray};
use crate::journal::deliveries::{Ended, Waiting};
use crate::journal::moment::micros;
use crate::metrics::InboxEvent;

/// Delivers until draining begins; what is under way then is finished.
pub(super) async fn run(tray: Tray, means: Means) {
    tokio::select! {
        () = restored(&tray) => {}
        () = means.draining.cancelled() => return,
    }
    let mut running = FuturesUnordered::new();
    loop {
        while let Some((turn, terms)) = tray.next() {
            running.push(deliver(&tray, &means, turn, terms));
        }
        let wakes_at = tray.wakes_at();
        tokio::select! {
            () = means.draining.cancelled() => break,
            () = tray.woken() => {}
            Some(()) = running.next() => {}
            () = sleep_until(wakes_at.unwrap_or_else(Instant::now)), if wakes_at.is_some() => {}
        }
    }
    while running.next().await.is_some() {}
    warn_of_loss(&tray);
}

async fn restored(tray: &Tray) {
    while let Err(fault) = tray.restore().await {
        tracing::warn!(route = tray.route(), %fault, "what waits for delivery cannot be read yet");
        sleep(STORE_AGAIN).await;
    }
}

/// Makes one attempt, and sees to what follows from it.
async fn deliver(tray: &Tray, means: &Means, turn: Turn, terms: std::sync::Arc<Terms>) {
    let Waiting { seq, id, .. } = turn.waiting;
    let contents = match tray.store().contents(seq).await {
        Ok(Some(contents)) => contents,
        Ok(None) => {
            tray.with(|line| line.leave(&turn.waiting));
            return tray.show();
        }
        Err(fault) => {
            tracing::warn!(route = tray.route(), %fault, "a delivery cannot be read yet");
            let waits = Waits { after: STORE_AGAIN, hold: STORE_AGAIN };
            return tray.with(|line| line.step_aside(turn.waiting, waits, Instant::now()));
        }
    };
    let Some(parcel) = Parcel::read(&contents.head) else {
        return end(tray, means, (&turn.waiting, &terms), Outcome::unreadable()).await;
    };
    let origin = whither(&parcel.origin, &terms.applications);
    let mut request =
        Parcel { origin, ..parcel }.request(DeliveryId(id), Bytes::from(contents.body));
    request.wait_until = Some(Instant::now() + TURN_WITHIN);
    let result = (terms.send)(request).await;
    let came = came(&result, SystemTime::now());
    follow(tray, means, (turn, &terms), (came, status(&result))).await;
    if let Ok(response) = result {
        // To its end, so that the connection can be used again; nobody waits long for it.
        drop(timeout(REST_WITHIN, response.body.read_whole(REST_MAX)).await);
    }
}

/// Where a delivery goes: where it was sent, or where the one application is now.
///
/// An application that was given another address is still the one that it was sent to;
/// where there are several, nobody can say which of them that is.
fn whither(sent_to: &Origin, applications: &[Origin]) -> Origin {
    match applications {
        [only] => only.clone(),
        _ => sent_to.clone(),
    }
}

fn status(result: &Result<Response, Failure>) -> u16 {
    result.as_ref().map_or(0, |response| response.status.as_u16())
}

async fn follow(
    tray: &Tray,
    means: &Means,
    (turn, terms): (Turn, &Terms),
    (came, status): (Came, u16),
) {
    let tried = u32::from(came != Came::HeldBack);
    let attempts = turn.waiting.attempts.saturating_add(tried);
    let waiting = Waiting { attempts, ..turn.waiting };
    let failures = tray.with(|line| match came {
        Came::Accepted | Came::Refused => {
            line.is_there();
            0
        }
        Came::Throttled(_) | Came::Nothing => line.is_away(&turn),
        Came::HeldBack => turn.failures,
    });
    let age = age(tray, &waiting);
    let rules = &terms.rules;
    let bounds = Bounds { attempts: rules.attempts, give_up_after: rules.give_up_after };
    let facts = Facts { attempts, age, failures };
    match next(came, &facts, &bounds, &*terms.wait, means.chance.unit()) {
        Next::Done => {
            let outcome = Outcome { ended: Ended::Delivered, status };
            end(tray, means, (&waiting, terms), outcome).await;
        }
        Next::GiveUp => {
            let outcome = Outcome { ended: Ended::GivenUp, status };
            end(tray, means, (&waiting, terms), outcome).await;
        }
        Next::Again { after, hold } => {
            tell(tray.route(), &waiting, (came, status), failures);
            tray.store().note_tried(waiting.seq, attempts);
            tray.with(|line| line.step_aside(waiting, Waits { after, hold }, Instant::now()));
        }
    }
}

/// How a delivery ended, and the last status that came.
#[derive(Clone, Copy)]
struct Outcome {
    ended: Ended,
    status: u16,
}

impl Outcome {
    /// Nobody can make anything of it any more.
    fn unreadable() -> Self {
        Self { ended: Ended::GivenUp, status: 0 }
    }
}

/// Ends a delivery, in the store first. Where that cannot be written its place is held
/// until it can: otherwise it would be delivered over and over.
async fn end(tray: &Tray, means: &Means, (waiting, terms): (&Waiting, &Terms), outcome: Outcome) {
    let keep = (micros(terms.rules.keep), terms.rules.max_remembered);
    while let Err(fault) = tray.store().end(waiting.seq, outcome.ended, keep).await {
        tracing::warn!(route = tray.route(), %fault, "the end of a delivery cannot be written yet");
        tokio::select! {
            () = sleep(STORE_AGAIN) => {}
            () = means.draining.cancelled() => return, // the next process delivers it again
        }
    }
    tray.with(|line| line.leave(waiting));
    tray.show();
    tell_end(tray, (waiting, terms), outcome);
}

fn tell_end(tray: &Tray, (waiting, terms): (&Waiting, &Terms), outcome: Outcome) {
    let Outcome { ended, status } = outcome;
    let (route, delivery, attempts) = (tray.route(), DeliveryId(waiting.id), waiting.attempts);
    let age_ms = u64::try_from(age(tray, waiting).as_millis()).unwrap_or(u64::MAX);
    match ended {
        Ended::Delivered => {
            terms.metrics.count(InboxEvent::Delivered);
            tracing::info!(route, %delivery, status, attempts, age_ms, "delivery");
        }
        Ended::GivenUp => {
            terms.metrics.count(InboxEvent::Failed);
            tracing::error!(
                route, %delivery, status, attempts, age_ms,
                "a delivery was given up: the application never took it"
            );
        }
    }
}

/// Says once that deliveries fail, and every time in detail.
fn tell(route: &str, waiting: &Waiting, (came, status): (Came, u16), failures: u32) {
    let (delivery, attempts) = (DeliveryId(waiting.id), waiting.attempts);
    match came {
        Came::Nothing | Came::Throttled(_) if failures == 1 => {
            tracing::warn!(route, status, "the application takes no deliveries; they wait");
        }
        Came::Refused if attempts == 1 => {
            tracing::warn!(
                route, %delivery, status,
                "the application refuses a delivery; it is tried again"
            );
        }
        _ => {
            tracing::debug!(route, %delivery, status, attempts, ?came, "an attempt to deliver failed");
        }
    }
}

/// What is not delivered ends with this process, where nothing outlives it.
fn warn_of_loss(tray: &Tray) {
    let waiting = tray.waiting();
    if waiting > 0 && matches!(tray.store(), crate::inbox::Store::Memory(_)) {
        let route = tray.route();
        tracing::error!(
            route,
            waiting,
            "deliveries end with this process: state.journal is memory"
        );
    }
}

fn age(tray: &Tray, waiting: &Waiting) -> Duration {
    let micros = waiting.came.least_age(tray.store().now());
    Duration::from_micros(micros.unsigned_abs())
}

/// How long a delivery waits for its turn at the route's limits before it steps aside, so
/// that draining does not wait for it longer.
const TURN_WITHIN: Duration = Duration::from_secs(5);
/// What is left of an answer is read, for so long and so many bytes.
const REST_WITHIN: Duration = Duration::from_secs(1);
const REST_MAX: usize = 64 * 1024;
/// A disk that is full stays so for a while.
const STORE_AGAIN: Duration = Duration::from_secs(1);

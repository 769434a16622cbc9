//! What the board says to a poll.

use bytes::Bytes;
use http::StatusCode;
use tokio::time::Instant;

use super::*;
use crate::exchange::Record;
use crate::poll::board::{Lesson, Place};
use crate::poll::flight::{Aim, Told};
use crate::poll::job::Job;
use crate::poll::spacing::Pace;

fn aim() -> Aim {
    let request = request(Method::GET, Body::empty());
    Aim { job: Job::of("r", &request), single_attempt: false }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_poll_that_ended_without_a_word() {
    let board = board();
    let Place::Lead(leader, pilot) = board.ask(aim(), &spaced(60), Instant::now()) else {
        panic!("it leads")
    };
    let Place::Join(joined) = board.ask(aim(), &spaced(60), Instant::now()) else {
        panic!("it joins")
    };
    drop(pilot);
    let told = joined.told(Instant::now() + SECOND).await;
    assert!(matches!(told, Some(Told::Apart)));
    // And nobody joins it any more, whoever still sits there.
    assert!(matches!(board.ask(aim(), &spaced(60), Instant::now()), Place::Lead(..)));
    drop(leader);
}

#[tokio::test(start_paused = true)]
async fn a_poll_for_a_single_attempt_is_no_company_for_one_that_wants_more() {
    let board = board();
    let place = board.ask(aim(), &spaced(60), Instant::now());
    assert!(matches!(place, Place::Lead(..)));
    let single = Aim { single_attempt: true, ..aim() };
    assert!(matches!(board.ask(single, &spaced(60), Instant::now()), Place::Lead(..)));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_asked_for_later_stands() {
    let board = board();
    let answer = |text: &'static str| {
        Record::new(StatusCode::OK, &http::HeaderMap::new(), Bytes::from_static(text.as_bytes()))
    };
    let began = Instant::now();
    let pace = Some(Pace { interval: SECOND * 60, hint_max: SECOND });
    for (text, asked, wanted) in [("b", 2, "b"), ("a", 1, "b"), ("c", 2, "c"), ("d", 3, "d")] {
        let record = answer(text);
        let asked = began + SECOND * asked;
        let lesson = Lesson { record: &record, asked, pace, hint: None, over_for: None };
        board.learn(aim().job, &lesson, began);
        let Place::Stored(record, _) = board.ask(aim(), &spaced(60), began) else {
            panic!("it is stored")
        };
        assert_eq!(record.body(), wanted, "after {text}");
    }
}

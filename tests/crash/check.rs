//! The invariants: what clients were told, held against the book and the ledger.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::ledger;
use crate::order::{End, Order, job, said};
use crate::upstream::{Effect, Keys};

/// The effects of these orders agree with what their clients know.
pub(crate) fn book_agrees(
    orders: &[Order],
    book: &BTreeMap<String, Vec<Effect>>,
    keys: Keys,
) -> Vec<String> {
    orders.iter().filter_map(|order| disagreement(order, book, keys)).collect()
}

fn disagreement(order: &Order, book: &BTreeMap<String, Vec<Effect>>, keys: Keys) -> Option<String> {
    let effects = book.get(&order.event).map_or(&[][..], Vec::as_slice);
    let count = effects.len();
    let wrong = match order.end.as_ref() {
        _ if count > 1 => Some(format!("{count} effects: {effects:?}")),
        Some(End::Done(job)) if count == 0 || effects[0].job != *job => {
            Some(format!("its client has {job}, the book has {effects:?}"))
        }
        Some(End::Landed(_)) if count == 0 => Some("no effect, and it was said to land".to_owned()),
        Some(End::Unknown(exchange)) if exchange.is_empty() => {
            Some("an unknown outcome without a name".to_owned())
        }
        Some(End::Unknown(_)) if keys == Keys::Honoured => {
            Some("unknown, where asking again is safe".to_owned())
        }
        Some(End::Stuck) | None => Some("it never ends".to_owned()),
        Some(End::Done(_) | End::Landed(_) | End::Unknown(_) | End::Delivered(_) | End::Left) => {
            None
        }
    };
    wrong.map(|wrong| described(order, &wrong))
}

/// An order that is asked for again gets what it got; the error says what else it got.
pub(crate) async fn stays(order: &Order, proxy: SocketAddr) -> Result<(), String> {
    let answer = order.ask(proxy).await;
    let answer = answer.map_err(|error| described(order, &format!("asked again: {error}")))?;
    let (status, slug) = answer.said();
    let same = match &order.end {
        Some(End::Done(first)) => {
            let is_record = !answer.header("samekey-replay").is_empty();
            let says_so = answer.header("idempotent-replayed") == "true";
            status == 201 && job(&answer) == *first && is_record && says_so && answer.whole
        }
        Some(End::Unknown(_)) => (status, slug.as_str()) == (409, "outcome-unknown"),
        Some(End::Landed(_)) => (status, slug.as_str()) == (409, "response-not-retained"),
        Some(End::Delivered(_) | End::Left | End::Stuck) | None => true,
    };
    if same { Ok(()) } else { Err(described(order, &format!("asked again: {}", said(&answer)))) }
}

/// Every unknown outcome that a client was told of stands in the ledger under its name.
pub(crate) async fn unknowns_are_listed(orders: &[Order], admin: SocketAddr) -> Vec<String> {
    let listed = match ledger::unknowns(admin).await {
        Ok(listed) => listed,
        Err(error) => return vec![format!("the ledger: {error}")],
    };
    let mut wrong = Vec::new();
    for order in orders {
        let Some(End::Unknown(exchange)) = &order.end else { continue };
        if !listed.contains(exchange) {
            wrong.push(described(order, &format!("{exchange} is not in the list of unknowns")));
        }
        match ledger::state(admin, exchange).await {
            Ok(state) if state == "unknown" => {}
            other => wrong.push(described(order, &format!("the ledger's row: {other:?}"))),
        }
    }
    wrong
}

/// A violation, and all that is needed to understand it.
pub(crate) fn described(order: &Order, wrong: &str) -> String {
    let Order { event, identity, end, tries, .. } = order;
    format!("order {event} ({identity:?}): {wrong}; ended as {end:?} after {tries:?}")
}

#[test]
fn a_client_that_knows_what_the_book_does_not_is_a_violation() {
    let upstream = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let effect = |job: &str| Effect { job: job.to_owned(), key: String::new() };
    let check = |end: Option<End>, effects: &[Effect], keys: Keys| {
        let mut order = Order::new("o".to_owned(), crate::order::Identity::Wish, upstream);
        order.end = end;
        let book = BTreeMap::from([("o".to_owned(), effects.to_vec())]);
        book_agrees(&[order], &book, keys).is_empty()
    };
    let (one, two) = ([effect("j")], [effect("j"), effect("k")]);
    let text = |text: &str| text.to_owned();
    for keys in [Keys::Ignored, Keys::Honoured] {
        assert!(check(Some(End::Done(text("j"))), &one, keys));
        assert!(check(Some(End::Landed(text("x"))), &one, keys));
        assert!(check(Some(End::Left), &[], keys) && check(Some(End::Delivered(500)), &one, keys));
        assert!(!check(Some(End::Done(text("j"))), &two, keys), "twice");
        assert!(!check(Some(End::Done(text("k"))), &one, keys), "another's job");
        assert!(!check(Some(End::Done(text("j"))), &[], keys), "no effect");
        assert!(!check(Some(End::Landed(text("x"))), &[], keys), "it never landed");
        assert!(!check(Some(End::Unknown(text(""))), &[], keys), "no name");
        assert!(!check(Some(End::Stuck), &[], keys) && !check(None, &[], keys), "no end");
    }
    assert!(check(Some(End::Unknown(text("x"))), &one, Keys::Ignored));
    assert!(!check(Some(End::Unknown(text("x"))), &one, Keys::Honoured), "it may ask again");
}

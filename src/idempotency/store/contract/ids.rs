//! Ids that are captured: noted on the way, kept at the end, found again.

use super::*;

/// Ids of a request are in its row from the start, or from when its body was read, and
/// stay there however it ends; it is found by them.
pub(super) async fn stay_with_the_row(store: Made) {
    let pair = |name: &str| (name.to_owned(), format!("{name}-1"));
    let mut asked = asked(1, None);
    asked.about.captured = vec![pair("head")];
    let Reserved::Claimed(held) = store.reserve(&asked).await.expect("there is room") else {
        panic!("the key is free")
    };
    let shown = async |exchange| {
        store.flush().await;
        store.show(exchange).await.expect("it is read").expect("it is there").captured
    };
    let exchange = held.exchange();
    assert_eq!(shown(exchange).await, [pair("head")]);
    let capture = held.capturer();
    let known = [pair("body"), pair("head")];
    capture(&known);
    assert_eq!(shown(exchange).await, known);
    let unknown = Settlement { captured: Vec::new(), ..settlement(End::Unknown) };
    held.settle(unknown).await;
    capture(&[pair("late")]);
    assert_eq!(shown(exchange).await, known);
    let wanted = |id| Filter { captured: Some(id), limit: 2, ..Filter::default() };
    let found = async |id| store.list(wanted(id)).await.expect("it is read").len();
    let other = ("body".to_owned(), "head-1".to_owned());
    assert_eq!(
        (found(pair("body")).await, found(pair("late")).await, found(other).await),
        (1, 0, 0)
    );
}

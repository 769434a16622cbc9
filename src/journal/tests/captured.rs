//! Ids that are written down before an exchange ends, and after.

use super::*;

fn ids(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

async fn captured(scene: &Scene, n: u64) -> Vec<(String, String)> {
    scene.shown(n).await.expect("it has a row").captured
}

#[tokio::test(start_paused = true)]
async fn what_was_captured_by_then_is_there_after_a_crash() {
    let scene = Scene::new();
    let user = [("user", "u-1")];
    let known = Some(ledger::captured_text(&ids(&user)).expect("there are ids"));
    let reserved = Reserve { row: NewRow { captured: known.clone(), ..row(1, 1) }, ..reserve(1) };
    assert!(matches!(scene.journal.reserve(reserved).await, Ok(Found::Claimed)));
    for n in 2..=4 {
        scene.claim(n).await;
    }
    scene.journal.note_captured((2, 2), known.clone().expect("known"));
    scene.journal.note_captured((3, 99), known.clone().expect("known"));
    scene.journal.land((4, 4), 201, KEEP, known);
    scene.journal.flush().await.expect("it is written");
    let scene = scene.killed(after(START, SECOND)).await;
    for (n, state, wanted) in [
        (1, State::Unknown, &user[..]),
        (2, State::Unknown, &user),
        (3, State::Unknown, &[]), // of another life
        (4, State::Completed, &user),
    ] {
        assert_eq!((scene.state(n).await, captured(&scene, n).await), (Some(state), ids(wanted)));
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_says_more_than_what_was_noted_on_the_way() {
    let scene = Scene::new();
    let all = ledger::captured_text(&ids(&[("user", "u-1"), ("job", "j-1")]));
    scene.claim(1).await;
    scene.end(1, Settle { captured: all, ..settle(State::Completed) }).await;
    scene.journal.note_captured((1, 1), r#"{"user":"u-1"}"#.to_owned());
    scene.journal.flush().await.expect("it is written");
    assert_eq!(captured(&scene, 1).await.len(), 2);
    scene.claim(2).await;
    scene.journal.note_captured((2, 2), r#"{"user":"u-2"}"#.to_owned());
    scene.journal.flush().await.expect("it is written");
    scene.end(2, settle(State::Released)).await;
    assert_eq!(captured(&scene, 2).await, ids(&[("user", "u-2")]), "an end without ids keeps them");
    for (name, value, found) in
        [("user", "u-1", &[1][..]), ("user", "u-2", &[2]), ("job", "u-1", &[]), ("use", "u-1", &[])]
    {
        let id = Some((name.to_owned(), value.to_owned()));
        let filter = ledger::Filter { captured: id, limit: 10, ..ledger::Filter::default() };
        let listed = scene.journal.list(filter).await.expect("it is read");
        let seqs: Vec<u64> = listed.iter().map(|entry| entry.seq).collect();
        assert_eq!(seqs, found, "{name} {value}");
    }
}

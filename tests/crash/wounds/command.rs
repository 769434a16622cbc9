//! The ledger on the command line: the same rows and the same power as the admin side's.

use super::Scene;
use crate::ledger::state;
use crate::order::exchange;
use crate::support::program::{Ran, command, ran};
use crate::upstream::Keys;

async fn ledger(scene: &mut Scene, arguments: &[&str]) -> Ran {
    let admin = scene.sidecar.admin().to_string();
    let all = [&["ledger"], arguments].concat();
    let mut command = command(scene.sidecar.folder.path(), &all);
    ran(command.env("SAMEKEY_ADMIN", admin)).await
}

/// An order whose outcome nobody knows, through a death of the sidecar; its exchange.
async fn unknown(scene: &mut Scene, event: &str, steps: &str) -> String {
    scene.upstream.script(event, steps).await;
    assert_eq!(scene.said(event).await.0, 500);
    scene.sidecar.kill().await.expect("it died of it");
    scene.sidecar.start(None).await.expect("it starts");
    let told = scene.ask(event).await;
    assert_eq!(told.said(), (409, "outcome-unknown".to_owned()));
    exchange(&told)
}

#[tokio::test]
async fn the_command_line_lists_shows_and_resolves_what_clients_are_told() {
    let mut scene = Scene::up(Keys::Ignored, "").await;
    let landed = unknown(&mut scene, "landed", "500 effect; ok").await;
    let absent = unknown(&mut scene, "absent", "500; ok").await;
    let list = ledger(&mut scene, &["list"]).await;
    assert_eq!(list.code, Some(0), "{list:?}");
    for name in [&landed, &absent] {
        let row = list.out.lines().find(|line| line.contains(name.as_str()));
        assert!(row.is_some_and(|row| row.contains("unknown")), "{name}: {}", list.out);
        let shown = ledger(&mut scene, &["show", name]).await;
        assert!(shown.code == Some(0) && shown.out.contains("unknown"), "{shown:?}");
    }
    for (name, truth) in [(&landed, "landed"), (&absent, "absent")] {
        let done = ledger(&mut scene, &["resolve", name, truth]).await;
        assert_eq!(done.code, Some(0), "{done:?}");
        let state = state(scene.sidecar.admin(), name).await.expect("a row");
        assert_ne!(state, "unknown", "{truth}");
    }
    assert_eq!(scene.said("landed").await, (409, "response-not-retained".to_owned()));
    assert_eq!(scene.said("absent").await.0, 201);
    assert_eq!((scene.upstream.count("landed"), scene.upstream.count("absent")), (1, 1));
    let nobody = ledger(&mut scene, &["resolve", "0000000000000000000", "landed"]).await;
    assert_ne!(nobody.code, Some(0), "an exchange that never was: {nobody:?}");
}

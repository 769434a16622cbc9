//! `samekey ledger`: the same from the command line, whether or not the sidecar runs.

use super::*;

#[tokio::test]
async fn the_command_line_prints_what_the_api_says_whether_or_not_it_runs() {
    let running = on_five().await;
    let folder = running.folder.clone();
    let said = async |path: &str| ask(&running, Method::GET, path, "").await.text();
    let list = said("/api/exchanges?limit=2&route=jobs").await;
    let show = said(&format!("/api/exchanges/{}", id(1))).await;
    let check = async || {
        let arguments = ["ledger", "list", "--limit", "2", "--route", "jobs", "--json"];
        assert_eq!(samekey(folder.path(), &arguments).await.out, format!("{list}\n"));
        let ran = samekey(folder.path(), &["ledger", "show", &id(1), "--json"]).await;
        assert_eq!(ran.out, format!("{show}\n"));
        let ran = samekey(folder.path(), &["ledger", "list"]).await;
        check_ran(
            &ran,
            0,
            &["TIME", "throttled,done", "/v1/jobs/5", "2025-01-01T00:00:05.000Z"],
            &[],
        );
        assert_eq!(ran.out.lines().count(), 6, "{}", ran.out);
        let arguments = ["ledger", "list", "--key", "order/1", "--state", "completed"];
        let ran = samekey(folder.path(), &arguments).await;
        assert_eq!(ran.out.lines().count(), 2, "{}", ran.out);
        check_ran(&ran, 0, &[&id(1)], &[]);
        let ran = samekey(folder.path(), &["ledger", "list", "--limit", "4"]).await;
        check_ran(&ran, 0, &[&id(2)], &[&format!("--cursor {}", id(2))]);
        let ran = samekey(folder.path(), &["ledger", "list", "--cursor", &id(2)]).await;
        assert_eq!(ran.out.lines().count(), 2, "{}", ran.out);
        let told = ["key:         k-2", "attempt 2:   done", "captured job: j-2"];
        let commands = ["landed", "absent"].map(|word| format!("resolve {} {word}", id(2)));
        let ran = samekey(folder.path(), &["ledger", "show", &id(2)]).await;
        check_ran(&ran, 0, &[&told[..], &commands.each_ref().map(String::as_str)].concat(), &[]);
    };
    check().await;
    stop(running).await;
    check().await;
}

#[tokio::test]
async fn the_command_line_settles_whether_or_not_it_runs() {
    for runs in [true, false] {
        let folder = folder_with(CONFIG);
        Seed::five(folder.path()).await;
        Seed::open(folder.path()).ended(6, "jobs", "k-6", State::Unknown).await;
        let folder = Arc::new(folder);
        let running = if runs { Some(Samekey::run_in(folder.clone()).await) } else { None };
        let resolve = async |nth: u32, word: &str| {
            samekey(folder.path(), &["ledger", "resolve", &id(nth), word]).await
        };
        check_ran(&resolve(2, "landed").await, 0, &["state:       completed", &id(2)], &[]);
        check_ran(&resolve(6, "absent").await, 0, &["state:       released", &id(6)], &[]);
        check_ran(&resolve(2, "absent").await, 1, &[], &[&id(2), "is completed"]);
        check_ran(&resolve(3, "landed").await, 1, &[], &[&id(3), "is failed"]);
        let missing = format!("samekey: no exchange {} in state\n", id(9));
        check_ran(&resolve(9, "landed").await, 1, &[], &[&missing]);
        let ran = samekey(folder.path(), &["ledger", "list", "--state", "unknown"]).await;
        assert_eq!(ran.out.lines().count(), 1, "{runs}: {}", ran.out);
        drop(running);
    }
}

#[tokio::test]
async fn what_a_crash_left_in_flight_can_be_settled_before_the_next_start() {
    let folder = folder_with(CONFIG);
    Seed::open(folder.path()).in_flight(1, "jobs", "k").await;
    let ran = samekey(folder.path(), &["ledger", "resolve", &id(1), "absent"]).await;
    check_ran(&ran, 0, &["state:       released"], &[]);
}

#[tokio::test]
async fn a_journal_in_memory_is_read_from_the_sidecar_that_runs() {
    let folder = folder_with(&CONFIG.replace("disk", "memory"));
    let running = Samekey::run_in(Arc::new(folder)).await;
    let folder = running.folder.clone();
    let told = folder.path().join("state/admin");
    let mode = std::fs::metadata(&told).expect("it is there").permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o644);
    let told = std::fs::read_to_string(told).expect("it is there");
    assert_eq!(told, format!("{}\n", running.admin));
    let ran = samekey(folder.path(), &["ledger", "list", "--json", "--key", "a b"]).await;
    check_ran(&ran, 0, &["{\"exchanges\":[],\"next\":null}\n"], &[]);
    let missing = format!("samekey: no exchange {} in state\n", id(1));
    for arguments in [&["ledger", "show", &id(1)][..], &["ledger", "resolve", &id(1), "landed"]] {
        check_ran(&samekey(folder.path(), arguments).await, 1, &[], &[&missing]);
    }
    stop(running).await;
    for arguments in [&["ledger", "list"][..], &["ledger", "resolve", &id(1), "landed"]] {
        let ran = samekey(folder.path(), arguments).await;
        check_ran(&ran, 1, &[], &["journal.sqlite is not there", told.trim(), "refused"]);
    }
    assert!(!folder.path().join("state/journal").exists(), "asking makes nothing");
}

#[tokio::test]
async fn nobody_was_ever_there() {
    let folder = folder_with(CONFIG);
    let ran = samekey(folder.path(), &["ledger", "list"]).await;
    check_ran(&ran, 1, &[], &["journal.sqlite is not there", "no address of one is known"]);
    assert!(!folder.path().join("state").exists(), "asking makes nothing");
}

#[tokio::test]
async fn a_word_that_is_no_word_is_bad_usage() {
    let folder = folder_with(CONFIG);
    let upper = id(1).to_uppercase();
    for arguments in [
        &["show", "1"][..],
        &["show", &upper],
        &["show"],
        &["resolve", "1", "landed"],
        &["resolve", &id(1), "lost"],
        &["resolve", &id(1)],
        &["list", "--state", "lost"],
        &["list", "--limit", "0"],
        &["list", "--limit", "1001"],
        &["list", "--cursor", "1"],
        &[],
    ] {
        let ran = samekey(folder.path(), &[&["ledger"], arguments].concat()).await;
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{arguments:?}: {}", ran.err);
    }
}

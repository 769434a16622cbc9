//! `samekey exec`: its signals, its end, and what must not hold that up.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::provider::Provider;
use crate::support::program::{command, folder_beside, folder_with, ran, samekey};
use crate::support::proxy::BINARY;

fn signal(child: &Child, signal: Signal) {
    let id = child.id().and_then(|id| i32::try_from(id).ok()).expect("it runs");
    kill_process(Pid::from_raw(id).expect("a process id"), signal).expect("it runs");
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let so = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), so).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

/// A program whose order is on its way, and which ended with 3 without waiting for it.
async fn drains_after_its_program(provider: &Provider, folder: &std::path::Path) -> Child {
    let url = provider.ports.http_url("/s/s/v1/jobs");
    let script = "curl -s --noproxy '' -H 'Samekey-Key: order-1' -d '{}' \"$1\" >curl.out & \
        echo $$; read line; kill $!; exit 3";
    let mut child = command(folder, &["exec", "--", "sh", "-c", script, "sh", &url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let program = lines.next_line().await.expect("text").expect("its id");
    until("the order is there", || provider.seen("s").len() == 1).await;
    drop(child.stdin.take());
    let program = PathBuf::from("/proc").join(program);
    until("the program is gone", || !program.exists()).await;
    assert!(child.try_wait().expect("its state").is_none(), "it waits for the order");
    child
}

#[tokio::test]
async fn a_signal_after_the_programs_end_ends_exec_at_once_and_frees_nothing() {
    for ends in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let provider = Provider::start(crate::provider::Options::default()).await.expect("one");
        let rest = "routes: [{name: r, match: {hosts: ['*']}, \
            idempotency: {upstream_dedupes: false}}]\nshutdown: {grace: 60s}";
        let folder = folder_beside(&provider, rest);
        let config = folder.path().join("samekey.yaml");
        let text = std::fs::read_to_string(&config).expect("its config");
        std::fs::write(&config, text.replace(", journal: memory", "")).expect("written");
        provider.script("s", "held");
        let mut child = drains_after_its_program(&provider, folder.path()).await;
        signal(&child, Signal::HUP);
        signal(&child, ends);
        let ended = timeout(Duration::from_secs(10), child.wait()).await;
        let code = ended.unwrap_or_else(|_| panic!("deaf to {ends:?}")).expect("in order").code();
        assert_eq!(code, Some(3), "{ends:?}");
        let listed = samekey(folder.path(), &["ledger", "list"]).await;
        assert!(listed.out.contains("order-1") || listed.out.contains("/v1/jobs"), "{listed:?}");
        let url = provider.ports.http_url("/s/s/v1/jobs");
        let again = "exec curl -sS --noproxy '' -H 'Samekey-Key: order-1' -d '{}' \"$1\"";
        let again = samekey(folder.path(), &["exec", "--", "sh", "-c", again, "sh", &url]).await;
        assert!(again.out.contains("outcome-unknown"), "{again:?}");
        assert_eq!(provider.seen("s").len(), 1, "not sent again");
    }
}

#[tokio::test]
async fn a_hangup_after_the_programs_end_leaves_the_drain_alone() {
    let provider = Provider::start(crate::provider::Options::default()).await.expect("one");
    let folder = folder_beside(&provider, "routes: [{name: r, match: {hosts: ['*']}}]");
    provider.script("s", "held");
    let mut child = drains_after_its_program(&provider, folder.path()).await;
    signal(&child, Signal::HUP);
    provider.release();
    let ended = timeout(Duration::from_secs(20), child.wait()).await.expect("it ends");
    assert_eq!((ended.expect("in order").code(), provider.effects("s")), (Some(3), 1));
}

#[tokio::test]
async fn exec_sees_the_end_of_its_program_with_sigchld_blocked() {
    let folder = folder_with("state: {journal: memory}\n");
    let mut run = Command::new("env");
    run.args(["--block-signal=CHLD", BINARY, "exec", "--", "sh", "-c", "exit 4"]);
    run.current_dir(folder.path()).kill_on_drop(true);
    let ran = timeout(Duration::from_secs(20), ran(&mut run)).await.expect("it ends");
    assert_eq!(ran.code, Some(4), "{}", ran.err);
}

#[tokio::test]
async fn a_collector_that_does_not_answer_is_hardly_felt() {
    let provider = Provider::start(crate::provider::Options::default()).await.expect("one");
    let folder = folder_beside(&provider, "routes: [{name: r, match: {hosts: ['*']}}]");
    // It takes connections, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let collector = format!("http://{}", silent.local_addr().expect("an address"));
    let url = provider.ports.http_url("/s/s/v1/jobs");
    let script = "curl -sS --noproxy '' -d '{}' -o curl.out \"$1\"; date +%s%N";
    let mut run = command(folder.path(), &["exec", "--", "sh", "-c", script, "sh", &url]);
    let ran = ran(run.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector)).await;
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a time").as_nanos();
    let took = now - ran.out.trim().parse::<u128>().expect("nanoseconds");
    assert!(ran.err.contains("spans were not exported"), "{ran:?}");
    assert!((900..3_000).contains(&(took / 1_000_000)), "{took} ns");
}

/// Runs `exec` in a terminal of its own, presses a key, and says how often that was heard.
async fn pressed(key: &[u8], before: &str, program: &str) -> String {
    let folder = folder_with("state: {journal: memory}\n");
    // What comes as two at once is one to a handler; a blocked one can be taken twice.
    let heard = "import signal,time; all=[signal.SIGINT,signal.SIGQUIT]; \
        signal.pthread_sigmask(signal.SIG_BLOCK,all); print('UP',flush=True); n=0; \
        end=time.time()+20\nwhile time.time()<end:\n \
        got=signal.sigtimedwait(all,1 if n else 20)\n \
        if not got: break\n n+=1\nprint(f'HEARD {n}.',flush=True)";
    std::fs::write(folder.path().join("heard.py"), heard).expect("written");
    // The shell leads the terminal's session: it must outlive the key.
    let line = format!("trap : INT QUIT; {before}{BINARY} exec -- {program}");
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).current_dir(folder.path()).kill_on_drop(true);
    let mut script =
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script(1)");
    let mut keys = script.stdin.take().expect("it is piped");
    let mut lines = BufReader::new(script.stdout.take().expect("it is piped")).lines();
    let told = async {
        while let Some(line) = lines.next_line().await.expect("text") {
            if line.contains("UP") {
                tokio::io::AsyncWriteExt::write_all(&mut keys, key).await.expect("it reads");
            } else if let Some((_, heard)) = line.split_once("HEARD ") {
                return heard.trim().to_owned();
            }
        }
        String::new()
    };
    timeout(Duration::from_secs(40), told).await.expect("it ends")
}

#[tokio::test]
async fn a_key_of_the_terminal_reaches_the_program_once() {
    let (interrupt, quit) = (&b"\x03"[..], &b"\x1c"[..]);
    let heard = "python3 heard.py";
    let all = tokio::join!(
        pressed(interrupt, "", heard),
        pressed(quit, "", heard),
        pressed(interrupt, "", "python3 heard.py </dev/null"),
        pressed(interrupt, "sleep 3 | ", heard),
        // No key of the terminal reaches it there, if not by us.
        pressed(interrupt, "", "setsid python3 heard.py"),
    );
    assert_eq!(all, ("1.".into(), "1.".into(), "1.".into(), "1.".into(), "1.".into()));
}

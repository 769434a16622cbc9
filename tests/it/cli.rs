//! The commands: what they print, how they end, and what `exec` does for a program.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use crate::provider::{Options, Provider};
use crate::support::program::{command, folder_beside, folder_with, ran, samekey};
use crate::support::{Client, Samekey};

/// Explains a request by this config, and wants these words in the answer.
async fn check_explained(config: &str, arguments: &[&str], wanted: &[&str]) {
    let folder = folder_with(config);
    let ran = samekey(folder.path(), &[&["explain"], arguments].concat()).await;
    assert_eq!((ran.err.as_str(), ran.code), ("", Some(0)), "{arguments:?}");
    for words in wanted {
        assert!(ran.out.contains(words), "{arguments:?} says no `{words}`:\n{}", ran.out);
    }
}

#[tokio::test]
async fn explain_tells_what_would_happen_after_each_outcome_and_why() {
    let dedupes = |word| {
        let rules = format!("idempotency: {{upstream_dedupes: {word}}}");
        format!("routes:\n  - {{name: r, match: {{hosts: [a.test]}}, {rules}}}")
    };
    let (post, get) = (["POST", "https://a.test/v1"], ["GET", "https://a.test/v1"]);
    for word in ["null", "false"] {
        let wanted = [
            "route: r (samekey.yaml:2)",
            "kind: effect  [built in]",
            "key: a random one, in header idempotency-key",
            "upstream de-duplicates: no",
            "  [samekey.yaml:2]\n  attempts: 4, within 300s  [built in]",
            "after 429      throttled: retried after up to 200ms, for one token of the budget: the status proves",
            "after 500      failed: passed on, Samekey-Stop: unsafe: ",
            "after 503      failed: passed on, Samekey-Stop: unsafe: ",
            "after connect  not_sent: retried after up to 200ms, for nothing of the budget: nothing was sent",
            "after reset    ambiguous: passed on, Samekey-Stop: unsafe: ",
            "after timeout  ambiguous: passed on, Samekey-Stop: unsafe: ",
        ];
        check_explained(&dedupes(word), &post, &wanted).await;
    }
    let safe = [
        "after 503      failed: retried after up to 200ms, for one token of the budget: repeating it is safe",
        "after reset    ambiguous: retried after up to 200ms, for two tokens of the budget",
        "after timeout  ambiguous: retried",
    ];
    check_explained(&dedupes("true"), &post, &safe).await;
    check_explained(&dedupes("null"), &get, &[&safe[..], &["key: none"]].concat()).await;
}

#[tokio::test]
async fn explain_tells_what_a_kind_starts_from_and_how_polls_are_spaced() {
    let get = ["GET", "https://a.test/v1"];
    let route =
        |keys: &str| format!("routes:\n  - {{name: r, match: {{hosts: [a.test]}}, {keys}}}");
    let spaced = "kind: poll, interval: 5s, terminal: {json: /status, in: [completed, 7, null]}";
    let polls = [
        "kind: poll",
        "attempts: unlimited, within 300s",
        "polls: those of one caller that ask the same while one is under way share it",
        "interval: 5s between polls of one job, 10s while nothing changes",
        "terminal: /status in [completed, 7, null], remembered for 600s",
    ];
    check_explained(&route(spaced), &get, &polls).await;
    let fetch = ["kind: fetch", "attempts: 3, within 300s", "backoff: linear from 500ms to 5s"];
    check_explained(&route("kind: fetch"), &get, &fetch).await;
}

#[tokio::test]
async fn explain_tells_what_money_an_effect_may_spend() {
    let config = "\
routes:
  - name: r
    match: {hosts: [a.test]}
    breaker: {when: [{json: /error/code, in: [out, broke]}], statuses: [402, 403]}
    preflight: {request: GET /account, json: /credits, at_least: 1.50}
    estimate: {path: /estimate, json: /cost, at_most: 50}
";
    let money = [
        "  credit breaker: status 402, 403 or /error/code of out, broke refuses this credential's effects for 300s",
        "  balance: /credits of GET /account, at least 1.5, asked for every 60s",
        "  cost gate: /cost of the estimate, at most 50; refused where nobody says",
    ];
    check_explained(config, &["POST", "https://a.test/"], &money).await;
    let ran = samekey(folder_with(config).path(), &["explain", "GET", "https://a.test/"]).await;
    assert!(ran.out.contains("kind: read"), "{}{}", ran.out, ran.err);
    assert!(!ran.out.contains("credit"), "a read spends nothing:\n{}", ran.out);
}

#[tokio::test]
async fn explain_takes_any_outcome_by_its_word_or_status() {
    let config = "routes:\n  - {name: r, match: {hosts: [a.test]}, retry: {on: [429, 503]}}";
    for (after, wanted) in [
        ("429", "after 429      throttled: retried"),
        ("503", "after 503      failed: passed on, Samekey-Stop: unsafe"),
        ("500", "after 500      done: passed on: there is nothing to retry"),
        ("connect", "not_sent: passed on: the route's `on` does not hold it"),
        ("timeout", "ambiguous: passed on: the route's `on` does not hold it"),
        ("not_sent", "not_sent: passed on"),
        ("refused", "refused: retried"),
        ("throttled", "throttled: retried"),
        ("ambiguous", "ambiguous: passed on"),
        ("replayed", "replayed: passed on: there is nothing to retry"),
        ("done", "done: passed on: there is nothing to retry"),
    ] {
        check_explained(config, &["POST", "https://a.test/", "--after", after], &[wanted]).await;
    }
}

#[tokio::test]
async fn explain_reads_the_request_and_the_route() {
    let signed = "Authorization: AWS4-HMAC-SHA256 Credential=A/20000101/r/s/aws4_request, SignedHeaders=host, Signature=x";
    let routes = "routes:\n  - {name: r, match: {hosts: [a.test], paths: [/v1/**]}}";
    let post = |path: &'static str, fields: &[&'static str]| -> Vec<&'static str> {
        let fields = fields.iter().flat_map(|field| ["-H", *field]);
        ["POST", path].into_iter().chain(fields).collect()
    };
    for (arguments, wanted) in [
        (post("https://a.test/v1/x", &["Idempotency-Key: k"]), "key: the client's own"),
        (post("https://a.test/v1/x", &["Samekey-Key: k"]), "key: derived from Samekey-Key"),
        (post("https://a.test/v1/x", &[signed]), "key: none: the request is signed"),
        (post("https://a.test/v1/x", &["Samekey-Retry: off"]), "Samekey-Stop: off"),
        (post("http://a.test/v1/x", &[]), "route: r"),
        (post("https://a.test/v2", &[]), "route: none\n  no route matches"),
        (
            post("https://b.test/", &[]),
            "route: none\n  no route names the host: its TLS is not opened",
        ),
        (post("http://b.test/", &[]), "route: none\n  no route matches"),
    ] {
        check_explained(routes, &arguments, &[wanted]).await;
    }
    let except = format!("intercept: {{except: ['*.test']}}\n{routes}");
    check_explained(&except, &["GET", "https://a.test/v1/"], &["intercept.except names the host"])
        .await;
    let poor = format!("defaults: {{retry: {{budget: {{burst: 0}}}}}}\n{routes}");
    check_explained(
        &poor,
        &["GET", "https://a.test/v1/"],
        &["after 503      failed: passed on, Samekey-Stop: budget"],
    )
    .await;
}

#[tokio::test]
async fn explain_tells_what_becomes_of_an_unknown_outcome() {
    let route = |more: &str| format!("routes:\n  - {{name: r, match: {{hosts: [a.test]}}{more}}}");
    let lookup = ", lookup: {request: '/v1/jobs/{key}', match: /id, settle: 1m, readings: 3}";
    for (more, wanted) in [
        ("", "an unknown outcome: a repeat is outcome-unknown until `samekey ledger resolve`"),
        (", retry: {unsafe: true}", "an unknown outcome: a repeat is sent again: retry.unsafe"),
        (", idempotency: {upstream_dedupes: true}", "sent again under the same key, for 86400s"),
        (lookup, "not listed 3 times, 30s apart and from 60s after the last attempt on"),
        (lookup, "where it cannot tell, the client's own key is sent again"),
    ] {
        check_explained(&route(more), &["POST", "https://a.test/v1"], &[wanted]).await;
    }
}

#[tokio::test]
async fn explain_tells_of_a_preset_what_it_looks_into_and_holds_back() {
    for (url, wanted) in [
        (
            "https://api.clipia.ai/v1/models/x",
            &[
                "never retried: /error/code of idempotency_key_reuse, insufficient_credits  [config/providers/clipia.yaml:",
                "waited for: /error/code of request_in_progress: the first request runs there; asked again with the same key  [",
                "an answer that nobody got is taken: for 600s, by a repeat without a key: no second effect  [",
                "limits: 10 at a time, 120 in 60s for each credential, as the group clipia; a turn is waited for 300s  [",
                "answers made here: the provider's own error JSON  [",
            ][..],
        ),
        (
            "https://api.json2video.com/v2/movies",
            &[
                "a failure, though 2xx: /success of false (nothing was done)  [",
                "an unknown outcome: the provider is asked (after a crash when it is asked for again)",
            ],
        ),
        (
            "https://api.removebgvideo.com/v1/jobs",
            &[
                "key: a random one, in JSON member /external_job_id  [",
                "never retried: /error/code of insufficient_credits, invalid_request  [",
                "an unknown outcome: the provider is asked",
            ],
        ),
        (
            "https://api.remove.bg/v1.0/removebg",
            &[
                "limits: 5 at a time, 2 in 1s for each credential; a turn is waited for 300s  [",
                "backoff: exponential from 1s to 8s, jitter equal  [",
            ],
        ),
    ] {
        check_explained("providers: all", &["POST", url], wanted).await;
    }
}

#[tokio::test]
async fn explain_shows_which_line_of_which_file_decided() {
    let config = "\
defaults:
  retry: {attempts: 3}
routes:
  - preset: clipia-generate
    name: staging
    match: {hosts: [staging.test]}
    idempotency:
      upstream_ttl: 1h
";
    let preset = "config/providers/clipia.yaml:";
    let post = |host: &str| format!("https://{host}/v1/models/x");
    let [own, built_in] = [post("staging.test"), post("api.clipia.ai")];
    let place = format!("idempotency-key  [{preset}");
    let wanted = [
        "route: staging (samekey.yaml:4, from preset clipia)",
        place.as_str(),
        "attempts: 3, within 300s  [defaults, samekey.yaml:2]",
        "retry-after obeyed up to: 120s  [built in]",
    ];
    check_explained(config, &["POST", &own], &wanted).await;
    let begins = format!("route: clipia-generate (preset clipia, {preset}");
    let dedupes = format!("a repeated key has one effect there  [{preset}");
    let wanted = [begins.as_str(), &dedupes, "[defaults, samekey.yaml:2]", "[built in]"];
    check_explained(config, &["POST", &built_in], &wanted).await;
    let unsafe_stop =
        "upstream is not known to de-duplicate by key  [config/providers/json2video.yaml:";
    let movies = "https://api.json2video.com/v2/movies";
    check_explained(config, &["POST", movies, "--after", "reset"], &[unsafe_stop]).await;
    let none = "providers: []";
    check_explained(none, &["POST", movies], &["route: none\n  no route names the host"]).await;
}

#[tokio::test]
async fn bad_usage_ends_with_2_and_says_what_is_wanted() {
    let folder = folder_with("");
    for (arguments, wanted) in [
        (&["bogus"][..], "unrecognized subcommand"),
        (&["exec"], "required arguments"),
        (&["env", "--format", "xml"], "possible values"),
        (&["explain", "GET", "ftp://a.test/"], "the URL has to be http://host/path"),
        (&["explain", "G T", "http://a.test/"], "is not a method"),
        (&["explain", "GET", "http://a.test/", "-H", "nope"], "is not a field"),
        (&["explain", "GET", "http://a.test/", "--after", "noon"], "--after takes a status"),
    ] {
        let ran = samekey(folder.path(), arguments).await;
        assert_eq!(ran.code, Some(2), "{arguments:?}: {}", ran.err);
        assert!(ran.err.contains(wanted), "{arguments:?}: {}", ran.err);
    }
}

#[tokio::test]
async fn the_variables_can_be_evaluated_by_a_shell() {
    let folder = tempfile::Builder::new().prefix("it's $HOME").tempdir().expect("a folder");
    let config = "listeners: [{address: '0.0.0.0:8081', auth: open}]";
    std::fs::write(folder.path().join("samekey.yaml"), config).expect("written");
    let written = samekey(folder.path(), &["env"]).await;
    let script = format!(
        "{}\nprintf '%s\\n' \"$HTTPS_PROXY\" \"$NO_PROXY\" \"$SSL_CERT_FILE\"",
        written.out
    );
    let mut shell = tokio::process::Command::new("sh");
    let ran =
        ran(shell.arg("-euc").arg(script).env_remove("NO_PROXY").env_remove("no_proxy")).await;
    let lines: Vec<_> = ran.out.lines().collect();
    let bundle = folder.path().join("samekey-data/public/bundle.pem");
    assert_eq!(lines[0], "http://127.0.0.1:8081", "{}", ran.err);
    assert!(lines[1].starts_with("localhost,127.0.0.1,::1,.svc,"), "{}", lines[1]);
    assert_eq!(Path::new(lines[2]), bundle);
    for (format, wanted) in [
        ("dotenv", "HTTPS_PROXY=http://127.0.0.1:8081\n"),
        ("k8s", "- name: HTTPS_PROXY\n  value: \"http://127.0.0.1:8081\"\n"),
        ("java", "-Dhttps.proxyHost=127.0.0.1\n-Dhttps.proxyPort=8081\n"),
    ] {
        let written = samekey(folder.path(), &["env", "--format", format]).await;
        assert!(written.out.contains(wanted), "{format}:\n{}", written.out);
    }
}

#[tokio::test]
async fn the_ca_is_printed_as_it_is_served() {
    let running = Samekey::start("").await;
    let cert = samekey(running.path(), &["ca", "cert"]).await;
    assert_eq!(
        (cert.out.as_str(), cert.code),
        (running.ca_pem().as_str(), Some(0)),
        "{}",
        cert.err
    );
    let bundle = samekey(running.path(), &["ca", "bundle", "-o", "bundle.pem"]).await;
    assert_eq!((bundle.out.as_str(), bundle.code), ("", Some(0)));
    let read = |name: &str| std::fs::read_to_string(running.path().join(name)).expect("written");
    assert_eq!(read("bundle.pem"), read("state/public/bundle.pem"));
    assert!(read("bundle.pem").ends_with(&cert.out));
    let store = samekey(running.path(), &["ca", "truststore", "-o", "t.p12"]).await;
    assert_eq!((store.out.as_str(), store.code), ("", Some(0)), "{}", store.err);
    let read = |name: &str| std::fs::read(running.path().join(name)).expect("written");
    assert_eq!(read("t.p12"), read("state/public/truststore.p12"));
    for what in ["bundle", "truststore"] {
        // As in a container whose root is read-only.
        let printed = ran(command(running.path(), &["ca", what]).env("TMPDIR", "/nowhere")).await;
        assert_eq!((printed.err.as_str(), printed.code), ("", Some(0)));
    }
}

#[tokio::test]
async fn a_truststore_opens_with_its_password_and_holds_the_ca_and_the_roots() {
    let running = Samekey::start("").await;
    let opened = |password: &str| {
        let file = running.path().join("state/public/truststore.p12");
        std::process::Command::new("openssl")
            .args(["pkcs12", "-nokeys", "-passin", &format!("pass:{password}"), "-in"])
            .arg(file)
            .output()
            .expect("openssl is installed")
    };
    let text = String::from_utf8(opened("changeit").stdout).expect("it is PEM");
    let bundle = std::fs::read_to_string(running.path().join("state/public/bundle.pem"));
    let count = |text: &str| text.matches("-----BEGIN CERTIFICATE-----").count();
    assert_eq!(count(&text), count(&bundle.expect("written")));
    assert!(text.contains("friendlyName: samekey\n"), "{text}");
    // What Java asks of a certificate before it trusts it.
    assert_eq!(text.matches("2.16.840.1.113894.746875.1.1").count(), count(&text));
    assert!(!opened("another").status.success());
}

#[tokio::test]
async fn the_schema_is_a_json_schema() {
    let folder = folder_with("");
    let ran = samekey(folder.path(), &["schema"]).await;
    let schema: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["title"], "samekey.yaml");
    assert_eq!(schema["properties"]["admin"]["$ref"], "#/$defs/AdminBlock");
}

#[tokio::test]
async fn health_follows_the_sidecar_into_its_drain() {
    let provider = Provider::start(Options::default()).await.expect("a provider");
    provider.script("s", "held");
    let mut running = Samekey::beside(&provider, "").await;
    let admin = running.admin.to_string();
    let folder = running.folder.clone();
    let health = async |arguments: &[&str]| {
        ran(command(folder.path(), arguments).env("SAMEKEY_ADMIN", &admin)).await.code
    };
    assert_eq!(health(&["health"]).await, Some(0));
    assert_eq!(health(&["health", "--ready"]).await, Some(0));
    let client = Client::through(&running);
    let url = provider.ports.http_url("/s/s/v1/jobs");
    let (answer, ()) = tokio::join!(client.post(&url, "{}"), async {
        provider.arrived("s", 1).await;
        running.signal(Signal::TERM);
        running.logged(&["draining"]).await;
        assert_eq!(health(&["health"]).await, Some(0), "it lives while it drains");
        assert_eq!(health(&["health", "--ready"]).await, Some(1));
        provider.release();
    });
    assert_eq!(answer.status, 201);
    assert_eq!(running.ended().await.code(), Some(0));
    assert_eq!(health(&["health"]).await, Some(1), "nobody is there");
}

/// Starts on this config, and wants one line with these words, and exit code 1.
async fn check_start_fails(folder: &Path, config: &str, wanted: &[&str]) {
    std::fs::write(folder.join("samekey.yaml"), config).expect("written");
    let ran = samekey(folder, &["run"]).await;
    // What the log told before is of lesser levels.
    let lines: Vec<_> = ran.err.lines().filter(|line| !line.starts_with('{')).collect();
    assert_eq!((lines.len(), ran.code), (1, Some(1)), "{config}\n{}", ran.err);
    for words in wanted {
        assert!(ran.err.contains(words), "{words} is not in: {}", ran.err);
    }
}

#[tokio::test]
async fn a_start_that_fails_is_one_clear_line() {
    let folder = folder_with("");
    let path = folder.path();
    let held = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = held.local_addr().expect("it is bound").to_string();
    let free = "admin: {address: '127.0.0.1:0'}\nlisteners: [{address: '127.0.0.1:0'}]\nstate: {journal: memory}";
    let taken = free.replacen("127.0.0.1:0", &address, 1);
    check_start_fails(path, &taken, &["cannot listen on", &address, "in use"]).await;
    let taken = free.replace(
        "listeners: [{address: '127.0.0.1:0'}]",
        &format!("listeners: [{{address: '{address}'}}]"),
    );
    check_start_fails(path, &taken, &["cannot listen on", &address, "in use"]).await;
    std::fs::write(path.join("file"), "no PEM").expect("written");
    let with = |rest: &str| format!("{free}\n{rest}");
    let state = |dir: &str| free.replace("{journal", &format!("{{dir: {dir}, journal"));
    for (config, wanted) in [
        (with("intercept: {ca: {cert: none.pem, key: none.key}}"), ["none.key", "No such file"]),
        (with("intercept: {ca: {cert: file, key: file}}"), ["file: must hold", "PEM key"]),
        (with("upstream: {roots: none.pem}"), ["none.pem", "No such file"]),
        (with("upstream: {roots: file}"), ["file: must hold PEM certificates", "file"]),
        (state("file"), ["file: ", "state.dir"]),
        (state("file/below"), ["file/below: ", "state.dir"]),
        (state("/proc/samekey"), ["/proc/samekey: ", "state.dir"]),
        (free.replace("{journal", "{secret_file: file, journal"), ["file: the secret", "16 bytes"]),
    ] {
        check_start_fails(path, &config, &wanted).await;
    }
}

#[tokio::test]
async fn a_state_directory_has_one_process() {
    let running = Samekey::start("").await;
    let second = samekey(running.path(), &["run"]).await;
    assert_eq!((second.err.lines().count(), second.code), (1, Some(1)), "{}", second.err);
    assert!(second.err.contains("state: another samekey uses it"), "{}", second.err);
}

/// What was said but for the line that tells what listens where, which may come amid
/// what the program says.
fn beside_the_start(err: &str) -> String {
    let told = |line: &&str| line.contains("samekey is up");
    let start = err
        .split_inclusive('\n')
        .find(told)
        .and_then(|line| line.find('{').and_then(|at| line.get(at..)));
    err.replacen(start.unwrap_or_default(), "", 1)
}

const IN_MEMORY: &str = "state: {journal: memory}\n";

#[tokio::test]
async fn exec_ends_as_its_program_does() {
    let folder = folder_with(IN_MEMORY);
    std::fs::write(folder.path().join("plain"), "").expect("written");
    for (program, code, words) in [
        (&["sh", "-c", "exit 7"][..], 7, ""),
        (&["true"], 0, ""),
        (&["sh", "-c", "kill -TERM $$"], 128 + 15, ""),
        (&["sh", "-c", "kill -KILL $$"], 128 + 9, ""),
        (&["no-such-program"], 127, "samekey: no-such-program: No such file"),
        (&["./plain"], 126, "samekey: ./plain: Permission denied"),
    ] {
        let ran = samekey(folder.path(), &[&["exec", "--"], program].concat()).await;
        assert_eq!(ran.code, Some(code), "{program:?}: {}", ran.err);
        let said = beside_the_start(&ran.err);
        assert!(said.starts_with(words), "{program:?}: {}", ran.err);
        assert_eq!(said.is_empty(), words.is_empty(), "{program:?}: {}", ran.err);
    }
}

#[tokio::test]
async fn exec_leaves_input_and_output_to_the_program() {
    let folder = folder_with(IN_MEMORY);
    let mut child = command(folder.path(), &["exec", "--", "sh", "-c", "cat; printf e >&2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let mut stdin = child.stdin.take().expect("it is piped");
    let (written, ended) = tokio::join!(
        async {
            stdin.write_all(&bytes).await.expect("it reads");
            drop(stdin);
        },
        child.wait_with_output()
    );
    let ended = ended.expect("it ends");
    let said = beside_the_start(&String::from_utf8_lossy(&ended.stderr));
    assert_eq!((written, ended.stdout == bytes, said.as_str()), ((), true, "e"));
}

#[tokio::test]
async fn exec_passes_signals_on() {
    let folder = folder_with("");
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::USR1] {
        let script =
            "trap 'echo got; exit 5' TERM INT HUP USR1; echo up; while :; do sleep 0.01; done";
        let mut child = command(folder.path(), &["exec", "--", "sh", "-c", script])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        assert_eq!(lines.next_line().await.expect("text").as_deref(), Some("up"));
        let id = child.id().and_then(|id| i32::try_from(id).ok()).expect("it runs");
        kill_process(Pid::from_raw(id).expect("a process id"), signal).expect("it runs");
        assert_eq!(lines.next_line().await.expect("text").as_deref(), Some("got"), "{signal:?}");
        let ended = child.wait().await.expect("it ends");
        assert_eq!(ended.code(), Some(5), "{signal:?}");
    }
}

#[tokio::test]
async fn exec_sets_what_programs_of_any_language_read() {
    let folder = folder_with("");
    let mut run = command(folder.path(), &["exec", "--", "env"]);
    let ran = ran(run.env("NO_PROXY", "intra.test").env("JAVA_TOOL_OPTIONS", "-Down=1")).await;
    let value = |name: &str| {
        let start = format!("{name}=");
        ran.out.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_default().to_owned()
    };
    let url = value("HTTPS_PROXY");
    assert!(url.starts_with("http://127.0.0.1:"), "{}", ran.out);
    for name in ["HTTP_PROXY", "http_proxy", "https_proxy"] {
        assert_eq!(value(name), url, "{name}");
    }
    let direct = value("NO_PROXY");
    assert_eq!(value("no_proxy"), direct);
    let direct: Vec<_> = direct.split(',').collect();
    for host in [
        "intra.test",
        "localhost",
        "127.0.0.1",
        "::1",
        ".svc",
        ".cluster.local",
        "169.254.169.254",
        "169.254.170.2",
        "169.254.170.23",
        "metadata.google.internal",
    ] {
        assert!(direct.contains(&host), "{host} is not in {direct:?}");
    }
    assert_eq!(value("NODE_USE_ENV_PROXY"), "1");
    for name in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE"] {
        assert!(value(name).ends_with("/public/bundle.pem"), "{name}: {}", value(name));
    }
    assert!(value("NODE_EXTRA_CA_CERTS").ends_with("/public/ca.pem"));
    let java = value("JAVA_TOOL_OPTIONS");
    assert!(java.starts_with("-Down=1 -Dhttp.proxyHost=127.0.0.1 "), "{java}");
    assert!(java.contains("/public/truststore.p12\" "), "{java}");
}

#[tokio::test]
async fn two_programs_and_a_sidecar_share_one_config_its_ca_and_its_keys() {
    let provider = Provider::start(Options::default()).await.expect("a provider");
    let folder = Arc::new(folder_beside(
        &provider,
        "intercept: {hosts: all}\nroutes: [{name: r, match: {hosts: ['*']}}]",
    ));
    let running = Samekey::run_in(folder.clone()).await;
    let url = provider.ports.https_url("/s/s/v1/jobs");
    let script = "cat \"$SSL_CERT_FILE\" | tail -n 5 > \"$1\"; \
        exec curl -sS --noproxy '' -H 'Samekey-Key: order-1' -d '{}' -o \"$1.json\" \"$2\"";
    let program = async |name: &str| {
        let arguments = ["exec", "--", "sh", "-c", script, "sh", name, &url];
        let ran = samekey(folder.path(), &arguments).await;
        assert_eq!((beside_the_start(&ran.err).as_str(), ran.code), ("", Some(0)));
    };
    tokio::join!(program("one"), program("two"));
    let answer = Client::through(&running)
        .send(
            http::Method::POST,
            &url,
            &[("samekey-key", "order-1"), ("content-type", "application/x-www-form-urlencoded")],
            "{}",
        )
        .await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let keys: std::collections::HashSet<_> =
        provider.seen("s").into_iter().map(|seen| seen.key).collect();
    assert_eq!(
        (keys.len(), provider.seen("s").len(), provider.effects("s")),
        (1, 3, 1),
        "{keys:?}"
    );
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("written");
    assert_eq!(read("one"), read("two"));
    assert!(running.ca_pem().ends_with(&read("one")), "one CA for all of them");
}

#[tokio::test]
async fn exec_stays_quiet_and_on_its_own_ports_when_its_config_changes() {
    let addresses = "listeners: [{address: '127.0.0.1:1'}]\nadmin: {address: '127.0.0.1:2'}\n";
    let folder = folder_with(&format!("{addresses}{IN_MEMORY}"));
    // Half a second is what a change takes to be seen, and then some.
    let script = "echo 'log: {level: debug}' >> samekey.yaml; sleep 0.5; \
        curl -s --noproxy '' -o /dev/null http://127.0.0.1:1/; true";
    let ran = samekey(folder.path(), &["exec", "--", "sh", "-c", script]).await;
    assert_eq!((beside_the_start(&ran.err).as_str(), ran.code), ("", Some(0)));
}

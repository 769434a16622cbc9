//! `samekey doctor`: what is wrong with a shell and its program, over real ones.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tokio::process::Command;

use crate::clients::{node, python};
use crate::provider::{Options, Provider};
use crate::support::Samekey;
use crate::support::program::{Ran, command, folder_beside, folder_with, ran, samekey};
use crate::support::proxy::BINARY;

/// Runs the doctor in a shell that has the sidecar's variables, after `lines`.
async fn doctor(folder: &Path, lines: &str, arguments: &[&str]) -> Ran {
    let bare = command(folder, &[]);
    let unset = bare.as_std().get_envs().filter(|(_, value)| value.is_none());
    let mut shell = Command::new("sh");
    for (name, _) in unset {
        shell.env_remove(name);
    }
    let script = format!(". state/public/env.sh; {lines}\nexec \"$@\"");
    shell.args(["-euc", &script, "sh", BINARY, "doctor"]).args(arguments);
    ran(shell.current_dir(folder).kill_on_drop(true)).await
}

/// What is wrong after `lines`, for `arguments`: these words are told, these lines mend it.
async fn check(running: &Samekey, lines: &str, arguments: &[&str], wanted: &[&str]) {
    let told = doctor(running.path(), lines, arguments).await;
    let wrong = !wanted.is_empty();
    let all = format!("{lines} {arguments:?}\n{}{}", told.out, told.err);
    assert_eq!(told.code, Some(i32::from(wrong)), "{all}");
    assert_eq!(told.out.contains("WRONG"), wrong, "{all}");
    for words in wanted {
        assert!(told.out.contains(words), "no `{words}`: {all}");
    }
}

const CHECK: &str = "https://samekey.internal/check";
const ROUTE: &str = "routes: [{name: r, match: {hosts: [api.test]}}]\n";

#[tokio::test]
async fn a_shell_that_points_at_the_sidecar_is_well() {
    let running = Samekey::start(ROUTE).await;
    check(&running, "", &[], &[]).await;
    let told = doctor(running.path(), "", &["--json"]).await;
    let told: Value = serde_json::from_str(&told.out).expect("JSON");
    assert_eq!(told["well"], true, "{told}");
    let what: Vec<_> = told["findings"].as_array().expect("a list").iter().collect();
    assert!(what.iter().all(|finding| finding["level"] == "fine"), "{told}");
}

/// A relative `state.dir` is meant from where the sidecar runs, not from where it is asked.
#[tokio::test]
async fn it_is_asked_from_another_folder() {
    let address = closed_port();
    let running = Samekey::run_in(Arc::new(folder_with(&format!(
        "listeners: [{{address: '{address}'}}]\nadmin: {{address: '127.0.0.1:0'}}\n\
         state: {{dir: state}}\n{ROUTE}"
    ))))
    .await;
    let config = running.config();
    let arguments = ["--config", config.to_str().expect("text")];
    check(&running, "cd /", &arguments, &[]).await;
}

/// What was wrong once is not told for ever.
#[tokio::test]
async fn a_config_that_is_good_again_is_well() {
    let running = Samekey::start(ROUTE).await;
    let last = "samekey_config_last_reload_successful";
    let good = std::fs::read_to_string(running.config()).expect("it is there");
    for (text, read_well) in [(format!("{good}nonsense: 1\n"), 0.0), (good, 1.0)] {
        std::fs::write(running.config(), text).expect("written");
        running.until(last, read_well).await;
    }
    let told = doctor(running.path(), "", &["--json"]).await;
    let told: Value = serde_json::from_str(&told.out).expect("JSON");
    let mut findings = told["findings"].as_array().expect("a list").iter();
    assert!(findings.all(|finding| finding["level"] == "fine"), "{told}");
}

/// An address on loopback where nobody listens.
fn closed_port() -> std::net::SocketAddr {
    let held = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    held.local_addr().expect("it is bound")
}

#[tokio::test]
async fn a_shell_that_does_not_is_told_the_line_that_mends_it() {
    let running = Samekey::start(ROUTE).await;
    let url = running.url();
    let mends = format!("export HTTPS_PROXY='{url}'");
    let public = std::fs::canonicalize(running.path().join("state/public")).expect("it is there");
    let bundle = format!("export SSL_CERT_FILE='{}'", public.join("bundle.pem").display());
    let source = format!(". '{}'", public.join("env.sh").display());
    for (lines, wanted) in [
        ("unset HTTPS_PROXY https_proxy", ["HTTPS_PROXY, https_proxy are not set", &mends]),
        ("unset SSL_CERT_FILE", ["SSL_CERT_FILE is not set", &bundle]),
        ("SSL_CERT_FILE=/nowhere", ["which cannot be read: No such file", &bundle]),
        ("SSL_CERT_FILE=/etc/hosts", ["which does not hold samekey's CA", &bundle]),
        (
            "HTTPS_PROXY=http://u:hush@127.0.0.1:1; https_proxy=$HTTPS_PROXY",
            ["HTTPS_PROXY points at http://***@127.0.0.1:1, where nothing answers", &mends],
        ),
        (
            "NO_PROXY='*'",
            ["NO_PROXY hides every host from the proxy", "export no_proxy=\"$NO_PROXY\""],
        ),
        (
            "NO_PROXY='*,a.test'; no_proxy=b.test,api.test",
            ["no_proxy hides api.test from the proxy", "export NO_PROXY='a.test,b.test'"],
        ),
        ("NO_PROXY=a.test", ["NO_PROXY and no_proxy differ", "export NO_PROXY='a.test,localhost,"]),
        (
            "no_proxy=.test",
            ["no_proxy hides api.test from the proxy, by `.test`", "export NO_PROXY='localhost,"],
        ),
        (
            "JAVA_TOOL_OPTIONS=\"$JAVA_TOOL_OPTIONS -Dhttps.proxyPort=3128\"",
            [
                "has another -Dhttps.proxyPort behind ours: the last one counts",
                "export JAVA_TOOL_OPTIONS=\"$JAVA_TOOL_OPTIONS \"",
            ],
        ),
        (
            "unset HTTPS_PROXY https_proxy HTTP_PROXY http_proxy SSL_CERT_FILE",
            ["are not set", &source],
        ),
    ] {
        check(&running, lines, &[], &wanted).await;
        let told = doctor(running.path(), lines, &[]).await;
        assert!(!told.out.contains("hush") && !told.err.contains("hush"), "{}", told.out);
        // The lines that it prints, run in their order, leave nothing wrong.
        let told = doctor(running.path(), lines, &["--json"]).await;
        let told: Value = serde_json::from_str(&told.out).expect("JSON");
        let findings = told["findings"].as_array().expect("a list").iter();
        let wrong = findings.filter(|finding| finding["level"] == "wrong");
        let mends = wrong.flat_map(|finding| finding["fix"].as_array().expect("a list"));
        let mends: Vec<_> = mends.filter_map(Value::as_str).collect();
        check(&running, &format!("{lines}\n{}", mends.join("\n")), &[], &[]).await;
    }
}

#[tokio::test]
async fn curl_is_watched() {
    let running = Samekey::start(ROUTE).await;
    let curl = ["--", "curl", "-sS", CHECK];
    check(&running, "", &curl, &[]).await;
    let told = doctor(running.path(), "", &curl).await;
    assert!(told.out.contains("the program is proxied: 1 connection, for samekey.internal"));
    assert!(told.out.contains("it trusts the CA: samekey.internal was asked"), "{}", told.out);
    assert!(told.err.contains("\"tls\":true"), "what it says is on standard error: {}", told.err);
    let refused = "it does not trust the CA: it refused the certificate of samekey.internal";
    let lines = "unset SSL_CERT_FILE CURL_CA_BUNDLE";
    check(&running, lines, &curl, &[refused, "export CURL_CA_BUNDLE=", "curl --cacert "]).await;
    let absent = "no connection of the program came to the proxy";
    for lines in ["unset HTTPS_PROXY https_proxy", "NO_PROXY='*'; no_proxy='*'"] {
        check(&running, lines, &curl, &[absent, "curl --proxy http://127.0.0.1:"]).await;
    }
    // Who is told of the proxy by other means is not said to have missed it.
    let script = format!("unset HTTPS_PROXY https_proxy; curl -sS -x {} {CHECK}", running.url());
    let told = doctor(running.path(), "", &["--", "sh", "-c", &script]).await;
    let words = format!("not by these variables: 1 at {}", running.proxy);
    assert!(told.code == Some(0) && told.out.contains(&words), "{}", told.out);
    // Nor is one that leaves the process group waited for in vain.
    check(&running, "", &["--", "timeout", "20", "curl", "-sS", CHECK], &[]).await;
    // A variable of another language changes nothing for it.
    check(&running, "unset NODE_EXTRA_CA_CERTS JAVA_TOOL_OPTIONS", &curl, &[]).await;
}

#[tokio::test]
async fn python_is_watched() {
    let running = Samekey::start(ROUTE).await;
    let program = python("requests_post.py").remove(0);
    let script = format!("import requests; requests.get('{CHECK}')");
    let requests = ["--", &program, "-c", &script];
    check(&running, "", &requests, &[]).await;
    let refused = "it does not trust the CA: it refused the certificate of samekey.internal";
    let lines = "unset SSL_CERT_FILE CURL_CA_BUNDLE REQUESTS_CA_BUNDLE";
    check(&running, lines, &requests, &[refused, "export REQUESTS_CA_BUNDLE="]).await;
    let script =
        format!("import requests; s = requests.Session(); s.trust_env = False; s.get('{CHECK}')");
    let wanted = ["no connection of the program came", "trust_env=True", "base URL: http://"];
    check(&running, "", &["--", &program, "-c", &script], &wanted).await;
}

#[tokio::test]
async fn an_sdk_that_no_variable_reaches_is_told_its_own_line() {
    let running = Samekey::start("routes: [{name: r, match: {hosts: [samekey.test]}}]\n").await;
    let script = "import stripe\nstripe.api_key, stripe.max_network_retries = 'sk_test_1', 0\n\
                  stripe.api_base = 'https://samekey.internal'\n\
                  try: stripe.Balance.retrieve()\nexcept stripe.APIConnectionError: pass\n";
    std::fs::write(running.path().join("pay.py"), script).expect("written");
    let program = python("stripe_post.py").remove(0);
    let wanted = [
        "it does not trust the CA: it refused the certificate of samekey.internal",
        "stripe.ca_bundle_path = os.environ[\"SSL_CERT_FILE\"]",
    ];
    check(&running, "", &["--", &program, "pay.py"], &wanted).await;
}

#[tokio::test]
async fn node_is_watched() {
    let running = Samekey::start(ROUTE).await;
    let program = node("node_fetch.mjs").remove(0);
    let script = format!("fetch('{CHECK}').then((r) => r.text(), () => 0)");
    let fetch = ["--", &program, "-e", &script];
    check(&running, "", &fetch, &[]).await;
    let wanted = ["refused the certificate of samekey.internal", "export NODE_EXTRA_CA_CERTS="];
    check(&running, "unset NODE_EXTRA_CA_CERTS", &fetch, &wanted).await;
    let wanted =
        ["no connection of the program came to the proxy", "export NODE_USE_ENV_PROXY='1'"];
    check(&running, "unset NODE_USE_ENV_PROXY", &fetch, &wanted).await;
    let said = std::process::Command::new("node").arg("--version").output();
    let said = said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned());
    let old = said.expect("node is missing: run .ci/install");
    // The system's own is mostly one that reads no variable.
    let wanted: &[&str] = match old.trim().trim_start_matches('v').split('.').next() {
        Some("18" | "20") => &["reads no proxy variable", "EnvHttpProxyAgent", "mode: reverse"],
        _ => &[],
    };
    check(&running, "", &["--", "node", "-e", &script], wanted).await;
}

#[tokio::test]
async fn a_program_is_run_once_with_its_keys_in_the_journal_of_the_sidecar() {
    let provider = Provider::start(Options::default()).await.expect("a provider");
    let routes = "routes: [{name: jobs, match: {hosts: [localhost]}}]";
    let running = Samekey::run_in(Arc::new(folder_beside(&provider, routes))).await;
    let url = provider.ports.https_url("/s/once/v1/jobs");
    let order = ["--", "curl", "-sS", "-H", "Samekey-Key: order-1", "-d", "{}", &url];
    for _ in 0..2 {
        check(&running, "NO_PROXY=; no_proxy=", &order, &[]).await;
    }
    assert_eq!((provider.seen("once").len(), provider.effects("once")), (1, 1));
    // What no route names passes unread, and is told so.
    let other = provider.ports.https_url("/s/other").replace("localhost", "127.0.0.1");
    let told = doctor(running.path(), "NO_PROXY=; no_proxy=", &["--", "curl", "-sk", &other]).await;
    assert!(told.out.contains("127.0.0.1 is not opened (no route names the host)"), "{}", told.out);
}

#[tokio::test]
async fn without_a_sidecar_no_program_is_run() {
    let address = closed_port();
    let folder = folder_with(&format!(
        "listeners: [{{address: '{address}'}}]\nadmin: {{address: '127.0.0.1:0'}}\nstate: {{dir: state}}"
    ));
    let told = samekey(folder.path(), &["doctor", "--", "touch", "ran"]).await;
    assert_eq!(told.code, Some(1), "{}{}", told.out, told.err);
    for words in ["the sidecar is not up: nothing answers at http://", "samekey run", "was not run"]
    {
        assert!(told.out.contains(words), "no `{words}`: {}", told.out);
    }
    assert!(!folder.path().join("ran").exists(), "it was run past any sidecar");
    let missing = samekey(folder.path(), &["doctor", "--config", "none.yaml"]).await;
    assert_eq!(missing.code, Some(2), "{}", missing.err);
}

#[tokio::test]
async fn a_sidecar_without_a_proxy_is_asked_for_what_it_serves() {
    let address = closed_port();
    for mode in ["transparent", "reverse"] {
        let running = Samekey::run_in(Arc::new(folder_with(&format!(
            "listeners: [{{address: '{address}', mode: {mode}}}]\n\
             admin: {{address: '127.0.0.1:0'}}\nstate: {{dir: state}}\n{ROUTE}"
        ))))
        .await;
        check(&running, "", &[], &[]).await;
        let url = format!("http://{address}/nothing");
        let curl = ["--", "curl", "-s", &url];
        check(&running, "", &curl, &[]).await;
        let told = doctor(running.path(), "", &curl).await;
        let words = format!("while the program ran: 1 at {address}");
        assert!(told.out.contains(&words), "{mode}: {}{}", told.out, told.err);
        let wanted = ["no connection came to the sidecar while the program ran"];
        check(&running, "", &["--", "touch", "ran"], &wanted).await;
        assert!(running.path().join("ran").exists(), "{mode}: it was not run");
    }
    let folder = folder_with(&format!(
        "listeners: [{{address: '{address}', mode: reverse}}]\nadmin: {{address: '{}'}}",
        closed_port()
    ));
    let told = samekey(folder.path(), &["doctor", "--", "touch", "ran"]).await;
    assert!(told.out.contains("the sidecar is not up"), "{}", told.out);
    assert!(!folder.path().join("ran").exists(), "it was run past any sidecar");
}

#[tokio::test]
async fn what_is_no_samekey_is_told_from_one() {
    let provider = Provider::start(Options::default()).await.expect("a provider");
    let address = provider.ports.http_addr;
    let folder = folder_with(&format!(
        "listeners: [{{address: '{address}'}}]\nadmin: {{address: '127.0.0.1:0'}}\nstate: {{dir: state}}"
    ));
    let told = samekey(folder.path(), &["doctor"]).await;
    assert_eq!(told.code, Some(1));
    assert!(told.out.contains("is no samekey: it says `HTTP/1.1 "), "{}", told.out);
}

#[tokio::test]
async fn a_password_is_asked_for_used_and_never_shown() {
    let folder = Arc::new(folder_with(
        "listeners: [{address: '127.0.0.1:0', auth: {user: u, password_file: password}}]\n\
         admin: {address: '127.0.0.1:0'}\nstate: {dir: state}\nroutes: [{name: r, match: {hosts: [api.test]}}]\n",
    ));
    std::fs::write(folder.path().join("password"), "hush%@hush\n").expect("written");
    let running = Samekey::run_in(folder).await;
    let curl = ["--", "curl", "-sS", CHECK];
    check(&running, "", &curl, &["wants a name and a password", "NAME:PASSWORD@127.0.0.1:"]).await;
    let with = format!("HTTP_PROXY=http://u:hush%25%40hush@{}", running.proxy);
    let all =
        format!("{with}; http_proxy=$HTTP_PROXY; HTTPS_PROXY=$HTTP_PROXY; https_proxy=$HTTP_PROXY");
    check(&running, &all, &curl, &[]).await;
    for lines in [all.as_str(), "HTTPS_PROXY=http://u:hush@127.0.0.1:1"] {
        let told = doctor(running.path(), lines, &curl).await;
        assert!(!format!("{}{}", told.out, told.err).contains("hush"), "{}{}", told.out, told.err);
    }
}

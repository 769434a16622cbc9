//! The commands: what they print, how they end, and what `exec` does for a program.

mod exec;
mod explain;
mod signals;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use crate::provider::{Options, Provider};
use crate::support::program::{command, folder_beside, folder_with, ran, samekey};
use crate::support::proxy::BINARY;
use crate::support::{Client, Samekey};

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

/// Who uses a sidecar may read what it publishes, and not its CA's key.
#[tokio::test]
async fn the_ca_is_printed_to_who_may_read_what_is_published_alone() {
    let running = Samekey::start("").await;
    // Of a folder that it owns it would set the mode right.
    let key = running.path().join("state/ca/key.pem");
    std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o000)).expect("its owner may");
    let published = running.path().join("state/public");
    for (what, file) in
        [("cert", "ca.pem"), ("bundle", "bundle.pem"), ("truststore", "truststore.p12")]
    {
        let mut run = bound_by_modes();
        run.args(["ca", what, "--output", "printed"]).current_dir(running.path());
        let ran = ran(&mut run).await;
        assert_eq!((ran.err.as_str(), ran.code), ("", Some(0)), "{what}");
        let read = |path| std::fs::read(path).expect("written");
        assert!(read(published.join(file)) == read(running.path().join("printed")), "{what}");
    }
    std::fs::remove_file(published.join("ca.pem")).expect("it is there");
    let ran = ran(bound_by_modes().args(["ca", "cert"]).current_dir(running.path())).await;
    assert!(ran.code == Some(1) && ran.err.contains("must be readable"), "{}", ran.err);
}

/// The binary, without root's right to read what nobody may.
fn bound_by_modes() -> tokio::process::Command {
    if !rustix::process::getuid().is_root() {
        return tokio::process::Command::new(BINARY);
    }
    let mut command = tokio::process::Command::new("setpriv");
    let rights = "-dac_override,-dac_read_search";
    command.arg(format!("--bounding-set={rights}")).arg(format!("--inh-caps={rights}"));
    command.arg(BINARY);
    command
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

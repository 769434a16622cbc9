//! Runs a program with the variables of this shell, and notes what it asks of the proxy.
//!
//! It is run once, since what it does may have effects. Where its variables name the
//! proxy, they name a [`Relay`] in its place; nothing else of them is changed. A sidecar
//! without a proxy says itself how many connections came.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use samekey::config::Config;
use samekey::exchange::{Origin, Scheme};

use crate::cli::ask::ask;
use crate::cli::doctor::facts::{Admin, Asked, Facts, Program, Talk};
use crate::cli::doctor::judge::url;
use crate::cli::doctor::program::kind;
use crate::cli::doctor::relay::Relay;
use crate::cli::exec::{program, supervise};
use crate::cli::explain::tunnelled;
use crate::cli::{Stop, failed, runtime};

pub(super) fn watch(config: &Config, facts: &Facts, command: &[OsString]) -> Result<Program, Stop> {
    let kind = kind(command, version);
    let proxy = facts.proxy.as_deref().and_then(url::authority);
    let before = connections(&facts.admin);
    let name = command.first().map(|name| name.display().to_string()).unwrap_or_default();
    let runtime = runtime()?;
    let (status, mut talks) = runtime.block_on(async {
        let Some(proxy) = &proxy else {
            let (status, _signals) = supervise(&mut run(command)?, &name).await?;
            return Ok((status, Vec::new()));
        };
        let relay = Relay::start(proxy.clone()).await.map_err(failed)?;
        let mut run = run(command)?;
        redirect(&mut run, proxy, &relay.address().to_string());
        let (status, _signals) = supervise(&mut run, &name).await?;
        Ok::<_, Stop>((status, relay.talks().await))
    })?;
    runtime.shutdown_timeout(Duration::from_millis(100));
    let passed = u64::try_from(talks.len()).unwrap_or(u64::MAX);
    let proxy = proxy.unwrap_or_default();
    let beside = beside(&before, connections(&facts.admin), (&proxy, passed));
    for talk in &mut talks {
        talk.tunnelled = unopened(config, talk);
    }
    Ok(Program { kind, code: status.exit_status(), talks, beside })
}

/// The program; what it says goes to standard error, so that the findings stand alone.
fn run(command: &[OsString]) -> Result<Command, Stop> {
    let mut run = program(command)?;
    let err = std::io::stderr().as_fd().try_clone_to_owned().map_err(failed)?;
    run.stdout(Stdio::from(err));
    Ok(run)
}

fn redirect(run: &mut Command, proxy: &str, relay: &str) {
    for (name, value) in std::env::vars_os() {
        let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { continue };
        if let Some(value) = url::redirected(name, value, proxy, relay) {
            run.env(name, value);
        }
    }
}

fn version(program: &str) -> Option<String> {
    let said = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    said.ok().and_then(|said| String::from_utf8(said.stdout).ok())
}

fn unopened(config: &Config, talk: &Talk) -> Option<&'static str> {
    let Asked::Connect(host, port) = &talk.asked else { return None };
    tunnelled(config, &Origin::new(Scheme::Https, host, *port)?)
}

/// Connections so far, by listener.
fn connections(admin: &Admin) -> BTreeMap<String, u64> {
    let Admin::Says { address, .. } = admin else { return BTreeMap::new() };
    let metrics = ask(address, ("GET", "/metrics"), "", METRICS_MAX);
    let text = metrics.map(|answer| answer.body).unwrap_or_default();
    let counts = text.lines().filter_map(|line| {
        let rest = line.strip_prefix("samekey_connections_total{listener=\"")?;
        let (listener, count) = rest.split_once("\"} ")?;
        Some((listener.to_owned(), count.trim().parse().ok()?))
    });
    counts.collect()
}

/// What came to listeners beside what went through the relay.
fn beside(
    before: &BTreeMap<String, u64>,
    after: BTreeMap<String, u64>,
    (proxy, passed): (&str, u64),
) -> Vec<(String, u64)> {
    let more = after.into_iter().filter_map(|(listener, after)| {
        let before = before.get(&listener).copied().unwrap_or_default();
        let own = if url::same(&listener, proxy) { passed } else { 0 };
        let more = after.saturating_sub(before).saturating_sub(own);
        (more > 0).then_some((listener, more))
    });
    more.collect()
}

const METRICS_MAX: u64 = 16 * 1024 * 1024;

//! Did the program come to the proxy, and did it trust what it was shown?

use std::collections::BTreeSet;

use crate::cli::doctor::facts::{Admin, Asked, Facts, Program, Talk};
use crate::cli::doctor::hello::Tls;
use crate::cli::doctor::judge::{Finding, export, lines};

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    if facts.withheld {
        let what = "the program was not run: there is no sidecar for it to come to";
        return vec![Finding::note(what, vec![])];
    }
    let Some(program) = &facts.program else { return Vec::new() };
    let mut found =
        if facts.proxy.is_some() { came(facts, program) } else { vec![counted(facts, program)] };
    found.extend(trust(facts, program));
    found.extend(unopened(program));
    match program.code {
        Some(0) => {}
        Some(code) => found.push(Finding::note(format!("the program ended with {code}"), vec![])),
        None => found.push(Finding::note("a signal ended the program", vec![])),
    }
    found
}

/// Whether a program was run and came through as it should.
pub(super) fn works(facts: &Facts) -> bool {
    let Some(program) = &facts.program else { return false };
    let good = |talk: &Talk| match talk.tls {
        Tls::Used => true,
        Tls::None => matches!(talk.asked, Asked::Plain(_)) && talk.answered != Some(407),
        Tls::Begun | Tls::Agreed | Tls::Refused => false,
    };
    !program.talks.is_empty() && program.talks.iter().all(good)
}

fn came(facts: &Facts, program: &Program) -> Vec<Finding> {
    let count = program.talks.len();
    if program.talks.iter().any(|talk| talk.answered == Some(407)) {
        let with = facts.proxy.clone().unwrap_or_default();
        let with = with.replacen("://", "://NAME:PASSWORD@", 1);
        let what = "the program came to the proxy, and had no right name and password";
        return vec![Finding::wrong(what, vec![export("HTTPS_PROXY", &with)])];
    }
    if count > 0 {
        let hosts: BTreeSet<&str> = program.talks.iter().filter_map(host).collect();
        let hosts: Vec<&str> = hosts.into_iter().collect();
        let for_whom =
            if hosts.is_empty() { String::new() } else { format!(", for {}", hosts.join(", ")) };
        let connections = if count == 1 { "connection" } else { "connections" };
        let mut found =
            vec![Finding::fine(format!("the program is proxied: {count} {connections}{for_whom}"))];
        if program.talks.iter().any(|talk| talk.asked == Asked::Other) {
            let what = "it spoke to the proxy as to a server: a proxy wants CONNECT or a whole URL";
            found.push(Finding::wrong(what, lines::reverse(facts, &program.kind)));
        }
        return found;
    }
    if !program.beside.is_empty() {
        let what = format!(
            "connections came to the sidecar meanwhile, but not by these variables: {}; \
             whose they are cannot be told",
            beside(program)
        );
        return vec![Finding::note(what, vec![])];
    }
    vec![Finding::wrong(lines::absence(&program.kind), lines::to_come(facts, &program.kind))]
}

fn beside(program: &Program) -> String {
    let came = program.beside.iter().map(|(listener, count)| format!("{count} at {listener}"));
    came.collect::<Vec<_>>().join(", ")
}

/// Whether anything came to a sidecar without a proxy: no relay stands before that.
fn counted(facts: &Facts, program: &Program) -> Finding {
    if program.beside.is_empty() {
        let why = if facts.is_transparent() {
            "it is not redirected, or it asked nobody"
        } else {
            "it does not have the base URL, or it asked nobody"
        };
        let what = format!("no connection came to the sidecar while the program ran: {why}");
        return Finding::wrong(what, lines::to_come_by_no_variable(facts, &program.kind));
    }
    let what = format!(
        "connections came to the sidecar while the program ran: {}; whose they are cannot be told",
        beside(program)
    );
    let fix = match &facts.admin {
        Admin::Says { address, .. } if facts.is_transparent() => {
            vec![format!(
                "curl -s http://{address}/metrics | grep 'side=\"client\",result=\"distrusted\"'   \
                 # grows where the CA is not trusted"
            )]
        }
        Admin::Says { .. } | Admin::Silent(_) => Vec::new(),
    };
    Finding::note(what, fix)
}

/// Hosts whose certificates of ours were refused.
fn trust(facts: &Facts, program: &Program) -> Vec<Finding> {
    let of = |wanted: &[Tls]| -> Vec<&str> {
        let opened = program.talks.iter().filter(|talk| talk.tunnelled.is_none());
        let those = opened.filter(|talk| talk.answered == Some(200) && wanted.contains(&talk.tls));
        let hosts: BTreeSet<&str> = those.filter_map(host).collect();
        hosts.into_iter().collect()
    };
    let (refused, left, used) =
        (of(&[Tls::Refused, Tls::Begun]), of(&[Tls::Agreed]), of(&[Tls::Used]));
    let mut found = Vec::new();
    if !refused.is_empty() {
        let what = format!(
            "it does not trust the CA: it refused the certificate of {}",
            refused.join(", ")
        );
        found.push(Finding::wrong(what, lines::to_trust(facts, &program.kind)));
    }
    // Some look at the certificate only when all is agreed, and hang up without a word.
    let left: Vec<&str> =
        left.into_iter().filter(|host| !used.contains(host) && !refused.contains(host)).collect();
    if !left.is_empty() {
        let what = format!(
            "it hung up on {} when it had seen the certificate, and asked nothing: it does not \
             trust the CA, most likely",
            left.join(", ")
        );
        found.push(Finding::wrong(what, lines::to_trust(facts, &program.kind)));
    }
    if found.is_empty() && !used.is_empty() {
        found.push(Finding::fine(format!("it trusts the CA: {} was asked", used.join(", "))));
    }
    found
}

/// Hosts that pass unread, so that nothing is retried for them.
fn unopened(program: &Program) -> Vec<Finding> {
    let passed = program.talks.iter().filter_map(|talk| Some((host(talk)?, talk.tunnelled?)));
    let passed: BTreeSet<(&str, &str)> = passed.collect();
    let found = passed.into_iter().map(|(host, why)| {
        let what =
            format!("{host} is not opened ({why}): it passes unread, without keys and retries");
        let route = format!("routes: [{{name: {}, match: {{hosts: [{host}]}}}}]", name_of(host));
        let fix = if why.contains("route") { vec![route] } else { Vec::new() };
        Finding::note(what, fix)
    });
    found.collect()
}

fn host(talk: &Talk) -> Option<&str> {
    match &talk.asked {
        Asked::Connect(host, _) | Asked::Plain(host) => Some(host),
        Asked::Nothing | Asked::Other => None,
    }
}

/// A route's name for a host.
fn name_of(host: &str) -> String {
    host.chars().map(|sign| if sign.is_ascii_alphanumeric() { sign } else { '-' }).collect()
}

//! Is the sidecar up, is it ours, and can programs read what they need of it?

use std::path::Path;
use std::time::{Duration, SystemTime};

use samekey::exchange::instant::date;
use samekey::intercept::Shown;
use samekey::journal::moment::micros_of;

use crate::cli::doctor::facts::{Admin, Facts, Other, Pem, Reached, Trust};
use crate::cli::doctor::judge::{Finding, export, lines};

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut found = vec![Finding::fine(format!("the config is {}", facts.config))];
    found.extend(reached(facts));
    found.extend(admin(facts));
    found.push(ca(facts));
    found.extend(modes(facts));
    found
}

fn reached(facts: &Facts) -> Vec<Finding> {
    let Some(proxy) = &facts.proxy else { return without_a_proxy(facts) };
    let one = match &facts.reached {
        Reached::Nobody(why) => {
            let what = format!("the sidecar is not up: nothing answers at {proxy} ({why})");
            Finding::wrong(what, vec![lines::run(&facts.config)])
        }
        Reached::Stranger(line) => {
            let what = format!("what answers at {proxy} is no samekey: it says `{line}`");
            let fix = format!("SAMEKEY_LISTEN=127.0.0.1:8089 {}", lines::run(&facts.config));
            Finding::wrong(what, vec![fix])
        }
        Reached::WantsUser => {
            let with = proxy.replacen("://", "://NAME:PASSWORD@", 1);
            let what = format!("the proxy at {proxy} wants a name and a password");
            Finding::wrong(what, ["HTTPS_PROXY", "HTTP_PROXY"].map(|n| export(n, &with)).to_vec())
        }
        Reached::Samekey { version, ca, trust, .. } => {
            let mut all = vec![Finding::fine(format!("samekey {version} answers at {proxy}"))];
            all.extend(trusted(facts, ca, trust));
            return all;
        }
    };
    vec![one]
}

/// What programs come to by no variable, and what to look at where they do not come.
fn without_a_proxy(facts: &Facts) -> Vec<Finding> {
    if let Admin::Silent(why) = &facts.admin {
        let what = format!(
            "the sidecar is not up: its admin side does not answer ({why}), and it has no proxy to ask"
        );
        return vec![Finding::wrong(what, vec![lines::run(&facts.config)])];
    }
    let mut found: Vec<Finding> = facts.others.iter().map(served).collect();
    if facts.is_transparent() && facts.program.is_none() {
        let what = "what is redirected is up to the rules of this machine, which are not read here";
        found.push(Finding::note(what, lines::rules()));
    }
    found
}

fn served(other: &Other) -> Finding {
    Finding::fine(match other {
        Other::Redirected(address) => format!(
            "connections that are redirected come to {address}: their programs need the CA, and \
             no proxy variable"
        ),
        Other::BaseUrl(address, upstream) => {
            let line = lines::base_url(address, upstream.as_deref());
            format!("programs come by a base URL, and by no variable: {line}")
        }
    })
}

/// Whether it signs with the CA that programs are given.
fn trusted(facts: &Facts, ca: &str, trust: &Trust) -> Option<Finding> {
    let Pem::Holds(published) = &facts.ca else { return None };
    let file = facts.public.join("ca.pem");
    let file = file.display();
    if !published.iter().any(|shown| shown.digest == ca) {
        let what =
            format!("{file} is not the CA that the sidecar signs with: another one runs there");
        let fix = "restart the sidecar of this config, which writes it anew, or name its config: \
                   samekey doctor --config FILE";
        return Some(Finding::wrong(what, vec![fix.to_owned()]));
    }
    Some(match trust {
        Trust::Accepted => Finding::fine(format!("who trusts {file} accepts its certificates")),
        Trust::Refused(why) => {
            Finding::wrong(format!("its certificates are not accepted under {file}: {why}"), vec![])
        }
    })
}

fn admin(facts: &Facts) -> Vec<Finding> {
    let (address, config, draining, reload_failed) = match &facts.admin {
        Admin::Silent(_) if !matches!(facts.reached, Reached::Samekey { .. }) => return Vec::new(),
        Admin::Silent(why) => {
            return vec![Finding::note(format!("the admin side does not answer: {why}"), vec![])];
        }
        Admin::Says { address, config, draining, reload_failed } => {
            (address, config, *draining, *reload_failed)
        }
    };
    let mut found = vec![Finding::fine(format!("the admin side answers at http://{address}/"))];
    if draining {
        found.push(Finding::wrong("the sidecar is draining: it ends soon", vec![]));
    }
    let [theirs, read] = [Path::new(config), Path::new(&facts.config)];
    // Each may be told from another folder.
    if !theirs.ends_with(read) && !read.ends_with(theirs) {
        let what = format!("the sidecar runs on {config}, and {} was read here", facts.config);
        found.push(Finding::note(what, vec![format!("samekey doctor --config {config}")]));
    }
    if reload_failed {
        let what = "the config was bad when it was last read; the one before is in force";
        found.push(Finding::note(
            what,
            vec![format!("samekey check{}", lines::config(&facts.config))],
        ));
    }
    found
}

fn ca(facts: &Facts) -> Finding {
    let file = facts.public.join("ca.pem");
    let file = file.display();
    let first: &Shown = match &facts.ca {
        Pem::Unreadable(why) => {
            let what = format!("{file} cannot be read: {why}");
            let fix = format!(
                "{}   # writes it; as a user whom state.public lets in",
                lines::run(&facts.config)
            );
            return Finding::wrong(what, vec![fix]);
        }
        Pem::Holds(shown) => match shown.first() {
            Some(first) => first,
            None => return Finding::wrong(format!("{file} holds no certificate"), vec![]),
        },
    };
    let until = day(first.ends);
    let renew = "remove ca/cert.pem and ca/key.pem from state.dir and restart: a new CA, which \
                 every program has to read anew";
    if first.begins > facts.now {
        let what =
            format!("this machine's clock is before the CA's first day, {}", day(first.begins));
        Finding::wrong(what, vec![])
    } else if first.ends <= facts.now {
        Finding::wrong(format!("the CA ended on {until}"), vec![renew.to_owned()])
    } else if first.ends <= facts.now + SOON {
        Finding::note(format!("the CA ends on {until}"), vec![renew.to_owned()])
    } else {
        Finding::fine(format!("{file} is there, and valid until {until}"))
    }
}

fn modes(facts: &Facts) -> Vec<Finding> {
    let all = facts.modes.iter().map(|wrong| {
        let what = format!(
            "{} has mode {:03o}, and has to be {}",
            wrong.path.display(),
            wrong.bits,
            wrong.wanted
        );
        // The key is the one that too many may read.
        if wrong.path.starts_with(&facts.public) {
            Finding::note(format!("{what}: programs of other users do not get in"), vec![])
        } else {
            Finding::wrong(what, vec![format!("chmod 600 {}", wrong.path.display())])
        }
    });
    all.collect()
}

fn day(at: SystemTime) -> String {
    date(micros_of(at))
}

/// Long enough to bring a new CA to every program.
const SOON: Duration = Duration::from_hours(30 * 24);

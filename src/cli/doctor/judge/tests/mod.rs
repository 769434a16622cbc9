//! From facts to findings, by tables: what is wrong, and the line that mends it.

mod environment;
mod program;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use samekey::intercept::{Environment as Variables, Own, Shown};

use super::Level::{Fine, Note, Wrong};
use super::*;
use crate::cli::doctor::facts::{Admin, Asked, Mode, Other, Pem, Program};
use crate::cli::doctor::facts::{Reached, Talk, Trust, Variable};
use crate::cli::doctor::hello::Tls;
use crate::cli::doctor::program::{Kind, Language, Sdk};

const PROXY: &str = "http://127.0.0.1:8080";
const DAY: Duration = Duration::from_hours(24);

fn certificate(digest: &str) -> Shown {
    let now = SystemTime::UNIX_EPOCH + DAY * 20_000;
    Shown { digest: digest.to_owned(), begins: now - DAY, ends: now + DAY * 3650 }
}

/// All is well: the sidecar is up, the shell points at it, no program is run.
fn healthy() -> Facts {
    let wanted = Variables::new(PROXY, Path::new("/public"), Own::default());
    let variables = wanted.variables().into_iter().map(|(name, wanted)| {
        let holds =
            if wanted.ends_with("bundle.pem") { vec!["root", "ours"] } else { vec!["ours"] };
        let holds = Pem::Holds(holds.into_iter().map(certificate).collect());
        let file = Path::new(wanted).extension().is_some_and(|kind| kind == "pem").then_some(holds);
        Variable { name, wanted: wanted.to_owned(), found: Some(wanted.to_owned()), file }
    });
    Facts {
        config: "samekey.yaml".to_owned(),
        proxy: Some(PROXY.to_owned()),
        wants_user: false,
        reverse: None,
        others: Vec::new(),
        reached: Reached::Samekey {
            version: "0.1.0".to_owned(),
            ca: "ours".to_owned(),
            trust: Trust::Accepted,
            public: PathBuf::from("/public"),
        },
        admin: Admin::Says {
            address: "127.0.0.1:9090".to_owned(),
            config: "samekey.yaml".to_owned(),
            draining: false,
            reload_failed: false,
        },
        public: PathBuf::from("/public"),
        ca: Pem::Holds(vec![certificate("ours")]),
        modes: Vec::new(),
        variables: variables.collect(),
        elsewhere: None,
        hosts: vec!["api.test".to_owned()],
        now: SystemTime::UNIX_EPOCH + DAY * 20_000,
        program: None,
        withheld: false,
    }
}

/// Sets a variable of the shell; `None`: it is not set.
fn set(facts: &mut Facts, name: &str, found: Option<&str>) {
    let mut all = facts.variables.iter_mut();
    let one = all.find(|variable| variable.name == name).expect("it is one of them");
    one.found = found.map(str::to_owned);
}

/// Names a file that holds these certificates.
fn name_file(facts: &mut Facts, name: &str, file: &str, pem: Pem) {
    set(facts, name, Some(file));
    let mut all = facts.variables.iter_mut();
    all.find(|variable| variable.name == name).expect("it is one of them").file = Some(pem);
}

fn ran(language: Language, talks: Vec<Talk>) -> Program {
    let kind = Kind { language, ..Kind::default() };
    Program { kind, code: Some(0), talks, beside: Vec::new() }
}

fn talk(host: &str, tls: Tls) -> Talk {
    let asked = Asked::Connect(host.to_owned(), 443);
    Talk { asked, answered: Some(200), tls, tunnelled: None }
}

/// Changes what is well, and wants one finding of this level with these words in it, and
/// these in its lines.
fn check(name: &str, change: impl FnOnce(&mut Facts), wanted: (Level, &str, &str)) {
    let mut facts = healthy();
    change(&mut facts);
    let found = judge(&facts);
    let (level, what, fix) = wanted;
    let mut those = found.iter().filter(|finding| finding.what.contains(what));
    let one = those.next().unwrap_or_else(|| panic!("{name}: nothing says `{what}`: {found:#?}"));
    assert_eq!(one.level, level, "{name}: {one:#?}");
    assert!(one.fix.join("\n").contains(fix), "{name}: no line says `{fix}`: {one:#?}");
    let wrong = found.iter().any(|finding| finding.level == Wrong);
    assert_eq!(wrong, level == Wrong, "{name}: {found:#?}");
}

#[test]
fn what_is_well_is_said_to_be_and_nothing_else() {
    let found = judge(&healthy());
    assert!(
        found.iter().all(|finding| finding.level == Fine && finding.fix.is_empty()),
        "{found:#?}"
    );
    check("all", |_| {}, (Fine, "the variables of this shell point at it", ""));
}

#[test]
fn the_sidecar_is_told_to_be_up_or_what_starts_it() {
    let nobody = |facts: &mut Facts| {
        facts.reached = Reached::Nobody("refused".to_owned());
        facts.admin = Admin::Silent("refused".to_owned());
    };
    check(
        "down",
        nobody,
        (
            Wrong,
            "not up: nothing answers at http://127.0.0.1:8080",
            "samekey run --config samekey.yaml",
        ),
    );
    let stranger = |facts: &mut Facts| facts.reached = Reached::Stranger("HTTP/1.1 400".to_owned());
    check(
        "stranger",
        stranger,
        (Wrong, "is no samekey: it says `HTTP/1.1 400`", "SAMEKEY_LISTEN="),
    );
    let user = |facts: &mut Facts| facts.reached = Reached::WantsUser;
    check(
        "407",
        user,
        (Wrong, "wants a name and a password", "'http://NAME:PASSWORD@127.0.0.1:8080'"),
    );
    let silent = |facts: &mut Facts| facts.admin = Admin::Silent("refused".to_owned());
    check("no admin", silent, (Note, "the admin side does not answer: refused", ""));
    let says = |config: &str, draining, reload_failed| Admin::Says {
        address: "127.0.0.1:9090".to_owned(),
        config: config.to_owned(),
        draining,
        reload_failed,
    };
    let draining = |facts: &mut Facts| facts.admin = says("samekey.yaml", true, false);
    check("draining", draining, (Wrong, "it ends soon", ""));
    let other = |facts: &mut Facts| facts.admin = says("/etc/s.yaml", false, false);
    check(
        "other config",
        other,
        (Note, "runs on /etc/s.yaml", "samekey doctor --config /etc/s.yaml"),
    );
    let whole = |facts: &mut Facts| facts.admin = says("/etc/samekey.yaml", false, false);
    check("by another folder", whole, (Fine, "the admin side answers", ""));
    let failed = |facts: &mut Facts| facts.admin = says("samekey.yaml", false, true);
    check(
        "reload",
        failed,
        (Note, "the config was bad when it was last read", "samekey check --config samekey.yaml"),
    );
    let withheld = |facts: &mut Facts| facts.withheld = true;
    check("withheld", withheld, (Note, "the program was not run", ""));
}

/// All is well, with these listeners, of which none is a proxy.
fn without_a_proxy(facts: &mut Facts, others: &[Other]) {
    let variables = Variables::new("", Path::new("/public"), Own::default());
    let names: Vec<&str> = variables.variables().into_iter().map(|(name, _)| name).collect();
    facts.variables.retain(|variable| names.contains(&variable.name));
    let java = variables.variables().into_iter().find(|(name, _)| *name == "JAVA_TOOL_OPTIONS");
    let java = java.expect("it is one of them").1;
    let all = facts.variables.iter_mut();
    all.filter(|variable| variable.name == "JAVA_TOOL_OPTIONS").for_each(|variable| {
        variable.wanted = java.to_owned();
        variable.found = Some(java.to_owned());
    });
    facts.proxy = None;
    facts.reached = Reached::Nobody("no listener of the config is a proxy".to_owned());
    facts.others = others.to_vec();
}

#[test]
fn a_sidecar_without_a_proxy_says_what_it_serves() {
    let redirected = [Other::Redirected("127.0.0.1:17081".to_owned())];
    let by_path = [Other::BaseUrl("127.0.0.1:8081".to_owned(), None)];
    let origin = "https://api.test".to_owned();
    let one = [Other::BaseUrl("127.0.0.1:8082".to_owned(), Some(origin))];
    let to = |others: &[Other]| {
        let others = others.to_vec();
        move |facts: &mut Facts| without_a_proxy(facts, &others)
    };
    for (others, wanted) in [
        (&redirected, (Fine, "connections that are redirected come to 127.0.0.1:17081", "")),
        (&redirected, (Note, "up to the rules of this machine", "nft list table inet samekey")),
        (&redirected, (Fine, "the variables of this shell name its CA", "")),
        (&by_path, (Fine, "a base URL, and by no variable: http://127.0.0.1:8081/api.exa", "")),
        (&one, (Fine, "http://127.0.0.1:8082 in the place of https://api.test", "")),
    ] {
        check("up", to(others), wanted);
    }
    let down = |facts: &mut Facts| {
        without_a_proxy(facts, &redirected);
        facts.admin = Admin::Silent("refused".to_owned());
    };
    check("down", down, (Wrong, "not up: its admin side does not answer (refused)", "samekey run"));
    let bare = |others: &'static str| {
        let others = if others == "redirected" { redirected.clone() } else { by_path.clone() };
        move |facts: &mut Facts| {
            without_a_proxy(facts, &others);
            set(facts, "SSL_CERT_FILE", None);
        }
    };
    let mends = "export SSL_CERT_FILE='/public/bundle.pem'";
    check("its CA", bare("redirected"), (Wrong, "SSL_CERT_FILE is not set", mends));
    check("a base URL", bare("by path"), (Fine, "by a base URL, and by no variable", ""));
    for (others, came, wanted) in [
        (&redirected, 1, (Note, "while the program ran: 1 at 127.0.0.1:17081", "distrusted")),
        (&redirected, 0, (Wrong, "it is not redirected, or it asked nobody", "capture apply")),
        (&by_path, 1, (Note, "while the program ran: 1 at 127.0.0.1:17081", "")),
        (&by_path, 0, (Wrong, "it does not have the base URL", "base URL: http://127.0.0.1:8081/")),
        (&one, 0, (Wrong, "it does not have the base URL", "base URL: http://127.0.0.1:8082 in")),
    ] {
        let run = |facts: &mut Facts| {
            without_a_proxy(facts, others);
            facts.reverse = (others == &by_path).then(|| "127.0.0.1:8081".to_owned());
            let mut program = ran(Language::Unknown, Vec::new());
            program.beside.extend((came > 0).then(|| ("127.0.0.1:17081".to_owned(), came)));
            facts.program = Some(program);
        };
        check("a program", run, wanted);
    }
}

#[test]
fn the_ca_is_read_valid_and_the_one_that_signs() {
    let unreadable = |facts: &mut Facts| facts.ca = Pem::Unreadable("permission denied".to_owned());
    check(
        "unreadable",
        unreadable,
        (Wrong, "/public/ca.pem cannot be read: permission", "samekey run"),
    );
    check("empty", |facts| facts.ca = Pem::Holds(vec![]), (Wrong, "holds no certificate", ""));
    for (days, wanted) in [
        (3650, (Wrong, "the CA ended on ", "restart")),
        (3649, (Note, "the CA ends on ", "restart")),
        (3620, (Note, "the CA ends on ", "restart")),
        (3619, (Fine, "/public/ca.pem is there, and valid until ", "")),
    ] {
        check("its end", |facts| facts.now += DAY * days, wanted);
    }
    let early = |facts: &mut Facts| facts.now -= DAY * 2;
    check("the clock", early, (Wrong, "this machine's clock is before the CA's first day", ""));
    let samekey = |ca: &str, trust| Reached::Samekey {
        version: "0.1.0".to_owned(),
        ca: ca.to_owned(),
        trust,
        public: PathBuf::new(),
    };
    let another = |facts: &mut Facts| facts.reached = samekey("theirs", Trust::Accepted);
    check("another", another, (Wrong, "is not the CA that the sidecar signs with", "restart"));
    let refused = |facts: &mut Facts| {
        facts.reached = samekey("ours", Trust::Refused("expired".to_owned()));
    };
    check("refused", refused, (Wrong, "its certificates are not accepted", ""));
    let mode = |path: &str, bits| Mode { path: PathBuf::from(path), bits, wanted: "read" };
    let key = |facts: &mut Facts| facts.modes = vec![mode("/state/ca/key.pem", 0o644)];
    check("the key", key, (Wrong, "/state/ca/key.pem has mode 644", "chmod 600 /state/ca/key.pem"));
    let tight = |facts: &mut Facts| facts.modes = vec![mode("/public", 0o700)];
    check("a folder", tight, (Note, "/public has mode 700", ""));
}

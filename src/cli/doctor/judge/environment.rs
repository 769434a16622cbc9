//! Do the variables of this shell point at the sidecar?

use crate::cli::doctor::facts::{Facts, Pem, Reached, Variable};
use crate::cli::doctor::judge::{Finding, Level, export, java, lines, program, quoted, url};

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    // Who has a base URL goes by no variable, and sees no certificate of ours.
    if facts.proxy.is_none() && !facts.is_transparent() {
        return Vec::new();
    }
    let reader = facts.program.as_ref().map(|program| program.kind.language);
    let read: Vec<&Variable> =
        facts.variables.iter().filter(|variable| lines::reads(reader, variable.name)).collect();
    let mut found = missing(facts, &read);
    let astray = read.iter().filter_map(|variable| astray(facts, variable)).collect();
    found.extend(gathered(facts, astray));
    found.extend(conflicts(facts));
    found.extend(hidden(facts));
    if found.iter().all(|finding| finding.level != Level::Wrong) {
        let do_what = if facts.proxy.is_some() { "point at it" } else { "name its CA" };
        found.push(Finding::fine(format!("the variables of this shell {do_what}")));
    }
    // What was seen to work needs no variable that is not there.
    if program::works(facts) {
        found.iter_mut().filter(|finding| finding.level == Level::Wrong).for_each(|finding| {
            finding.level = Level::Note;
        });
    }
    found
}

fn missing(facts: &Facts, read: &[&Variable]) -> Vec<Finding> {
    let absent =
        |variable: &&&Variable| variable.found.is_none() && !stands_in(facts, variable.name);
    let absent: Vec<&Variable> = read.iter().filter(absent).copied().collect();
    if absent.is_empty() {
        return Vec::new();
    }
    let names: Vec<&str> = absent.iter().map(|variable| variable.name).collect();
    let are = if let [_] = *names { "is" } else { "are" };
    let what = format!("{} {are} not set", names.join(", "));
    let each = absent.iter().map(|variable| export(variable.name, &variable.wanted));
    let fix = if absent.len() > EACH_MAX { vec![source(facts)] } else { each.collect() };
    let matters = facts.program.is_some() || names.iter().any(|name| CORE.contains(name));
    vec![if matters { Finding::wrong(what, fix) } else { Finding::note(what, fix) }]
}

/// Whether the same is said under the other case of a name, where most read both; and an
/// exception that nobody made hides nothing.
fn stands_in(facts: &Facts, name: &str) -> bool {
    if name.eq_ignore_ascii_case(NO_PROXY) {
        return true;
    }
    let other =
        |variable: &&Variable| variable.name != name && variable.name.eq_ignore_ascii_case(name);
    // curl and Go read `http_proxy` in lower case alone: CGI turns a field into the other.
    name != "http_proxy" && facts.variables.iter().any(|v| other(&v) && v.found.is_some())
}

/// Whether a variable is not set, or to something else.
pub(super) fn is_amiss(facts: &Facts, variable: &Variable) -> bool {
    let unset = variable.found.is_none() && !stands_in(facts, variable.name);
    unset || astray(facts, variable).is_some()
}

/// A variable that is set to something else.
fn astray(facts: &Facts, variable: &Variable) -> Option<Finding> {
    let found = variable.found.as_deref()?;
    let name = variable.name;
    let fix = vec![export(name, &variable.wanted)];
    if url::is_proxy(name) {
        return elsewhere(facts, name, found, fix);
    }
    if name.eq_ignore_ascii_case(NO_PROXY) {
        return None; // told by what it hides
    }
    if name == "JAVA_TOOL_OPTIONS" {
        let amiss = java::amiss(&variable.wanted, found)?;
        // Behind what is there: the last of two options counts.
        let fix = format!("export {name}=\"${name} \"{}", quoted(&variable.wanted));
        return Some(Finding::wrong(format!("{name} {amiss}"), vec![fix]));
    }
    if name == "PHP_INI_SCAN_DIR" {
        let ours = variable.wanted.trim_start_matches(':');
        let fix = format!("export {name}=\"${name}\"{}", quoted(&variable.wanted));
        let lacks = !found.split(':').any(|folder| folder == ours);
        return lacks.then(|| Finding::wrong(format!("{name} lacks {ours}"), vec![fix]));
    }
    let Some(file) = &variable.file else {
        let what = format!("{name} is `{found}`, and has to be {}", variable.wanted);
        return (found != variable.wanted).then(|| Finding::wrong(what, fix));
    };
    match (file, &facts.ca) {
        (Pem::Unreadable(why), _) => {
            Some(Finding::wrong(format!("{name} names {found}, which cannot be read: {why}"), fix))
        }
        (Pem::Holds(shown), Pem::Holds(ca)) => {
            let ours = ca.first()?;
            if !shown.iter().any(|one| one.digest == ours.digest) {
                let what = format!("{name} names {found}, which{LACKS}");
                return Some(Finding::wrong(what, fix));
            }
            let alone = shown.len() <= ca.len() && variable.wanted.ends_with("bundle.pem");
            let what = format!(
                "{name} names {found}, which holds our CA alone: hosts that are not opened fail"
            );
            (alone && *found != variable.wanted).then(|| Finding::note(what, fix))
        }
        (Pem::Holds(_), Pem::Unreadable(_)) => None,
    }
}

/// Many files that lack the CA are told as one: another tool has set them all.
fn gathered(facts: &Facts, all: Vec<Finding>) -> Vec<Finding> {
    let (lack, mut rest): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|finding| finding.what.ends_with(LACKS));
    if lack.len() <= EACH_MAX {
        rest.extend(lack);
        return rest;
    }
    let names = lack.iter().filter_map(|finding| finding.what.split(' ').next());
    let what = format!("{} name files, each of which{LACKS}", names.collect::<Vec<_>>().join(", "));
    rest.push(Finding::wrong(what, vec![source(facts)]));
    rest
}

/// The line that sets all variables.
fn source(facts: &Facts) -> String {
    format!(". {}", quoted(&facts.public.join("env.sh").to_string_lossy()))
}

fn elsewhere(facts: &Facts, name: &str, found: &str, fix: Vec<String>) -> Option<Finding> {
    let proxy = url::authority(facts.proxy.as_deref()?)?;
    let Some(there) = url::authority(found) else {
        return Some(Finding::wrong(format!("{name} is no URL"), fix));
    };
    if !url::same(&there, &proxy) {
        let who = facts.elsewhere.as_ref().filter(|(address, _)| *address == there);
        let who = match who.map(|(_, reached)| reached) {
            Some(Reached::Nobody(why)) => format!(", where nothing answers ({why})"),
            Some(Reached::Samekey { .. }) => ", where another samekey answers".to_owned(),
            Some(Reached::Stranger(_) | Reached::WantsUser) => {
                ", where something else answers".to_owned()
            }
            None => String::new(),
        };
        let what =
            format!("{name} points at {}{who}, and the proxy is at {proxy}", url::masked(found));
        return Some(Finding::wrong(what, fix));
    }
    if found.starts_with("https://") {
        let what = format!("{name} says https, and the proxy itself is spoken to in the clear");
        return Some(Finding::wrong(what, fix));
    }
    let bare = facts.wants_user && url::user(found).is_none();
    let with = facts.proxy.as_deref()?.replacen("://", "://NAME:PASSWORD@", 1);
    let what = format!("{name} has no name and password, and the proxy wants them");
    bare.then(|| Finding::wrong(what, vec![export(name, &with)]))
}

/// Two cases of one name that differ: which one counts depends on who reads it.
fn conflicts(facts: &Facts) -> Vec<Finding> {
    let by_name = |name: &str| {
        let found = facts.variables.iter().find(|variable| variable.name == name);
        found.and_then(|variable| variable.found.as_deref())
    };
    let pairs = ["HTTPS_PROXY", "HTTP_PROXY", NO_PROXY].map(|upper| (upper, upper.to_lowercase()));
    let differ = pairs.into_iter().filter_map(|(upper, lower)| {
        let (one, other) = (by_name(upper)?, by_name(&lower)?);
        (one != other).then(|| {
            let what =
                format!("{upper} and {lower} differ, and programs differ in which they read");
            let fix = if upper == NO_PROXY {
                exceptions(facts)
            } else {
                vec![format!("export {lower}=\"${upper}\"")]
            };
            Finding::wrong(what, fix)
        })
    });
    differ.collect()
}

/// Hosts of the config that never come to the proxy.
fn hidden(facts: &Facts) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for variable in no_proxies(facts) {
        let Some(no_proxy) = variable.found.as_deref() else { continue };
        let hides = |host: &&str| url::hiding(no_proxy, host).is_some();
        let everything =
            url::hiding(no_proxy, "a.samekey.internal").is_some_and(|entry| entry == "*");
        let hosts: Vec<&str> = facts.hosts.iter().map(String::as_str).filter(hides).collect();
        if hosts.is_empty() && !everything {
            continue;
        }
        let hiding: Vec<&str> = entries(no_proxy).filter(|entry| hides_one(facts, entry)).collect();
        let whom = if everything { "every host".to_owned() } else { hosts.join(", ") };
        let what =
            format!("{} hides {whom} from the proxy, by `{}`", variable.name, hiding.join(","));
        // What `samekey env` leaves out itself is next door, and meant to be called directly.
        let usual: Vec<&str> = variable.wanted.split(',').collect();
        let meant = hiding.iter().all(|entry| usual.contains(entry));
        let fix = exceptions(facts);
        found.push(if meant { Finding::note(what, fix) } else { Finding::wrong(what, fix) });
    }
    found
}

/// The lines that set both names to the exceptions of both, but for those that hide a host of
/// the config: the same ones for whatever is wrong with them, so that none undoes another.
fn exceptions(facts: &Facts) -> Vec<String> {
    let found = no_proxies(facts).filter_map(|variable| variable.found.as_deref());
    let mut kept: Vec<&str> = Vec::new();
    for entry in found.flat_map(entries) {
        if !kept.contains(&entry) && !hides_one(facts, entry) {
            kept.push(entry);
        }
    }
    let lower = NO_PROXY.to_lowercase();
    vec![export(NO_PROXY, &kept.join(",")), format!("export {lower}=\"${NO_PROXY}\"")]
}

fn no_proxies(facts: &Facts) -> impl Iterator<Item = &Variable> {
    facts.variables.iter().filter(|variable| variable.name.eq_ignore_ascii_case(NO_PROXY))
}

fn entries(no_proxy: &str) -> impl Iterator<Item = &str> {
    no_proxy.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty())
}

/// Whether an exception hides every host, or one of the config.
fn hides_one(facts: &Facts, entry: &str) -> bool {
    entry == "*" || facts.hosts.iter().any(|host| url::hiding(entry, host).is_some())
}

const NO_PROXY: &str = "NO_PROXY";
const LACKS: &str = " does not hold samekey's CA";
/// Without these no program of some language comes here, or trusts what it sees.
const CORE: &[&str] = &[
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "NODE_USE_ENV_PROXY",
    "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "JAVA_TOOL_OPTIONS",
];
/// More are set by the file that sets all.
const EACH_MAX: usize = 3;

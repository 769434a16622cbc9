//! Reads what is to be known before any program is run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use percent_encoding::percent_decode_str;
use samekey::config::Config;
use samekey::intercept::{Environment as Variables, Own, shown};
use samekey::listen::{Auth, Mode as Listening, Spec, Target};

use crate::cli::ask::{admin_sides, ask, reachable};
use crate::cli::doctor::facts::{Admin, Facts, Mode, Other, Pem, Reached, Variable};
use crate::cli::doctor::judge::url;
use crate::cli::doctor::probe::probe;

/// A sidecar's own word of where it listens, and all that can be asked without it.
pub(super) fn facts(config: &Config) -> Facts {
    let (admin, bound) = admin(config);
    let listeners: Vec<(&Spec, String)> = (config.listeners.iter().enumerate())
        .map(|(at, spec)| (spec, reachable(bound.get(at).unwrap_or(&spec.address))))
        .collect();
    let at = |wanted: &dyn Fn(&Spec) -> bool| {
        let mut all = listeners.iter();
        all.find(|(spec, _)| wanted(spec)).map(|(_, address)| address.clone())
    };
    let forward = |spec: &Spec| spec.mode == Listening::Forward;
    let wants_user = config.listeners.iter().find(|spec| forward(spec));
    let wants_user = wants_user.is_some_and(|spec| spec.auth != Auth::Open);
    let address = at(&forward);
    let reverse = at(&|spec| spec.mode == Listening::Reverse(Target::ByPath));
    let proxy = address.as_ref().map(|address| format!("http://{address}"));
    let public = &config.state.public;
    let mut public = std::path::absolute(public).unwrap_or_else(|_unclear| public.clone());
    let ask = |public: &Path| match &address {
        Some(address) => probe(address, user_for(address).as_deref(), &ca_of(public)),
        None => Reached::Nobody("no listener of the config is a proxy".to_owned()),
    };
    let mut reached = ask(&public);
    // A folder that is written as a relative one is the sidecar's, which may run in another.
    if let Reached::Samekey { public: told, .. } = &reached
        && !public.join("ca.pem").exists()
        && told.join("ca.pem").exists()
    {
        public.clone_from(told);
        reached = ask(&public);
    }
    let variables = variables(proxy.as_deref().unwrap_or_default(), &public);
    let elsewhere = elsewhere(&variables, address.as_deref())
        .map(|other| (other.clone(), probe(&other, user_for(&other).as_deref(), &ca_of(&public))));
    Facts {
        config: config.source.to_string(),
        proxy,
        wants_user,
        reverse,
        others: listeners.iter().filter_map(|(spec, address)| other(spec, address)).collect(),
        reached,
        admin,
        ca: pem(&public.join("ca.pem")),
        modes: modes(config, &public),
        public,
        variables,
        elsewhere,
        hosts: hosts(config),
        now: SystemTime::now(),
        program: None,
        withheld: false,
    }
}

/// The hosts that the config's own routes name, each once.
fn hosts(config: &Config) -> Vec<String> {
    let own = config.routes.iter().filter(|route| route.provenance.built_in().is_none());
    let hosts = own.flat_map(|route| &route.matcher.hosts).filter_map(|host| host.exact());
    let hosts: BTreeSet<&str> = hosts.collect();
    hosts.into_iter().map(str::to_owned).collect()
}

fn other(spec: &Spec, address: &str) -> Option<Other> {
    let address = address.to_owned();
    match &spec.mode {
        Listening::Forward => None,
        Listening::Transparent => Some(Other::Redirected(address)),
        Listening::Reverse(Target::ByPath) => Some(Other::BaseUrl(address, None)),
        Listening::Reverse(Target::One(origin)) => {
            Some(Other::BaseUrl(address, Some(origin.to_string())))
        }
    }
}

/// What the admin side says, and where its listeners are bound, in the config's order.
fn admin(config: &Config) -> (Admin, Vec<String>) {
    let mut tried = Vec::new();
    for address in &admin_sides(&config.state.dir, Some(&config.admin.address)) {
        match ask(address, ("GET", "/api/status"), "", STATUS_MAX) {
            Ok(answer) if answer.status() == 200 => {
                let status = serde_json::from_str(&answer.body).unwrap_or_default();
                return (says(address, &status), listeners(&status, config));
            }
            Ok(answer) => tried.push(format!("{address} answers {}", answer.line)),
            Err(error) => tried.push(format!("{address}: {error}")),
        }
    }
    (Admin::Silent(tried.join("; ")), Vec::new())
}

fn says(address: &str, status: &serde_json::Value) -> Admin {
    let metrics = ask(address, ("GET", "/metrics"), "", METRICS_MAX);
    let metrics = metrics.map(|answer| answer.body).unwrap_or_default();
    Admin::Says {
        address: address.to_owned(),
        config: status["config"].as_str().unwrap_or_default().to_owned(),
        draining: status["draining"].as_bool().unwrap_or_default(),
        reload_failed: metrics.lines().any(|line| line == RELOAD_FAILED),
    }
}

/// Where listeners are bound; nothing where the sidecar runs on another config.
fn listeners(status: &serde_json::Value, config: &Config) -> Vec<String> {
    let bound = status["listeners"].as_array().cloned().unwrap_or_default();
    let bound: Vec<String> =
        bound.iter().filter_map(|one| one.as_str()).map(str::to_owned).collect();
    if bound.len() == config.listeners.len() { bound } else { Vec::new() }
}

/// The name and password that a variable has for an address, as `NAME:PASSWORD`, decoded.
fn user_for(address: &str) -> Option<String> {
    let mut all = std::env::vars_os().filter_map(|(name, value)| {
        let value = value.to_str()?.to_owned();
        url::is_proxy(name.to_str()?).then_some(value)
    });
    let named =
        |value: &String| url::authority(value).is_some_and(|other| url::same(&other, address));
    let value = all.find(|value| named(value) && url::user(value).is_some())?;
    percent_decode_str(url::user(&value)?).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

fn ca_of(public: &Path) -> Vec<u8> {
    content(&public.join("ca.pem")).unwrap_or_default()
}

#[expect(clippy::disallowed_methods, reason = "this shell's variables are what is looked at")]
fn variables(proxy: &str, public: &Path) -> Vec<Variable> {
    let wanted = Variables::new(proxy, public, Own::default());
    // Most variables name one and the same file, of a hundred certificates.
    let mut read: BTreeMap<String, Pem> = BTreeMap::new();
    let mut pem_of =
        |file: String| read.entry(file.clone()).or_insert_with(|| pem(Path::new(&file))).clone();
    let all = wanted.variables().into_iter().map(|(name, wanted)| {
        let found = std::env::var(name).ok().filter(|value| !value.is_empty());
        let file = found
            .clone()
            .filter(|_| Path::new(wanted).extension().is_some_and(|kind| kind == "pem"))
            .map(&mut pem_of);
        Variable { name, wanted: wanted.to_owned(), found, file }
    });
    all.collect()
}

/// The first address that a variable names instead of the proxy's.
fn elsewhere(variables: &[Variable], proxy: Option<&str>) -> Option<String> {
    let mut others = variables.iter().filter(|variable| url::is_proxy(variable.name));
    others.find_map(|variable| {
        let address = url::authority(variable.found.as_deref()?)?;
        (!proxy.is_some_and(|proxy| url::same(&address, proxy))).then_some(address)
    })
}

fn pem(file: &Path) -> Pem {
    match content(file) {
        Ok(bytes) => Pem::Holds(shown(&bytes)),
        Err(error) => Pem::Unreadable(error.to_string()),
    }
}

/// What a file of certificates holds. A variable may name anything: a FIFO, whose reader waits
/// for ever, or a device without an end.
fn content(file: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(file)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(file)?.take(PEM_MAX + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > PEM_MAX) {
        let most = PEM_MAX >> 20;
        return Err(io::Error::other(format!("larger than {most} MiB")));
    }
    Ok(bytes)
}

/// What programs of other users cannot read, and what they must not.
fn modes(config: &Config, public: &Path) -> Vec<Mode> {
    let dir = &config.state.dir;
    let key = match &config.intercept.ca {
        Some(files) => files.key.clone(),
        None => dir.join("ca/key.pem"),
    };
    let too_tight = |path: PathBuf, bits: u32, wanted| (path, bits, wanted);
    let open = [
        too_tight(public.to_owned(), 0o005, "read and entered by all, as by `chmod 755`"),
        too_tight(public.join("ca.pem"), 0o004, "read by all, as by `chmod 644`"),
        too_tight(public.join("bundle.pem"), 0o004, "read by all, as by `chmod 644`"),
    ];
    let mode =
        |path: &Path| fs::metadata(path).ok().map(|about| about.permissions().mode() & 0o777);
    let wrong = open.into_iter().filter_map(|(path, bits, wanted)| {
        let mode = mode(&path)?;
        (mode & bits != bits).then_some(Mode { path, bits: mode, wanted })
    });
    let key = mode(&key).filter(|mode| mode & 0o077 != 0).map(|mode| Mode {
        path: key,
        bits: mode,
        wanted: "read by its owner alone, as by `chmod 600`: it signs for any host",
    });
    wrong.chain(key).collect()
}

const STATUS_MAX: u64 = 64 * 1024;
const METRICS_MAX: u64 = 16 * 1024 * 1024;
const RELOAD_FAILED: &str = "samekey_config_last_reload_successful 0";

/// Thirty times what a system's roots take.
const PEM_MAX: u64 = 8 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode as Bits, mknodat};
    use samekey::config::{Environment, parse};

    use super::*;

    #[test]
    fn a_host_of_several_routes_is_named_once() {
        let text = "routes:\n\
                    - {name: one, match: {hosts: [b.test, a.test], methods: [POST]}}\n\
                    - {name: two, match: {hosts: [c.test, '*.d.test']}}\n\
                    - {name: three, match: {hosts: [b.test]}}\n";
        let config = parse(text, Path::new("a.yaml"), &Environment::default()).unwrap();
        assert_eq!(hosts(&config), ["a.test", "b.test", "c.test"]);
    }

    #[test]
    fn only_a_file_that_ends_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        mknodat(CWD, path("fifo"), FileType::Fifo, Bits::RUSR | Bits::WUSR, 0).unwrap();
        std::os::unix::fs::symlink(path("fifo"), path("link")).unwrap();
        for named in [path("fifo"), path("link"), folder.path().to_owned(), "/dev/zero".into()] {
            let (tell, told) = std::sync::mpsc::channel();
            let of = named.clone();
            std::thread::spawn(move || tell.send(content(&of).unwrap_err().to_string()));
            let told = told.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
            assert_eq!(told, "not a regular file", "{named:?}");
        }
        let most = usize::try_from(PEM_MAX).unwrap();
        for (length, fits) in [(0, true), (most, true), (most + 1, false)] {
            fs::write(path("file"), vec![b'x'; length]).unwrap();
            assert_eq!(content(&path("file")).is_ok(), fits, "{length}");
        }
        assert!(content(&path("none")).unwrap_err().to_string().starts_with("No such file"));
    }
}

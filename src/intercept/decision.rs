//! Whether a connection is opened or passed on unread.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::cache::held;
use super::{Hosts, OnDistrust, Rules};

/// What becomes of a connection that may hold TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is opened.
    Open,
    /// Its bytes are copied untouched.
    Tunnel(Why),
}

/// Why a connection is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// `intercept.hosts` is `none`.
    Nothing,
    /// `intercept.except` names the host.
    Excepted,
    /// No route names the host.
    Unrouted,
    /// A client refused our certificate for the host a short while ago.
    Distrusted,
}

/// Where a connection goes.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The host: lower case, no brackets, no final dot.
    pub host: &'a str,
    /// Whether a route names it.
    pub routed: bool,
}

/// Whether a host is the one that samekey answers itself: nothing is ever sent to it.
pub fn is_own(host: &str) -> bool {
    host == OWN_HOST
}

/// Decides by the rules, and by what clients have refused.
///
/// The host that samekey answers itself is opened whatever they say: who asks it wants to
/// know whether the CA is trusted.
pub fn decide(rules: &Rules, asked: Asked<'_>, distrust: &Distrust, now: Instant) -> Decision {
    if is_own(asked.host) {
        return Decision::Open;
    }
    if rules.hosts == Hosts::Nothing {
        return Decision::Tunnel(Why::Nothing);
    }
    if rules.except.iter().any(|pattern| names(pattern, asked.host)) {
        return Decision::Tunnel(Why::Excepted);
    }
    if rules.hosts == Hosts::Routed && !asked.routed {
        return Decision::Tunnel(Why::Unrouted);
    }
    if rules.on_distrust == OnDistrust::Tunnel && distrust.holds(asked.host, now) {
        return Decision::Tunnel(Why::Distrusted);
    }
    Decision::Open
}

/// The host that samekey answers itself. ICANN has reserved `.internal` for private use
/// (board resolution 2024.07.29.06): no name under it is ever delegated.
pub const OWN_HOST: &str = "samekey.internal";

/// Hosts for which a client refused our certificate, each for ten minutes.
#[derive(Debug, Default)]
pub struct Distrust {
    /// Until when, by host. A short section; never held while waiting.
    until: Mutex<HashMap<String, Instant>>,
}

impl Distrust {
    /// Notes that a client refused our certificate for `host`.
    pub fn note(&self, host: &str, now: Instant) {
        let mut until = held(&self.until);
        if until.len() >= HOSTS_MAX && !until.contains_key(host) {
            until.retain(|_, until| *until > now);
        }
        if until.len() >= HOSTS_MAX && !until.contains_key(host) {
            let first = until.iter().min_by_key(|(_, until)| **until);
            if let Some(host) = first.map(|(host, _)| host.clone()) {
                until.remove(&host);
            }
        }
        until.insert(host.to_owned(), now + LASTS);
    }

    /// Whether one did within ten minutes.
    pub fn holds(&self, host: &str, now: Instant) -> bool {
        held(&self.until).get(host).is_some_and(|until| now < *until)
    }
}

/// `api.example.com`, `*.example.net` (any depth, not the name itself), `*`.
fn names(pattern: &str, host: &str) -> bool {
    let pattern = pattern.strip_suffix('.').unwrap_or(pattern);
    match pattern.strip_prefix('*') {
        Some("") => true,
        Some(suffix) => host
            .len()
            .checked_sub(suffix.len())
            .filter(|before| *before > 0)
            .and_then(|before| host.get(before..))
            .is_some_and(|end| end.eq_ignore_ascii_case(suffix)),
        None => pattern.eq_ignore_ascii_case(host),
    }
}

/// Long enough that a client that tries again gets through, short enough that one that
/// has been given the CA is soon helped.
const LASTS: Duration = Duration::from_mins(10);

/// More hosts than a program calls; a name is at most 253 bytes.
const HOSTS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(hosts: Hosts, except: &[&str], asked: (&str, bool), wanted: Decision) {
        let except = except.iter().map(|&host| host.to_owned()).collect();
        let rules = Rules { hosts, except, on_distrust: OnDistrust::Fail, ca: None, leaf_cache: 1 };
        let (host, routed) = asked;
        let decision = decide(&rules, Asked { host, routed }, &Distrust::default(), Instant::now());
        assert_eq!(decision, wanted, "{hosts:?} {:?} {asked:?}", rules.except);
    }

    #[test]
    fn the_rules_decide_in_their_order() {
        use Decision::{Open, Tunnel};
        use Hosts::{All, Nothing, Routed};
        check(All, &[], ("a.b", false), Open);
        check(Routed, &[], ("a.b", true), Open);
        check(Routed, &[], ("a.b", false), Tunnel(Why::Unrouted));
        check(Nothing, &["a.b"], ("a.b", true), Tunnel(Why::Nothing));
        check(All, &["c.d", "a.b"], ("a.b", true), Tunnel(Why::Excepted));
        check(Routed, &["a.b"], ("a.b", false), Tunnel(Why::Excepted));
    }

    #[test]
    fn the_host_that_is_answered_here_is_always_opened() {
        for hosts in [Hosts::All, Hosts::Routed, Hosts::Nothing] {
            check(hosts, &["*", OWN_HOST], (OWN_HOST, false), Decision::Open);
        }
        check(Hosts::Nothing, &[], ("x.samekey.internal", false), Decision::Tunnel(Why::Nothing));
    }

    #[test]
    fn an_exception_is_a_name_or_all_names_under_one() {
        for (pattern, host, named) in [
            ("a.b", "a.b", true),
            ("A.b.", "a.b", true),
            ("a.b", "x.a.b", false),
            ("*.a.b", "x.a.b", true),
            ("*.A.b", "y.x.a.b", true),
            ("*.a.b", "a.b", false),
            ("*.a.b", "xa.b", false),
            ("*.a.b", ".a.b", false),
            ("*", "a.b", true),
            ("", "a.b", false),
            ("::1", "::1", true),
            ("*.b", "é.b", true),
            ("*xb", "éb", false),
        ] {
            assert_eq!(names(pattern, host), named, "{pattern} {host}");
        }
    }

    #[test]
    fn a_distrusted_host_is_tunnelled_for_ten_minutes_where_the_rules_say_so() {
        let mut rules = Rules {
            hosts: Hosts::All,
            except: Vec::new(),
            on_distrust: OnDistrust::Tunnel,
            ca: None,
            leaf_cache: 1,
        };
        let (distrust, start) = (Distrust::default(), Instant::now());
        let asked = Asked { host: "a.b", routed: true };
        assert_eq!(decide(&rules, asked, &distrust, start), Decision::Open);
        distrust.note("a.b", start);
        let tunnel = Decision::Tunnel(Why::Distrusted);
        let last = start + LASTS - Duration::from_millis(1);
        assert_eq!(decide(&rules, asked, &distrust, last), tunnel);
        assert_eq!(decide(&rules, asked, &distrust, start + LASTS), Decision::Open);
        let other = Asked { host: "c.d", ..asked };
        assert_eq!(decide(&rules, other, &distrust, start), Decision::Open);
        rules.on_distrust = OnDistrust::Fail;
        assert_eq!(decide(&rules, asked, &distrust, start), Decision::Open);
    }

    #[test]
    fn the_oldest_distrust_leaves_when_there_are_too_many() {
        let (distrust, start) = (Distrust::default(), Instant::now());
        let second = Duration::from_secs(1);
        distrust.note("first", start);
        for host in 1..HOSTS_MAX {
            distrust.note(&host.to_string(), start + second);
        }
        assert!(distrust.holds("first", start + second));
        distrust.note("1", start + second);
        assert!(distrust.holds("first", start + second));
        distrust.note("one more", start + second);
        assert!(!distrust.holds("first", start + second));
        assert!(distrust.holds("2", start + second));
        assert_eq!(held(&distrust.until).len(), HOSTS_MAX);
        distrust.note("much later", start + second + LASTS);
        assert_eq!(held(&distrust.until).len(), 1);
    }
}

//! The application's variables: what it says itself stays in force, or is a fault.

use samekey::intercept::Own;

use crate::cli::inject::java::Options;
use crate::cli::inject::node::Node;
use crate::cli::inject::pod::Told;
use crate::cli::inject::sidecar::variables;

/// Gives a container its variables.
pub(super) fn settle(container: &mut Node, at: &str, told: &mut Told) {
    let mut list = container.get("env").map(|env| env.items().to_vec()).unwrap_or_default();
    let own_direct = literal(&list, "NO_PROXY").or_else(|| literal(&list, "no_proxy"));
    // The list of Java is another one, in which references of Kubernetes mean nothing.
    let direct = own_direct.as_deref().map(without_references);
    let ours = variables(Own { no_proxy: direct.as_deref(), ..Own::default() });
    for (name, value) in ours {
        let mut is_there = false;
        // Kubernetes takes the last of a name; what holds for each holds for that one.
        for there in list.iter_mut().filter(|entry| entry.text_of("name") == Some(name)) {
            is_there = true;
            settle_one(there, name, &value, &mut |note| note.tell(at, name, told));
        }
        if !is_there {
            list.push(entry(name, &added(name, &value, own_direct.as_deref())));
        }
    }
    container.set("env", Node::List(list));
}

/// The value of a variable that is not there; the other spelling of a list has the same in it.
fn added(name: &str, ours: &str, own_direct: Option<&str>) -> String {
    match own_direct {
        Some(own) if Kind::of(name, ours) == Kind::Direct => joined(own, ours),
        _ => ours.to_owned(),
    }
}

/// One variable that the container has already.
fn settle_one(there: &mut Node, name: &str, ours: &str, tell: &mut dyn FnMut(Note)) {
    let kind = Kind::of(name, ours);
    let own = there.get("value").and_then(scalar).unwrap_or_default().to_owned();
    if there.get("valueFrom").is_some() {
        return tell(kind.note());
    }
    let meant = match kind {
        Kind::Direct => joined(&own, ours),
        Kind::Java => java(&own, ours, tell),
        // A proxy without a name is none.
        Kind::Proxy if own.trim().is_empty() => ours.to_owned(),
        Kind::Other if there.get("value").is_none() => ours.to_owned(),
        Kind::Proxy | Kind::Other => own.clone(),
    };
    if kind == Kind::Direct && own.split(',').any(|host| host.trim() == "*") {
        tell(Note::Past);
    }
    if meant != own {
        there.set("value", Node::Text(meant));
    } else if matches!(kind, Kind::Proxy | Kind::Other) && own != ours {
        tell(kind.note());
    }
}

fn java(own: &str, ours: &str, tell: &mut dyn FnMut(Note)) -> String {
    let options = Options::behind(own, ours);
    if options.another_proxy {
        tell(Note::Fault);
    }
    if options.own_truststore {
        tell(Note::Truststore);
    }
    options.written
}

/// What kind of variable it is: what becomes of the application's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Where requests go: there cannot be two.
    Proxy,
    /// What goes past the proxy: both lists hold.
    Direct,
    /// Options of a JVM: those of samekey come behind.
    Java,
    /// Which CA is trusted: the application's own stays.
    Other,
}

/// What there is to be said.
#[derive(Clone, Copy, Debug)]
enum Note {
    Fault,
    Stays,
    /// All hosts are exceptions.
    Past,
    /// A JVM trusts other roots.
    Truststore,
}

impl Kind {
    fn of(name: &str, ours: &str) -> Self {
        match name {
            "NO_PROXY" | "no_proxy" => Self::Direct,
            "JAVA_TOOL_OPTIONS" => Self::Java,
            _ if ours.starts_with("http://") => Self::Proxy,
            _ => Self::Other,
        }
    }

    fn note(self) -> Note {
        if self == Self::Proxy { Note::Fault } else { Note::Stays }
    }
}

impl Note {
    fn tell(self, at: &str, name: &str, told: &mut Told) {
        match self {
            Self::Fault => told.fault(
                at,
                &format!(
                    "{name} is set already, to another proxy: remove it, or leave this workload out"
                ),
            ),
            Self::Past => told.warn(
                at,
                &format!(
                    "{name} holds `*` and stays: what the application sends goes past samekey"
                ),
            ),
            Self::Truststore => told.warn(
                at,
                &format!("{name} names a truststore, which stays: it has to hold samekey's CA too"),
            ),
            Self::Stays => told.warn(
                at,
                &format!(
                    "{name} is set already and stays: it has to hold what `samekey env` says too"
                ),
            ),
        }
    }
}

fn entry(name: &str, value: &str) -> Node {
    Node::map([("name", Node::text(name)), ("value", Node::text(value))])
}

fn literal(list: &[Node], name: &str) -> Option<String> {
    let found = list.iter().rfind(|entry| entry.text_of("name") == Some(name))?;
    found.get("value").and_then(scalar).map(str::to_owned)
}

fn scalar(node: &Node) -> Option<&str> {
    match node {
        Node::Text(text) | Node::Plain(text) => Some(text),
        Node::List(_) | Node::Map(_) => None,
    }
}

/// The list that is there, then what is missing of ours.
fn joined(own: &str, ours: &str) -> String {
    let own_hosts: Vec<_> = own.split(',').map(str::trim).filter(|host| !host.is_empty()).collect();
    let missing: Vec<_> = ours.split(',').filter(|host| !own_hosts.contains(host)).collect();
    match (own_hosts.is_empty(), missing.is_empty()) {
        (true, _) => ours.to_owned(),
        (false, true) => own.to_owned(),
        (false, false) => format!("{},{}", own_hosts.join(","), missing.join(",")),
    }
}

fn without_references(own: &str) -> String {
    own.split(',').filter(|host| !host.contains("$(")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::inject::read::read;

    fn settled(env: &str) -> (Node, Told) {
        let mut container = read(&format!("name: app\nenv: {env}")).unwrap().node.unwrap();
        let mut told = Told::default();
        settle(&mut container, "here", &mut told);
        let once = container.clone();
        settle(&mut container, "here", &mut Told::default());
        assert_eq!(container, once, "again");
        (container, told)
    }

    fn value(container: &Node, name: &str) -> String {
        literal(container.get("env").unwrap().items(), name).unwrap()
    }

    #[test]
    fn another_proxy_is_a_fault_and_the_same_is_none() {
        for (env, faults) in [
            ("[]", 0),
            ("null", 0),
            ("[{name: HTTPS_PROXY, value: 'http://127.0.0.1:17080'}]", 0),
            ("[{name: HTTPS_PROXY, value: 'http://proxy:3128'}]", 1),
            (
                "[{name: https_proxy, valueFrom: {secretKeyRef: {name: a, key: b}}}, {name: HTTP_PROXY, value: x}]",
                2,
            ),
        ] {
            let (_, told) = settled(env);
            assert_eq!(told.faults.len(), faults, "{env}: {told:?}");
            assert!(told.warnings.is_empty(), "{env}: {told:?}");
        }
    }

    #[test]
    fn the_applications_own_ca_stays_with_a_warning() {
        let (container, told) = settled("[{name: SSL_CERT_FILE, value: /own.pem}]");
        assert_eq!(value(&container, "SSL_CERT_FILE"), "/own.pem");
        assert_eq!(told.warnings.len(), 1);
        assert!(told.warnings[0].contains("here: SSL_CERT_FILE is set already"), "{told:?}");
        assert!(told.faults.is_empty());
    }

    #[test]
    fn an_exception_of_all_hosts_stays_with_a_warning() {
        for (own, warnings) in
            [("*", 1), ("a, *", 1), ("*,localhost", 1), ("*.corp.example", 0), ("", 0)]
        {
            let (container, told) = settled(&format!("[{{name: no_proxy, value: '{own}'}}]"));
            assert!(
                value(&container, "no_proxy").starts_with(&own.replace(' ', "")),
                "{container:?}"
            );
            assert_eq!(told.warnings.len(), warnings, "{own}: {told:?}");
            let wanted = "here: no_proxy holds `*` and stays";
            assert!(told.warnings.iter().all(|it| it.starts_with(wanted)), "{told:?}");
            assert!(told.faults.is_empty(), "{told:?}");
        }
    }

    #[test]
    fn exceptions_and_options_are_joined() {
        let (container, told) = settled(
            "[{name: NO_PROXY, value: 'corp.example, localhost,$(POD_IP)'}, {name: JAVA_TOOL_OPTIONS, value: -Xmx1g}]",
        );
        let direct = value(&container, "NO_PROXY");
        assert!(direct.starts_with("corp.example,localhost,$(POD_IP),127.0.0.1,"), "{direct}");
        assert!(direct.ends_with(",$(KUBERNETES_SERVICE_HOST)"), "{direct}");
        assert_eq!(value(&container, "no_proxy"), direct);
        let java = value(&container, "JAVA_TOOL_OPTIONS");
        assert!(java.starts_with("-Xmx1g -Dhttp.proxyHost=127.0.0.1 "), "{java}");
        assert!(java.contains("nonProxyHosts=\"corp.example|localhost|127"), "{java}");
        assert_eq!(java.matches("-Dhttp.proxyHost").count(), 1, "{java}");
        assert!(told.warnings.is_empty() && told.faults.is_empty(), "{told:?}");
    }

    #[test]
    fn whichever_of_two_entries_counts_it_is_seen() {
        let ours = "{name: HTTPS_PROXY, value: 'http://127.0.0.1:17080'}";
        let corp = "{name: HTTPS_PROXY, value: 'http://corp:3128'}";
        for env in [format!("[{ours}, {corp}]"), format!("[{corp}, {ours}]")] {
            let (_, told) = settled(&env);
            assert_eq!(told.faults.len(), 1, "{env}: {told:?}");
        }
        let (_, told) = settled(&format!("[{ours}, {ours}]"));
        assert!(told.faults.is_empty(), "{told:?}");
        let twice = "[{name: NO_PROXY, value: a.example}, {name: NO_PROXY, value: b.example}]";
        let (container, _) = settled(twice);
        let last = value(&container, "NO_PROXY");
        assert!(last.starts_with("b.example,localhost,"), "{last}");
        assert!(value(&container, "no_proxy").starts_with("b.example,localhost,"), "{container:?}");
    }

    #[test]
    fn a_proxy_without_a_name_is_none() {
        for empty in ["''", "' '", "null"] {
            let (container, told) = settled(&format!("[{{name: HTTPS_PROXY, value: {empty}}}]"));
            assert_eq!(value(&container, "HTTPS_PROXY"), "http://127.0.0.1:17080");
            assert!(told.faults.is_empty() && told.warnings.is_empty(), "{told:?}");
        }
    }

    #[test]
    fn a_jvms_own_proxy_is_a_fault_and_its_truststore_stays() {
        let (container, told) = settled(
            "[{name: JAVA_TOOL_OPTIONS, value: '-Djavax.net.ssl.trustStore=/own.jks -Dhttps.proxyHost=corp'}]",
        );
        let java = value(&container, "JAVA_TOOL_OPTIONS");
        assert_eq!(java.matches("trustStore").count(), 1, "{java}");
        assert!(told.faults[0].contains("JAVA_TOOL_OPTIONS is set already, to another proxy"));
        assert!(told.warnings[0].contains("JAVA_TOOL_OPTIONS names a truststore, which stays"));
        assert_eq!((told.faults.len(), told.warnings.len()), (1, 1), "{told:?}");
    }
}

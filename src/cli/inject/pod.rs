//! Puts the sidecar into the pod of one object.

use std::path::Path;

use samekey::app::AFTER_GRACE;

use crate::cli::inject::node::Node;
use crate::cli::inject::place::{is_ours, place, standing};
use crate::cli::inject::sidecar::{LABEL, PORTS, Place, Sidecar};
use crate::cli::inject::variables::settle;

/// What there is to say about an object: where, and what.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Nothing is written while there is one.
    pub(super) faults: Vec<String>,
    /// For the reader to know.
    pub(super) warnings: Vec<String>,
}

impl Told {
    /// Something that only the reader can settle.
    pub(super) fn fault(&mut self, at: &str, what: &str) {
        self.faults.push(format!("{at}: {what}"));
    }

    /// Something that the reader should know.
    pub(super) fn warn(&mut self, at: &str, what: &str) {
        self.warnings.push(format!("{at}: {what}"));
    }
}

/// Adds the sidecar to an object, and to those of a list. What has no pod stays as it is.
pub(super) fn into_object(object: &mut Node, at: &str, sidecar: &Sidecar<'_>, told: &mut Told) {
    if let Some(items) = list_items(object) {
        for (n, item) in items.iter_mut().enumerate() {
            into_object(item, &join(at, &format!("items[{n}]")), sidecar, told);
        }
        return;
    }
    let Some(path) = path_of(object) else { return };
    if opted_out(object) {
        return;
    }
    let ends = object.text_of("apiVersion").is_some_and(|version| group(version) == "batch");
    let mut pod = Some(object);
    for key in path {
        pod = pod.and_then(|node| node.get_mut(key));
    }
    let at = path.iter().fold(at.to_owned(), |at, key| join(&at, key));
    match pod {
        Some(pod) if opted_out(pod) => {}
        Some(pod) if pod.get("spec").is_some() => {
            into_pod(pod, &at, sidecar, told);
            if let Some(spec) = pod.get("spec").filter(|_| ends) {
                ends_samekey(spec, &join(&at, "spec"), told);
            }
        }
        _ => told.fault(&join(&at, "spec"), "must be given: this object has no pod"),
    }
}

/// Whether an object, or anything in a list of them, is one that can have a sidecar.
pub(super) fn has_pod(object: &Node) -> bool {
    match object.get("items") {
        Some(items) if is_list(object) => items.items().iter().any(has_pod),
        _ => path_of(object).is_some(),
    }
}

fn is_list(object: &Node) -> bool {
    object.text_of("apiVersion").is_some_and(|version| VERSIONS.contains(&group(version)))
        && object.text_of("kind").is_some_and(|kind| kind.ends_with("List"))
}

fn list_items(object: &mut Node) -> Option<&mut Vec<Node>> {
    if !is_list(object) {
        return None;
    }
    match object.get_mut("items")? {
        Node::List(items) => Some(items),
        Node::Text(_) | Node::Plain(_) | Node::Map(_) => None,
    }
}

/// Where an object's pod stands; `None`: it has none that a sidecar is for.
fn path_of(object: &Node) -> Option<&'static [&'static str]> {
    let group = group(object.text_of("apiVersion")?);
    let kind = object.text_of("kind")?;
    let found = KINDS.iter().find(|(of, kinds, _)| *of == group && kinds.contains(&kind));
    found.map(|(_, _, path)| *path)
}

/// `apps` of `apps/v1`; nothing of `v1`.
fn group(version: &str) -> &str {
    version.rsplit_once('/').map_or("", |(group, _)| group)
}

fn opted_out(object: &Node) -> bool {
    let annotation = object.at(&["metadata", "annotations", "samekey.internal/inject"]);
    matches!(annotation, Some(Node::Text(said) | Node::Plain(said)) if said == "false")
}

fn into_pod(pod: &mut Node, at: &str, sidecar: &Sidecar<'_>, told: &mut Told) {
    label(pod);
    let at = join(at, "spec");
    let Some(spec) = pod.get_mut("spec") else { return };
    look(spec, &at, told);
    let Some(Node::List(containers)) = spec.get_mut("containers") else {
        return told.fault(&join(&at, "containers"), "must be a list");
    };
    for (n, container) in containers.iter_mut().enumerate().filter(|(_, own)| !is_ours(own)) {
        let at = join(&at, &format!("containers[{n}]"));
        if !matches!(container, Node::Map(_)) {
            told.fault(&at, "must be a map");
            continue;
        }
        ports_are_free(container, &at, told);
        mount_is_free(container, &at, &sidecar.mount, told);
        settle(container, &at, told);
        mount(container, &at, &sidecar.mount, told);
    }
    let firsts = spec.get("initContainers").map(Node::items).unwrap_or_default();
    for (n, own) in firsts.iter().enumerate().filter(|(_, own)| goes_on(own) && !is_ours(own)) {
        ports_are_free(own, &join(&at, &format!("initContainers[{n}]")), told);
    }
    place(spec, &at, sidecar, told);
}

fn label(pod: &mut Node) {
    for key in ["metadata", "labels"] {
        let above = if key == "labels" { pod.get_mut("metadata") } else { Some(&mut *pod) };
        if let Some(above) = above.filter(|above| above.get(key).is_none()) {
            above.set(key, Node::Map(Vec::new()));
        }
    }
    let labels = pod.get_mut("metadata").and_then(|metadata| metadata.get_mut("labels"));
    if let Some(labels) = labels {
        labels.set(LABEL.0, Node::text(LABEL.1));
    }
}

/// Adds our mount, unless it is there.
fn mount(container: &mut Node, at: &str, ours: &Node, told: &mut Told) {
    if container.get("volumeMounts").is_none() {
        container.set("volumeMounts", Node::List(Vec::new()));
    }
    let Some(Node::List(mounts)) = container.get_mut("volumeMounts") else {
        return told.fault(&join(at, "volumeMounts"), "must be a list");
    };
    let is_it = |own: &Node| ["name", "mountPath"].iter().all(|key| own.get(key) == ours.get(key));
    if !mounts.iter().any(is_it) {
        mounts.push(ours.clone());
    }
}

/// What of a pod asks for a word.
fn look(spec: &Node, at: &str, told: &mut Told) {
    if matches!(spec.get("hostNetwork"), Some(Node::Plain(said)) if said == "true") {
        let [proxy, admin] = PORTS;
        told.warn(
            &join(at, "hostNetwork"),
            &format!("the ports {proxy} and {admin} are the node's: one such pod a node"),
        );
    }
    let grace = match spec.get("terminationGracePeriodSeconds") {
        Some(Node::Plain(written)) => written.parse::<u64>().ok(),
        _ => None,
    };
    let after = AFTER_GRACE.as_secs();
    if grace.is_some_and(|seconds| seconds < GRACE_SECONDS + after) {
        told.warn(
            &join(at, "terminationGracePeriodSeconds"),
            &format!(
                "leaves samekey less than its shutdown.grace of {GRACE_SECONDS} s and the {after} s after it"
            ),
        );
    }
}

/// A Job is complete when all of its containers have ended, a plain samekey among them.
fn ends_samekey(spec: &Node, at: &str, told: &mut Told) {
    let containers = spec.get("containers").map(Node::items).unwrap_or_default();
    let words = containers.iter().flat_map(|container| {
        let lists = ["command", "args"].into_iter().filter_map(|key| container.get(key));
        lists.flat_map(Node::items).filter_map(Node::as_text)
    });
    let mut says_so = words.filter(|word| word.contains("/quitquitquit"));
    if standing(spec) == Some(Place::Classic) && says_so.next().is_none() {
        let what =
            "is not complete while samekey runs: its program has to POST /quitquitquit to it";
        told.warn(at, what);
    }
}

/// Whether an init container is a native sidecar, which runs beside ours.
fn goes_on(container: &Node) -> bool {
    container.text_of("restartPolicy") == Some("Always")
}

/// The containers of a pod share its ports.
fn ports_are_free(container: &Node, at: &str, told: &mut Told) {
    let ports = container.get("ports").map(Node::items).unwrap_or_default();
    for (n, port) in ports.iter().enumerate() {
        let Some(Node::Plain(number)) = port.get("containerPort") else { continue };
        if PORTS.contains(&number.as_str()) {
            told.fault(
                &join(at, &format!("ports[{n}].containerPort")),
                &format!("{number} is samekey's in this pod"),
            );
        }
    }
}

/// Where certificates are put, nothing else can be: Kubernetes refuses two mounts of a path,
/// and one further down would hide them.
fn mount_is_free(container: &Node, at: &str, ours: &Node, told: &mut Told) {
    let (Some(path), own) = (ours.text_of("mountPath"), ours.text_of("name")) else { return };
    let mounts = container.get("volumeMounts").map(Node::items).unwrap_or_default();
    for (n, mount) in mounts.iter().enumerate().filter(|(_, mount)| mount.text_of("name") != own) {
        let Some(theirs) = mount.text_of("mountPath") else { continue };
        if Path::new(theirs).starts_with(path) {
            let name = container.text_of("name").unwrap_or_default();
            told.fault(
                &join(at, &format!("volumeMounts[{n}].mountPath")),
                &format!("{theirs} is samekey's in the container `{name}`: mount it elsewhere"),
            );
        }
    }
}

/// The place of a key in what stands at a place.
pub(super) fn join(at: &str, key: &str) -> String {
    if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }
}

/// `shutdown.grace` in `config/kubernetes/base/samekey.yaml`.
pub(super) const GRACE_SECONDS: u64 = 20;

/// The groups of Kubernetes' own lists.
const VERSIONS: &[&str] = &["", "apps", "batch"];

type Kinds = (&'static str, &'static [&'static str], &'static [&'static str]);

/// Objects with a pod, by the group of their apiVersion, and where that stands. Others may use
/// the same kinds, as Volcano does `Job`.
const KINDS: &[Kinds] = &[
    ("", &["Pod"], &[]),
    ("", &["ReplicationController"], &["spec", "template"]),
    ("apps", &["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"], &["spec", "template"]),
    ("batch", &["Job"], &["spec", "template"]),
    ("batch", &["CronJob"], &["spec", "jobTemplate", "spec", "template"]),
];

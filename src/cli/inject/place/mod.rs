//! Where the sidecar stands in a pod, and what of it is there already.
//!
//! What an earlier run put there stays as it is found: another Secret derives other keys and an
//! empty journal remembers nothing, so either would have orders sent twice. A flag changes what it
//! names and nothing beside it.

use crate::cli::inject::node::Node;
use crate::cli::inject::pod::{Told, join};
use crate::cli::inject::sidecar::{Place, Sidecar};

/// Puts the sidecar and its volumes into the spec of a pod, where they are not there yet.
pub(super) fn place(spec: &mut Node, at: &str, sidecar: &Sidecar<'_>, told: &mut Told) {
    for key in LISTS {
        let containers = spec.get(key).map(Node::items).unwrap_or_default();
        for (n, own) in containers.iter().enumerate().filter(|(_, own)| is_a_stranger(own)) {
            let name = own.text_of("name").unwrap_or_default();
            let what = format!(
                "a container `{name}` is there that is not samekey's: give it another name, or leave this workload out"
            );
            told.fault(&join(at, &format!("{key}[{n}]")), &what);
        }
    }
    match standing(spec) {
        None => add(spec, at, sidecar, told),
        Some(Place::Native) if sidecar.place == Place::Classic => become_plain(spec, sidecar),
        Some(Place::Native | Place::Classic) => {}
    }
    rename(spec, at, sidecar, told);
}

/// Where the sidecar of a pod stands; `None`: it has none.
pub(super) fn standing(spec: &Node) -> Option<Place> {
    let has = |key: &str| spec.get(key).is_some_and(|list| list.items().iter().any(is_ours));
    match (has(NATIVE), has(PLAIN)) {
        (true, _) => Some(Place::Native),
        (false, true) => Some(Place::Classic),
        (false, false) => None,
    }
}

/// Ours by its name, and by writing what the application's containers read.
pub(super) fn is_ours(container: &Node) -> bool {
    let is_written = |mount: &Node| {
        let is_read = matches!(mount.get("readOnly"), Some(Node::Plain(said)) if said == "true");
        mount.text_of("name") == Some(PUBLIC) && !is_read
    };
    let mounts = container.get("volumeMounts").map(Node::items).unwrap_or_default();
    container.text_of("name") == Some(NAME) && mounts.iter().any(is_written)
}

fn is_a_stranger(container: &Node) -> bool {
    container.text_of("name") == Some(NAME) && !is_ours(container)
}

fn add(spec: &mut Node, at: &str, sidecar: &Sidecar<'_>, told: &mut Told) {
    let key = if sidecar.place == Place::Native { NATIVE } else { PLAIN };
    match list(spec, key) {
        Some(containers) => containers.insert(0, sidecar.container.clone()),
        None => told.fault(&join(at, key), "must be a list"),
    }
    let at = join(at, "volumes");
    let Some(volumes) = list(spec, "volumes") else { return told.fault(&at, "must be a list") };
    for ours in &sidecar.volumes {
        let name = ours.text_of("name").unwrap_or_default();
        match volumes.iter().position(|own| own.text_of("name") == Some(name)) {
            None => volumes.push(ours.clone()),
            Some(n) => {
                let source = source_of(ours);
                if volumes.get(n).is_some_and(|own| own.get(source).is_none()) {
                    let what =
                        format!("`{name}` is samekey's, of {source}: give yours another name");
                    told.fault(&format!("{at}[{n}]"), &what);
                }
            }
        }
    }
}

/// The native sidecar as the first of the containers, with all that it was given.
fn become_plain(spec: &mut Node, sidecar: &Sidecar<'_>) {
    let Some(natives) = list(spec, NATIVE) else { return };
    let Some(n) = natives.iter().position(is_ours) else { return };
    let mut container = natives.remove(n);
    if natives.is_empty() {
        spec.remove(NATIVE);
    }
    container.remove("restartPolicy");
    container.set("lifecycle", sidecar.lifecycle.clone());
    if let Some(containers) = list(spec, PLAIN) {
        containers.insert(0, container);
    }
}

/// Gives the sidecar the names that this run was told.
fn rename(spec: &mut Node, at: &str, sidecar: &Sidecar<'_>, told: &mut Told) {
    if let Some(image) = sidecar.names.image {
        for key in LISTS {
            let Some(Node::List(containers)) = spec.get_mut(key) else { continue };
            for ours in containers.iter_mut().filter(|own| is_ours(own)) {
                ours.set("image", Node::text(image));
            }
        }
    }
    for (flag, volume, source, key, name) in [
        ("--config-map", "samekey-config", "configMap", "name", sidecar.names.config_map),
        ("--secret", "samekey-secret", "secret", "secretName", sidecar.names.secret),
    ] {
        let Some(name) = name else { continue };
        let volumes = list(spec, "volumes").into_iter().flatten();
        let found = volumes.into_iter().find(|own| own.text_of("name") == Some(volume));
        match found.and_then(|found| found.get_mut(source)) {
            Some(named @ Node::Map(_)) => named.set(key, Node::text(name)),
            _ => told.fault(
                &join(at, "volumes"),
                &format!("`{volume}` is no {source} that {flag} could name: change it by hand"),
            ),
        }
    }
}

/// What makes a volume: the key beside its name.
fn source_of(volume: &Node) -> &str {
    let Node::Map(entries) = volume else { return "" };
    let keys = entries.iter().filter_map(|(key, _)| key.as_text());
    keys.into_iter().find(|key| *key != "name").unwrap_or_default()
}

/// A list of an object, made where there is none; `None`: something else is there.
fn list<'a>(object: &'a mut Node, key: &str) -> Option<&'a mut Vec<Node>> {
    if object.get(key).is_none() {
        object.set(key, Node::List(Vec::new()));
    }
    match object.get_mut(key)? {
        Node::List(items) => Some(items),
        Node::Text(_) | Node::Plain(_) | Node::Map(_) => None,
    }
}

const NAME: &str = "samekey";

/// The volume of certificates.
const PUBLIC: &str = "samekey-public";

const NATIVE: &str = "initContainers";

const PLAIN: &str = "containers";

const LISTS: [&str; 2] = [NATIVE, PLAIN];

#[cfg(test)]
mod tests;

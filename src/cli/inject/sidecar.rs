//! What is added to a pod: that of `config/kubernetes`, by the wishes of the command line.

use std::path::Path;

use samekey::intercept::{Environment, Own};

use crate::cli::inject::node::Node;
use crate::cli::inject::read::read;

/// What a pod is given.
#[derive(Debug)]
pub(super) struct Sidecar<'a> {
    /// Where it stands, if it is not there yet.
    pub(super) place: Place,
    /// What the command line names.
    pub(super) names: Names<'a>,
    /// The container itself.
    pub(super) container: Node,
    /// What a plain container has to hold back those behind it.
    pub(super) lifecycle: Node,
    /// The volumes of the pod.
    pub(super) volumes: Vec<Node>,
    /// The mount of each of the application's containers.
    pub(super) mount: Node,
}

/// As what the sidecar runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// An init container that goes on (Kubernetes 1.29 and later).
    Native,
    /// The first of the containers.
    Classic,
}

/// What the command line may change.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Names<'a> {
    /// The image.
    pub(super) image: Option<&'a str>,
    /// The `ConfigMap` that holds `samekey.yaml`.
    pub(super) config_map: Option<&'a str>,
    /// The Secret that holds `secret`.
    pub(super) secret: Option<&'a str>,
}

impl<'a> Sidecar<'a> {
    /// What `config/kubernetes` says; `None` where that is not as it was built.
    pub(super) fn new(place: Place, names: Names<'a>) -> Option<Self> {
        let wiring = read(WIRING).ok()?.node?;
        let mut container = wiring.get("container")?.clone();
        let lifecycle = wiring.get("lifecycle")?.clone();
        if place == Place::Classic {
            container.remove("restartPolicy");
            container.set("lifecycle", lifecycle.clone());
        }
        let volumes = wiring.get("volumes")?.items().to_vec();
        let mount = wiring.get("mount")?.clone();
        Some(Self { place, names, container, lifecycle, volumes, mount })
    }
}

/// The variables of an application's container, given what it says of some of them itself.
pub(super) fn variables(own: Own<'_>) -> Vec<(&'static str, String)> {
    Environment::new(PROXY, Path::new(PUBLIC), own).of_a_container()
}

/// The label by which a `PodMonitor` finds the pods.
pub(super) const LABEL: (&str, &str) = ("samekey.internal/sidecar", "true");

/// The ports that samekey takes in the pod, where all containers share them.
pub(super) const PORTS: [&str; 2] = ["17080", "17090"];

const PROXY: &str = "http://127.0.0.1:17080";

const PUBLIC: &str = "/run/samekey/public";

const WIRING: &str = include_str!("../../../config/kubernetes/wiring/wiring.yaml");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_built_in_can_be_read() {
        for place in [Place::Native, Place::Classic] {
            let sidecar = Sidecar::new(place, Names::default()).unwrap();
            assert_eq!(sidecar.container.get("lifecycle").is_some(), place == Place::Classic);
            assert_eq!(sidecar.container.get("restartPolicy").is_some(), place == Place::Native);
            assert_eq!(sidecar.volumes.len(), 5);
        }
    }

    #[test]
    fn the_manifests_say_what_the_binary_says() {
        let wiring = read(WIRING).unwrap().node.unwrap();
        let entry = |(name, value): (&str, String)| {
            Node::map([("name", Node::text(name)), ("value", Node::Text(value))])
        };
        let ours: Vec<_> = variables(Own::default()).into_iter().map(entry).collect();
        assert_eq!(wiring.get("env").unwrap().items(), ours, "run .ci/manifests");
        let version = format!("samekey:{}", env!("CARGO_PKG_VERSION"));
        assert_eq!(wiring.get("container").unwrap().text_of("image"), Some(version.as_str()));
    }
}

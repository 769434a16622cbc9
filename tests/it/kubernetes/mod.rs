//! `config/kubernetes`, by the tools that its users have: kubectl, Helm, and the API's own schemas.

mod chart;
mod gate;
mod inject;
mod manifests;
mod transparent;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::process::Command;

use crate::support::program::{Ran, ran};

/// Those that `kubectl kustomize` renders.
const EXAMPLES: [&str; 7] =
    ["native", "classic", "transparent", "ca", "redis", "config-secret", "lasting"];

/// With native sidecars.
const VERSIONS: [&str; 9] =
    ["1.29", "1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37"];

/// What the API's schemas do not know: objects of operators.
const FOREIGN: [&str; 4] = ["Certificate", "Issuer", "PodMonitor", "PrometheusRule"];

/// A path of this repository.
fn here(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The same, where `.ci/install` puts it.
fn installed(path: &str) -> PathBuf {
    let path = here(path);
    assert!(path.exists(), "{} is missing: run .ci/install", path.display());
    path
}

/// `.ci/install` brings one where the machine has none that will do.
fn kubectl() -> PathBuf {
    let own = here(".tools/kubernetes/kubectl");
    if own.exists() {
        return own;
    }
    let found = std::process::Command::new("kubectl").args(["kustomize", "--help"]).output();
    assert!(found.is_ok(), "kubectl is missing: run .ci/install");
    PathBuf::from("kubectl")
}

/// What `kubectl kustomize` makes of a folder of `config/kubernetes`.
async fn kustomized(folder: &str) -> String {
    kustomized_at(&here("config/kubernetes").join(folder)).await
}

/// The same of any folder.
async fn kustomized_at(folder: &Path) -> String {
    let ran = ran(Command::new(kubectl()).arg("kustomize").arg(folder)).await;
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    ran.out
}

/// Each document that is not empty.
fn objects(stream: &str) -> Vec<Value> {
    let read: Vec<Value> = serde_saphyr::from_multiple(stream).expect("YAML");
    read.into_iter().filter(|object| !object.is_null()).collect()
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The items of a list; none where there is no list.
fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn named<'a>(items: &'a [Value], name: &str) -> Option<&'a Value> {
    items.iter().find(|item| item["name"] == name)
}

/// The `ConfigMap` of a name.
fn configured<'a>(objects: &'a [Value], name: &str) -> &'a Value {
    let is_it =
        |object: &&Value| object["kind"] == "ConfigMap" && object["metadata"]["name"] == name;
    objects.iter().find(is_it).expect("a ConfigMap of this name")
}

/// The spec of an object's pod.
fn pod(object: &Value) -> Option<&Value> {
    let template = ["/spec/jobTemplate/spec/template/spec", "/spec/template/spec"];
    template.into_iter().find_map(|pointer| object.pointer(pointer))
}

/// The pods that have a sidecar.
fn proxied(objects: &[Value]) -> Vec<&Value> {
    let is_proxied = |pod: &&Value| named(list(pod, "/volumes"), "samekey-public").is_some();
    objects.iter().filter_map(pod).filter(is_proxied).collect()
}

/// The sidecar of a pod, wherever it stands.
fn sidecar(pod: &Value) -> &Value {
    let native = named(list(pod, "/initContainers"), "samekey");
    native.or_else(|| named(list(pod, "/containers"), "samekey")).expect("a sidecar")
}

/// The application's containers.
fn applications(pod: &Value) -> Vec<&Value> {
    list(pod, "/containers").iter().filter(|container| container["name"] != "samekey").collect()
}

/// Asks the schemas of these versions.
async fn validated(versions: &[&str], files: &[PathBuf]) -> Ran {
    let mut program = Command::new(installed(".tools/venv/bin/python"));
    program.arg(here("tests/kubernetes/validate.py")).arg(versions.join(",")).args(files);
    ran(&mut program).await
}

/// Wants every object to be what the API of each version takes, and each to have been looked at.
async fn assert_valid(versions: &[&str], files: &[PathBuf]) {
    let ran = validated(versions, files).await;
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let read = |file: &PathBuf| std::fs::read_to_string(file).expect("readable");
    let all: Vec<_> = files.iter().flat_map(|file| objects(&read(file))).collect();
    let kinds = all.iter().map(|object| text(object, "/kind"));
    let (foreign, known): (Vec<_>, Vec<_>) = kinds.partition(|kind| FOREIGN.contains(kind));
    assert!(!known.is_empty(), "nothing to look at");
    let foreign: BTreeSet<_> = foreign.into_iter().collect();
    for (version, line) in versions.iter().zip(ran.out.lines()) {
        let mut words = line.split(' ');
        assert_eq!(words.next(), Some(*version));
        assert_eq!(words.next(), Some(known.len().to_string().as_str()), "{line}");
        assert_eq!(words.collect::<BTreeSet<_>>(), foreign, "{line}");
    }
    assert_eq!(ran.out.lines().count(), versions.len());
}

/// A folder with all that is in it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("a folder").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// Puts a text into a file of a folder.
fn put(folder: &Path, name: &str, text: &str) -> PathBuf {
    let file = folder.join(name);
    std::fs::write(&file, text).expect("written");
    file
}

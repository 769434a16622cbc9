//! The kustomizations: what they add is valid, guarded, and what the binary expects.

use std::collections::BTreeSet;
use std::path::Path;

use samekey::app::AFTER_GRACE;
use serde_json::{Value, json};
use tempfile::tempdir;

use super::{
    EXAMPLES, VERSIONS, applications, assert_valid, configured, copy, here, kustomized,
    kustomized_at, list, named, objects, pod, proxied, put, sidecar, text, validated,
};
use crate::support::program::{command, folder_with, ran, samekey};

#[tokio::test]
async fn every_example_is_what_each_version_takes() {
    let folder = tempdir().expect("a folder");
    let mut files = Vec::new();
    for example in EXAMPLES {
        let rendered = kustomized(&format!("examples/{example}")).await;
        files.push(put(folder.path(), &format!("{example}.yaml"), &rendered));
    }
    assert_valid(&VERSIONS, &files).await;
}

/// Which is also how one knows that the schemas look.
#[tokio::test]
async fn old_versions_take_the_classic_variant_alone() {
    let folder = tempdir().expect("a folder");
    let native = put(folder.path(), "native.yaml", &kustomized("examples/native").await);
    let classic = put(folder.path(), "classic.yaml", &kustomized("examples/classic").await);
    let old = ["1.25", "1.27"];
    assert_valid(&old, &[classic]).await;
    let refused = validated(&old, &[native]).await;
    assert_eq!(refused.code, Some(1));
    assert_eq!(
        refused.err.matches("'restartPolicy' was unexpected").count(),
        2 * 5,
        "{}",
        refused.err
    );
}

#[tokio::test]
async fn five_kinds_get_the_sidecar_and_who_does_not_want_it_does_not() {
    for example in EXAMPLES {
        let rendered = objects(&kustomized(&format!("examples/{example}")).await);
        let has = |object: &&Value| pod(object).is_some_and(|pod| !proxied_alone(pod).is_empty());
        let kinds: BTreeSet<_> =
            rendered.iter().filter(has).map(|object| text(object, "/kind")).collect();
        let wanted = ["CronJob", "DaemonSet", "Deployment", "Job", "StatefulSet"];
        assert_eq!(kinds.into_iter().collect::<Vec<_>>(), wanted, "{example}");
        let website =
            rendered.iter().find(|object| object["metadata"]["name"] == "website").expect("there");
        assert!(!website.to_string().contains("17080"), "{example}: {website}");
    }
}

fn proxied_alone(pod: &Value) -> Vec<&Value> {
    list(pod, "/volumes").iter().filter(|volume| volume["name"] == "samekey-public").collect()
}

/// As JSON, and with lists in brackets, into which kustomize can write no comments.
#[tokio::test]
async fn manifests_are_taken_in_any_way_of_writing_them() {
    let folder = tempdir().expect("a folder");
    copy(&here("config/kubernetes"), &folder.path().join("kubernetes"));
    let spec = json!({
        "initContainers": [{"name": "migrate", "image": "orders:1"}],
        "containers": [{"name": "orders", "image": "orders:1", "env": [{"name": "A", "value": "b"}],
            "volumeMounts": [{"name": "own", "mountPath": "/own"}]}],
        "volumes": [{"name": "own", "emptyDir": {}}],
    });
    let written = |name: &str| {
        let labels = json!({"app": name});
        let template = json!({"metadata": {"labels": labels}, "spec": spec});
        let spec = json!({"selector": {"matchLabels": labels}, "template": template});
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec})
    };
    put(folder.path(), "a.json", &written("a").to_string());
    // The same is YAML, whose lists and maps are in brackets.
    put(folder.path(), "b.yaml", &written("b").to_string());
    for component in ["component", "classic", "transparent"] {
        let kustomization =
            format!("resources: [a.json, b.yaml]\ncomponents: [kubernetes/{component}]\n");
        put(folder.path(), "kustomization.yaml", &kustomization);
        let rendered = objects(&kustomized_at(folder.path()).await);
        let pods = proxied(&rendered);
        assert_eq!(pods.len(), 2, "{component}");
        let of_block = objects(&kustomized(&format!("examples/{}", example(component))).await);
        for pod in pods {
            let mut theirs = sidecar(proxied(&of_block)[0]).clone();
            theirs["image"] = sidecar(pod)["image"].clone();
            assert_eq!(sidecar(pod), &theirs, "{component}");
            assert!(named(list(pod, "/initContainers"), "migrate").is_some());
        }
        let file = put(folder.path(), "rendered.yaml", &kustomized_at(folder.path()).await);
        assert_valid(&["1.29"], &[file]).await;
    }
}

/// The example of a component.
fn example(component: &str) -> &str {
    if component == "component" { "native" } else { component }
}

#[tokio::test]
async fn the_application_reads_public_files_alone() {
    for example in EXAMPLES {
        let rendered = objects(&kustomized(&format!("examples/{example}")).await);
        let pods = proxied(&rendered);
        assert_eq!(pods.len(), 5, "{example}");
        for pod in pods {
            for container in applications(pod) {
                let mounts = list(container, "/volumeMounts").iter();
                let ours: Vec<_> =
                    mounts.filter(|mount| text(mount, "/name").starts_with("samekey")).collect();
                let wanted = json!({"name": "samekey-public", "mountPath": "/run/samekey", "readOnly": true});
                assert_eq!(ours, [&wanted], "{example}");
            }
            let memory = named(list(pod, "/volumes"), "samekey-public").expect("there");
            assert_eq!(memory["emptyDir"]["medium"], "Memory");
            let sidecar = sidecar(pod);
            let state = named(list(sidecar, "/volumeMounts"), "samekey-state").expect("there");
            assert_eq!(state["mountPath"], "/var/lib/samekey");
            let secret = named(list(pod, "/volumes"), "samekey-secret").expect("there");
            assert_eq!(
                secret["secret"].get("optional"),
                None,
                "a pod without the secret does not start"
            );
        }
    }
}

/// Pod Security Standards, `restricted`; each line is one of its rules.
#[tokio::test]
async fn the_sidecar_is_restricted_and_gates_the_application() {
    for (example, native) in [("native", true), ("classic", false)] {
        let rendered = objects(&kustomized(&format!("examples/{example}")).await);
        for pod in proxied(&rendered) {
            let sidecar = sidecar(pod);
            let wanted = json!({
                "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532,
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
            });
            assert_eq!(sidecar["securityContext"], wanted);
            assert_eq!(
                sidecar["startupProbe"]["exec"]["command"],
                json!(["samekey", "health", "--ready"])
            );
            assert_eq!(sidecar["image"], "registry.example.com/samekey:0.1.0");
            assert_eq!(sidecar.get("restartPolicy").is_some(), native);
            assert_eq!(sidecar.get("lifecycle").is_some(), !native);
            let first = if native { "/initContainers/0/name" } else { "/containers/0/name" };
            assert_eq!(text(pod, first), "samekey", "before all that may need it");
            let resources = &sidecar["resources"];
            assert_eq!(resources["limits"].get("cpu"), None);
        }
    }
}

#[tokio::test]
async fn the_monitor_finds_the_pods_and_the_port() {
    let monitor = objects(&kustomized("monitor").await).remove(0);
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    let rendered = objects(&kustomized("examples/native").await);
    for object in rendered
        .iter()
        .filter(|object| pod(object).is_some_and(|pod| !proxied_alone(pod).is_empty()))
    {
        let metadata =
            ["/spec/jobTemplate/spec/template/metadata/labels", "/spec/template/metadata/labels"];
        let labels = metadata.iter().find_map(|pointer| object.pointer(pointer)).expect("labels");
        for (label, value) in monitor["spec"]["selector"]["matchLabels"].as_object().expect("a map")
        {
            assert_eq!(labels.get(label), Some(value), "{object}");
        }
        let sidecar = sidecar(pod(object).expect("a pod"));
        assert_eq!(sidecar["ports"][0]["name"], endpoint["port"]);
        assert_eq!(sidecar["livenessProbe"]["httpGet"]["port"], endpoint["port"]);
    }
}

/// Each config that the manifests ship, and what pods expect of it.
#[tokio::test]
async fn every_config_is_good_and_agrees_with_its_pod() {
    let mut seen = 0;
    for example in EXAMPLES {
        let rendered = objects(&kustomized(&format!("examples/{example}")).await);
        // By a name without a hash: a change is loaded anew.
        let config = text(configured(&rendered, "samekey"), "/data/samekey.yaml");
        for pod in proxied(&rendered) {
            assert_agrees(config, pod).await;
            seen += 1;
        }
    }
    assert_eq!(seen, 5 * EXAMPLES.len());
}

/// A plain container gets its SIGTERM together with the application, a native sidecar after it.
#[tokio::test]
async fn who_is_told_to_end_with_its_application_still_takes_its_last_calls() {
    for example in EXAMPLES {
        let rendered = objects(&kustomized(&format!("examples/{example}")).await);
        let of = |object: &&Value| object["kind"] == "ConfigMap";
        let config = text(rendered.iter().find(of).expect("a config"), "/data/samekey.yaml");
        let config: Value = serde_saphyr::from_str(config).expect("YAML");
        let is_told_together =
            proxied(&rendered).iter().any(|pod| sidecar(pod).get("restartPolicy").is_none());
        let delay = config.pointer("/shutdown/delay").and_then(Value::as_str);
        assert_eq!(delay, is_told_together.then_some("10s"), "{example}");
    }
}

/// Holds a `samekey.yaml` against the pod that reads it.
pub(super) async fn assert_agrees(config: &str, pod: &Value) {
    let folder = folder_with(config);
    let mut check = command(folder.path(), &["check"]);
    let ran = ran(check.envs(image_variables())).await;
    assert_eq!((ran.code, &*ran.err), (Some(0), ""), "{config}");
    let read: Value = serde_saphyr::from_str(config).expect("YAML");
    let env = samekey(folder.path(), &["env", "--format", "k8s"]).await;
    let env: Value = serde_saphyr::from_str(&env.out).expect("a list");
    for container in applications(pod) {
        for variable in env.as_array().expect("a list") {
            let name = text(variable, "/name");
            assert_eq!(named(list(container, "/env"), name), Some(variable), "{name}");
        }
    }
    let sidecar = sidecar(pod);
    let port = sidecar["ports"][0]["containerPort"].to_string();
    assert_eq!(text(&read, "/admin/address").rsplit_once(':').expect("a port").1, port);
    let within = |key: &str, volume: &str| {
        let mount = named(list(sidecar, "/volumeMounts"), volume).expect("a mount");
        let path = Path::new(text(&read, key));
        let is_within = path.starts_with(text(mount, "/mountPath"));
        assert!(is_within, "{key}: {} is not in {volume}", path.display());
    };
    within("/state/dir", "samekey-state");
    within("/state/public", "samekey-public");
    within("/state/secret_file", "samekey-secret");
    if read.get("intercept").is_some() {
        within("/intercept/ca/cert", "samekey-ca");
        within("/intercept/ca/key", "samekey-ca");
    }
    assert_fits(&read, pod);
}

/// Of the image's own variables those that are samekey's: they win over the config.
fn image_variables() -> Vec<(String, String)> {
    let dockerfile = std::fs::read_to_string(here("Dockerfile")).expect("readable");
    let lines = dockerfile.lines().filter(|line| !line.starts_with('#'));
    let words = lines.flat_map(str::split_whitespace).filter(|word| word.starts_with("SAMEKEY_"));
    let set = words.filter_map(|word| word.split_once('='));
    let set: Vec<_> = set.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    assert!(set.iter().any(|(name, _)| name == "SAMEKEY_STATE_DIR"), "{set:?}");
    set
}

/// Memory, disk and time are enough for what the config allows itself.
fn assert_fits(config: &Value, pod: &Value) {
    let mib = |key: &str| number(text(config, key), "MiB");
    let memory = number(text(sidecar(pod), "/resources/limits/memory"), "Mi");
    let kept = mib("/state/hot_memory") + mib("/state/held_memory");
    assert!(kept + MEMORY_BESIDES_MIB <= memory, "{kept} MiB are kept, of {memory}");
    let state = named(list(pod, "/volumes"), "samekey-state").expect("a volume");
    let disk = 1024 * number(text(state, "/emptyDir/sizeLimit"), "Gi");
    // The ledger may take a quarter more.
    let written = mib("/state/max_size") * 5 / 4 + mib("/state/held_disk");
    assert!(written + DISK_BESIDES_MIB <= disk, "{written} MiB are written, of {disk}");
    let delay = config.pointer("/shutdown/delay").and_then(Value::as_str).unwrap_or("0s");
    let grace = number(delay, "s") + number(text(config, "/shutdown/grace"), "s");
    let pod_grace = pod.get("terminationGracePeriodSeconds").and_then(Value::as_u64).unwrap_or(30);
    let needed = grace + AFTER_GRACE.as_secs();
    assert!(needed <= pod_grace, "{needed} s of {pod_grace}");
}

fn number(text: &str, unit: &str) -> u64 {
    let number = text.strip_suffix(unit).unwrap_or_else(|| panic!("{text:?} is not in {unit}"));
    number.parse().expect("a number")
}

/// 21 MiB idle and 12 for streams, as measured, and as much again.
const MEMORY_BESIDES_MIB: u64 = 66;

/// The write-ahead log of the journal.
const DISK_BESIDES_MIB: u64 = 128;

#[test]
fn no_secret_is_shipped() {
    let mut folders = vec![here("config/kubernetes")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("text");
            for word in ["kind: Secret\n", "secretGenerator", "PRIVATE KEY"] {
                assert!(!text.contains(word), "{}: {word}", path.display());
            }
        }
    }
}

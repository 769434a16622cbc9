//! The Helm chart: the same sidecar, and values that are looked at.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};
use tokio::process::Command;

use super::manifests::assert_agrees;
use super::{
    VERSIONS, applications, assert_valid, configured, copy, here, installed, kustomized, list,
    named, objects, pod, proxied, put, sidecar, text,
};
use crate::support::program::{Ran, ran};

const CHART: &str = "config/kubernetes/chart";

async fn helm(arguments: &[&str]) -> Ran {
    let mut program = Command::new(installed(".tools/venv/bin/python"));
    ran(program.arg(here("tests/kubernetes/helm.py")).args(arguments)).await
}

async fn rendered(chart: &Path, values: &Value) -> String {
    let ran = helm(&["render", chart.to_str().expect("text"), &values.to_string()]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    ran.out
}

/// The example's chart with ours among its charts, as `helm dependency build` puts it there.
fn parent() -> TempDir {
    let folder = tempdir().expect("a folder");
    copy(&here("config/kubernetes/examples/helm"), folder.path());
    copy(&here(CHART), &folder.path().join("charts/samekey"));
    folder
}

#[tokio::test]
async fn helm_has_nothing_to_say_against_it() {
    let parent = parent();
    for chart in [here(CHART).as_path(), parent.path()] {
        let ran = helm(&["lint", chart.to_str().expect("text")]).await;
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{}", chart.display());
    }
    let chart: Value = serde_saphyr::from_str(&read(&format!("{CHART}/Chart.yaml"))).expect("YAML");
    for key in ["version", "appVersion"] {
        assert_eq!(chart[key], env!("CARGO_PKG_VERSION"), "{key}");
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(here(path)).expect("readable")
}

#[tokio::test]
async fn its_sidecar_is_the_components() {
    let parent = parent();
    for (classic, example) in [(false, "native"), (true, "classic")] {
        let values = json!({"samekey": {"classic": classic}});
        let ours = objects(&rendered(parent.path(), &values).await);
        let theirs = objects(&kustomized(&format!("examples/{example}")).await);
        let (our_pods, their_pods) = (proxied(&ours), proxied(&theirs));
        let (ours_pod, theirs_pod) = (our_pods[0], their_pods[0]);
        let mut container = sidecar(ours_pod).clone();
        assert_eq!(
            container.as_object_mut().expect("a map").remove("imagePullPolicy"),
            Some(json!("IfNotPresent"))
        );
        assert_eq!(&container, sidecar(theirs_pod));
        for volume in list(ours_pod, "/volumes") {
            assert_eq!(Some(volume), named(list(theirs_pod, "/volumes"), text(volume, "/name")));
        }
        assert_eq!(list(ours_pod, "/volumes").len(), 5);
        let (our, their) = (applications(ours_pod)[0], applications(theirs_pod)[1]);
        assert_eq!((&our["env"], &our["volumeMounts"]), (&their["env"], &their["volumeMounts"]));
        let config = ours.iter().find(|object| object["kind"] == "ConfigMap").expect("a config");
        assert_eq!(config["metadata"]["namespace"], "shop");
        assert_agrees(text(config, "/data/samekey.yaml"), ours_pod).await;
        assert_same_config(config, &theirs);
    }
}

fn assert_same_config(ours: &Value, theirs: &[Value]) {
    let theirs = theirs.iter().find(|object| object["kind"] == "ConfigMap").expect("a config");
    let read = |config: &Value| -> Value {
        serde_saphyr::from_str(text(config, "/data/samekey.yaml")).expect("YAML")
    };
    assert_eq!(read(ours), read(theirs));
}

#[tokio::test]
async fn what_it_renders_is_what_each_version_takes() {
    let (parent, folder) = (parent(), tempdir().expect("a folder"));
    let all = json!({"samekey": {
        "ca": {"certManager": true}, "podMonitor": {"create": true, "labels": {"release": "p"}, "interval": "30s"},
        "prometheusRule": {"create": true, "groups": [{"name": "a", "rules": []}]},
        "config": {"routes": [{"name": "jobs", "match": {"hosts": ["api.example.com"]}}]},
        "configMap": {"name": "own"}, "secret": {"name": "own"}, "image": {"tag": "2.0.0"},
    }});
    let native = put(folder.path(), "native.yaml", &rendered(parent.path(), &all).await);
    let classic = json!({"samekey": {"classic": true}});
    let classic = put(folder.path(), "classic.yaml", &rendered(parent.path(), &classic).await);
    assert_valid(&VERSIONS, &[native.clone(), classic]).await;
    let objects = objects(&std::fs::read_to_string(native).expect("readable"));
    let mut kinds: Vec<_> = objects.iter().map(|object| text(object, "/kind")).collect();
    kinds.sort_unstable();
    assert_eq!(
        kinds,
        ["Certificate", "ConfigMap", "Deployment", "Issuer", "PodMonitor", "PrometheusRule"]
    );
    let pod = objects.iter().find_map(pod).expect("a pod");
    assert_eq!(sidecar(pod)["image"], "registry.example.com/samekey:2.0.0");
    let volume = |name| named(list(pod, "/volumes"), name).expect("a volume");
    assert_eq!(volume("samekey-config")["configMap"]["name"], "own");
    assert_eq!(volume("samekey-secret")["secret"]["secretName"], "own");
}

/// The values of a parent, as text that Helm reads by itself.
async fn rendered_of(values: &str) -> Ran {
    let parent = parent();
    put(parent.path(), "values.yaml", values);
    helm(&["render", parent.path().to_str().expect("text"), "{}"]).await
}

/// Helm reads YAML 1.1, in which `on` is `true` unless it stands in quotes.
#[tokio::test]
async fn a_key_that_helm_reads_as_a_truth_is_refused_and_in_quotes_it_is_good() {
    let values = |key: &str| {
        let route = format!(
            "{{name: jobs, match: {{hosts: [api.example.com]}}, retry: {{{key}: [429, 503, connect]}}}}"
        );
        format!("samekey:\n  config:\n    routes:\n    - {route}\n")
    };
    for key in ["on", "off", "yes", "true"] {
        let ran = rendered_of(&values(key)).await;
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{key}");
        let wanted = "config.routes[0].retry: a key is read as ";
        assert!(ran.err.contains(wanted) && ran.err.contains("write it in quotes"), "{}", ran.err);
    }
    let ran = rendered_of(&values("\"on\"")).await;
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let objects = objects(&ran.out);
    let config = text(configured(&objects, "samekey"), "/data/samekey.yaml").to_owned();
    let pod = proxied(&objects)[0];
    assert_agrees(&config, pod).await;
    let read: Value = serde_saphyr::from_str(&config).expect("YAML");
    assert_eq!(read["routes"][0]["retry"]["on"], json!([429, 503, "connect"]));
}

#[tokio::test]
async fn an_image_is_named_by_its_tag_or_its_digest() {
    let (parent, digest) = (parent(), format!("@sha256:{}", "0a".repeat(32)));
    for (tag, wanted) in [
        ("2.0.0".to_owned(), ":2.0.0".to_owned()),
        (digest.clone(), digest.clone()),
        (format!("2.0.0{digest}"), format!(":2.0.0{digest}")),
        (String::new(), concat!(":", env!("CARGO_PKG_VERSION")).to_owned()),
    ] {
        let values = json!({"samekey": {"image": {"tag": tag}}});
        let objects = objects(&rendered(parent.path(), &values).await);
        let image = text(sidecar(proxied(&objects)[0]), "/image").to_owned();
        assert_eq!(image, format!("registry.example.com/samekey{wanted}"));
    }
}

#[tokio::test]
async fn values_that_make_no_sense_are_refused() {
    for (values, place) in [
        (json!({"clasic": true}), "clasic"),
        (json!({"classic": "yes"}), "/classic"),
        (json!({"image": {"repository": ""}}), "/image/repository"),
        (json!({"image": {"tag": "a b"}}), "/image/tag"),
        (json!({"image": {"tag": "-a"}}), "/image/tag"),
        (json!({"image": {"tag": "@sha256:0a"}}), "/image/tag"),
        (json!({"image": {"pullPolicy": "Sometimes"}}), "/image/pullPolicy"),
        (json!({"secret": {"name": ""}}), "/secret/name"),
        (json!({"secret": {"value": "s3cret"}}), "/secret"),
        (json!({"configMap": {"name": "Own"}}), "/configMap/name"),
        (json!({"config": "text"}), "/config"),
        (json!({"stateSizeLimit": "1GiB"}), "/stateSizeLimit"),
        (json!({"resources": {"limit": {}}}), "/resources"),
        (json!({"podMonitor": {"interval": "often"}}), "/podMonitor/interval"),
        (json!({"podMonitor": {"labels": {"a": 1}}}), "/podMonitor/labels/a"),
        (json!({"prometheusRule": {"groups": [{}]}}), "/prometheusRule/groups/0"),
    ] {
        let ran = helm(&["render", here(CHART).to_str().expect("text"), &values.to_string()]).await;
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{values}");
        assert!(ran.err.contains(place), "{values}: {}", ran.err);
    }
}

//! The transparent variant: redirected by rules that the binary printed, and pointed at no proxy.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    applications, configured, here, kustomized, list, named, objects, pod, proxied, sidecar, text,
};
use crate::support::program::{folder_with, samekey};

const BASE: &str = "config/kubernetes/transparent/base";

fn shipped(name: &str) -> String {
    std::fs::read_to_string(here(BASE).join(name)).expect("readable")
}

async fn example() -> Vec<Value> {
    objects(&kustomized("examples/transparent").await)
}

#[tokio::test]
async fn its_rules_are_those_that_the_binary_prints() {
    let folder = folder_with(&shipped("samekey.yaml"));
    let ran = samekey(folder.path(), &["capture", "print", "--uid", "65532"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "both families are redirected");
    assert_eq!(ran.out, shipped("samekey.nft"), "run .ci/manifests");
    let rendered = example().await;
    assert_eq!(text(configured(&rendered, "samekey-rules"), "/data/samekey.nft"), ran.out);
    for pod in proxied(&rendered) {
        let user = &sidecar(pod)["securityContext"]["runAsUser"];
        assert!(ran.out.contains(&format!("meta skuid {user} return\n")), "{user} is samekey's");
    }
}

/// One listener in each family on one port, and none that a program could be pointed at.
#[test]
fn its_config_differs_from_the_usual_one_in_its_listeners() {
    let read = |file: &str| -> Value { serde_saphyr::from_str(file).expect("YAML") };
    let usual = std::fs::read_to_string(here("config/kubernetes/base/samekey.yaml"));
    let (mut ours, mut usual) = (read(&shipped("samekey.yaml")), read(&usual.expect("readable")));
    let listener = |address| json!({"address": address, "mode": "transparent"});
    assert_eq!(
        ours["listeners"].take(),
        json!([listener("127.0.0.1:17081"), listener("[::1]:17081")])
    );
    usual["listeners"].take();
    assert_eq!(ours, usual);
}

#[tokio::test]
async fn the_rules_are_set_last_before_the_application_with_one_capability() {
    let rendered = example().await;
    let pods = proxied(&rendered);
    assert_eq!(pods.len(), 5);
    for pod in pods {
        let first = list(pod, "/initContainers");
        let names: Vec<_> = first.iter().map(|container| text(container, "/name")).collect();
        assert_eq!((names.first(), names.last()), (Some(&"samekey"), Some(&"samekey-capture")));
        let capture = named(first, "samekey-capture").expect("there");
        assert_eq!(capture["image"], "registry.example.com/nft:1.0.6");
        assert_eq!(capture.get("restartPolicy"), None, "it ends");
        let wanted = json!({
            "runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": false,
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        });
        assert_eq!(capture["securityContext"], wanted);
        let mount = named(list(capture, "/volumeMounts"), "samekey-rules").expect("a mount");
        assert_eq!(list(capture, "/volumeMounts").len(), 1, "it reads the rules alone");
        let file = format!("{}/samekey.nft", text(mount, "/mountPath"));
        assert_eq!(capture["command"], json!(["nft", "-f", file]));
        let volume = named(list(pod, "/volumes"), "samekey-rules").expect("a volume");
        assert_eq!(volume["configMap"]["name"], "samekey-rules");
    }
}

/// What the application is told: the CA, as the binary says of this config, and not one word of a proxy.
#[tokio::test]
async fn the_application_is_pointed_at_no_proxy() {
    let folder = folder_with(&shipped("samekey.yaml"));
    let env = samekey(folder.path(), &["env", "--format", "k8s"]).await;
    let env: Vec<Value> = serde_saphyr::from_str(&env.out).expect("a list");
    let plain = objects(&kustomized("examples/workloads").await);
    let rendered = example().await;
    let mut seen = 0;
    for object in &rendered {
        let Some(pod) = pod(object).filter(|_| object["metadata"]["name"] != "website") else {
            continue;
        };
        let before = plain.iter().find(|own| own["metadata"]["name"] == object["metadata"]["name"]);
        let before = before.and_then(super::pod).expect("it was a workload before");
        for (container, before) in applications(pod).into_iter().zip(applications(before)) {
            let own = list(before, "/env").iter().chain(&env).collect::<Vec<_>>();
            assert_eq!(list(container, "/env").iter().collect::<Vec<_>>(), own);
            seen += 1;
        }
    }
    assert_eq!(seen, 6);
    let text = Value::from(rendered).to_string().to_lowercase();
    for word in ["https_proxy", "http_proxy", "proxyhost", "17080", "no_proxy"] {
        assert!(!text.contains(word), "{word}");
    }
}

#[tokio::test]
async fn its_sidecar_is_the_components() {
    let (ours, theirs) = (example().await, objects(&kustomized("examples/native").await));
    for (ours, theirs) in proxied(&ours).into_iter().zip(proxied(&theirs)) {
        assert_eq!(sidecar(ours), sidecar(theirs));
        let volumes = |pod| -> BTreeSet<String> {
            list(pod, "/volumes").iter().map(Value::to_string).collect()
        };
        let (ours, theirs) = (volumes(ours), volumes(theirs));
        assert!(ours.is_superset(&theirs));
        assert_eq!(ours.len(), theirs.len() + 1);
    }
}

//! `samekey inject` adds what the kustomizations add.

use std::collections::BTreeMap;
use std::process::Stdio;

use serde_json::Value;
use tempfile::tempdir;
use tokio::io::AsyncWriteExt as _;

use super::{VERSIONS, assert_valid, here, kustomized, objects, put, text};
use crate::support::program::{Ran, command, samekey};

const IMAGE: [&str; 2] = ["--image", "registry.example.com/samekey:0.1.0"];

async fn injected(more: &[&str]) -> String {
    let file = here("config/kubernetes/examples/workloads/workloads.yaml");
    let file = file.to_str().expect("text");
    let folder = tempdir().expect("a folder");
    let ran = samekey(folder.path(), &[&["inject", "-f", file][..], &IMAGE, more].concat()).await;
    // The two jobs of the file do not end samekey; a native one ends after them.
    let open = ran.err.matches("is not complete while samekey runs").count();
    let wanted = if more.contains(&"--classic") { 2 } else { 0 };
    assert_eq!((ran.code, open, ran.err.lines().count()), (Some(0), wanted, wanted), "{}", ran.err);
    ran.out
}

/// Those with a pod, by kind and name, without the namespace that the examples set.
fn workloads(stream: &str) -> BTreeMap<(String, String), Value> {
    let mut all = BTreeMap::new();
    for mut object in objects(stream).into_iter().filter(|object| object["kind"] != "ConfigMap") {
        object["metadata"].as_object_mut().expect("a map").remove("namespace");
        let name = |pointer| text(&object, pointer).to_owned();
        all.insert((name("/kind"), name("/metadata/name")), object);
    }
    all
}

#[tokio::test]
async fn it_adds_exactly_what_the_components_add() {
    for (example, flags) in [("native", &[][..]), ("classic", &["--classic"][..])] {
        let ours = workloads(&injected(flags).await);
        let theirs = workloads(&kustomized(&format!("examples/{example}")).await);
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
        assert_eq!(ours.len(), 6);
        for (name, object) in &ours {
            assert_eq!(Some(object), theirs.get(name), "{example}: {name:?}");
        }
    }
}

#[tokio::test]
async fn what_it_writes_is_what_each_version_takes() {
    let folder = tempdir().expect("a folder");
    let native = put(folder.path(), "native.yaml", &injected(&[]).await);
    let classic = put(folder.path(), "classic.yaml", &injected(&["--classic"]).await);
    assert_valid(&["1.25"], std::slice::from_ref(&classic)).await;
    assert_valid(&VERSIONS, &[native, classic]).await;
}

#[tokio::test]
async fn what_was_injected_comes_out_byte_for_byte() {
    let once = injected(&["--config-map", "own", "--secret", "own-secret"]).await;
    assert!(
        once.contains("secretName: own-secret\n") && once.contains("    name: own\n"),
        "{once}"
    );
    let ran =
        piped(&once, &[&IMAGE[..], &["--config-map", "own", "--secret", "own-secret"]].concat())
            .await;
    assert_eq!((ran.out, ran.code, ran.err.as_str()), (once, Some(0), ""));
}

/// An upgrade: the flags of the first run are nowhere but in what it wrote.
#[tokio::test]
async fn another_image_changes_the_image_alone() {
    let own = ["--config-map", "own", "--secret", "own-secret"];
    for classic in [&[][..], &["--classic"]] {
        let once = injected(&[&own[..], classic].concat()).await;
        let once = once.replace(
            "emptyDir:\n          sizeLimit: 1Gi",
            "persistentVolumeClaim:\n          claimName: own",
        );
        assert!(once.contains("claimName: own\n"), "{once}");
        let ran = piped(&once, &["--image", "registry.example.com/samekey:0.2.0"]).await;
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert_eq!(ran.out, once.replace("/samekey:0.1.0", "/samekey:0.2.0"));
        assert_eq!(piped(&once, &[]).await.out, once);
    }
}

#[tokio::test]
async fn bad_input_is_exit_2_and_nothing_is_written() {
    for (input, flags, wanted) in [
        ("a: [", &[][..], "standard input: document 1: line 1: not YAML"),
        (
            "apiVersion: v1\nkind: Pod\nspec: {}\n",
            &[],
            "document 1: spec.containers: must be a list",
        ),
        (
            "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: samekey, image: own}]}\n",
            &[],
            "document 1: spec.containers[0]: a container `samekey` is there",
        ),
        ("", &["--image", ""], "--image is empty"),
        ("", &["-f", "/no/such.yaml"], "/no/such.yaml: No such file"),
        ("", &["--nope"], "unexpected argument"),
    ] {
        let ran = piped(input, flags).await;
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{input}: {}", ran.err);
        assert!(ran.err.contains(wanted), "{wanted}: {}", ran.err);
    }
}

#[tokio::test]
async fn a_warning_goes_to_standard_error_and_the_manifest_out() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {hostNetwork: true, containers: [{name: a}]}\n";
    let ran = piped(pod, &[]).await;
    assert_eq!(ran.code, Some(0));
    assert!(
        ran.err.starts_with("samekey: warning: standard input: document 1: spec.hostNetwork: "),
        "{}",
        ran.err
    );
    assert_eq!(objects(&ran.out)[0]["spec"]["initContainers"][0]["name"], "samekey");
}

/// `samekey inject -f -` on this input.
async fn piped(input: &str, flags: &[&str]) -> Ran {
    let folder = tempdir().expect("a folder");
    let mut program = command(folder.path(), &[&["inject", "-f", "-"][..], flags].concat());
    program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = program.spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    // It may have ended, on a flag that it does not know.
    drop(stdin.write_all(input.as_bytes()).await);
    drop(stdin);
    let output = child.wait_with_output().await.expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

//! What a first run adds, and what a further one leaves as it found it.

use super::*;
use crate::cli::inject::into_stream;
use crate::cli::inject::read::read;
use crate::cli::inject::sidecar::Names;

const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: orders}
spec:
  containers:
  - {name: orders, image: orders:1}
";

const NONE: Names<'_> = Names { image: None, config_map: None, secret: None };

fn injected(text: &str, place: Place, names: Names<'_>) -> (String, Told) {
    let sidecar = Sidecar::new(place, names).unwrap();
    let mut told = Told::default();
    let written = into_stream(text, "f", &sidecar, &mut told);
    (written, told)
}

fn silently(text: &str, place: Place, names: Names<'_>) -> String {
    let (written, told) = injected(text, place, names);
    assert!(told.faults.is_empty() && told.warnings.is_empty(), "{told:?}");
    written
}

fn faults(text: &str, names: Names<'_>) -> Vec<String> {
    injected(text, Place::Native, names).1.faults
}

/// With its state on a claim, more memory, and no user of ours, as some clusters ask for.
fn edited(place: Place) -> String {
    let names = Names { image: Some("reg/samekey:0.1.0"), ..own() };
    let mut written = silently(POD, place, names);
    for (from, to) in [
        ("emptyDir:\n      sizeLimit: 1Gi", "persistentVolumeClaim:\n      claimName: orders"),
        ("memory: 512Mi", "memory: 2Gi"),
        ("      runAsUser: 65532\n      runAsGroup: 65532\n", ""),
    ] {
        assert_eq!(written.matches(from).count(), 1, "{from}: {written}");
        written = written.replace(from, to);
    }
    written
}

fn own() -> Names<'static> {
    Names { config_map: Some("orders-samekey"), secret: Some("orders-secret"), ..NONE }
}

#[test]
fn what_was_edited_stays_and_a_flag_changes_what_it_names_alone() {
    for place in [Place::Native, Place::Classic] {
        let text = edited(place);
        assert!(text.contains("secretName: orders-secret\n"), "{text}");
        let image = Names { image: Some("reg/samekey:0.2.0"), ..NONE };
        let config_map = Names { config_map: Some("other"), ..NONE };
        let secret = Names { secret: Some("other"), ..NONE };
        for (names, from, to) in [
            (NONE, "", ""),
            (image, "reg/samekey:0.1.0", "reg/samekey:0.2.0"),
            (config_map, "name: orders-samekey\n", "name: other\n"),
            (secret, "secretName: orders-secret\n", "secretName: other\n"),
        ] {
            let wanted = text.replace(from, to);
            assert_eq!(silently(&text, place, names), wanted, "{names:?}");
            // A plain one was asked for once, and nothing says that it is to be another.
            assert_eq!(silently(&text, Place::Native, names), wanted, "{names:?}");
        }
    }
}

#[test]
fn a_native_one_becomes_plain_with_all_that_it_was_given() {
    let (native, plain) = (edited(Place::Native), edited(Place::Classic));
    let became = silently(&native, Place::Classic, NONE);
    assert_eq!(read(&became).unwrap().node, read(&plain).unwrap().node);
    assert_eq!(silently(&became, Place::Classic, NONE), became);
}

#[test]
fn a_mount_that_was_edited_stays_and_one_elsewhere_gets_ours_beside_it() {
    let text = silently(POD, Place::Native, NONE);
    let edited = text.replace(
        "    - name: samekey-public\n      mountPath: /run/samekey\n      readOnly: true\n",
        "    - name: samekey-public\n      readOnly: true\n      mountPath: /run/samekey\n",
    );
    assert_ne!(edited, text);
    assert_eq!(silently(&edited, Place::Native, NONE), edited);
    let elsewhere = POD.replace(
        "image: orders:1",
        "image: orders:1, volumeMounts: [{name: samekey-public, mountPath: /certs}]",
    );
    let written = silently(&elsewhere, Place::Native, NONE);
    assert!(written.contains("/certs") && written.contains("mountPath: /run/samekey\n"));
}

#[test]
fn a_container_of_another_making_is_never_taken_for_ours() {
    let gateway = |key: &str| {
        let container = "[{name: samekey, image: own, volumeMounts: [{name: samekey-public, mountPath: /x, readOnly: true}]}]";
        let other = if key == "containers" { "" } else { ", containers: [{name: a}]" };
        format!("apiVersion: v1\nkind: Pod\nspec: {{{key}: {container}{other}}}\n")
    };
    for key in ["containers", "initContainers"] {
        for place in [Place::Native, Place::Classic] {
            let (_, told) = injected(&gateway(key), place, NONE);
            let wanted = format!("spec.{key}[0]: a container `samekey` is there that is not");
            assert_eq!(told.faults.len(), 1, "{told:?}");
            assert!(told.faults[0].contains(&wanted), "{told:?}");
        }
    }
}

#[test]
fn a_volume_of_the_applications_own_is_never_overwritten() {
    let with = |volumes: &str| POD.replace("spec:\n", &format!("spec:\n  volumes: [{volumes}]\n"));
    for (volume, source) in [
        ("name: samekey-config, secret: {secretName: a}", "configMap"),
        ("name: samekey-secret, csi: {driver: a}", "secret"),
        ("name: samekey-ca, configMap: {name: a}", "secret"),
        ("name: samekey-state, persistentVolumeClaim: {claimName: a}", "emptyDir"),
        ("name: samekey-public, hostPath: {path: /a}", "emptyDir"),
    ] {
        let told = faults(&with(&format!("{{name: v, emptyDir: {{}}}}, {{{volume}}}")), NONE);
        let name = volume.split([' ', ',']).nth(1).unwrap();
        let wanted = format!("spec.volumes[1]: `{name}` is samekey's, of {source}: ");
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains(&wanted), "{told:?}");
    }
    let same = with("{name: samekey-config, configMap: {name: mine}}");
    assert!(silently(&same, Place::Native, NONE).contains("    name: mine\n"));
    assert!(silently(&same, Place::Native, own()).contains("    name: orders-samekey\n"));
}

#[test]
fn a_flag_that_has_nothing_to_name_is_a_fault() {
    let text = silently(POD, Place::Native, NONE)
        .replace("configMap:\n      name: samekey", "secret:\n      secretName: a");
    let told = faults(&text, own());
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("spec.volumes: `samekey-config` is no configMap that --config-map"));
    assert!(faults(&text, Names { config_map: None, ..own() }).is_empty());
}

#[test]
fn what_should_be_a_list_and_is_none_is_a_fault() {
    for (more, wanted) in [
        ("  initContainers: {}\n", "spec.initContainers: must be a list"),
        ("  volumes: a\n", "spec.volumes: must be a list"),
    ] {
        let told = faults(&format!("{POD}{more}"), NONE);
        assert!(told[0].contains(wanted), "{told:?}");
    }
}

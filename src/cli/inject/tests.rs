//! What comes out for what goes in.

use proptest::prelude::*;
use samekey::config::{Environment, parse};

use super::*;

const DEPLOYMENT: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: orders}
spec:
  template:
    spec:
      containers:
      - {name: orders, image: orders:1}
";

const OPTED_OUT: &str = "metadata: {annotations: {samekey.internal/inject: 'false'}}";

fn sidecar_at(place: Place) -> Sidecar<'static> {
    Sidecar::new(place, Names::default()).unwrap()
}

fn injected(text: &str) -> (String, Told) {
    let mut told = Told::default();
    let written = into_stream(text, "f.yaml", &sidecar_at(Place::Native), &mut told);
    (written, told)
}

fn silently(text: &str) -> String {
    let (written, told) = injected(text);
    assert!(told.faults.is_empty() && told.warnings.is_empty(), "{told:?}");
    written
}

#[test]
fn what_has_no_pod_is_left_byte_for_byte() {
    for text in [
        "",
        "# only a comment\n",
        "---\n---\n",
        "apiVersion: v1\nkind: Service # a comment\nspec:   {ports: [ ]}\r\n---\n\n",
        "apiVersion: batch.volcano.sh/v1alpha1\nkind: Job\nspec: {tasks: []}\n",
        "apiVersion: v1\nkind: ConfigMap\ndata: {a: !!binary aGk=}\n...\n",
        "kind: Deployment\n",
        "just text",
        "apiVersion: v1\nkind: List\nitems: []\n",
    ] {
        assert_eq!(silently(text), text);
    }
}

#[test]
fn a_second_run_changes_nothing() {
    let mut stream = DEPLOYMENT.to_owned();
    for (group, kind) in [
        ("apps/v1", "StatefulSet"),
        ("apps/v1", "DaemonSet"),
        ("apps/v1", "ReplicaSet"),
        ("batch/v1", "Job"),
    ] {
        let other = DEPLOYMENT.replace("apps/v1", group).replace("Deployment", kind);
        stream.extend([format!("---\n# {kind}\n{other}")]);
    }
    stream.push_str("---\napiVersion: v1\nkind: Pod\nspec: {containers: [{name: a}]}\n");
    stream.push_str("---\napiVersion: batch/v1\nkind: CronJob\nspec: {jobTemplate: {spec: {template: {spec: {containers: [{name: a}]}}}}}\n");
    stream.push_str("---\napiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Pod, spec: {containers: [{name: a}]}}, {kind: X}]\n");
    let once = silently(&stream);
    assert_eq!(once.matches("restartPolicy: Always").count(), 8, "{once}");
    assert_eq!(once.matches("# ").count(), 4, "the comments above stay");
    assert_eq!(silently(&once), once);
}

#[test]
fn directives_stay_above_their_document() {
    for version in ["1.1", "1.2"] {
        let head = format!("# x\n%YAML {version}\n---\n");
        let written = silently(&format!("{head}{DEPLOYMENT}---\na: b\n"));
        assert_eq!(written, format!("{head}{}---\na: b\n", silently(DEPLOYMENT)));
        assert_eq!(silently(&written), written);
        let other = format!("{head}kind: Service\n");
        assert_eq!(silently(&other), other);
        let below = format!("{DEPLOYMENT}...\n{other}");
        assert_eq!(silently(&below), format!("{}...\n{other}", silently(DEPLOYMENT)));
    }
}

#[test]
fn the_sidecar_comes_first_and_the_rest_stays_in_its_order() {
    let text = DEPLOYMENT.replace(
        "      containers:",
        "      initContainers: [{name: own, image: 'y'}]\n      volumes: [{name: v, emptyDir: {}}]\n      containers:",
    );
    let written = silently(&text);
    let read = read::read(&written).unwrap().node.unwrap();
    let spec = read.at(&["spec", "template", "spec"]).unwrap();
    let names = |key: &str| -> Vec<_> {
        spec.get(key)
            .unwrap()
            .items()
            .iter()
            .map(|item| item.text_of("name").unwrap().to_owned())
            .collect()
    };
    assert_eq!(names("initContainers"), ["samekey", "own"]);
    assert_eq!(names("containers"), ["orders"]);
    assert_eq!(names("volumes")[0], "v");
    let container = &spec.get("containers").unwrap().items()[0];
    let mount = &container.get("volumeMounts").unwrap().items()[0];
    assert_eq!(mount.get("readOnly"), Some(&node::Node::Plain("true".to_owned())));
    assert!(written.contains("image: \"y\""), "{written}");
}

#[test]
fn the_key_is_in_no_volume_of_the_application() {
    let written = silently(DEPLOYMENT);
    let read = read::read(&written).unwrap().node.unwrap();
    let containers = read.at(&["spec", "template", "spec", "containers"]).unwrap().items();
    let mounts = containers[0].get("volumeMounts").unwrap().items();
    assert_eq!(mounts.len(), 1);
    assert_eq!(mounts[0].text_of("name"), Some("samekey-public"));
}

#[test]
fn a_job_that_would_never_end_is_told_of() {
    let job = |command: &str| {
        let spec = format!("{{containers: [{{name: a, command: [sh, -c, {command}]}}]}}");
        format!("apiVersion: batch/v1\nkind: Job\nspec: {{template: {{spec: {spec}}}}}\n")
    };
    let opted_out = format!("{{template: {{{OPTED_OUT}, ");
    let ending = "'a; curl -X POST 127.0.0.1:17090/quitquitquit'";
    for (text, place, warnings) in [
        (job("a"), Place::Classic, 1),
        (job(ending), Place::Classic, 0),
        (job("a"), Place::Native, 0),
        (DEPLOYMENT.to_owned(), Place::Classic, 0),
        (job("a").replace("{template: {", &opted_out), Place::Classic, 0),
    ] {
        let mut told = Told::default();
        into_stream(&text, "f", &sidecar_at(place), &mut told);
        assert_eq!((told.warnings.len(), told.faults.len()), (warnings, 0), "{text}: {told:?}");
    }
}

#[test]
fn who_does_not_want_it_does_not_get_it() {
    for (said, out) in
        [("\"false\"", true), ("false", true), ("\"true\"", false), ("enabled", false)]
    {
        let annotation = format!("metadata: {{annotations: {{samekey.internal/inject: {said}}}}}");
        let object = DEPLOYMENT.replace("metadata: {name: orders}", &annotation);
        let template =
            DEPLOYMENT.replace("  template:\n", &format!("  template:\n    {annotation}\n"));
        for text in [object, template] {
            assert_eq!(silently(&text) == text, out, "{text}");
        }
    }
}

#[test]
fn what_is_wrong_is_told_with_its_document_and_place() {
    for (text, wanted) in [
        ("a: b\n---\n# x\nc: [", "f.yaml: document 2: line 4: not YAML"),
        ("a: b\n---\nkind: x\nkind: x\n", "f.yaml: document 2: line 4: a key that is given twice"),
        (
            "apiVersion: apps/v1\nkind: Deployment",
            "f.yaml: document 1: spec.template.spec: must be given",
        ),
        (
            "apiVersion: v1\nkind: Pod\nspec: {containers: {}}",
            "f.yaml: document 1: spec.containers: must be a list",
        ),
        (
            "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Pod, spec: {containers: [x]}}]",
            "document 1: items[0].spec.containers[0]: must be a map",
        ),
        (
            "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: a, ports: [{containerPort: 17090}]}]}",
            "spec.containers[0].ports[0].containerPort: 17090 is samekey's",
        ),
        (
            "apiVersion: v1\nkind: Pod\nspec: {initContainers: [{name: i}, {name: b, restartPolicy: Always, ports: [{containerPort: 17090}]}], containers: [{name: a}]}",
            "spec.initContainers[1].ports[0].containerPort: 17090 is samekey's",
        ),
        (
            "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: a}, {name: b, volumeMounts: [{name: v, mountPath: /run/samekey/}]}]}",
            "f.yaml: document 1: spec.containers[1].volumeMounts[0].mountPath: /run/samekey/ is samekey's in the container `b`",
        ),
        (
            "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: b, volumeMounts: [{name: v, mountPath: /run/samekey/public}]}]}",
            "volumeMounts[0].mountPath: /run/samekey/public is samekey's",
        ),
        (
            "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: a, env: [{name: HTTPS_PROXY, value: x}]}]}",
            "spec.containers[0]: HTTPS_PROXY is set already, to another proxy",
        ),
        (
            "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: !own a}]}",
            "f.yaml: document 1: line 3: a tag cannot be written anew",
        ),
    ] {
        let (written, told) = injected(text);
        assert!(
            told.faults.iter().any(|fault| fault.contains(wanted)),
            "{text}: {told:?}\n{written}"
        );
    }
}

#[test]
fn another_mount_beside_ours_is_none_of_our_business() {
    for path in ["/run/samekeys", "/run", "/var/run/samekey", "/"] {
        let mounts = format!("volumeMounts: [{{name: v, mountPath: {path}}}]");
        silently(&DEPLOYMENT.replace("image: orders:1", &format!("image: orders:1, {mounts}")));
    }
}

#[test]
fn what_only_asks_for_a_word_gets_one() {
    let spec =
        "spec: {hostNetwork: true, terminationGracePeriodSeconds: 24, containers: [{name: a}]}";
    let (written, told) = injected(&format!("apiVersion: v1\nkind: Pod\n{spec}\n"));
    assert!(written.contains("restartPolicy: Always"));
    assert_eq!(told.warnings.len(), 2, "{told:?}");
    let longer = spec.replace("24", "25").replace("hostNetwork: true, ", "");
    silently(&format!("apiVersion: v1\nkind: Pod\n{longer}\n"));
}

#[test]
fn files_become_one_stream() {
    for (first, second, wanted) in [
        ("a: b", "c: d\n", "a: b\n---\nc: d\n"),
        ("a: b\n", "---\nc: d\n", "a: b\n---\nc: d\n"),
        ("", "c: d\n", "c: d\n"),
        ("a: b\n", "# x\n%YAML 1.1\n---\nc: d\n", "a: b\n...\n# x\n%YAML 1.1\n---\nc: d\n"),
    ] {
        let mut out = String::new();
        append(&mut out, first);
        append(&mut out, second);
        assert_eq!(out, wanted);
    }
}

/// Entries of `env`: ours by name, with what an application may say of them, and others.
fn entries() -> impl Strategy<Value = Vec<(String, String)>> {
    let names = [
        "NO_PROXY",
        "no_proxy",
        "JAVA_TOOL_OPTIONS",
        "SSL_CERT_FILE",
        "NODE_USE_ENV_PROXY",
        "OWN",
        "own",
    ];
    let values = [
        "",
        ",",
        "corp.example",
        "localhost, corp.example,",
        "$(POD_IP),10.0.0.0/8",
        "-Xmx1g",
        "-Dhttp.proxyHost=127.0.0.1",
        "-Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=17080 -Dx=1 ",
        "-Xmx1g -Djavax.net.ssl.trustStore=/own.jks",
        "yes",
        "0123",
        "a: b # c",
        "/own.pem",
        "two\nlines",
    ];
    let entry = (prop::sample::select(names.to_vec()), prop::sample::select(values.to_vec()));
    let entry = entry.prop_map(|(name, value)| (name.to_owned(), value.to_owned()));
    prop::collection::vec(entry, 0..6).prop_map(|mut entries| {
        entries.sort();
        entries.dedup_by(|one, other| one.0 == other.0);
        entries
    })
}

proptest! {
    #[test]
    fn whatever_a_pod_says_a_second_run_changes_nothing_and_nothing_of_its_own_goes(
        entries in entries(), quoted in any::<bool>(),
    ) {
        let is_plain = |value: &str| !quoted && ["yes", "0123", "corp.example", "-Xmx1g"].contains(&value);
        let written = |value: &str| {
            if is_plain(value) { node::Node::plain(value) } else { node::Node::text(value) }
        };
        let env = entries.iter().map(|(name, value)| {
            node::Node::map([("name", node::Node::text(name)), ("value", written(value))])
        });
        let container = node::Node::map([("name", node::Node::text("a")), ("env", node::Node::List(env.collect()))]);
        let spec = node::Node::map([("containers", node::Node::List(vec![container]))]);
        let pod = [("apiVersion", node::Node::text("v1")), ("kind", node::Node::text("Pod")), ("spec", spec)];
        let (once, told) = injected(&write::written(&node::Node::map(pod)));
        prop_assert!(told.faults.is_empty(), "{:?}", told);
        let (twice, _) = injected(&once);
        prop_assert_eq!(&twice, &once);
        let read = read::read(&once).unwrap().node.unwrap();
        let env = read.at(&["spec", "containers"]).unwrap().items()[0].get("env").unwrap().items().to_vec();
        for (n, (name, value)) in entries.iter().enumerate() {
            prop_assert_eq!(env[n].text_of("name"), Some(name.as_str()));
            if name.eq_ignore_ascii_case("own") {
                let before = written(value);
                prop_assert_eq!(env[n].get("value"), Some(&before).filter(|value| !value.is_null()));
            }
        }
    }
}

#[test]
fn the_grace_that_a_pod_is_held_against_is_the_shipped_one() {
    let shipped = include_str!("../../../config/kubernetes/base/samekey.yaml");
    let shipped = parse(shipped, Path::new("samekey.yaml"), &Environment::default()).unwrap();
    assert_eq!(shipped.shutdown_grace.as_secs(), pod::GRACE_SECONDS);
}

//! `config/prometheus`: its rules by promtool, each alert with a test and a runbook.

use std::collections::BTreeSet;

use serde_json::Value;
use tokio::process::Command;

use super::{all, config, metrics_in, promtool, rules, text, word, yaml};
use crate::support::program::ran;

/// The unit tests of promtool.
fn tests() -> Vec<std::path::PathBuf> {
    let folder = std::fs::read_dir(config("prometheus").join("tests")).expect("a folder");
    let mut files: Vec<_> = folder.flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// All rules of this sort, by name.
fn of_sort(sort: &str) -> Vec<(String, Value)> {
    let named = |rule: Value| Some((rule[sort].as_str()?.to_owned(), rule));
    rules().into_iter().filter_map(named).collect()
}

#[tokio::test]
async fn promtool_accepts_rules_and_config() {
    let rules = promtool(&["check", "rules", "rules.yml"]).await;
    assert_eq!(rules.code, Some(0), "{}{}", rules.out, rules.err);
    let config = promtool(&["check", "config", "prometheus.yml"]).await;
    assert_eq!(config.code, Some(0), "{}{}", config.out, config.err);
    assert!(config.out.contains("1 rule files found"), "{}", config.out);
}

#[tokio::test]
async fn the_unit_tests_of_the_rules_pass() {
    for file in tests() {
        let file = file.to_str().expect("a name");
        let tested = promtool(&["test", "rules", file]).await;
        assert_eq!(tested.code, Some(0), "{}{}", tested.out, tested.err);
    }
}

/// A rule that never fires, or always, is no alert.
#[test]
fn each_alert_is_seen_to_fire_and_not_to() {
    let mut fires = BTreeSet::new();
    let mut is_quiet = BTreeSet::new();
    for test in tests().iter().map(|file| yaml(file)) {
        for case in all(&test, "tests").iter().flat_map(|test| all(test, "alert_rule_test")) {
            let name = word(case, "alertname").to_owned();
            if all(case, "exp_alerts").is_empty() {
                is_quiet.insert(name)
            } else {
                fires.insert(name)
            };
        }
    }
    let alerts: BTreeSet<String> = of_sort("alert").into_iter().map(|(name, _)| name).collect();
    assert!(alerts.len() > 20);
    assert_eq!(fires, alerts);
    assert_eq!(is_quiet, alerts);
}

#[test]
fn each_alert_says_what_it_means_and_has_a_runbook() {
    let runbook = text(&config("prometheus").join("README.md"));
    for (name, rule) in of_sort("alert") {
        let severity = word(&rule["labels"], "severity");
        assert!(["warning", "critical"].contains(&severity), "{name}: {severity}");
        let notes = &rule["annotations"];
        for note in ["summary", "description"] {
            assert!(word(notes, note).len() > 20, "{name} has no {note}");
        }
        let wanted = format!("config/prometheus/README.md#{}", name.to_lowercase());
        assert_eq!(word(notes, "runbook_url"), wanted);
        let (_, section) = runbook.split_once(&format!("\n## {name}\n")).expect("a section");
        let section = section.split("\n## ").next().unwrap_or_default();
        assert!(section.trim().len() > 100, "the section of {name} says too little");
    }
    let sections = runbook.lines().filter_map(|line| line.strip_prefix("## ")).count();
    assert_eq!(sections, of_sort("alert").len(), "a section of an alert that is gone");
}

/// What the operator of a cluster applies is the same, to the letter.
#[tokio::test]
async fn the_rules_of_the_operator_are_the_same() {
    let root = env!("CARGO_MANIFEST_DIR");
    let made = ran(Command::new(format!("{root}/.ci/prometheusrule")).current_dir(root)).await;
    assert_eq!(made.code, Some(0), "{}", made.err);
    let file = config("prometheus").join("prometheusrule.yaml");
    assert_eq!(text(&file), made.out, "run .ci/prometheusrule >{}", file.display());
    let (theirs, ours) = (yaml(&file), yaml(&config("prometheus").join("rules.yml")));
    assert_eq!(theirs["spec"]["groups"], ours["groups"]);
    assert_eq!((word(&theirs, "kind"), all(&ours, "groups").is_empty()), ("PrometheusRule", false));
}

/// `level:metric:operations`, as prometheus.io has it ("Recording rules", section "Naming").
#[test]
fn recording_rules_go_by_the_labels_that_they_keep() {
    for (name, rule) in of_sort("record") {
        let parts: Vec<&str> = name.split(':').collect();
        let [level, metric, _] = parts[..] else { panic!("{name}: level:metric:operations") };
        assert!(metric.starts_with("samekey_"), "{name}");
        let expression = word(&rule, "expr");
        let used = metrics_in(expression);
        assert!(used.iter().all(|used| used.contains("samekey_")), "{name}: {used:?}");
        let kept = expression.split_once(" by (").and_then(|(_, rest)| rest.split_once(')'));
        if let Some((kept, _)) = kept {
            let kept: Vec<&str> =
                kept.split(", ").filter(|kept| !["namespace", "le"].contains(kept)).collect();
            assert_eq!(level, kept.join("_"), "{name}");
        }
    }
}

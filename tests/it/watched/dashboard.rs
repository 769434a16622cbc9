//! `config/grafana/samekey.json`: whole, without overlaps, every expression understood by promtool.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{all, config, promtool, text, word};

pub(super) fn dashboard() -> Value {
    serde_json::from_str(&text(&config("grafana").join("samekey.json"))).expect("JSON")
}

/// Every expression by its panel, the variables put in; `window` is that of a rate.
pub(super) fn expressions(window: &str) -> Vec<(String, String)> {
    let dashboard = dashboard();
    let of = |panel: &Value| {
        let title = word(panel, "title").to_owned();
        let targets = all(panel, "targets").to_vec();
        targets.into_iter().map(move |target| (title.clone(), word(&target, "expr").to_owned()))
    };
    let panels = all(&dashboard, "panels").iter().flat_map(of);
    let notes = all(&dashboard["annotations"], "list").iter();
    let notes = notes.map(|note| (word(note, "name").to_owned(), word(note, "expr").to_owned()));
    panels.chain(notes).map(|(title, expr)| (title, substituted(&expr, window))).collect()
}

fn substituted(expression: &str, window: &str) -> String {
    let mut text = expression.to_owned();
    for (variable, value) in [
        ("$__rate_interval", window),
        ("$__interval", window),
        ("$job", ".*"),
        ("$instance", ".*"),
        ("$route", ".*"),
    ] {
        text = text.replace(variable, value);
    }
    assert!(!text.contains('$'), "a variable that nobody sets: {text}");
    text
}

#[tokio::test]
async fn promtool_understands_every_expression() {
    let expressions = expressions("5m");
    assert!(expressions.len() > 40);
    let rules: Vec<Value> = expressions
        .iter()
        .enumerate()
        .map(|(nth, (_, expr))| serde_json::json!({"record": format!("panel:{nth}"), "expr": expr}))
        .collect();
    let file = tempfile::NamedTempFile::new().expect("a file");
    let groups = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]});
    std::fs::write(file.path(), groups.to_string()).expect("written"); // JSON is YAML
    let checked = promtool(&["check", "rules", file.path().to_str().expect("a path")]).await;
    assert_eq!(checked.code, Some(0), "{}{}", checked.out, checked.err);
    assert!(checked.out.contains(&format!("{} rules found", expressions.len())), "{}", checked.out);
}

#[test]
fn panels_are_told_apart_and_none_covers_another() {
    let dashboard = dashboard();
    let mut ids = BTreeSet::new();
    let mut taken: BTreeMap<(u64, u64), String> = BTreeMap::new();
    for panel in all(&dashboard, "panels") {
        let title = word(panel, "title");
        let id = panel["id"].as_u64().expect("an id");
        assert!(ids.insert(id), "{title}: a second {id}");
        let [x, y, w, h] =
            ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a place"));
        assert!(w > 0 && h > 0 && x + w <= 24, "{title} does not fit");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            if let Some(other) = taken.insert(cell, title.to_owned()) {
                panic!("{title} covers {other}");
            }
        }
    }
    assert!(ids.len() > 40);
}

#[test]
fn each_panel_says_what_it_shows_and_asks_the_chosen_source() {
    let dashboard = dashboard();
    assert!(dashboard["schemaVersion"].as_u64().is_some_and(|version| version >= 39));
    assert_eq!((word(&dashboard, "uid"), &dashboard["id"]), ("samekey", &Value::Null));
    let variables = all(&dashboard["templating"], "list");
    let names: Vec<&str> = variables.iter().map(|variable| word(variable, "name")).collect();
    assert_eq!(names, ["datasource", "job", "instance", "route"]);
    let sources = variables.iter().skip(1).chain(all(&dashboard["annotations"], "list"));
    for asked in sources {
        assert_eq!(word(&asked["datasource"], "uid"), "${datasource}");
    }
    let mut rows = Vec::new();
    for panel in all(&dashboard, "panels") {
        let title = word(panel, "title");
        if word(panel, "type") == "row" {
            rows.push(title.to_owned());
            continue;
        }
        assert!(word(panel, "description").len() > 10, "{title} has no description");
        assert_ne!(word(&panel["fieldConfig"]["defaults"], "unit"), "", "{title} has no unit");
        assert!(["timeseries", "stat"].contains(&word(panel, "type")), "{title}");
        let mut names = BTreeSet::new();
        for target in all(panel, "targets") {
            assert!(names.insert(word(target, "refId").to_owned()), "{title}");
            assert_eq!(word(&target["datasource"], "uid"), "${datasource}", "{title}");
        }
        assert!(!names.is_empty(), "{title} asks nothing");
    }
    assert_eq!(rows.len(), 9, "{rows:?}");
}

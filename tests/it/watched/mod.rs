//! What watches samekey: its metrics as they are scraped, and `config/prometheus` and
//! `config/grafana`, each tried with Prometheus' own programs.

mod dashboard;
mod live;
mod rules;
mod scrape;
mod server;
mod unknowns;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::process::Command;

use crate::support::program::{Ran, ran};

/// The folder of this kind of files.
fn config(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(kind)
}

fn text(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn yaml(file: &Path) -> Value {
    let read = serde_saphyr::from_str(&text(file));
    read.unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Everything under this name, in an array.
fn all<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn word<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// The rules of every group.
fn rules() -> Vec<Value> {
    let file = yaml(&config("prometheus").join("rules.yml"));
    all(&file, "groups").iter().flat_map(|group| all(group, "rules").to_vec()).collect()
}

/// A program of Debian's package `prometheus`.
fn program(name: &str) -> Command {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(name).is_file()));
    assert!(found, "{name} is missing: `make install` installs Debian's package `prometheus`");
    let mut command = Command::new(name);
    command.kill_on_drop(true);
    command
}

/// What the reference parser of `OpenMetrics` says of metrics: how many families there are.
async fn parsed(metrics: &str) -> Result<usize, String> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/venv/bin/python");
    assert!(python.exists(), "{} is missing: run .ci/install", python.display());
    let script = "import sys\nfrom prometheus_client.openmetrics import parser\n\
                  print(len(list(parser.text_string_to_metric_families(sys.stdin.read()))))";
    let mut python = Command::new(python);
    python.args(["-c", script]).kill_on_drop(true);
    let read = fed(&mut python, metrics).await;
    read.out.trim().parse().map_err(|_none| read.err)
}

/// Runs promtool in `config/prometheus`.
async fn promtool(arguments: &[&str]) -> Ran {
    ran(program("promtool").args(arguments).current_dir(config("prometheus"))).await
}

/// What promtool says of metrics in the old text; nothing where they are well.
async fn lint(metrics: &str) -> String {
    let said = fed(program("promtool").args(["check", "metrics"]), metrics).await;
    assert_eq!(said.err.is_empty(), said.code == Some(0), "{}", said.err);
    said.err
}

/// Runs a command to its end, with this on its standard input.
async fn fed(command: &mut Command, input: &str) -> Ran {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), input).expect("written");
    ran(command.stdin(file.reopen().expect("it is there"))).await
}

/// The names of metrics in an expression, those of recording rules included.
fn metrics_in(expression: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    // What stands in quotes is the value of a label.
    let bare: String = expression.split('"').step_by(2).collect::<Vec<_>>().join(" ");
    let names = bare.split(|c| !is_name(c));
    let ours = |name: &&str| {
        name.starts_with("samekey_") || name.starts_with("process_") || name.contains(':')
    };
    names.filter(ours).map(str::to_owned).collect()
}

/// The names of all series of a text of metrics.
fn series_in(metrics: &str) -> BTreeSet<String> {
    let samples = metrics.lines().filter(|line| !line.starts_with('#'));
    samples.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
}

#[test]
fn names_are_told_from_labels_and_functions() {
    let expression = r#"sum by (route) (rate(samekey_a_total{job="samekey_b", process_x="y"}[5m]))
        / (job_route:samekey_c:rate5m > 0) and process_d"#;
    let found: Vec<String> = metrics_in(expression).into_iter().collect();
    assert_eq!(found, ["job_route:samekey_c:rate5m", "process_d", "process_x", "samekey_a_total"]);
}

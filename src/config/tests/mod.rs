//! Files, and what becomes of them.

mod credit;
mod files;
mod inbox;
mod kinds;
mod listeners;
mod loading;
mod lookup;
mod meaning;
mod routes;
mod shipped;
mod state;
mod traces;
mod upstream;

use std::path::Path;

use crate::config::{Config, Environment, parse};

/// A config with the operator's own routes alone.
fn loaded(text: &str) -> Config {
    let mut config = with_presets(text);
    config.routes.retain(|route| route.provenance.built_in().is_none());
    config
}

fn with_presets(text: &str) -> Config {
    parse(text, Path::new("a.yaml"), &Environment::default())
        .unwrap_or_else(|faults| panic!("refused:\n{faults}\n{text}"))
}

/// The faults of a file, one a line, without the file's name.
fn faults(text: &str, env: &Environment) -> Vec<String> {
    match parse(text, Path::new("a.yaml"), env) {
        Ok(_) => Vec::new(),
        Err(faults) => {
            let lines = faults.to_string();
            lines.lines().map(|line| line.trim_start_matches("a.yaml:").to_owned()).collect()
        }
    }
}

/// Each file has exactly these faults.
fn check(files: &[(&str, &[&str])]) {
    for (text, wanted) in files {
        assert_eq!(faults(text, &Environment::default()), *wanted, "in\n{text}");
    }
}

/// A route with this block in it, on lines of its own.
fn route(block: &str) -> String {
    format!("routes:\n  - name: a\n    match: {{hosts: [a.test]}}\n    {block}\n")
}

/// Each block of a route, on line 4, has exactly these faults.
fn check_route(blocks: &[(&str, &[&str])]) {
    for (block, wanted) in blocks {
        let wanted: Vec<_> = wanted.iter().map(|fault| format!("4: routes[0].{fault}")).collect();
        assert_eq!(faults(&route(block), &Environment::default()), wanted, "in {block}");
    }
}

//! The schema and `config/samekey.yaml` say what the code does.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::loaded;
use crate::config::preset::all;
use crate::config::reading::{Reading, Written as _};
use crate::config::tree::{self, Node};
use crate::config::{REQUIRED, file, route, schema};

const SHIPPED: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/config/samekey.yaml"));

/// A file as written, and its routes laid over nothing, as JSON.
fn written(text: &str) -> (Value, Vec<Value>) {
    let root = tree::read(text).expect("YAML");
    let mut reading = Reading::of(Path::new("a.yaml"), &root);
    let mut file = file::File::default();
    file.read(&root, "", &mut reading);
    let routes = file.route_blocks(&mut reading);
    let told = |block: &route::RouteBlock| serde_json::to_value(block).expect("JSON");
    let own = routes.iter().filter(|(at, _)| at.starts_with("routes"));
    let routes = own.map(|(_, block)| told(block)).collect();
    reading.end().expect("no fault");
    (serde_json::to_value(&file).expect("JSON"), routes)
}

#[test]
fn the_shipped_file_holds_every_key_at_its_default() {
    let (shipped, routes) = written(SHIPPED);
    assert_eq!(shipped, written("").0);
    let mut wanted = serde_json::to_value(route::RouteBlock::default()).expect("JSON");
    wanted["name"] = json!("example-create");
    wanted["match"] = json!({
        "hosts": ["api.example.com", "*.example.net"], "methods": ["POST"], "paths": ["/v1/jobs", "/v2/**"],
    });
    assert_eq!(routes, [wanted]);
    assert_eq!(loaded(SHIPPED).listeners, loaded("").listeners);
}

/// The paths of all keys of a tree; items of lists have one path.
fn keys_of(node: &Node, at: &str, keys: &mut BTreeSet<String>) {
    match &node.value {
        tree::Value::Map(entries) => {
            for (key, node) in entries {
                let at = format!("{at}.{key}");
                keys_of(node, &at, keys);
                keys.insert(at);
            }
        }
        tree::Value::List(items) => items.iter().for_each(|item| keys_of(item, at, keys)),
        _ => {}
    }
}

/// The same of a schema, where a block is a reference; what is null by default is not entered.
fn schema_keys(root: &Value, schema: &Value, at: &str, keys: &mut BTreeSet<String>) {
    let pointer = schema["$ref"].as_str().map(|name| name.trim_start_matches('#').to_owned());
    let block = pointer.and_then(|pointer| root.pointer(&pointer)).unwrap_or(schema);
    if !block["items"].is_null() {
        schema_keys(root, &block["items"], at, keys);
    }
    let Some(properties) = block["properties"].as_object() else { return };
    assert_eq!(block["additionalProperties"], json!(false), "{at}");
    for (key, schema) in properties {
        let at = format!("{at}.{key}");
        assert!(schema["description"].is_string(), "{at} has no description");
        schema_keys(root, schema, &at, keys);
        keys.insert(at);
    }
}

#[test]
fn the_schema_and_the_shipped_file_have_the_same_keys() {
    let schema = schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let mut wanted = BTreeSet::new();
    schema_keys(&schema, &schema, "", &mut wanted);
    // Lists that are empty by default have no keys to hold, and `defaults` repeats the route.
    wanted.retain(|key| !key.contains("_when.") && !key.starts_with(".defaults."));
    let mut found = BTreeSet::new();
    keys_of(&tree::read(SHIPPED).expect("YAML"), "", &mut found);
    assert_eq!(found, wanted);
}

#[test]
fn the_schema_says_what_is_taken() {
    let schema = schema();
    let block = |name: &str| &schema["$defs"][name];
    let [from_preset, whole] = [0, 1].map(|n| &block("RouteBlock")["anyOf"][n]["required"]);
    assert_eq!((from_preset, whole), (&json!(["preset"]), &json!(["name", "match"])));
    let listed = &schema["properties"]["providers"]["anyOf"][1]["items"]["enum"];
    assert_eq!(listed.as_array().map(Vec::len), Some(all().len()));
    let retry = &block("RetryBlock")["properties"];
    assert_eq!(retry["deadline"]["pattern"], "^[0-9]+(ms|s|m|h|d)$");
    assert_eq!(retry["deadline"]["default"], "5m");
    assert_eq!(
        block("BackoffBlock")["properties"]["jitter"]["enum"],
        json!(["full", "equal", "none"])
    );
    assert_eq!(block("LimitsBlock")["properties"]["max_queue"]["maximum"], 1_000_000);
    for name in REQUIRED.map(|(name, _)| name) {
        assert!(block(name)["required"].is_array(), "{name} is not in the schema");
    }
}

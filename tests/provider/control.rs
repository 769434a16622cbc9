//! The control port: the provider's scripts and books, for programs outside.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Engine;
use super::answer::{Answer, Content};
use super::apis::Name;
use super::request::Head;

/// What `POST /_sim/scenarios` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    name: String,
    #[serde(default)]
    steps: String,
    honours_keys: Option<bool>,
}

/// Answers one request to the control port.
pub(crate) async fn answer(engine: &Engine, head: &Head, body: &[u8]) -> Answer {
    let (path, query) = head.target.split_once('?').unwrap_or((&head.target, ""));
    let asked = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(n, _)| *n == name).map(|(_, value)| value.to_owned())
    };
    let done = || Answer::json(200, &json!({"done": true}));
    match (head.method.as_str(), path) {
        ("POST", "/_sim/scenarios") => {
            register(engine, body).map_or_else(|why| refused(&why), |()| done())
        }
        ("GET", "/_sim/report") => {
            let one = asked("scenario").map(|name| engine.sim.report_on(&name));
            Answer::json(200, &one.unwrap_or_else(|| engine.sim.report()))
        }
        ("GET", "/_sim/await") => {
            let scenario = asked("scenario").unwrap_or_else(|| "default".to_owned());
            let count = asked("requests").and_then(|text| text.parse().ok()).unwrap_or(1);
            engine.sim.arrived(&scenario, count).await;
            Answer::json(200, &engine.sim.report_on(&scenario))
        }
        ("POST", "/_sim/release") => {
            engine.sim.release();
            done()
        }
        ("POST", "/_sim/refuse") => {
            let count = asked("connections").and_then(|text| text.parse().ok()).unwrap_or(1);
            engine.sim.refuse_connections(count);
            done()
        }
        ("POST", "/_sim/terms") => {
            let api =
                asked("api").and_then(|name| Name::ALL.into_iter().find(|n| n.as_str() == name));
            let changes = serde_json::from_slice(body).unwrap_or_default();
            match api.filter(|api| api.terms().with(&changes).is_some()) {
                Some(api) => {
                    engine.sim.sites.terms(api, &changes);
                    done()
                }
                None => refused("want ?api=NAME and some of its terms"),
            }
        }
        ("POST", "/_sim/advance") => {
            let ms = asked("ms").and_then(|text| text.parse().ok()).unwrap_or(0);
            engine.sim.sites.advance(Duration::from_millis(ms));
            done()
        }
        ("POST", "/_sim/forget") => {
            engine.sim.forget();
            done()
        }
        ("GET", "/_sim/ports") => Answer::json(200, &engine.status()),
        ("GET", "/_sim/ca.pem") => Answer {
            content: Content::Bytes(Bytes::from(engine.ports.ca_pem.clone())),
            ..Answer::json(200, &Value::Null)
        },
        _ => Answer::json(404, &json!({"error": "no such control"})),
    }
}

fn register(engine: &Engine, body: &[u8]) -> Result<(), String> {
    let wanted: Wanted = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    engine.sim.script(&wanted.name, &wanted.steps).map_err(|fault| fault.to_string())?;
    if let Some(honours_keys) = wanted.honours_keys {
        engine.sim.honour_keys(&wanted.name, honours_keys);
    }
    Ok(())
}

fn refused(why: &str) -> Answer {
    Answer::json(400, &json!({"error": why}))
}

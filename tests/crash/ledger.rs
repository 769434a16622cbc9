//! What the sidecar's admin side says about exchanges, asked over HTTP.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::Answer;
use crate::support::client::{over_http1, request};

/// Asks an address itself; the error is that of a connection that broke.
pub(crate) async fn ask(
    address: SocketAddr,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<Answer, String> {
    let uri = format!("http://{address}{path}").parse().expect("a URL");
    let body = body.map(Value::to_string).unwrap_or_default();
    let mut request = request(method, &uri, &[("content-type", "application/json")], &body);
    *request.uri_mut() = path.parse().expect("a path");
    let asked = async {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        over_http1(stream, request).await
    };
    let answer = tokio::time::timeout(PATIENCE, asked).await;
    let answer = answer.unwrap_or_else(|_late| Err("no answer in time".to_owned()))?;
    if answer.whole { Ok(answer) } else { Err("half an answer".to_owned()) }
}

/// The rows of the ledger in one state, over all pages.
pub(crate) async fn in_state(admin: SocketAddr, state: &str) -> Result<Vec<Value>, String> {
    let mut rows = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/api/exchanges?state={state}&limit=50{cursor}");
        let answer = ask(admin, Method::GET, &path, None).await?;
        if answer.status != 200 {
            return Err(format!("{path}: {} {}", answer.status, answer.text()));
        }
        let page = answer.json();
        let found = page["exchanges"].as_array().ok_or("a page without exchanges")?;
        rows.extend(found.iter().cloned());
        match &page["next"] {
            Value::Null => return Ok(rows),
            Value::String(next) => cursor = format!("&cursor={next}"),
            other => cursor = format!("&cursor={other}"),
        }
    }
}

/// The names of the exchanges whose outcome nobody knows.
pub(crate) async fn unknowns(admin: SocketAddr) -> Result<BTreeSet<String>, String> {
    let rows = in_state(admin, "unknown").await?;
    Ok(rows.iter().filter_map(|row| row["id"].as_str().map(str::to_owned)).collect())
}

/// The state of one exchange.
pub(crate) async fn state(admin: SocketAddr, exchange: &str) -> Result<String, String> {
    let path = format!("/api/exchanges/{exchange}");
    let answer = ask(admin, Method::GET, &path, None).await?;
    if answer.status != 200 {
        return Err(format!("{path}: {} {}", answer.status, answer.text()));
    }
    Ok(answer.json()["state"].as_str().unwrap_or_default().to_owned())
}

/// What an operator found out about an unknown outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Truth {
    Landed,
    Absent,
}

impl Truth {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Landed => "landed",
            Self::Absent => "absent",
        }
    }
}

/// Settles an unknown outcome.
pub(crate) async fn resolve(
    admin: SocketAddr,
    exchange: &str,
    truth: Truth,
) -> Result<Answer, String> {
    let path = format!("/api/exchanges/{exchange}/resolve");
    ask(admin, Method::POST, &path, Some(&json!({"outcome": truth.as_str()}))).await
}

const PATIENCE: Duration = Duration::from_secs(20);

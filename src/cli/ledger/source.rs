//! Where exchanges are read: in the journal's file, or from the sidecar that runs.

use std::path::{Path, PathBuf};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rusqlite::Connection;
use samekey::admin::{Exchange, Page};
use samekey::app::ledger::file;
use samekey::config::{Config, Journal};
use samekey::exchange::id::ExchangeId;
use samekey::journal::ledger::{self, Filter};
use serde::de::DeserializeOwned;

use crate::cli::Stop;
use crate::cli::ask::{Answer, admin_sides, ask};

/// Where exchanges are read.
#[derive(Debug)]
pub(super) enum Source {
    /// The journal's file.
    File(PathBuf),
    /// The sidecar that runs.
    Sidecar(Sidecar),
}

/// The admin side of the sidecar that runs, if one does.
#[derive(Debug)]
pub(super) struct Sidecar {
    /// Where it may be: as it said itself, then as the config says.
    addresses: Vec<String>,
    /// The journal that is not there, or not to be written.
    file: PathBuf,
}

impl Source {
    pub(super) fn of(config: &Config) -> Self {
        let file = file(&config.state.dir);
        // A journal in memory may have one of other days beside it.
        match config.state.journal {
            Journal::Disk if is_there(&file) => Self::File(file),
            Journal::Disk | Journal::Memory => Self::Sidecar(Sidecar::of(config)),
        }
    }

    pub(super) fn list(&self, filter: &Filter) -> Result<Page, Stop> {
        match self {
            Self::File(file) => {
                let one_more = Filter { limit: filter.limit + 1, ..filter.clone() };
                let entries = read(file, |connection| ledger::list(connection, &one_more))?;
                Ok(Page::of(&entries, filter.limit))
            }
            Self::Sidecar(sidecar) => {
                let path = format!("/api/exchanges?{}", query(filter));
                let answer = sidecar.ask(("GET", &path), "")?;
                expect(&answer, 200)?;
                parsed(&answer)
            }
        }
    }

    pub(super) fn show(&self, id: ExchangeId) -> Result<Exchange, Stop> {
        match self {
            Self::File(file) => {
                let (seq, instance) = id.parts();
                let entry = read(file, |connection| ledger::show(connection, seq, instance))?;
                entry.as_ref().map(Exchange::from).ok_or_else(|| missing(id, file))
            }
            Self::Sidecar(sidecar) => {
                let answer = sidecar.ask(("GET", &format!("/api/exchanges/{id}")), "")?;
                sidecar.exchange(&answer, id)
            }
        }
    }
}

impl Sidecar {
    pub(super) fn of(config: &Config) -> Self {
        let dir = &config.state.dir;
        Self { addresses: admin_sides(dir, Some(&config.admin.address)), file: file(dir) }
    }

    /// Asks it; the error says what was tried.
    pub(super) fn ask(&self, what: (&str, &str), body: &str) -> Result<Answer, Stop> {
        let mut tried = Vec::new();
        for address in &self.addresses {
            match ask(address, what, body, ANSWER_MAX) {
                Ok(answer) => return Ok(answer),
                Err(error) => tried.push(format!("{address}: {error}")),
            }
        }
        if tried.is_empty() {
            tried.push("no address of one is known".to_owned());
        }
        let file = self.file.display();
        let there = if is_there(&self.file) { "cannot be used" } else { "is not there" };
        let tried = tried.join("; ");
        Err(Stop::Failed(format!("samekey: {file} {there}, and no sidecar answers: {tried}")))
    }

    /// The exchange that it answered with.
    pub(super) fn exchange(&self, answer: &Answer, id: ExchangeId) -> Result<Exchange, Stop> {
        if answer.status() == 404 {
            return Err(missing(id, &self.file));
        }
        expect(answer, 200)?;
        parsed(answer)
    }
}

/// Whether a file is there, as far as this user can see; where not, reading it says why.
pub(super) fn is_there(file: &Path) -> bool {
    file.try_exists().unwrap_or(true)
}

/// There is no exchange of this name in the directory of this journal.
pub(super) fn missing(id: ExchangeId, file: &Path) -> Stop {
    let dir = file.parent().and_then(Path::parent).unwrap_or(file);
    Stop::Failed(format!("samekey: no exchange {id} in {}", dir.display()))
}

fn read<T>(file: &Path, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Stop> {
    let found = ledger::open(file).and_then(|connection| read(&connection));
    found.map_err(|error| Stop::Failed(format!("samekey: {}: {error}", file.display())))
}

fn expect(answer: &Answer, status: u16) -> Result<(), Stop> {
    if answer.status() == status {
        return Ok(());
    }
    let problem: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let detail = problem.get("detail").and_then(serde_json::Value::as_str);
    Err(Stop::Failed(format!("samekey: {}", detail.unwrap_or(&answer.line))))
}

fn parsed<T: DeserializeOwned>(answer: &Answer) -> Result<T, Stop> {
    let parsed = serde_json::from_str(&answer.body);
    parsed.map_err(|error| Stop::Failed(format!("samekey: the sidecar's answer: {error}")))
}

fn query(filter: &Filter) -> String {
    let Filter { route, key, state, captured, before, limit } = filter;
    let before = before.map(|seq| ExchangeId::from_parts(seq, 0).to_string());
    let state = state.map(|state| state.as_str().to_owned());
    let captured = captured.as_ref().map(|(name, value)| format!("{name}:{value}"));
    let named = [
        ("route", route),
        ("key", key),
        ("state", &state),
        ("captured", &captured),
        ("cursor", &before),
    ];
    let mut query = format!("limit={limit}");
    for (name, value) in named {
        if let Some(value) = value {
            query.extend(["&", name, "="]);
            query.extend(utf8_percent_encode(value, NON_ALPHANUMERIC));
        }
    }
    query
}

/// More than a thousand exchanges with long URLs take.
const ANSWER_MAX: u64 = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_asked_for_as_a_query() {
        let filter = Filter {
            route: Some("r s".to_owned()),
            key: Some("a+b/c&d".to_owned()),
            state: Some(samekey::journal::State::InFlight),
            captured: Some(("job".to_owned(), "j:1".to_owned())),
            before: Some(1000),
            limit: 3,
        };
        let wanted = "limit=3&route=r%20s&key=a%2Bb%2Fc%26d&state=in%5Fflight\
                      &captured=job%3Aj%3A1&cursor=00000000003e800000000";
        assert_eq!(query(&filter), wanted);
        assert_eq!(query(&Filter { limit: 50, ..Filter::default() }), "limit=50");
    }
}

//! An exchange as it is shown, to programs and to people alike.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::exchange::id::ExchangeId;
use crate::exchange::instant::rfc3339;
use crate::journal::State;
use crate::journal::ledger::{self, Entry};

/// An exchange, as the API and the command line show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// Its name.
    pub id: String,
    /// The name of the route.
    pub route: String,
    /// The method.
    pub method: String,
    /// The URL without its query's values.
    pub url: String,
    /// The key as it went upstream.
    pub key: Option<String>,
    /// The word of what has become of it.
    pub state: String,
    /// Its attempts, in order.
    pub attempts: Vec<Attempt>,
    /// The last status.
    pub status: Option<u16>,
    /// Ids that were taken from the answer.
    pub captured: BTreeMap<String, String>,
    /// When it began, by RFC 3339.
    pub started_at: String,
    /// When it ended.
    pub ended_at: Option<String>,
}

/// One sending of an exchange.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The word of its outcome.
    pub outcome: String,
    /// Its status, where one came.
    pub status: Option<u16>,
    /// How long was waited before it, in milliseconds.
    pub wait_ms: u64,
    /// When it began, by RFC 3339.
    pub at: String,
}

/// Some exchanges, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The exchanges.
    pub exchanges: Vec<Exchange>,
    /// Where the next page begins; none where there is no more.
    pub next: Option<String>,
}

impl Page {
    /// The first `limit` of entries of which one more was asked for.
    pub fn of(entries: &[Entry], limit: u32) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let shown: Vec<Exchange> = entries.iter().take(limit).map(Exchange::from).collect();
        // A name, and not a count: a page begins where the one before ended, whatever
        // has come in between.
        let last = shown.last().filter(|_| entries.len() > limit).map(|last| last.id.clone());
        Self { exchanges: shown, next: last }
    }
}

impl From<&Entry> for Exchange {
    fn from(entry: &Entry) -> Self {
        Self {
            id: name(entry).to_string(),
            route: entry.route.clone(),
            method: entry.method.clone(),
            url: entry.url.clone(),
            key: entry.key.clone(),
            state: entry.state.as_str().to_owned(),
            attempts: entry.attempts.iter().map(Attempt::from).collect(),
            status: entry.status,
            captured: entry.captured.iter().cloned().collect(),
            started_at: rfc3339(entry.began),
            ended_at: entry.ended.map(rfc3339),
        }
    }
}

impl From<&ledger::Attempt> for Attempt {
    fn from(attempt: &ledger::Attempt) -> Self {
        let ledger::Attempt { outcome, status, wait_ms, at } = attempt;
        Self { outcome: outcome.clone(), status: *status, wait_ms: *wait_ms, at: rfc3339(*at) }
    }
}

/// The name of an entry's exchange.
pub(super) fn name(entry: &Entry) -> ExchangeId {
    ExchangeId::from_parts(entry.seq, entry.instance)
}

/// Why an exchange is not resolved that is in `state`.
pub fn stands(id: ExchangeId, state: State) -> String {
    let state = state.as_str();
    format!("exchange {id} is {state}: only one that is unknown can be resolved")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An entry that began `seq` microseconds after 1970.
    pub(crate) fn entry(seq: u64, key: Option<&str>, state: State) -> Entry {
        Entry {
            seq,
            instance: 7,
            route: "jobs".to_owned(),
            method: "POST".to_owned(),
            url: "https://a.test/v1/jobs?id=".to_owned(),
            key: key.map(str::to_owned),
            state,
            attempts: vec![
                ledger::Attempt {
                    outcome: "throttled".to_owned(),
                    status: Some(429),
                    wait_ms: 0,
                    at: 1_500,
                },
                ledger::Attempt {
                    outcome: "ambiguous".to_owned(),
                    status: None,
                    wait_ms: 1000,
                    at: 1_001_500,
                },
            ],
            status: None,
            captured: vec![("job".to_owned(), "j-1".to_owned())],
            began: i64::try_from(seq).expect("small"),
            ended: None,
        }
    }

    #[test]
    fn an_exchange_is_shown_with_these_members_and_no_others() {
        let shown = Exchange::from(&entry(1_000, None, State::InFlight));
        let text = serde_json::to_string(&shown).expect("JSON");
        let wanted = concat!(
            r#"{"id":"00000000003e800000007","route":"jobs","method":"POST","#,
            r#""url":"https://a.test/v1/jobs?id=","key":null,"state":"in_flight","attempts":["#,
            r#"{"outcome":"throttled","status":429,"wait_ms":0,"at":"1970-01-01T00:00:00.001Z"},"#,
            r#"{"outcome":"ambiguous","status":null,"wait_ms":1000,"at":"1970-01-01T00:00:01.001Z"}],"#,
            r#""status":null,"captured":{"job":"j-1"},"started_at":"1970-01-01T00:00:00.001Z","#,
            r#""ended_at":null}"#,
        );
        assert_eq!(text, wanted);
        assert_eq!(serde_json::from_str::<Exchange>(&text).expect("it is read back"), shown);
    }

    #[test]
    fn a_page_names_the_next_one_where_there_is_more() {
        let entries: Vec<Entry> = [3, 2, 1].map(|seq| entry(seq, None, State::Completed)).to_vec();
        let next = |limit| Page::of(&entries, limit).next;
        assert_eq!(next(2), Some(name(&entries[1]).to_string()));
        assert_eq!((next(3), next(4)), (None, None));
        assert_eq!(Page::of(&entries, 2).exchanges.len(), 2);
        assert_eq!(Page::of(&[], 2).next, None);
    }
}

//! Exchanges as text: rows for a list, a line a field for one.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use samekey::admin::Exchange;
use serde::Serialize;

use crate::cli::Stop;

/// A row an exchange, under a head, in columns.
pub(super) fn rows(exchanges: &[Exchange]) -> String {
    let head = ["TIME", "ID", "STATE", "ROUTE", "METHOD", "URL", "ATTEMPTS", "STATUS"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(exchanges.iter().map(row));
    let mut widths = [0; COLUMNS];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn row(exchange: &Exchange) -> [String; COLUMNS] {
    let attempts: Vec<&str> =
        exchange.attempts.iter().map(|attempt| attempt.outcome.as_str()).collect();
    [
        plain(&exchange.started_at),
        plain(&exchange.id),
        plain(&exchange.state),
        plain(&exchange.route),
        plain(&exchange.method),
        plain(&exchange.url),
        plain(&attempts.join(",")),
        exchange.status.map_or_else(|| NONE.to_owned(), |status| status.to_string()),
    ]
}

/// A line a field, and a line an attempt; how to settle it, where it is unknown.
pub(super) fn told(exchange: &Exchange) -> String {
    let Exchange { id, route, method, url, key, state, attempts, status, .. } = exchange;
    let status = status.map(|status| status.to_string());
    let fields = [
        ("id", Some(id)),
        ("route", Some(route)),
        ("method", Some(method)),
        ("url", Some(url)),
        ("key", key.as_ref()),
        ("state", Some(state)),
        ("status", status.as_ref()),
        ("started_at", Some(&exchange.started_at)),
        ("ended_at", exchange.ended_at.as_ref()),
    ];
    let mut text = String::new();
    for (name, value) in fields {
        line(&mut text, name, &value.map_or_else(|| NONE.to_owned(), |value| plain(value)));
    }
    for (nth, attempt) in attempts.iter().enumerate() {
        let status = attempt.status.map_or_else(|| NONE.to_owned(), |status| status.to_string());
        let (outcome, at) = (plain(&attempt.outcome), plain(&attempt.at));
        let told = format!("{outcome}  status {status}  after {} ms  at {at}", attempt.wait_ms);
        line(&mut text, &format!("attempt {}", nth + 1), &told);
    }
    for (name, value) in &exchange.captured {
        line(&mut text, &format!("captured {}", plain(name)), &plain(value));
    }
    if state == "unknown" {
        text.push_str("\nNobody knows whether it had its effect. Ask the provider, then say so:\n");
        for (word, means) in [("landed", "it had"), ("absent", "it had not: its key is free again")]
        {
            let command = format!("  samekey ledger resolve {id} {word}   # {means}\n");
            text.push_str(&command);
        }
    }
    text
}

fn line(text: &mut String, name: &str, value: &str) {
    // Writing to a string does not fail.
    writeln!(text, "{:12} {value}", format!("{name}:")).unwrap_or_default();
}

/// What the API would have answered, and a line's end.
pub(super) fn json(what: &impl Serialize) -> Result<String, Stop> {
    let text = serde_json::to_string(what);
    text.map(|text| text + "\n").map_err(|error| Stop::Failed(format!("samekey: {error}")))
}

/// A word for whoever reads the terminal.
pub(super) fn hint(text: &str) -> Result<(), Stop> {
    let told = writeln!(io::stderr(), "{text}");
    told.map_err(|error| Stop::Failed(format!("standard error: {error}")))
}

/// A client or a provider wrote it: nothing in it moves a terminal's cursor, or passes
/// for another cell or line.
fn plain(text: &str) -> String {
    let escaped = |sign: char| -> String {
        if sign.is_control() { sign.escape_default().to_string() } else { sign.to_string() }
    };
    if text.is_empty() { NONE.to_owned() } else { text.chars().map(escaped).collect() }
}

/// What is not there.
const NONE: &str = "-";
const COLUMNS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(route: &str, state: &str) -> Exchange {
        serde_json::from_value(serde_json::json!({
            "id": "00000000003e800000007",
            "route": route,
            "method": "POST",
            "url": "https://a.test/v1",
            "key": null,
            "state": state,
            "attempts": [
                {"outcome": "throttled", "status": 429, "wait_ms": 0, "at": "T1"},
                {"outcome": "ambiguous", "status": null, "wait_ms": 250, "at": "T2"},
            ],
            "status": 429,
            "captured": {"job": "j\u{1b}[2J\n1"},
            "started_at": "1970-01-01T00:00:00.001Z",
            "ended_at": null,
        }))
        .expect("an exchange")
    }

    #[test]
    fn rows_stand_in_columns() {
        let text = rows(&[exchange("r", "unknown"), exchange("renders", "completed")]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        for word in ["POST", "https", "throttled,ambiguous", "429"] {
            assert_eq!(lines[1].find(word), lines[2].find(word), "{text}");
        }
        assert_eq!(lines[0].find("ATTEMPTS"), lines[1].find("throttled"), "{text}");
        assert_eq!(rows(&[]).lines().count(), 1);
    }

    #[test]
    fn one_is_told_a_line_a_field_and_cannot_write_to_the_terminal() {
        let text = told(&exchange("r", "completed"));
        for wanted in [
            "id:          00000000003e800000007\n",
            "key:         -\n",
            "status:      429\n",
            "started_at:  1970-01-01T00:00:00.001Z\n",
            "ended_at:    -\n",
            "attempt 1:   throttled  status 429  after 0 ms  at T1\n",
            "attempt 2:   ambiguous  status -  after 250 ms  at T2\n",
            "captured job: j\\u{1b}[2J\\n1\n",
        ] {
            assert!(text.contains(wanted), "{wanted} is not in:\n{text}");
        }
        assert!(!text.contains("resolve"), "{text}");
        let text = told(&exchange("r", "unknown"));
        for word in ["landed", "absent"] {
            let command = format!("samekey ledger resolve 00000000003e800000007 {word} ");
            assert!(text.contains(&command), "{text}");
        }
    }
}

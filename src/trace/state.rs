//! What a span keeps of `tracestate`: whole entries, and not without end.
//!
//! What goes upstream is not touched. A span is exported with it, and waits with it until
//! then: 65,536 spans with the 32 entries of 512 characters that a client may send would
//! wait in a gigabyte.

use http::HeaderMap;
use opentelemetry::trace::TraceState;

use crate::exchange::traceparent::TRACESTATE;

/// What tracing systems say of the trace to each other; nothing, where it is malformed.
///
/// Where it is long, entries are left out as W3C Trace Context, section 3.3.1.5, wants it:
/// first those of more than 128 characters, then any, both from the end.
pub(super) fn kept(headers: &HeaderMap) -> TraceState {
    let lines = headers.get_all(&TRACESTATE).iter().filter_map(|line| line.to_str().ok());
    let state: TraceState = match lines.collect::<Vec<_>>().join(",").parse() {
        Ok(state) => state,
        Err(_malformed) => return TraceState::NONE,
    };
    let written = state.header();
    if written.len() <= LENGTH_MAX {
        return state;
    }
    let mut entries: Vec<&str> = written.split(',').collect();
    let mut over = written.len() - LENGTH_MAX;
    for length_min in [ENTRY_LONG + 1, 0] {
        for at in (0..entries.len()).rev() {
            if over > 0 && entries.get(at).is_some_and(|entry| entry.len() >= length_min) {
                over = over.saturating_sub(entries.remove(at).len() + ",".len());
            }
        }
    }
    entries.join(",").parse().unwrap_or(TraceState::NONE)
}

/// "Vendors SHOULD propagate at least 512 characters of a combined header", commas included
/// (W3C Trace Context, section 3.3.1.5).
const LENGTH_MAX: usize = 512;
/// An entry that is longer is left out first (the same section).
const ENTRY_LONG: usize = 128;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn check(lines: &[&str], wanted: &str) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(TRACESTATE, HeaderValue::from_str(line).expect("a value"));
        }
        assert_eq!(kept(&headers).header(), wanted, "{lines:?}");
    }

    /// An entry of so many characters.
    fn entry(key: char, length: usize) -> String {
        format!("{key}={}", "x".repeat(length - 2))
    }

    #[test]
    fn a_state_that_is_malformed_is_exported_as_none() {
        check(&[], "");
        check(&["a=1"], "a=1");
        check(&["a=1", "b=2"], "a=1,b=2");
        check(&["nonsense"], "");
        check(&["A=1"], "");
    }

    #[test]
    fn so_many_characters_are_kept_and_the_last_entries_go() {
        let first = ['a', 'b', 'c'].map(|key| entry(key, 128)).join(",");
        assert_eq!(first.len(), 386);
        for (last, is_kept) in [(124, true), (125, true), (126, false)] {
            let whole = format!("{first},{}", entry('d', last));
            check(&[&whole], if is_kept { &whole } else { &first });
        }
    }

    #[test]
    fn long_entries_go_first_and_no_more_of_them_than_have_to() {
        let lengths = [('a', 128), ('b', 129), ('c', 129), ('d', 128), ('e', 20)];
        let all = lengths.map(|(key, length)| entry(key, length));
        let without_c = [0, 1, 3, 4].map(|at: usize| all[at].as_str());
        check(&[&all.join(",")], &without_c.join(","));
        // Of 128 it is as any other, and what stands last goes.
        let fours = ['a', 'b', 'c', 'd', 'e'].map(|key| entry(key, 128));
        check(&[&fours.join(",")], &fours[..3].join(","));
        // Alone it is left out too: half an entry is none.
        let [one, two] = ['a', 'b'].map(|key| entry(key, 257));
        check(&[&one, &two], &one);
    }

    #[test]
    fn the_most_that_a_client_may_say_is_cut_to_what_a_span_keeps() {
        let keys = (b'a'..=b'z').chain(b'a'..=b'f').enumerate();
        let most = keys.map(|(at, key)| format!("{}{at}={}", char::from(key), "x".repeat(256)));
        let most: Vec<String> = most.collect();
        assert_eq!(most.len(), 32);
        check(&[&most.join(",")], &most[..1].join(","));
    }
}

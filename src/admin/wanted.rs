//! Which exchanges a query asks for.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::exchange::id::ExchangeId;
use crate::journal::State;
use crate::journal::ledger::Filter;

/// Exchanges a page, where nobody says how many.
pub const LIMIT_USUAL: u32 = 50;
/// Exchanges a page, at most: half a megabyte or so.
pub const LIMIT_MAX: u32 = 1000;

/// What a query wants; the error names the parameter and what is wanted of it.
///
/// A parameter without a value counts as left out. As everywhere here, a `+` is one.
pub(super) fn filter(query: Option<&str>) -> Result<Filter, String> {
    let mut filter = Filter { limit: LIMIT_USUAL, ..Filter::default() };
    let mut seen = Vec::new();
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decoded(name).ok_or_else(|| unknown(name))?;
        let value = decoded(value).ok_or_else(|| format!("{name}: has to be UTF-8"))?;
        if seen.contains(&name) {
            return Err(format!("{name}: is given twice"));
        }
        take(&mut filter, &name, &value)?;
        seen.push(name);
    }
    Ok(filter)
}

fn take(filter: &mut Filter, name: &str, value: &str) -> Result<(), String> {
    match name {
        "route" | "key" | "state" | "captured" | "limit" | "cursor" if value.is_empty() => {}
        "route" => filter.route = Some(value.to_owned()),
        "key" => filter.key = Some(value.to_owned()),
        "state" => filter.state = Some(state(value)?),
        "captured" => filter.captured = Some(captured(value)?),
        "limit" => filter.limit = limit(value)?,
        "cursor" => filter.before = Some(cursor(value)?),
        _ => return Err(unknown(name)),
    }
    Ok(())
}

fn state(value: &str) -> Result<State, String> {
    State::parse(value).ok_or_else(|| format!("state: has to be {}", state_words()))
}

/// A name has no colon; a value may.
fn captured(value: &str) -> Result<(String, String), String> {
    let pair = value.split_once(':').filter(|(name, _)| !name.is_empty());
    pair.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "captured: has to be NAME:VALUE".to_owned())
}

fn limit(value: &str) -> Result<u32, String> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    let limit = value.parse().ok().filter(|limit| digits && (1..=LIMIT_MAX).contains(limit));
    limit.ok_or_else(|| format!("limit: has to be a number from 1 to {LIMIT_MAX}"))
}

fn cursor(value: &str) -> Result<u64, String> {
    let last: Result<ExchangeId, _> = value.parse();
    last.map(|last| last.parts().0)
        .map_err(|_malformed| "cursor: has to be what `next` of the page before says".to_owned())
}

/// The words of the states, as a sentence has them.
pub fn state_words() -> String {
    State::ALL.map(State::as_str).join(", ").replace(", failed", " or failed")
}

fn unknown(name: &str) -> String {
    let name: String = name.chars().take(NAME_SHOWN).collect();
    format!("`{name}` is no parameter: there are route, key, state, captured, limit and cursor")
}

fn decoded(text: &str) -> Option<Cow<'_, str>> {
    percent_decode_str(text).decode_utf8().ok()
}

/// Characters of an unknown name that are told back.
const NAME_SHOWN: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    /// What a query wants, as `route|key|state|before|limit`, or what is wrong with it.
    fn check(query: &str, wanted: &str) {
        let told = filter(Some(query)).map(|filter| {
            let Filter { route, key, state, captured, before, limit } = filter;
            if let Some((name, value)) = captured {
                return format!("|||||{name}={value}");
            }
            let [route, key] = [route, key].map(Option::unwrap_or_default);
            let state = state.map(State::as_str).unwrap_or_default();
            let before = before.map(|before| before.to_string()).unwrap_or_default();
            format!("{route}|{key}|{state}|{before}|{limit}")
        });
        let told = told.unwrap_or_else(|wrong| wrong);
        assert!(told.starts_with(wanted), "{query}: {told}");
    }

    #[test]
    fn a_query_is_read_or_what_is_wrong_with_it_is_named() {
        assert_eq!(filter(None).expect("nothing is wanted").limit, 50);
        for (query, wanted) in [
            ("", "||||50"),
            ("route=&key=&state=&limit=&cursor=", "||||50"),
            ("route=r%20s&key=a%2Fb+c%3D&limit=1", "r s|a/b+c=|||1"),
            ("key=a=b", "|a=b|||50"),
            ("state=in_flight", "||in_flight||50"),
            ("state=unknown&limit=1000", "||unknown||1000"),
            ("&&st%61te=failed", "||failed||50"),
            ("cursor=00000000003e800000007", "|||1000|50"),
            ("state=lost", "state: has to be in_flight, completed, unknown, released or failed"),
            ("state=Unknown", "state: "),
            ("limit=0", "limit: has to be a number from 1 to 1000"),
            ("limit=1001", "limit: "),
            ("limit=-1", "limit: "),
            ("limit=%2B5", "limit: "),
            ("limit=99999999999999999999", "limit: "),
            ("limit=ten", "limit: "),
            ("cursor=1", "cursor: has to be what `next` of the page before says"),
            ("cursor=00000000003E800000007", "cursor: "),
            ("cursor=00000000003e8000000070", "cursor: "),
            ("key=%ff", "key: has to be UTF-8"),
            ("key=a&k%65y=b", "key: is given twice"),
            (
                "method=POST",
                "`method` is no parameter: there are route, key, state, captured, limit ",
            ),
            ("captured=job:j:1", "|||||job=j:1"),
            ("captured=", "||||50"),
            ("captured=job", "captured: has to be NAME:VALUE"),
            ("captured=:j", "captured: "),
            ("=x", "`` is no parameter"),
        ] {
            check(query, wanted);
        }
    }
}

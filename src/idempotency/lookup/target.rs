//! The path and query of a lookup, with places for what changes.

use std::time::Duration;

use http::uri::PathAndQuery;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::exchange::instant::{date, rfc3339};
use crate::journal::moment::micros;

/// A path and query such as `/v2/movies?from={since:date}&page={page}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The path, then each parameter of the query.
    pieces: Vec<Vec<Part>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Key,
    Since(Form),
    Until(Form),
    Page,
    Offset,
    Cursor,
}

/// How a time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Moment,
    Date,
}

/// What goes into a target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fill<'a> {
    pub(super) key: &'a str,
    /// When the key first went out, in microseconds since 1970; `None` where nobody can say.
    pub(super) since: Option<i64>,
    /// The time.
    pub(super) now: i64,
    pub(super) page: u32,
    /// Items on the pages before.
    pub(super) offset: usize,
    /// Where the next page begins; on the first, its parameter is left out.
    pub(super) cursor: Option<&'a str>,
}

impl Target {
    /// Reads a path and query with the placeholders `{key}`, `{since}`, `{until}` (each
    /// also with `:date`), `{page}`, `{offset}` and `{cursor}`.
    ///
    /// # Errors
    ///
    /// Says what is wanted where it is no path, or a placeholder is not one of those.
    pub fn parse(written: &str) -> Result<Self, String> {
        let visible = written.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if !written.starts_with('/') || written.starts_with("//") || !visible {
            return Err("must be a path, such as /v1/jobs?limit=100&page={page}".to_owned());
        }
        let (path, query) = written.split_once('?').unwrap_or((written, ""));
        let mut pieces = vec![parts(path)?];
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            pieces.push(parts(parameter)?);
        }
        Ok(Self { pieces })
    }

    /// Whether pages are asked for by number.
    pub fn names_page(&self) -> bool {
        self.has(|part| matches!(part, Part::Page))
    }

    /// Whether pages are asked for by how many items came before.
    pub fn names_offset(&self) -> bool {
        self.has(|part| matches!(part, Part::Offset))
    }

    /// Whether pages are asked for by a cursor.
    pub fn names_cursor(&self) -> bool {
        self.has(|part| matches!(part, Part::Cursor))
    }

    /// Whether the key goes into it.
    pub fn names_key(&self) -> bool {
        self.has(|part| matches!(part, Part::Key))
    }

    fn has(&self, wanted: impl Fn(&Part) -> bool) -> bool {
        self.pieces.iter().flatten().any(wanted)
    }

    /// The path and query of one page; `extra` are parameters that go with every request.
    /// None where it wants a time that nobody can tell.
    pub(super) fn fill(&self, fill: &Fill<'_>, extra: &[String]) -> Option<PathAndQuery> {
        let mut pieces = self.pieces.iter();
        let mut target = filled(pieces.next()?, fill)?;
        let mut joint = '?';
        let has_cursor =
            |parts: &&Vec<Part>| fill.cursor.is_some() || !parts.contains(&Part::Cursor);
        for parameter in pieces.filter(has_cursor) {
            target.push(joint);
            target.push_str(&filled(parameter, fill)?);
            joint = '&';
        }
        for parameter in extra {
            target.push(joint);
            target.push_str(parameter);
            joint = '&';
        }
        target.parse().ok()
    }
}

fn parts(written: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = written;
    while let Some((text, after)) = rest.split_once('{') {
        let (inside, after) = after.split_once('}').ok_or("must close each `{` with a `}`")?;
        parts.extend((!text.is_empty()).then(|| Part::Text(text.to_owned())));
        parts.push(placeholder(inside)?);
        rest = after;
    }
    parts.extend((!rest.is_empty()).then(|| Part::Text(rest.to_owned())));
    Ok(parts)
}

fn placeholder(inside: &str) -> Result<Part, String> {
    match inside {
        "key" => Ok(Part::Key),
        "since" => Ok(Part::Since(Form::Moment)),
        "since:date" => Ok(Part::Since(Form::Date)),
        "until" => Ok(Part::Until(Form::Moment)),
        "until:date" => Ok(Part::Until(Form::Date)),
        "page" => Ok(Part::Page),
        "offset" => Ok(Part::Offset),
        "cursor" => Ok(Part::Cursor),
        other => Err(format!(
            "must hold no placeholder but {{key}}, {{since}}, {{until}}, {{since:date}}, \
             {{until:date}}, {{page}}, {{offset}} and {{cursor}} (got {{{other}}})"
        )),
    }
}

fn filled(parts: &[Part], fill: &Fill<'_>) -> Option<String> {
    let mut text = String::new();
    for part in parts {
        let value = match part {
            Part::Text(written) => {
                text.push_str(written);
                continue;
            }
            Part::Key => fill.key.to_owned(),
            Part::Since(form) => earlier(fill.since?, *form),
            Part::Until(form) => later(fill.now, *form),
            Part::Page => fill.page.to_string(),
            Part::Offset => fill.offset.to_string(),
            Part::Cursor => fill.cursor.unwrap_or_default().to_owned(),
        };
        text.extend(utf8_percent_encode(&value, RESERVED));
    }
    Some(text)
}

fn earlier(since: i64, form: Form) -> String {
    match form {
        Form::Moment => rfc3339(since.saturating_sub(micros(SKEW)).max(0)),
        Form::Date => date(since.saturating_sub(micros(DAY)).max(0)),
    }
}

fn later(now: i64, form: Form) -> String {
    match form {
        Form::Moment => rfc3339(now.saturating_add(micros(SKEW))),
        Form::Date => date(now.saturating_add(micros(DAY))),
    }
}

/// Two clocks may differ by so much: what was created is listed all the same.
const SKEW: Duration = Duration::from_mins(10);
/// A day is another one elsewhere.
const DAY: Duration = Duration::from_hours(24);
/// All but the unreserved characters of RFC 3986, section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    /// 2024-02-29T00:30:00Z.
    const NOW: i64 = 1_709_166_600_000_000;

    fn fill(cursor: Option<&str>) -> Fill<'_> {
        let since = Some(NOW - 3_600_000_000);
        Fill { key: "a/b c", since, now: NOW, page: 2, offset: 40, cursor }
    }

    fn filled_with(written: &str, fill: &Fill<'_>) -> Option<String> {
        let target = Target::parse(written).expect("a target");
        target.fill(fill, &[]).map(|path| path.to_string())
    }

    #[test]
    fn a_target_is_filled_and_percent_encoded() {
        for (written, wanted) in [
            ("/v1/jobs", "/v1/jobs"),
            ("/v1/jobs/{key}", "/v1/jobs/a%2Fb%20c"),
            ("/v1/jobs?id={key}&limit=100", "/v1/jobs?id=a%2Fb%20c&limit=100"),
            ("/j?from={since}", "/j?from=2024-02-28T23%3A20%3A00.000Z"),
            ("/j?from={since:date}&to={until:date}", "/j?from=2024-02-27&to=2024-03-01"),
            ("/j?limit=20&offset={offset}", "/j?limit=20&offset=40"),
            ("/j?to={until}&page={page}", "/j?to=2024-02-29T00%3A40%3A00.000Z&page=2"),
        ] {
            assert_eq!(filled_with(written, &fill(None)).as_deref(), Some(wanted));
        }
    }

    #[test]
    fn a_cursor_is_left_out_until_there_is_one() {
        let written = "/j?after={cursor}&limit=9";
        assert_eq!(filled_with(written, &fill(None)).as_deref(), Some("/j?limit=9"));
        assert_eq!(
            filled_with(written, &fill(Some("x=&y"))).as_deref(),
            Some("/j?after=x%3D%26y&limit=9")
        );
    }

    #[test]
    fn parameters_of_the_caller_go_with_it() {
        let extra = ["key=abc".to_owned()];
        for (written, wanted) in [("/j", "/j?key=abc"), ("/j?a=1", "/j?a=1&key=abc")] {
            let target = Target::parse(written).expect("a target");
            let path = target.fill(&fill(None), &extra).expect("a path");
            assert_eq!(path.as_str(), wanted);
        }
    }

    #[test]
    fn a_time_that_nobody_can_tell_is_not_made_up() {
        let unknown = Fill { since: None, ..fill(None) };
        assert_eq!(filled_with("/j?from={since}", &unknown), None);
        assert!(filled_with("/j", &unknown).is_some());
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for written in
            ["", "v1", "//a/b", "https://a.test/", "/a b", "/a#b", "/{key", "/{id}", "/{since:day}"]
        {
            assert!(Target::parse(written).is_err(), "{written}");
        }
    }
}

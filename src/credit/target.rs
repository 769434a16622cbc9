//! The path at which an effect's cost is asked for, made from that of the effect.

use http::uri::PathAndQuery;

/// `/v1/models/{model}/estimate`: each `{name}` stands for the next `*` of the pattern
/// in `match.paths` that the effect's path matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target(Vec<Segment>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Exactly(String),
    Taken,
}

impl Target {
    /// Reads a path.
    ///
    /// # Errors
    ///
    /// Says what is wanted when `written` does not start with `/`, is not as it would be on
    /// the wire, has a query, or a brace but around a whole segment that is a name of its own.
    pub fn parse(written: &str) -> Result<Self, &'static str> {
        let rest = written.strip_prefix('/').ok_or("a path that starts with `/`")?;
        let mut names = Vec::new();
        let segments = rest.split('/').map(|part| {
            let name = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
            let Some(name) = name else { return exactly(part) };
            if name.is_empty() || name.contains(['{', '}']) || names.contains(&name) {
                return Err("a path in which each `{name}` is a name of its own");
            }
            names.push(name);
            Ok(Segment::Taken)
        });
        segments.collect::<Result<_, _>>().map(Self)
    }

    /// How many segments it takes from the effect's path.
    pub fn takes(&self) -> usize {
        self.0.iter().filter(|segment| **segment == Segment::Taken).count()
    }

    /// The path for an effect, from the segments that its pattern left open, and its query.
    ///
    /// None where there are too few of them, or one would lead to another place.
    pub fn path(&self, open: &[String], query: Option<&str>) -> Option<PathAndQuery> {
        let mut open = open.iter();
        let mut path = String::new();
        for segment in &self.0 {
            path.push('/');
            path.push_str(match segment {
                Segment::Exactly(text) => text,
                Segment::Taken => open.next().filter(|text| !is_dots(text))?,
            });
        }
        if let Some(query) = query.filter(|query| !query.is_empty()) {
            path.push('?');
            path.push_str(query);
        }
        PathAndQuery::try_from(path).ok()
    }
}

fn exactly(part: &str) -> Result<Segment, &'static str> {
    let plain =
        part.bytes().all(|byte| byte.is_ascii_graphic() && !b"{}?#*\"<>\\^`|".contains(&byte));
    plain
        .then(|| Segment::Exactly(part.to_owned()))
        .ok_or("a path as it is on the wire, whose braces stand around whole segments, as in /v1/{model}/estimate")
}

/// `.` and `..`, however they are written: an upstream may take a step up for them.
fn is_dots(segment: &str) -> bool {
    let plain = segment.replace("%2e", ".").replace("%2E", ".");
    matches!(plain.as_str(), "." | "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_what_the_pattern_left_open_in_order() {
        let check = |target: &str, open: &[&str], query: Option<&str>, wanted: Option<&str>| {
            let target = Target::parse(target).expect("a target");
            let open: Vec<String> = open.iter().map(|text| (*text).to_owned()).collect();
            let path = target.path(&open, query);
            assert_eq!(path.as_ref().map(PathAndQuery::as_str), wanted, "{target:?} {open:?}");
        };
        let model = "/v1/models/{model}/estimate";
        check(model, &["cat"], None, Some("/v1/models/cat/estimate"));
        check(model, &["c%2Ft", "x"], Some("a=%31"), Some("/v1/models/c%2Ft/estimate?a=%31"));
        check(model, &["cat"], Some(""), Some("/v1/models/cat/estimate"));
        check(model, &[], None, None);
        check("/{b}/x/{a}", &["1", "2"], None, Some("/1/x/2"));
        check("/{b}/x/{a}", &["1"], None, None);
        check("/v1/estimate", &[], None, Some("/v1/estimate"));
        check("/v1/estimate/", &["cat"], None, Some("/v1/estimate/"));
        for dots in [".", "..", "%2e%2E", ".%2e"] {
            check(model, &[dots], None, None);
        }
        check(model, &["..."], None, Some("/v1/models/.../estimate"));
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for bad in [
            "", "v1", "/{}", "/{a}/{a}", "/a{b}", "/{a}b", "/{a{b}}", "/a?b", "/a#b", "/a b", "/ü",
            "/*",
        ] {
            assert!(Target::parse(bad).is_err(), "{bad:?} was taken");
        }
        assert_eq!(Target::parse("/v1/{a}/x/{b}").map(|target| target.takes()), Ok(2));
    }
}

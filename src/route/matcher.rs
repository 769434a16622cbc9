//! Which requests a route matches: host, method, path.

use std::fmt;

use http::Method;

use crate::intercept::is_own;

/// A route's `match` block, as meant; an empty list of methods or paths matches all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matcher {
    /// Hosts, one of which must match.
    pub hosts: Vec<HostPattern>,
    /// Methods, one of which must match.
    pub methods: Vec<Method>,
    /// Paths, one of which must match.
    pub paths: Vec<PathPattern>,
}

impl Matcher {
    /// Whether a request to `host` and `port` for `path` (without its query) matches.
    pub fn matches(&self, host: &str, port: u16, method: &Method, path: &str) -> bool {
        (self.methods.is_empty() || self.methods.contains(method))
            && self.names(host, port)
            && (self.paths.is_empty() || self.paths.iter().any(|pattern| pattern.matches(path)))
    }

    /// What the first pattern that matches `path` leaves open in it: each `*`, in order.
    pub fn wildcards(&self, path: &str) -> Vec<String> {
        let matching = self.paths.iter().find(|pattern| pattern.matches(path));
        matching.map_or_else(Vec::new, |pattern| pattern.wildcards(path))
    }

    /// Whether this route names the host, whatever the method and path.
    pub fn names(&self, host: &str, port: u16) -> bool {
        self.hosts.iter().any(|pattern| pattern.matches(host, port))
    }
}

/// `api.example.com`, `*.example.net` (any depth, not the name itself), `*`, each with or without `:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    name: HostName,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum HostName {
    Every,
    Exactly(String),
    /// Holds the suffix with its dot: `.example.net`.
    Under(String),
}

impl HostPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// Says what is wanted when `written` is empty, holds a scheme, a path, a
    /// space or userinfo, has a `*` anywhere but as the whole first label, a port
    /// that is not from 1 to 65535, or is the host that samekey answers itself.
    pub fn parse(written: &str) -> Result<Self, &'static str> {
        let (name, port) = split_port(written)?;
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        if name.is_empty() || name.contains(['/', ' ', '@', '?', '#', '\t']) {
            return Err("a host name, such as api.example.com, *.example.net or *");
        }
        if is_own(&name) {
            return Err("another host: samekey answers samekey.internal itself");
        }
        let name = match name.strip_prefix('*') {
            Some("") => HostName::Every,
            Some(rest) if rest.starts_with('.') && rest.len() > 1 && !rest.contains('*') => {
                HostName::Under(rest.to_owned())
            }
            None if !name.contains('*') => HostName::Exactly(bare.to_owned()),
            _ => return Err("a `*` only as the whole first label, as in *.example.net"),
        };
        Ok(Self { name, port })
    }

    /// Whether `host` (lower case, no brackets, no trailing dot) and `port` match.
    pub fn matches(&self, host: &str, port: u16) -> bool {
        self.port.is_none_or(|wanted| wanted == port) && self.matches_name(host)
    }

    /// Whether `host` matches, whatever the port.
    pub fn matches_name(&self, host: &str) -> bool {
        match &self.name {
            HostName::Every => true,
            HostName::Exactly(name) => name == host,
            HostName::Under(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        }
    }

    /// The one host that it names; none where it is a pattern of many.
    pub fn exact(&self) -> Option<&str> {
        match &self.name {
            HostName::Exactly(name) => Some(name),
            HostName::Every | HostName::Under(_) => None,
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            HostName::Every => f.write_str("*")?,
            HostName::Exactly(name) if name.contains(':') => write!(f, "[{name}]")?,
            HostName::Exactly(name) => f.write_str(name)?,
            HostName::Under(suffix) => write!(f, "*{suffix}")?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// `/v1/jobs`, `/v1/*` (one segment), `/v2/**` (the rest, empty included).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern(Vec<Segment>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Exactly(String),
    One,
    Rest,
}

impl PathPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// Says what is wanted when `written` does not start with `/`, holds a query
    /// or fragment, has `**` before its end, or a `*` inside a segment.
    pub fn parse(written: &str) -> Result<Self, &'static str> {
        let rest = written.strip_prefix('/').ok_or("a path that starts with `/`")?;
        if rest.contains(['?', '#', ' ']) {
            return Err("a path without query, fragment or space");
        }
        let parts: Vec<&str> = rest.split('/').collect();
        let segments = parts.iter().enumerate().map(|(at, part)| match *part {
            "**" if at + 1 == parts.len() => Ok(Segment::Rest),
            "**" => Err("`**` only as the last segment"),
            "*" => Ok(Segment::One),
            part if part.contains('*') => Err("`*` only as a whole segment"),
            part => Ok(Segment::Exactly(part.to_owned())),
        });
        segments.collect::<Result<_, _>>().map(Self)
    }

    /// How many `*` it has.
    pub fn open(&self) -> usize {
        self.0.iter().filter(|segment| **segment == Segment::One).count()
    }

    fn wildcards(&self, path: &str) -> Vec<String> {
        let segments = path.strip_prefix('/').unwrap_or(path).split('/');
        let both = self.0.iter().zip(segments);
        let taken = both.filter(|(wanted, _)| **wanted == Segment::One);
        taken.map(|(_, segment)| segment.to_owned()).collect()
    }

    /// Whether `path`, as it came on the wire, matches.
    pub fn matches(&self, path: &str) -> bool {
        let mut segments = path.strip_prefix('/').unwrap_or(path).split('/');
        for wanted in &self.0 {
            let matched = match (wanted, segments.next()) {
                (Segment::Rest, _) => return true,
                (Segment::One, Some(segment)) => !segment.is_empty(),
                (Segment::Exactly(name), Some(segment)) => name == segment,
                (_, None) => false,
            };
            if !matched {
                return false;
            }
        }
        segments.next().is_none()
    }
}

/// Splits `host:port`; a bracketed or bare IPv6 address keeps its colons.
fn split_port(written: &str) -> Result<(&str, Option<u16>), &'static str> {
    let after_bracket = written.rfind(']').map_or(0, |at| at + 1);
    let tail = written.get(after_bracket..).unwrap_or_default();
    let bare_v6 = after_bracket == 0 && tail.matches(':').count() > 1;
    match tail.rsplit_once(':') {
        Some((_, digits)) if !bare_v6 => {
            let port = digits.parse().ok().filter(|port| *port != 0);
            let port = port.ok_or("a port from 1 to 65535 after the colon")?;
            let name = written.get(..written.len() - digits.len() - 1).unwrap_or_default();
            Ok((name, Some(port)))
        }
        _ => Ok((written, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(pattern: &str, host: &str, port: u16) -> bool {
        HostPattern::parse(pattern).expect("a pattern").matches(host, port)
    }

    #[test]
    fn hosts_match_as_written() {
        for (pattern, name, port, wanted) in [
            ("api.example.com", "api.example.com", 443, true),
            ("API.Example.com.", "api.example.com", 443, true),
            ("api.example.com", "xapi.example.com", 443, false),
            ("*.example.net", "a.b.example.net", 443, true),
            ("*.example.net", "example.net", 443, false),
            ("*.example.net", "badexample.net", 443, false),
            ("*", "anything", 1, true),
            ("*:8443", "anything", 443, false),
            ("a.test:8443", "a.test", 8443, true),
            ("[::1]:80", "::1", 80, true),
            ("::1", "::1", 81, true),
            ("127.0.0.1:9", "127.0.0.1", 9, true),
        ] {
            assert_eq!(host(pattern, name, port), wanted, "{pattern} on {name}:{port}");
            let read = HostPattern::parse(pattern).expect("a pattern");
            assert_eq!(HostPattern::parse(&read.to_string()), Ok(read), "{pattern} as it is shown");
        }
    }

    #[test]
    fn hosts_that_cannot_be_meant_are_refused() {
        for bad in [
            "",
            "https://a.test",
            "a.test/x",
            "a*.test",
            "*a.test",
            "a.test:0",
            "a.test:x",
            "u@a",
            "*.*.a",
            "samekey.internal",
            "Samekey.Internal.:443",
        ] {
            assert!(HostPattern::parse(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_path_says_what_its_pattern_leaves_open() {
        let parse = |written: &&str| PathPattern::parse(written).expect("a pattern");
        let paths = ["/v1/*/x", "/v2/*/*/**", "/v3"].iter().map(parse).collect();
        let matcher = Matcher { hosts: Vec::new(), methods: Vec::new(), paths };
        for (path, wanted) in [
            ("/v1/a%2Fb/x", vec!["a%2Fb"]),
            ("/v2/a/b/c/d", vec!["a", "b"]),
            ("/v3", vec![]),
            ("/v4/a", vec![]),
        ] {
            assert_eq!(matcher.wildcards(path), wanted, "{path}");
        }
        assert_eq!(matcher.paths.iter().map(PathPattern::open).collect::<Vec<_>>(), [1, 2, 0]);
    }

    #[test]
    fn paths_match_as_written() {
        for (pattern, path, wanted) in [
            ("/v1/jobs", "/v1/jobs", true),
            ("/v1/jobs", "/v1/jobs/", false),
            ("/v1/jobs", "/v1/jobsx", false),
            ("/v2/**", "/v2/", true),
            ("/v2/**", "/v2/a/b", true),
            ("/v2/**", "/v2", true),
            ("/v2/**", "/v20", false),
            ("/v1/*/start", "/v1/7/start", true),
            ("/v1/*/start", "/v1//start", false),
            ("/", "/", true),
            ("/", "/a", false),
            ("/**", "/", true),
        ] {
            let pattern_read = PathPattern::parse(pattern).expect("a pattern");
            assert_eq!(pattern_read.matches(path), wanted, "{pattern} on {path}");
        }
        for bad in ["v1", "/a?b", "/**/a", "/a*"] {
            assert!(PathPattern::parse(bad).is_err(), "{bad:?} was taken");
        }
    }
}

//! Where requests go: a scheme, a host, a port.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderValue;
use http::header::InvalidHeaderValue;
use http::uri::Authority;

/// Plain or inside TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `http`.
    Http,
    /// `https`.
    Https,
}

impl Scheme {
    /// The port that stands for no port.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// The scheme's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A scheme and an authority: lower-case host, no brackets, no trailing dot; cheap to clone.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Plain or inside TLS.
    pub scheme: Scheme,
    /// The host's name or address.
    pub host: Arc<str>,
    /// The port.
    pub port: u16,
    /// Few have one, and all are cloned often: a pointer is less to carry.
    at: Option<Arc<SocketAddr>>,
    /// The `Host` field that follows from the others: every request needs it.
    field: HeaderValue,
}

impl PartialEq for Origin {
    fn eq(&self, other: &Self) -> bool {
        (self.scheme, self.port, &self.host, &self.at)
            == (other.scheme, other.port, &other.host, &other.at)
    }
}

impl Eq for Origin {}

impl Hash for Origin {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.scheme, self.port, &self.host, &self.at).hash(state);
    }
}

impl Origin {
    /// Reads `https://host[:port]`.
    ///
    /// # Errors
    ///
    /// Says what is wanted when the scheme is neither `http` nor `https`, the host
    /// is missing, or anything follows the authority but a single `/`.
    pub fn parse(written: &str) -> Result<Self, &'static str> {
        let wanted = "a URL such as https://api.example.com, without path, query or user";
        let (scheme, rest) = written.split_once("://").ok_or(wanted)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(wanted),
        };
        let authority =
            rest.strip_suffix('/').unwrap_or(rest).parse().map_err(|_invalid| wanted)?;
        Self::of(scheme, &authority).ok_or(wanted)
    }

    /// The origin of an authority; `None` where it has userinfo, no host, or no valid port.
    pub fn of(scheme: Scheme, authority: &Authority) -> Option<Self> {
        if authority.as_str().contains('@') {
            return None;
        }
        let bare = authority.host().trim_start_matches('[').trim_end_matches(']');
        let bare = bare.strip_suffix('.').unwrap_or(bare);
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("" | ":") => scheme.default_port(),
            _ => authority.port_u16().filter(|port| *port != 0)?,
        };
        Self::new(scheme, &bare.to_ascii_lowercase(), port)
    }

    /// An origin; `host` in lower case, without brackets. `None` where it is no host.
    pub fn new(scheme: Scheme, host: &str, port: u16) -> Option<Self> {
        let field = field(scheme, host, port).ok().filter(|_| !host.is_empty())?;
        Some(Self { scheme, host: host.into(), port, at: None, field })
    }

    /// An address that stands for a name too.
    pub fn at_address(scheme: Scheme, at: SocketAddr) -> Self {
        let (host, port) = (at.ip().to_string(), at.port());
        // Digits, dots and colons are a value whatever they say.
        let field = field(scheme, &host, port).unwrap_or_else(|_never| HeaderValue::from(port));
        Self { scheme, host: host.into(), port, at: Some(Arc::new(at)), field }
    }

    /// The same origin, reached at one address only.
    #[must_use]
    pub fn pinned(self, at: SocketAddr) -> Self {
        Self { at: Some(Arc::new(at)), ..self }
    }

    /// The one address that its connections go to; `None`: those that the name resolves to.
    pub fn at(&self) -> Option<SocketAddr> {
        self.at.as_deref().copied()
    }

    /// The same origin, wherever it is reached.
    #[must_use]
    pub fn by_name(&self) -> Self {
        Self { at: None, ..self.clone() }
    }

    /// The same authority under another scheme.
    #[must_use]
    pub fn with_scheme(&self, scheme: Scheme) -> Self {
        let field = field(scheme, &self.host, self.port).unwrap_or_else(|_same| self.field.clone());
        Self { scheme, field, ..self.clone() }
    }

    /// The value of the `Host` field: the port only where it is not the scheme's.
    pub fn host_field(&self) -> &HeaderValue {
        &self.field
    }

    /// The authority as text.
    pub fn authority(&self) -> &str {
        self.field.to_str().unwrap_or(&self.host)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

fn field(scheme: Scheme, host: &str, port: u16) -> Result<HeaderValue, InvalidHeaderValue> {
    let usual = port == scheme.default_port();
    match (host.contains(':'), usual) {
        (false, true) => HeaderValue::from_str(host),
        (false, false) => HeaderValue::try_from(format!("{host}:{port}")),
        (true, true) => HeaderValue::try_from(format!("[{host}]")),
        (true, false) => HeaderValue::try_from(format!("[{host}]:{port}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_read_and_written() {
        for (written, wanted) in [
            ("https://API.Example.com", Some("https://api.example.com")),
            ("https://a.test:443/", Some("https://a.test")),
            ("http://a.test:8080", Some("http://a.test:8080")),
            ("http://[::1]:9", Some("http://[::1]:9")),
            ("https://a.test.", Some("https://a.test")),
            ("ftp://a.test", None),
            ("https://u@a.test", None),
            ("https://a.test/x", None),
            ("https://a.test:0", None),
            ("https://", None),
            ("a.test", None),
        ] {
            let read = Origin::parse(written).ok().map(|origin| origin.to_string());
            assert_eq!(read.as_deref(), wanted, "{written}");
        }
    }

    #[test]
    fn an_address_tells_origins_apart_and_changes_nothing_that_is_written() {
        let named = Origin::parse("https://a.test").expect("an origin");
        let at = |text: &str| named.clone().pinned(text.parse().expect("an address"));
        assert_eq!(at("192.0.2.1:443"), at("192.0.2.1:443"));
        assert_ne!(at("192.0.2.1:443"), at("192.0.2.2:443"));
        assert_ne!(at("192.0.2.1:443"), named);
        assert_eq!(at("192.0.2.1:443").by_name(), named);
        assert_eq!(at("192.0.2.1:8443").host_field(), "a.test");
        for (at, wanted) in [
            ("192.0.2.1:80", "http://192.0.2.1"),
            ("192.0.2.1:81", "http://192.0.2.1:81"),
            ("[2001:db8::1]:81", "http://[2001:db8::1]:81"),
        ] {
            let at = at.parse().expect("an address");
            let origin = Origin::at_address(Scheme::Http, at);
            assert_eq!((origin.to_string().as_str(), origin.at()), (wanted, Some(at)));
        }
    }
}

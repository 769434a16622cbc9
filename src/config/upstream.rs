//! The file's `upstream` and `egress`: how upstreams are reached, and which may be.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use schemars::{JsonSchema, json_schema};
use serde::Serialize;

use crate::config::intercept::HostName;
use crate::config::leaf::{
    Count, HOUR, MINUTE, Parse, Parsed, SECOND, Span, Word, WordOr, Words, form, meant,
};
use crate::config::listen::{User, password};
use crate::config::reading::{Reading, Written, block};
use crate::config::tree::{Node, Value};
use crate::exchange::Origin;
use crate::upstream::{Allowed, Egress, FurtherProxy, Options};

block! {
    /// How upstreams are reached.
    UpstreamBlock {
        /// `system`, or a file of further PEM roots, added to the system's.
        roots: WordOr<System, PathBuf> = WordOr::Word(Word(System)),
        /// How long a connection may take to be made, TLS included.
        connect_timeout: Span<1, HOUR> = Span::of(10 * SECOND),
        /// How long an unused connection is kept.
        idle_timeout: Span<1, { 24 * HOUR }> = Span::of(MINUTE + 30 * SECOND),
        /// Unused connections kept per origin.
        idle_per_host: Count<0, 10_000> = Count(256),
        /// A further proxy to go through: a URL, or a map with `url`.
        proxy: Option<Further> = None,
    }
}

/// `proxy` as written: a URL, or that and more.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(super) enum Further {
    /// A proxy that asks nobody who they are.
    Url(ProxyUrl),
    /// A proxy, what it is told, and what goes past it.
    Block(ProxyBlock),
}

block! {
    /// A further proxy, what it is told, and what goes past it.
    ProxyBlock {
        /// Where it is: http://HOST:PORT, or https://HOST:PORT for TLS with the proxy itself.
        url: Option<ProxyUrl> = None,
        /// The name that it is told in Proxy-Authorization.
        user: Option<Parsed<User>> = None,
        /// A file with the password; its last newline is dropped.
        password_file: Option<PathBuf> = None,
        /// Hosts or networks that are reached without it.
        except: Vec<Parsed<Allowed>> = Vec::new(),
    }
}

/// A URL in which somebody may have put a password: a fault does not repeat it.
#[derive(Clone, Debug)]
pub(super) struct ProxyUrl(Origin);

form!([] ProxyUrl, self => self.0.to_string(),
    json_schema!({ "type": "string", "pattern": "^https?://[^/@]+:[0-9]+/?$" }));

block! {
    /// Which addresses may be reached; checked on the resolved address.
    EgressBlock {
        /// Networks that are never reached.
        deny: Vec<Parsed<IpNet>> = link_local(),
        /// When not empty, hosts or networks that alone may be reached.
        allow: Vec<Parsed<Allowed>> = Vec::new(),
    }
}

/// The word `system`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct System;

impl Words for System {
    const WORDS: &'static [(&'static str, Self)] = &[("system", Self)];
}

impl UpstreamBlock {
    /// As meant.
    pub(super) fn meant(&self, reading: &mut Reading<'_>) -> Options {
        let extra_roots = match &self.roots {
            WordOr::Word(_) => None,
            WordOr::Other(file) => Some(file.clone()),
        };
        Options {
            extra_roots,
            connect_timeout: self.connect_timeout.duration(),
            idle_timeout: self.idle_timeout.duration(),
            idle_per_host: self.idle_per_host.size(),
            proxy: self.proxy.as_ref().and_then(|proxy| proxy.meant(reading)),
        }
    }

    /// `host:port` of the proxy, and its key.
    pub(super) fn proxy_address(&self) -> Option<(&'static str, String)> {
        let (key, url) = match self.proxy.as_ref()? {
            Further::Url(url) => (PROXY, url),
            Further::Block(block) => (PROXY_URL, block.url.as_ref()?),
        };
        let Origin { host, port, .. } = &url.0;
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_string() };
        Some((key, format!("{host}:{port}")))
    }
}

impl Written for Further {
    fn fresh(node: &Node, at: &str, reading: &mut Reading<'_>) -> Option<Self> {
        match &node.value {
            Value::Map(_) => ProxyBlock::fresh(node, at, reading).map(Self::Block),
            _ => ProxyUrl::fresh(node, at, reading).map(Self::Url),
        }
    }
}

impl Written for ProxyUrl {
    fn fresh(node: &Node, at: &str, reading: &mut Reading<'_>) -> Option<Self> {
        let read = match &node.value {
            Value::Text(text) => Self::read(text),
            _ => Err(WANTED_PROXY),
        };
        read.map_err(|wish| reading.fault(at, format!("must be {wish}"))).ok()
    }
}

impl ProxyUrl {
    fn read(text: &str) -> Result<Self, &'static str> {
        let (_, rest) = text.split_once("://").ok_or(WANTED_PROXY)?;
        if rest.contains('@') {
            return Err("without a user or password: they go into `user` and `password_file`");
        }
        let origin = Origin::parse(text).map_err(|_other| WANTED_PROXY)?;
        let (_, port) = rest.trim_end_matches('/').rsplit_once(':').ok_or(WANTED_PROXY)?;
        if port.parse() == Ok(origin.port) { Ok(Self(origin)) } else { Err(WANTED_PROXY) }
    }
}

impl Further {
    fn meant(&self, reading: &mut Reading<'_>) -> Option<FurtherProxy> {
        match self {
            Self::Url(url) => Some(FurtherProxy::new(url.0.clone(), None, Vec::new())),
            Self::Block(block) => block.meant(reading),
        }
    }
}

impl ProxyBlock {
    fn meant(&self, reading: &mut Reading<'_>) -> Option<FurtherProxy> {
        if self.url.is_none() {
            reading.miss(PROXY_URL, "must be given, such as http://proxy.example.com:3128");
        }
        let password = self.password(reading);
        let user = self.user.as_ref().map(|user| user.text.as_str());
        let credentials = user.zip(password.as_deref());
        Some(FurtherProxy::new(self.url.as_ref()?.0.clone(), credentials, meant(&self.except)))
    }

    fn password(&self, reading: &mut Reading<'_>) -> Option<String> {
        let at = "upstream.proxy.password_file";
        let file = match (&self.user, &self.password_file) {
            (Some(_), Some(file)) => file,
            (Some(_), None) => {
                reading.miss(at, "must be given with `user`");
                return None;
            }
            (None, Some(_)) => {
                reading.miss("upstream.proxy.user", "must be given with `password_file`");
                return None;
            }
            (None, None) => return None,
        };
        let read = password(file);
        read.map_err(|wish| reading.fault(at, format!("{}: {wish}", file.display()))).ok()
    }
}

impl EgressBlock {
    /// As meant.
    pub(super) fn meant(&self) -> Egress {
        Egress { deny: meant(&self.deny), allow: meant(&self.allow) }
    }
}

impl Parse for IpNet {
    fn parse(text: &str) -> Result<Self, String> {
        let address = || text.parse::<IpAddr>().map(Self::from);
        let net = text.parse::<Self>().or_else(|_not_a_net| address());
        net.map(|net| net.trunc()).map_err(|_not_an_address| {
            "must be a network such as 10.0.0.0/8 or fe80::/10".to_owned()
        })
    }
}

impl Parse for Allowed {
    fn parse(text: &str) -> Result<Self, String> {
        if let Ok(net) = <IpNet as Parse>::parse(text) {
            return Ok(Self::Network(net));
        }
        let host = if text.contains('/') { None } else { HostName::parse(text).ok() };
        host.map(|host| Self::Host(host.0)).ok_or_else(|| {
            "must be a host without port or a network, such as *.example.net or 10.0.0.0/8"
                .to_owned()
        })
    }
}

const PROXY: &str = "upstream.proxy";
const PROXY_URL: &str = "upstream.proxy.url";
const WANTED_PROXY: &str = "http://HOST:PORT or https://HOST:PORT, the port included";

/// Where clouds keep the credentials of a machine: no API that is called lives there.
fn link_local() -> Vec<Parsed<IpNet>> {
    let read = |text: &str| IpNet::parse(text).map(|meant| Parsed { text: text.to_owned(), meant });
    ["169.254.0.0/16", "fe80::/10"].into_iter().flat_map(read).collect()
}

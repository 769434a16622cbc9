//! Which way a connection goes: straight to its host, or through a further proxy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;

use crate::exchange::{Failure, Origin, Scheme};
use crate::upstream::FurtherProxy;
use crate::upstream::dial::Dialer;
use crate::upstream::line::Line;
use crate::upstream::race::{interleaved, nobody, raced, resolved};

/// The further proxy in force, and which one that is.
#[derive(Clone, Debug)]
pub(super) struct Road {
    pub(super) proxy: Option<Arc<FurtherProxy>>,
    /// Grows with each change: a connection of an earlier one is not used again.
    pub(super) era: u64,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// Bytes that are the upstream's alone.
    Tunnel,
    /// Plain HTTP, which a proxy can be asked for: many grant no tunnel to port 80.
    Requests,
    /// Bytes of TLS, in which the upstream's name is proved before a request is sent.
    Proved,
}

/// A connection, and who is at its other end.
#[derive(Debug)]
pub(super) struct Reached {
    pub(super) line: Line,
    /// The proxy, where it is that and not the host: it wants whole URLs.
    pub(super) forwarder: Option<Arc<FurtherProxy>>,
    pub(super) era: u64,
}

impl Road {
    pub(super) fn new(proxy: Option<FurtherProxy>, era: u64) -> Self {
        Self { proxy: proxy.map(Arc::new), era }
    }

    /// The one after it, where `proxy` is another.
    pub(super) fn changed(&self, proxy: Option<FurtherProxy>) -> Option<Self> {
        (self.proxy.as_deref() != proxy.as_ref()).then(|| Self::new(proxy, self.era + 1))
    }
}

impl Dialer {
    /// Connects to an origin that `egress` permits.
    ///
    /// A proxy looks for a name on its own, so through one even an origin that is bound to
    /// an address is reached by its name.
    pub(super) async fn connect(
        &self,
        origin: &Origin,
        errand: Errand,
    ) -> Result<Reached, Failure> {
        let (host, port) = (&*origin.host, origin.port);
        let road = self.road();
        let era = road.era;
        let (line, forwarder) = match (&road.proxy, origin.at()) {
            (Some(proxy), at) if !proxy.spares_name(host) && !spared(proxy, host, at) => {
                self.by(proxy, (host, at.map_or(port, |at| at.port())), errand).await?
            }
            (_, Some(at)) => (self.pinned(origin, at, errand).await?, None),
            (_, None) => (self.straight((host, port), resolved(host, port).await?).await?, None),
        };
        Ok(Reached { line, forwarder, era })
    }

    async fn straight(
        &self,
        (host, port): (&str, u16),
        found: Vec<SocketAddr>,
    ) -> Result<Line, Failure> {
        let addresses = self.checked(host, found)?;
        let connected = raced(&format!("{host}:{port}"), addresses, nobody()).await?;
        self.called(connected).map(Line::tcp)
    }

    async fn by(
        &self,
        proxy: &Arc<FurtherProxy>,
        (host, port): (&str, u16),
        errand: Errand,
    ) -> Result<(Line, Option<Arc<FurtherProxy>>), Failure> {
        let found = found_here((host, port), self.connect_timeout() / 2).await;
        if proxy.spares(host, &found) {
            return Ok((self.straight((host, port), found).await?, None));
        }
        self.may_lead_to(host, &found)?;
        let line = self.to(proxy).await?;
        match errand {
            Errand::Tunnel | Errand::Proved => Ok((proxy.tunnel(line, host, port).await?, None)),
            Errand::Requests => Ok((line, Some(proxy.clone()))),
        }
    }

    /// Whether the proxy may be asked for a host, which has these addresses as far as
    /// can be seen from here.
    ///
    /// The proxy looks for itself, and may take any of them: one that is denied is enough.
    fn may_lead_to(&self, host: &str, found: &[SocketAddr]) -> Result<(), Failure> {
        if found.iter().any(|address| self.is_ours(*address)) {
            return Err(Failure::Loop);
        }
        let egress = self.egress();
        let permitted = if found.is_empty() {
            egress.permits_name(host)
        } else {
            let mut ips = found.iter().map(SocketAddr::ip);
            !ips.clone().any(|ip| egress.denies(ip)) && ips.any(|ip| egress.permits(host, ip))
        };
        if permitted { Ok(()) } else { Err(Failure::Forbidden(host.to_owned())) }
    }

    /// Connects to the proxy itself, which the operator named: `egress` is not asked.
    async fn to(&self, proxy: &FurtherProxy) -> Result<Line, Failure> {
        let (origin, whom) = (&proxy.origin, format!("the proxy {}", proxy.origin));
        let addresses = resolved(&origin.host, origin.port).await.map_err(|failure| {
            let detail = format!("{whom}: {failure}");
            Failure::Unreachable { detail, kind: "dns_error" }
        })?;
        if addresses.iter().any(|address| self.is_ours(*address)) {
            return Err(Failure::Loop);
        }
        let call = self.called(raced(&whom, addresses, nobody()).await?)?;
        match origin.scheme {
            Scheme::Http => Ok(Line::tcp(call)),
            Scheme::Https => Ok(Line::tls(self.secured_for_http1(&origin.host, call).await?)),
        }
    }
}

/// Whether the one address of an origin is reached without the proxy.
fn spared(proxy: &FurtherProxy, host: &str, at: Option<SocketAddr>) -> bool {
    at.is_some_and(|at| proxy.spares(host, &[at]))
}

/// The addresses of a host as this machine knows them; none, where it does not.
///
/// Where only the proxy looks names up, a resolver may be silent instead of saying so.
async fn found_here(host: (&str, u16), within: Duration) -> Vec<SocketAddr> {
    let found = timeout(within.min(RESOLVE_WITHIN), lookup_host(host)).await;
    found.ok().and_then(Result::ok).map_or_else(Vec::new, |found| interleaved(found.collect()))
}

/// A resolver that is there answers in less.
const RESOLVE_WITHIN: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use rustls::RootCertStore;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::metrics::Metrics;
    use crate::upstream::{Allowed, Egress, Options, Ourselves};

    fn dialer(egress: Egress, proxy: &str) -> Dialer {
        let ourselves = Ourselves::default();
        ourselves.set(vec!["127.0.0.1:8080".parse().expect("an address")]);
        let origin = Origin::parse(proxy).expect("an origin");
        let options = Options {
            extra_roots: None,
            connect_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(1),
            idle_per_host: 1,
            proxy: Some(FurtherProxy::new(origin, None, Vec::new())),
        };
        let seen = (TaskTracker::new(), Metrics::new());
        Dialer::new(RootCertStore::empty(), egress, &options, ourselves, seen).expect("a dialer")
    }

    #[test]
    fn what_is_found_here_is_checked_by_address_and_what_is_not_by_name() {
        let network = |text: &str| text.parse::<ipnet::IpNet>().expect("a network");
        let (deny, none) = (vec![network("169.254.0.0/16")], Vec::new());
        let named = vec![
            Allowed::Host("*.example.net".to_owned()),
            Allowed::Network(network("203.0.113.0/24")),
        ];
        for (allow, host, found, wanted) in [
            (&none, "api.test", &[][..], "yes"),
            (&none, "api.test", &["203.0.113.9:80"], "yes"),
            (&none, "api.test", &["169.254.169.254:80"], "forbidden"),
            (&none, "api.test", &["203.0.113.9:80", "[::ffff:169.254.169.254]:80"], "forbidden"),
            (&none, "api.test", &["203.0.113.9:80", "127.0.0.1:8080"], "loop"),
            (&named, "api.test", &[], "forbidden"),
            (&named, "api.test", &["198.51.100.7:80"], "forbidden"),
            (&named, "api.test", &["198.51.100.7:80", "203.0.113.9:80"], "yes"),
            (&named, "a.example.net", &[], "yes"),
            (&named, "a.example.net", &["198.51.100.7:80"], "yes"),
            (&named, "a.example.net", &["169.254.0.1:80"], "forbidden"),
        ] {
            let egress = Egress { deny: deny.clone(), allow: allow.clone() };
            let found: Vec<SocketAddr> =
                found.iter().map(|found| found.parse().expect("an address")).collect();
            let told = match dialer(egress, "http://proxy.test:1").may_lead_to(host, &found) {
                Ok(()) => "yes",
                Err(Failure::Forbidden(_)) => "forbidden",
                Err(Failure::Loop) => "loop",
                Err(other) => panic!("{other}"),
            };
            assert_eq!(told, wanted, "{host} at {found:?}");
        }
    }

    #[tokio::test]
    async fn a_proxy_that_is_ourselves_is_a_loop_and_one_that_is_away_is_named() {
        let reach = async |proxy: &str| {
            let dialer = dialer(Egress::default(), proxy);
            let origin = Origin::parse("http://198.51.100.7").expect("an origin");
            dialer.tcp(&origin).await.map(drop).expect_err("it is not there")
        };
        assert!(matches!(reach("http://127.0.0.1:8080").await, Failure::Loop));
        assert!(matches!(reach("http://localhost:8080").await, Failure::Loop));
        let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", gone.local_addr().expect("it is bound"));
        drop(gone);
        let refused = reach(&url).await;
        assert!(
            matches!(&refused, Failure::Unreachable { detail, kind: "connection_refused" }
                if detail.starts_with(&format!("the proxy {url} cannot be reached"))),
            "{refused:?}"
        );
        let unknown = reach("http://proxy.invalid:3128").await;
        assert!(
            matches!(&unknown, Failure::Unreachable { detail, kind: "dns_error" }
                if detail.contains("the proxy http://proxy.invalid:3128")),
            "{unknown:?}"
        );
    }

    #[test]
    fn a_road_changes_with_its_proxy_alone() {
        let proxy = |url: &str, user| {
            let origin = Origin::parse(url).expect("an origin");
            Some(FurtherProxy::new(origin, Some((user, "p")), Vec::new()))
        };
        let road = Road::new(proxy("http://a.test:1", "ann"), 7);
        assert!(road.changed(proxy("http://a.test:1", "ann")).is_none());
        for other in [None, proxy("http://a.test:2", "ann"), proxy("http://a.test:1", "bob")] {
            assert_eq!(road.changed(other).expect("another").era, 8);
        }
        assert!(Road::new(None, 0).changed(None).is_none());
    }
}

//! A connection to the one address that an origin is bound to.

use std::io;
use std::net::SocketAddr;

use crate::exchange::{Failure, Origin};
use crate::upstream::dial::Dialer;
use crate::upstream::line::Line;
use crate::upstream::race::{interleaved, raced};
use crate::upstream::way::Errand;

impl Dialer {
    /// Connects to an origin where it is, or where else its name is.
    pub(super) async fn pinned(
        &self,
        origin: &Origin,
        at: SocketAddr,
        errand: Errand,
    ) -> Result<Line, Failure> {
        self.judge(origin, at, errand).await?;
        let whom = format!("{} at {at}", origin.authority());
        let connected = raced(&whom, vec![at], self.siblings(origin, at)).await?;
        self.called(connected).map(Line::tcp)
    }

    /// Whether the address that an origin is bound to may be reached.
    ///
    /// A name that `egress.allow` holds must not open the way to any address that
    /// somebody says is it: TLS proves it, or it resolves to that address here.
    async fn judge(&self, origin: &Origin, at: SocketAddr, errand: Errand) -> Result<(), Failure> {
        self.checked(&origin.host, vec![at])?;
        let by_address = self.egress().permits(&at.ip().to_string(), at.ip());
        let believed = errand == Errand::Proved || by_address;
        if believed || resolved(origin, at).await.is_ok_and(|found| holds(&found, at)) {
            return Ok(());
        }
        Err(Failure::Forbidden(origin.host.to_string()))
    }

    /// Where else an origin is, if the one address is among those of its name: the
    /// client would have gone on to them, had it seen that this one does not answer.
    async fn siblings(&self, origin: &Origin, at: SocketAddr) -> Vec<SocketAddr> {
        let found = resolved(origin, at).await.unwrap_or_default();
        if !holds(&found, at) {
            return Vec::new();
        }
        let others = found.into_iter().filter(|address| address.ip() != at.ip()).collect();
        self.checked(&origin.host, interleaved(others)).unwrap_or_default()
    }
}

/// The addresses of a name, with the port of the one address.
async fn resolved(origin: &Origin, at: SocketAddr) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((&*origin.host, at.port())).await?.collect())
}

fn holds(found: &[SocketAddr], at: SocketAddr) -> bool {
    found.iter().any(|address| address.ip().to_canonical() == at.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::RootCertStore;
    use tokio::net::TcpListener;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::exchange::Scheme;
    use crate::metrics::Metrics;
    use crate::upstream::{Allowed, Egress, Options, Ourselves};

    fn dialer(egress: Egress, ours: &[SocketAddr]) -> Dialer {
        let ourselves = Ourselves::default();
        ourselves.set(ours.to_vec());
        let options = Options {
            extra_roots: None,
            connect_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(1),
            idle_per_host: 1,
            proxy: None,
        };
        let seen = (TaskTracker::new(), Metrics::new());
        Dialer::new(RootCertStore::empty(), egress, &options, ourselves, seen).expect("a dialer")
    }

    #[tokio::test]
    async fn a_name_that_is_allowed_opens_the_way_to_its_own_addresses_only() {
        let named = |host: &str, at: &str| {
            let at: SocketAddr = at.parse().expect("an address");
            (Origin::new(Scheme::Http, host, at.port()).expect("an origin").pinned(at), at)
        };
        let allow = |allowed: &[Allowed]| Egress { deny: Vec::new(), allow: allowed.to_vec() };
        let by_name = allow(&[Allowed::Host("localhost".to_owned())]);
        let network = "127.0.0.0/8".parse().expect("a network");
        let by_address = allow(&[Allowed::Network(network)]);
        let denied = Egress { deny: vec![network], allow: Vec::new() };
        for (egress, host, at, claimed, proved) in [
            (&Egress::default(), "a.test", "192.0.2.1:80", true, true),
            (&by_name, "localhost", "127.0.0.1:80", true, true),
            (&by_name, "localhost", "192.0.2.1:80", false, true),
            (&by_name, "a.test", "127.0.0.1:80", false, false),
            (&by_address, "a.test", "127.0.0.1:80", true, true),
            (&by_address, "127.0.0.1", "192.0.2.1:80", false, false),
            (&denied, "a.test", "127.0.0.1:80", false, false),
        ] {
            let dialer = dialer(egress.clone(), &[]);
            let (origin, at) = named(host, at);
            for (errand, wanted) in [(Errand::Tunnel, claimed), (Errand::Proved, proved)] {
                let judged = dialer.judge(&origin, at, errand).await;
                assert_eq!(judged.is_ok(), wanted, "{egress:?} {origin} at {at}: {errand:?}");
            }
        }
    }

    #[tokio::test]
    async fn an_origin_that_is_bound_to_an_address_is_reached_there_or_at_its_names_others() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let at = listener.local_addr().expect("it is bound");
        let dialer = dialer(Egress::default(), &[]);
        let named = |host: &str| Origin::new(Scheme::Http, host, 1).expect("an origin").pinned(at);
        for host in ["localhost", "nowhere.invalid"] {
            drop(dialer.tcp(&named(host)).await.expect("the name is not asked for"));
        }
        // Of a name that is elsewhere nothing is dialled but the one address.
        assert!(dialer.siblings(&named("nowhere.invalid"), at).await.is_empty());
        assert!(dialer.siblings(&named("192.0.2.1"), at).await.is_empty());
        let siblings = dialer.siblings(&named("localhost"), at).await;
        assert!(siblings.iter().all(|sibling| sibling.port() == at.port() && *sibling != at));
        let ours = super::tests::dialer(Egress::default(), &[at]);
        assert!(matches!(ours.tcp(&named("localhost")).await, Err(Failure::Loop)));
    }
}

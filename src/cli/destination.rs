//! What `samekey explain` says of a host that samekey does not connect to.
//!
//! No name is looked up: what a name resolves to is judged when a request is sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use samekey::config::Config;
use samekey::exchange::Origin;
use samekey::upstream::{Allowed, Ourselves};

/// What a request to `origin` is answered here, where that shows in its name or address.
pub(super) fn refused(config: &Config, origin: &Origin) -> Option<String> {
    let host = &*origin.host;
    let addresses = addresses(host);
    let ourselves = Ourselves::default();
    ourselves.set(own(config));
    if addresses.iter().any(|ip| ourselves.is(SocketAddr::new(*ip, origin.port))) {
        return Some("508 loop: samekey itself listens there".to_owned());
    }
    let egress = &config.egress;
    let by_address = |allowed: &Allowed| matches!(allowed, Allowed::Network(_));
    let permitted = if addresses.is_empty() {
        egress.permits_name(host) || egress.allow.iter().any(by_address)
    } else {
        addresses.iter().any(|ip| egress.permits(host, *ip))
    };
    (!permitted).then(|| format!("403 forbidden-destination: egress does not allow {host}"))
}

/// The addresses that a host is, without anybody being asked.
fn addresses(host: &str) -> Vec<IpAddr> {
    if host == "localhost" {
        return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    host.parse().into_iter().collect()
}

/// Where samekey listens, by its config.
fn own(config: &Config) -> Vec<SocketAddr> {
    let listeners = config.listeners.iter().map(|spec| &spec.address);
    let all = listeners.chain([&config.admin.address]);
    let all = all.map(|address| address.replacen("localhost:", "127.0.0.1:", 1));
    all.filter_map(|address| address.parse().ok()).collect()
}

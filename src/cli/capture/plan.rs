//! What is redirected, whither, and what is spared: pure of any backend.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use samekey::listen::{Mode, Spec};

/// Everything that rules are made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The TCP ports that are redirected.
    pub(super) ports: Vec<u16>,
    /// Where they are redirected to.
    pub(super) to: Targets,
    /// Whose connections are samekey's own.
    pub(super) own_uid: u32,
    /// Whose connections alone are redirected.
    pub(super) only_uid: Option<u32>,
    /// Networks that are left alone, beside those that always are.
    pub(super) except: Vec<IpNet>,
}

/// The listener's port in each family; `None`: the family is left as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Targets {
    pub(super) v4: Option<u16>,
    pub(super) v6: Option<u16>,
}

impl Plan {
    /// The networks of a family that are left alone.
    pub(super) fn spared(&self, v4: bool) -> impl Iterator<Item = IpNet> {
        let always = METADATA.iter().filter_map(|network| network.parse().ok());
        let spared = always.chain(self.except.iter().copied());
        spared.filter(move |network: &IpNet| network.addr().is_ipv4() == v4)
    }
}

impl Targets {
    /// The transparent listeners that a redirected connection can reach: one redirected
    /// amid the machine comes to 127.0.0.1 or `::1`, whatever it was for.
    ///
    /// # Errors
    ///
    /// What the config lacks.
    pub(super) fn of(
        listeners: &[Spec],
        resolve: impl Fn(&str) -> Option<SocketAddr>,
    ) -> Result<Self, String> {
        let mut targets = Self::default();
        let mut dual = None;
        for spec in listeners.iter().filter(|spec| spec.mode == Mode::Transparent) {
            let written = &spec.address;
            let unknown = || format!("{written}: its address cannot be told");
            let address = resolve(written).ok_or_else(unknown)?;
            let port = address.port();
            if port == 0 {
                return Err(format!(
                    "{written}: a transparent listener needs a port that is fixed"
                ));
            }
            match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() || ip.octets() == [127, 0, 0, 1] => {
                    targets.v4.get_or_insert(port);
                }
                IpAddr::V6(ip) if ip.is_unspecified() => {
                    targets.v6.get_or_insert(port);
                    dual.get_or_insert(port);
                }
                IpAddr::V6(ip) if ip.is_loopback() => {
                    targets.v6.get_or_insert(port);
                }
                IpAddr::V4(_) | IpAddr::V6(_) => {
                    let wish = "it must be on 127.0.0.1, [::1], 0.0.0.0 or [::]";
                    return Err(format!("{written}: {wish}: what is redirected comes there"));
                }
            }
        }
        targets.v4 = targets.v4.or(dual);
        if targets == Self::default() {
            return Err("no listener has `mode: transparent`".to_owned());
        }
        Ok(targets)
    }

    /// What an operator has to know of a family that is not redirected.
    pub(super) fn gap(self) -> Option<&'static str> {
        match (self.v4, self.v6) {
            (Some(_), None) => Some("IPv6 is not redirected: no transparent listener on [::1]"),
            (None, Some(_)) => Some("IPv4 is not redirected: no transparent listener on 127.0.0.1"),
            _ => None,
        }
    }
}

/// Where clouds keep metadata and credentials, which nothing must stand between: link-local
/// in both families, and the IPv6 addresses of AWS and of Google Cloud.
const METADATA: [&str; 4] = ["169.254.0.0/16", "fe80::/10", "fd00:ec2::/32", "fd20:ce::254/128"];

#[cfg(test)]
pub(super) mod tests {
    use samekey::listen::Mode::{Forward, Transparent};
    use samekey::listen::{Auth, Caps};

    use super::*;

    /// What `capture` plans without a flag, for a listener on 8082 in both families.
    pub(in super::super) fn plan() -> Plan {
        Plan {
            ports: vec![80, 443],
            to: Targets { v4: Some(8082), v6: Some(8082) },
            own_uid: 65532,
            only_uid: None,
            except: Vec::new(),
        }
    }

    fn targets(listeners: &[(&str, Mode)]) -> Result<Targets, String> {
        let spec = |(address, mode): &(&str, Mode)| Spec {
            address: (*address).to_owned(),
            mode: mode.clone(),
            auth: Auth::Open,
            caps: Caps::default(),
        };
        let specs: Vec<_> = listeners.iter().map(spec).collect();
        Targets::of(&specs, |written| written.replace("localhost", "127.0.0.1").parse().ok())
    }

    #[test]
    fn rules_lead_to_the_transparent_listeners() {
        let both = |v4, v6| Ok(Targets { v4, v6 });
        for (listeners, wanted) in [
            (&[("127.0.0.1:1", Transparent)][..], both(Some(1), None)),
            (&[("0.0.0.0:1", Transparent)], both(Some(1), None)),
            (&[("localhost:1", Transparent)], both(Some(1), None)),
            (&[("[::1]:2", Transparent)], both(None, Some(2))),
            (&[("[::]:2", Transparent)], both(Some(2), Some(2))),
            (&[("[::]:2", Transparent), ("127.0.0.1:3", Transparent)], both(Some(3), Some(2))),
            (&[("127.0.0.1:1", Transparent), ("[::1]:2", Transparent)], both(Some(1), Some(2))),
            (&[("127.0.0.1:1", Transparent), ("127.0.0.1:2", Transparent)], both(Some(1), None)),
            (&[("127.0.0.1:9", Forward), ("127.0.0.1:1", Transparent)], both(Some(1), None)),
        ] {
            assert_eq!(targets(listeners), wanted, "{listeners:?}");
        }
        for (listeners, wish) in [
            (&[("127.0.0.1:9", Forward)][..], "no listener has `mode: transparent`"),
            (&[("127.0.0.1:0", Transparent)], "127.0.0.1:0: a transparent listener needs a port"),
            (&[("127.0.0.2:1", Transparent)], "127.0.0.2:1: it must be on 127.0.0.1"),
            (&[("10.0.0.1:1", Transparent)], "10.0.0.1:1: it must be on 127.0.0.1"),
            (&[("nowhere:1", Transparent)], "nowhere:1: its address cannot be told"),
        ] {
            let refused = targets(listeners).expect_err("it is refused");
            assert!(refused.starts_with(wish), "{refused}");
        }
    }

    #[test]
    fn a_family_that_is_left_open_is_told_of() {
        for (v4, v6, told) in
            [(Some(1), Some(1), None), (Some(1), None, Some("IPv6")), (None, Some(1), Some("IPv4"))]
        {
            let gap = Targets { v4, v6 }.gap();
            assert_eq!(gap.and_then(|gap| gap.split(' ').next()), told);
        }
    }

    #[test]
    fn metadata_is_always_spared_and_each_family_has_its_own() {
        let except = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let plan = Plan { except, ..plan() };
        let spared = |v4| plan.spared(v4).map(|network| network.to_string()).collect::<Vec<_>>();
        assert_eq!(spared(true), ["169.254.0.0/16", "10.0.0.0/8"]);
        assert_eq!(spared(false), ["fe80::/10", "fd00:ec2::/32", "fd20:ce::254/128", "fd00::/8"]);
    }
}

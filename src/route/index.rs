//! Which routes a host can have, found without asking each of them.

use std::collections::HashMap;

use crate::route::{HostPattern, Matcher};

/// The places of the routes that name a host, in their order.
#[derive(Debug, Default)]
pub struct Index {
    /// By host, for every host that a route names in full.
    named: HashMap<String, Vec<usize>>,
    /// Of routes with a pattern such as `*.example.net`: all that other hosts can have.
    patterned: Vec<usize>,
}

impl Index {
    /// Reads the hosts of routes that stand in this order.
    pub fn of<'m>(matchers: impl Iterator<Item = &'m Matcher>) -> Self {
        let matchers: Vec<&Matcher> = matchers.collect();
        let mut index = Self::default();
        for (at, matcher) in matchers.iter().enumerate() {
            if matcher.hosts.iter().any(|pattern| pattern.exact().is_none()) {
                index.patterned.push(at);
            }
            for host in matcher.hosts.iter().filter_map(HostPattern::exact) {
                index.named.entry(host.to_owned()).or_default();
            }
        }
        for (host, routes) in &mut index.named {
            let names = |matcher: &Matcher| matcher.hosts.iter().any(|it| it.matches_name(host));
            let all = matchers.iter().enumerate();
            routes.extend(all.filter(|(_, matcher)| names(matcher)).map(|(at, _)| at));
        }
        index
    }

    /// The places of all routes that could match a host, on whatever port.
    pub fn of_host(&self, host: &str) -> &[usize] {
        self.named.get(host).unwrap_or(&self.patterned)
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use proptest::prelude::*;

    use super::*;

    fn matcher(hosts: &[&str]) -> Matcher {
        let hosts = hosts.iter().map(|host| HostPattern::parse(host).expect("a pattern"));
        Matcher { hosts: hosts.collect(), methods: Vec::new(), paths: Vec::new() }
    }

    #[test]
    fn a_host_has_the_routes_that_name_it_in_their_order() {
        let routes = [
            matcher(&["a.test"]),
            matcher(&["*.test", "b"]),
            matcher(&["a.test:1"]),
            matcher(&["*"]),
        ];
        let index = Index::of(routes.iter());
        for (host, wanted) in
            [("a.test", &[0, 1, 2, 3][..]), ("b", &[1, 3]), ("c.test", &[1, 3]), ("c", &[1, 3])]
        {
            assert_eq!(index.of_host(host), wanted, "{host}");
        }
        assert_eq!(Index::of([].iter()).of_host("a"), [0_usize; 0]);
    }

    proptest! {
        #[test]
        fn the_first_route_is_the_one_that_asking_each_would_find(
            routes in prop::collection::vec(prop::collection::vec("(a|b|\\*)\\.t|t|\\*", 1..3), 0..6),
            host in "(a|b|c)(\\.t)?|t",
        ) {
            let routes: Vec<Matcher> = routes
                .iter()
                .map(|hosts| matcher(&hosts.iter().map(String::as_str).collect::<Vec<_>>()))
                .collect();
            let matches =
                |at: &usize| routes[*at].matches(&host, 443, &Method::GET, "/");
            let wanted = (0..routes.len()).find(|at| matches(at));
            let index = Index::of(routes.iter());
            prop_assert_eq!(index.of_host(&host).iter().copied().find(|at| matches(at)), wanted);
        }
    }
}

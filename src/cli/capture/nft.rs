//! The rules as one table of nftables, which is put in place or taken away in one step.

use std::fmt::Write as _;

use super::plan::Plan;

/// A script for `nft -f`; it leaves the same behind however often it is run.
pub(super) fn apply(plan: &Plan) -> String {
    let mut script = format!(
        "# The rules of `samekey capture`; needs Linux 5.2 or later.\n{}\n\
         table inet samekey {{\n\tchain output {{\n\
         \t\ttype nat hook output priority -100; policy accept;\n",
        remove()
    );
    for rule in rules(plan) {
        let _always = writeln!(script, "\t\t{rule}");
    }
    script.push_str("\t}\n}\n");
    script
}

/// A script for `nft -f` that takes them away, where there are any.
pub(super) fn remove() -> String {
    "add table inet samekey\ndelete table inet samekey\n".to_owned()
}

fn rules(plan: &Plan) -> Vec<String> {
    // Most local of all first: what is spared must not depend on what is redirected.
    let mut rules =
        vec![format!("meta skuid {} return", plan.own_uid), "oifname \"lo\" return".to_owned()];
    rules.extend(plan.spared(true).map(|network| format!("ip daddr {network} return")));
    rules.extend(plan.spared(false).map(|network| format!("ip6 daddr {network} return")));
    rules.extend(plan.only_uid.map(|uid| format!("meta skuid != {uid} return")));
    let ports: Vec<String> = plan.ports.iter().map(u16::to_string).collect();
    let ports = ports.join(", ");
    for (family, port) in [("ipv4", plan.to.v4), ("ipv6", plan.to.v6)] {
        rules.extend(port.map(|port| {
            format!("meta nfproto {family} tcp dport {{ {ports} }} redirect to :{port}")
        }));
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::super::plan::Targets;
    use super::super::plan::tests::plan;
    use super::*;

    #[test]
    fn a_script_replaces_the_table_whole() {
        let wanted = "\
# The rules of `samekey capture`; needs Linux 5.2 or later.
add table inet samekey
delete table inet samekey

table inet samekey {
	chain output {
		type nat hook output priority -100; policy accept;
		meta skuid 65532 return
		oifname \"lo\" return
		ip daddr 169.254.0.0/16 return
		ip6 daddr fe80::/10 return
		ip6 daddr fd00:ec2::/32 return
		ip6 daddr fd20:ce::254/128 return
		meta nfproto ipv4 tcp dport { 80, 443 } redirect to :8082
		meta nfproto ipv6 tcp dport { 80, 443 } redirect to :8082
	}
}
";
        assert_eq!(apply(&plan()), wanted);
    }

    #[test]
    fn each_flag_has_its_rule() {
        let base = rules(&plan());
        let added = |plan: &Plan| {
            let rules = rules(plan).into_iter();
            rules.filter(|rule| !base.contains(rule)).collect::<Vec<_>>()
        };
        let to = Targets { v4: Some(1), v6: None };
        for (plan, wanted) in [
            (Plan { own_uid: 7, ..plan() }, &["meta skuid 7 return"][..]),
            (Plan { only_uid: Some(8), ..plan() }, &["meta skuid != 8 return"]),
            (
                Plan { except: vec!["10.0.0.0/8".parse().unwrap()], ..plan() },
                &["ip daddr 10.0.0.0/8 return"],
            ),
            (
                Plan { except: vec!["fd00::/8".parse().unwrap()], ..plan() },
                &["ip6 daddr fd00::/8 return"],
            ),
            (
                Plan { to, ports: vec![25], ..plan() },
                &["meta nfproto ipv4 tcp dport { 25 } redirect to :1"],
            ),
        ] {
            assert_eq!(added(&plan), wanted);
        }
    }

    #[test]
    fn who_is_spared_is_spared_before_anything_is_redirected() {
        let plan = Plan { only_uid: Some(8), ..plan() };
        let rules = rules(&plan);
        let first = rules.iter().position(|rule| rule.contains("redirect")).expect("it redirects");
        assert!(rules.iter().skip(first).all(|rule| rule.contains("redirect")), "{rules:?}");
    }
}

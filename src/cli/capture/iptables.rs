//! The rules as a chain of iptables and one of ip6tables, and the steps that put them in place.

use std::fmt::Write as _;

use super::plan::Plan;

/// A command, and when it is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) when: When,
    pub(super) command: Vec<String>,
    /// What it reads.
    pub(super) input: Option<String>,
}

/// When a step is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// In any case.
    Always,
    /// When this succeeds.
    Succeeds(Vec<String>),
    /// When this fails.
    Fails(Vec<String>),
}

/// The names of a family's commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Family {
    v4: bool,
    command: &'static str,
    restore: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family { v4: true, command: "iptables", restore: "iptables-restore" },
    Family { v4: false, command: "ip6tables", restore: "ip6tables-restore" },
];

/// The steps that redirect; they leave the same behind however often they are taken.
pub(super) fn apply(plan: &Plan) -> Vec<Step> {
    let chosen = |family: &Family| if family.v4 { plan.to.v4 } else { plan.to.v6 };
    let wanted: Vec<_> = FAMILIES
        .iter()
        .filter_map(|family| Some((family, chain(plan, *family, chosen(family)?))))
        .collect();
    let always =
        |command, input: &str| Step { when: When::Always, command, input: Some(input.to_owned()) };
    // What one family refuses is known before the other is touched.
    let tried = wanted.iter().map(|(family, rules)| {
        always(words(&[family.restore, "-w", "--noflush", "--test"]), rules)
    });
    let done = wanted.iter().flat_map(|(family, rules)| {
        let hook = |act| {
            words(&[family.command, "-w", "-t", "nat", act, "OUTPUT", "-p", "tcp", "-j", CHAIN])
        };
        [
            always(words(&[family.restore, "-w", "--noflush"]), rules),
            Step { when: When::Fails(hook("-C")), command: hook("-A"), input: None },
        ]
    });
    let left = FAMILIES.iter().filter(|family| chosen(family).is_none());
    tried.chain(done).chain(left.flat_map(|family| without(*family))).collect()
}

/// The steps that take the rules away, where there are any.
pub(super) fn remove() -> Vec<Step> {
    FAMILIES.into_iter().flat_map(without).collect()
}

/// The chain as `iptables-restore` reads it: one that is there already is replaced.
fn chain(plan: &Plan, family: Family, to: u16) -> String {
    let mut rules = vec![
        format!("-m owner --uid-owner {} -j RETURN", plan.own_uid),
        "-o lo -j RETURN".to_owned(),
    ];
    rules.extend(plan.spared(family.v4).map(|network| format!("-d {network} -j RETURN")));
    rules.extend(plan.only_uid.map(|uid| format!("-m owner ! --uid-owner {uid} -j RETURN")));
    rules.extend(
        plan.ports.iter().map(|port| format!("-p tcp --dport {port} -j REDIRECT --to-ports {to}")),
    );
    let mut text = format!("*nat\n:{CHAIN} - [0:0]\n");
    for rule in rules {
        let _always = writeln!(text, "-A {CHAIN} {rule}");
    }
    text.push_str("COMMIT\n");
    text
}

fn without(family: Family) -> [Step; 2] {
    let hook =
        |act| words(&[family.command, "-w", "-t", "nat", act, "OUTPUT", "-p", "tcp", "-j", CHAIN]);
    [
        Step { when: When::Succeeds(hook("-C")), command: hook("-D"), input: None },
        Step {
            when: When::Succeeds(words(&[family.command, "-w", "-t", "nat", "-n", "-L", CHAIN])),
            command: words(&[family.restore, "-w", "--noflush"]),
            input: Some(format!("*nat\n-F {CHAIN}\n-X {CHAIN}\nCOMMIT\n")),
        },
    ]
}

/// The steps as a script for `sh`.
pub(super) fn script(steps: &[Step]) -> String {
    let mut script = "#!/bin/sh\n# The rules of `samekey capture`.\nset -e\n".to_owned();
    for step in steps {
        let command = step.command.join(" ");
        let command = match &step.input {
            Some(input) => format!("{command} <<'RULES'\n{input}RULES\n"),
            None => format!("{command}\n"),
        };
        let guarded = match &step.when {
            When::Always => command,
            When::Succeeds(test) => guarded("", test, &command),
            When::Fails(test) => guarded("! ", test, &command),
        };
        script.push_str(&guarded);
    }
    script
}

fn guarded(not: &str, test: &[String], command: &str) -> String {
    format!("if {not}{} >/dev/null 2>&1; then\n{command}fi\n", test.join(" "))
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

const CHAIN: &str = "SAMEKEY_OUTPUT";

#[cfg(test)]
mod tests {
    use super::super::plan::Targets;
    use super::super::plan::tests::plan;
    use super::*;

    #[test]
    fn a_family_has_one_chain_that_is_replaced_whole() {
        let wanted = "\
*nat
:SAMEKEY_OUTPUT - [0:0]
-A SAMEKEY_OUTPUT -m owner --uid-owner 65532 -j RETURN
-A SAMEKEY_OUTPUT -o lo -j RETURN
-A SAMEKEY_OUTPUT -d 169.254.0.0/16 -j RETURN
-A SAMEKEY_OUTPUT -d 10.0.0.0/8 -j RETURN
-A SAMEKEY_OUTPUT -m owner ! --uid-owner 1000 -j RETURN
-A SAMEKEY_OUTPUT -p tcp --dport 80 -j REDIRECT --to-ports 8082
-A SAMEKEY_OUTPUT -p tcp --dport 443 -j REDIRECT --to-ports 8082
COMMIT
";
        let except = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let plan = Plan { only_uid: Some(1000), except, ..plan() };
        assert_eq!(chain(&plan, FAMILIES[0], 8082), wanted);
        let six = chain(&plan, FAMILIES[1], 8083);
        assert!(six.contains("-d fd00::/8 -j RETURN") && six.contains("-d fe80::/10 -j RETURN"));
        assert!(!six.contains("10.0.0.0") && !six.contains("169.254"), "{six}");
        assert!(six.contains("--to-ports 8083"));
    }

    /// The first words of each step that is taken when every test says `answer`.
    fn taken(steps: &[Step], answer: bool) -> Vec<String> {
        let runs = |step: &&Step| match step.when {
            When::Always => true,
            When::Succeeds(_) => answer,
            When::Fails(_) => !answer,
        };
        let short = |step: &Step| {
            let last = |word: &&String| {
                word.as_str() == "--test" || word.starts_with("-A") || word.starts_with("-D")
            };
            let act = step.command.iter().find(last).map(|word| format!(" {word}"));
            format!("{}{}", step.command[0], act.unwrap_or_default())
        };
        steps.iter().filter(runs).map(short).collect()
    }

    #[test]
    fn nothing_is_hooked_twice_and_both_families_are_tried_before_one_is_touched() {
        let tries = ["iptables-restore --test", "ip6tables-restore --test"];
        let fresh =
            [&tries[..], &["iptables-restore", "iptables -A", "ip6tables-restore", "ip6tables -A"]];
        assert_eq!(taken(&apply(&plan()), false), fresh.concat());
        let again = [&tries[..], &["iptables-restore", "ip6tables-restore"]];
        assert_eq!(taken(&apply(&plan()), true), again.concat());
    }

    #[test]
    fn a_family_without_a_listener_loses_the_rules_that_it_had() {
        let plan = Plan { to: Targets { v4: Some(1), v6: None }, ..plan() };
        let fresh = ["iptables-restore --test", "iptables-restore", "iptables -A"];
        assert_eq!(taken(&apply(&plan), false), fresh);
        let again =
            ["iptables-restore --test", "iptables-restore", "ip6tables -D", "ip6tables-restore"];
        assert_eq!(taken(&apply(&plan), true), again);
    }

    #[test]
    fn what_is_not_there_is_not_removed() {
        assert!(taken(&remove(), false).is_empty());
        let all = ["iptables -D", "iptables-restore", "ip6tables -D", "ip6tables-restore"];
        assert_eq!(taken(&remove(), true), all);
    }

    #[test]
    fn a_script_takes_the_same_steps() {
        let steps = [
            Step { when: When::Always, command: words(&["a", "-b"]), input: Some("in\n".into()) },
            Step { when: When::Fails(words(&["t"])), command: words(&["c"]), input: None },
            Step { when: When::Succeeds(words(&["u"])), command: words(&["d"]), input: None },
        ];
        let wanted = "#!/bin/sh\n# The rules of `samekey capture`.\nset -e\n\
                      a -b <<'RULES'\nin\nRULES\n\
                      if ! t >/dev/null 2>&1; then\nc\nfi\nif u >/dev/null 2>&1; then\nd\nfi\n";
        assert_eq!(script(&steps), wanted);
    }
}

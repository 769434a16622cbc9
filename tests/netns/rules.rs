//! `samekey capture`: what it leaves in the kernel, and whom it spares.

use crate::world::{APPLICATION, PROVIDER, SIDECAR, World, binary};

const BACKENDS: [&str; 2] = ["nft", "iptables"];

#[test]
fn applying_twice_changes_nothing_and_removing_leaves_nothing() {
    for backend in BACKENDS {
        let world = World::new();
        world.configure("");
        let empty = world.rules();
        let apply = || {
            let ran = world.capture(&["apply", "--backend", backend]);
            assert_eq!((ran.code, &*ran.err), (Some(0), ""), "{backend}");
            world.rules()
        };
        let once = apply();
        for words in ["redirect to :17081", "65532", "169.254.0.0/16", "fe80::/10"] {
            assert!(once.contains(words), "{backend} without {words}:\n{once}");
        }
        assert_eq!(apply(), once, "{backend}");
        let other = world.capture(&["apply", "--backend", backend, "--ports", "8443"]);
        assert_eq!(other.code, Some(0), "{backend}: {}", other.err);
        assert!(!world.rules().contains("443 }") && world.rules().contains("8443"), "{backend}");
        // Twice, and without a config too: what is not there is not missed.
        for _ in 0..2 {
            let ran = world.capture(&["remove", "--config", "/dev/null"]);
            assert_eq!((ran.code, &*ran.err), (Some(0), ""), "{backend}");
            let rules = world.rules();
            assert!(
                !rules.contains("8443") && !rules.to_lowercase().contains("samekey"),
                "{rules}"
            );
            assert!(backend == "iptables" || rules == empty, "{rules}");
        }
    }
}

#[test]
fn what_is_printed_does_what_apply_does() {
    for (backend, shell) in [("nft", "nft -f -"), ("iptables", "sh")] {
        let world = World::new();
        world.configure("");
        let flags = ["--backend", backend, "--except", "10.9.0.0/16,fd09::1", "--only-uid", "1000"];
        world.capture(&[&["apply"], &flags[..]].concat());
        let applied = sorted(&world.rules());
        assert!(applied.contains("10.9.0.0/16") && applied.contains("fd09::1"), "{applied}");
        world.capture(&["remove"]);
        world.capture(&[&["print", "--output", "rules"], &flags[..]].concat());
        for _ in 0..2 {
            let ran = world.as_root(&["sh", "-c", &format!("{shell} < rules")]);
            assert_eq!((ran.code, &*ran.err), (Some(0), ""), "{backend}");
            assert_eq!(sorted(&world.rules()), applied, "{backend}");
        }
    }
}

/// The kernel lists chains in the order in which they were made.
fn sorted(rules: &str) -> String {
    let mut lines: Vec<_> = rules.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

#[test]
fn who_may_not_change_the_rules_is_told_so() {
    let world = World::new();
    world.configure("");
    for act in ["apply", "remove"] {
        let ran = world.run_as(APPLICATION, &[binary(), "capture", act]);
        let wanted = format!("samekey capture: {act} needs root or CAP_NET_ADMIN\n");
        assert_eq!((ran.code, ran.err), (Some(1), wanted));
    }
}

/// Whether what a program of this user's asks over IPv4 goes through samekey.
fn redirected(world: &World, uid: u32) -> bool {
    let ran = world.run_as(uid, &["curl", "-4sSi", "http://provider.test/s/u/status/200"]);
    assert!(ran.out.starts_with("HTTP/1.1 200"), "{ran:?}");
    ran.out.to_lowercase().contains("samekey-attempts: 1")
}

/// As in a pod: root with one capability, as which its init container runs, and what it reads.
#[test]
fn the_rules_that_kubernetes_is_given_work_as_its_init_container_sets_them() {
    let mut world = World::new();
    world.sidecar("routes: [{name: r, match: {hosts: ['*']}}]\n");
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/config/kubernetes/transparent/base");
    let file = world.folder.path().join("samekey.nft");
    std::fs::copy(format!("{shipped}/samekey.nft"), &file).expect("copied");
    let set = |capability: &str| {
        let bounds = format!("-all{capability}");
        let limits = ["setpriv", "--bounding-set", &bounds, "--inh-caps", "-all", "--no-new-privs"];
        world.as_root(&[&limits[..], &["nft", "-f", "samekey.nft"]].concat())
    };
    assert_ne!(set("").code, Some(0), "without NET_ADMIN nothing is set");
    assert!(!redirected(&world, APPLICATION));
    // The container may be started again in the same pod.
    for _ in 0..2 {
        let ran = set(",+net_admin");
        assert_eq!((ran.code, &*ran.err), (Some(0), ""));
        assert!(redirected(&world, APPLICATION) && redirected(&world, 0));
        assert!(!redirected(&world, SIDECAR), "samekey's own calls are spared");
    }
    let shown = ["-6", "-sS", "-o", "/dev/null", "-w", "%header{samekey-attempts}"];
    let url = "https://provider.test/s/u/status/200";
    let ran = world.app(&[&["curl"], &shown[..], &[url]].concat());
    assert_eq!(ran.out, "1", "IPv6 and TLS: {}", ran.err);
}

#[test]
fn users_and_networks_are_spared_as_they_are_named() {
    for backend in BACKENDS {
        let mut world = World::new();
        world.sidecar("routes: [{name: r, match: {hosts: ['*']}}]\n");
        let apply = |flags: &[&str]| {
            let ran = world.capture(&[&["apply", "--backend", backend], flags].concat());
            assert_eq!(ran.code, Some(0), "{}", ran.err);
        };
        let v4 = PROVIDER[0];
        for (flags, users) in [
            (&[][..], &[(APPLICATION, true), (1001, true), (SIDECAR, false), (0, true)][..]),
            (&["--only-uid", "1001"], &[(APPLICATION, false), (1001, true), (SIDECAR, false)]),
            (&["--except", "10.77.0.0/24,fd77::/64"], &[(APPLICATION, false)]),
            (&["--except", v4], &[(APPLICATION, false)]),
            (&["--except", "fd77::/64"], &[(APPLICATION, true)]),
            (&["--ports", "443"], &[(APPLICATION, false)]),
        ] {
            apply(flags);
            for &(uid, wanted) in users {
                assert_eq!(redirected(&world, uid), wanted, "{backend} {flags:?}: {uid}");
            }
        }
        apply(&[]);
        assert!(redirected(&world, APPLICATION));
        world.capture(&["remove"]);
        assert!(!redirected(&world, APPLICATION), "{backend}: nothing is left");
        // While samekey is down, what is redirected is refused, and nothing slips past it.
        apply(&[]);
        world.stop_sidecar();
        let ran = world.app(&["curl", "-sS", "http://provider.test/s/u/status/200"]);
        assert_eq!(ran.code, Some(7), "curl could not connect: {ran:?}");
    }
}

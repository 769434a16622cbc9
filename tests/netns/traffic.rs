//! What becomes of redirected traffic, by program, by protocol, and in both IP families.

use crate::world::{APPLICATION, IMPOSTOR, LISTENER, METADATA, NOBODY, PROVIDER, Ran, World};

const ROUTES: &str = "\
intercept: {except: [raw.provider.test]}
routes:
  - name: r
    match: {hosts: [provider.test, '*.provider.test']}
    idempotency: {upstream_dedupes: true}
    retry: {backoff: {initial: 1ms}}
";

/// A world whose rules are in place, and also redirect the port of a server of the test's own.
fn captured(backend: &str) -> World {
    let mut world = World::new();
    world.sidecar(ROUTES);
    let ran = world.capture(&["apply", "--backend", backend, "--ports", "80,443,25"]);
    assert_eq!((ran.code, &*ran.err), (Some(0), ""), "{backend}");
    world
}

/// An order was answered well, at the second attempt and under one key.
fn check_order(world: &World, scenario: &str, ran: &Ran) {
    assert!(ran.out.contains("201 2"), "{scenario}: {ran:?}");
    let report = world.report(scenario);
    assert_eq!(report["requests"], 2, "{scenario}: {report}");
    assert_eq!(report["keys"].as_array().map(Vec::len), Some(1), "{scenario}: {report}");
    let keyed = |row: &serde_json::Value| row["key"].is_string();
    assert!(report["seen"].as_array().expect("rows").iter().all(keyed), "{report}");
}

/// Orders by curl with these flags, whose first attempt meets a 503.
fn order(world: &World, scenario: &str, flags: &[&str], url: &str) {
    world.script(scenario, "503");
    let shown = "%{http_code} %header{samekey-attempts}";
    let words = ["curl", "-sS", "--max-time", "20", "-o", "/dev/null", "-w", shown];
    let url = format!("{url}/s/{scenario}/v1/jobs");
    let body = ["-H", "content-type: application/json", "-d", "{\"a\": 1}", &url];
    let ran = world.app(&[&words[..], flags, &body].concat());
    check_order(world, scenario, &ran);
}

#[test]
fn orders_of_programs_that_know_of_no_proxy_have_one_key_and_are_retried() {
    for backend in ["nft", "iptables"] {
        let world = captured(backend);
        for family in ["-4", "-6"] {
            let name = |what: &str| format!("{what}{family}");
            order(&world, &name("tls"), &[family, "--http1.1"], "https://provider.test");
            order(&world, &name("h2"), &[family, "--http2"], "https://provider.test");
            order(&world, &name("plain"), &[family], "http://provider.test");
            let absolute = [family, "--request-target", "http://provider.test/s/absolute/v1/jobs"];
            world.script("absolute", "");
            let ran = world.app(
                &[&["curl", "-sSi", "-d", "x"], &absolute[..], &["http://provider.test/"]].concat(),
            );
            assert!(ran.out.contains("201"), "{ran:?}");
            assert!(world.report("absolute")["seen"][0]["key"].is_string(), "a whole URL is read");
        }
        world.script("python", "503");
        check_order(&world, "python", &world.app(&["python3", "-c", URLLIB]));
        assert!(world.metric("samekey_tunnels_total") < 0.5, "all of it was read");
    }
}

#[test]
fn what_is_not_opened_passes_untouched() {
    let mut world = captured("nft");
    let provider_ca = world.folder.path().join("provider-ca.pem");
    let ca = provider_ca.to_str().expect("text").to_owned();
    for (n, family) in ["-4", "-6"].into_iter().enumerate() {
        // The provider's own certificate is seen, and its answer, a 503, as it came.
        world.script("raw", "503");
        let url = "https://raw.provider.test/s/raw/status/200";
        let ran = world.app(&["curl", family, "-sSi", "--cacert", &ca, url]);
        assert!(ran.out.contains("503") && !ran.out.contains("samekey"), "{ran:?}");
        // No name, no leaf: the address alone.
        let host =
            if family == "-4" { PROVIDER[0].to_owned() } else { format!("[{}]", PROVIDER[1]) };
        let url = format!("https://{host}/s/raw/status/200");
        let ran = world.app(&["curl", "-ksSi", &url]);
        assert!(ran.out.contains("200") && !ran.out.contains("samekey"), "{ran:?}");
        assert!((world.metric("samekey_tunnels_total") - 2.0 * (n + 1) as f64).abs() < 0.5);
    }
    let mut tunnels = 4.0;
    for address in ["10.77.0.2:25", "[fd77::2]:25"] {
        world.server(address, GREETER);
        // The server speaks first; what the client says then is no protocol that we read.
        let ran = world.app(&["python3", "-c", GREETED, address]);
        assert_eq!(ran.out, "220 ready\n0001fe|GET / no\n", "{ran:?}");
        tunnels += 1.0;
    }
    for address in ["10.77.0.2:25", "[fd77::2]:25"] {
        let ran = world.app(&["python3", "-c", FORWARD, address]);
        assert_eq!(ran.out, "0001fe0002", "{ran:?}");
        tunnels += 1.0;
    }
    assert!((world.metric("samekey_tunnels_total") - tunnels).abs() < 0.5);
}

#[test]
fn a_client_that_is_slow_with_its_first_word_is_served_all_the_same() {
    let world = captured("nft");
    world.script("slow", "503");
    let ran = world.app(&["python3", "-c", SLOW]);
    assert!(ran.out.starts_with("HTTP/1.1 201"), "{ran:?}");
    assert_eq!(world.report("slow")["requests"], 2);
    assert!(world.metric("samekey_tunnels_total") < 0.5);
}

#[test]
fn local_services_and_metadata_are_spared() {
    let mut world = captured("nft");
    world.script("m", "");
    let url = format!("http://{METADATA}/s/m/status/200");
    let ran = world.app(&["curl", "-sSi", &url]);
    assert!(ran.out.starts_with("HTTP/1.1 200"), "egress.deny would refuse it: {ran:?}");
    for address in ["127.0.0.1", "10.77.0.1"] {
        world.local_server(&format!("{address}:80"));
        let ran = world.app(&["curl", "-sS", &format!("http://{address}:80/")]);
        assert_eq!(ran.out, "local", "{ran:?}");
    }
}

#[test]
fn a_name_that_lies_leads_nowhere() {
    let world = captured("nft");
    for scheme in ["https", "http"] {
        let port = if scheme == "https" { 443 } else { 80 };
        let lie = format!("provider.test:{port}:{IMPOSTOR}");
        let url = format!("{scheme}://provider.test/s/lie/v1/jobs");
        let ran = world.app(&["curl", "-sSi", "--resolve", &lie, "-d", "x", &url]);
        if scheme == "https" {
            assert!(ran.out.contains("502") && ran.out.contains("upstream-tls"), "{ran:?}");
            assert_eq!(world.impostors("lie")["requests"], 0, "a certificate is asked for first");
        } else {
            assert!(ran.out.contains("201"), "nothing proves a name in the clear: {ran:?}");
            assert_eq!(world.impostors("lie")["requests"], 1, "it goes where it was going");
        }
        assert_eq!(world.report("lie")["requests"], 0, "who was not called is not asked");
    }
}

#[test]
fn another_address_of_the_same_name_is_as_good_and_of_another_name_is_not() {
    let world = captured("nft");
    world.script("dead", "");
    for (host, wanted) in [("two.provider.test", "201"), ("provider.test", "502")] {
        let dead = format!("{host}:443:{NOBODY}");
        let url = format!("https://{host}/s/dead/v1/jobs");
        let ran = world.app(&["curl", "-sSi", "--resolve", &dead, "-d", "x", &url]);
        assert!(ran.out.contains(wanted), "{host}: {ran:?}");
        assert_eq!(world.report("dead")["requests"], 1, "{host}");
    }
}

#[test]
fn a_name_that_egress_allows_does_not_open_the_way_to_other_addresses() {
    let mut world = World::new();
    world.sidecar(&format!("egress: {{allow: [provider.test, raw.provider.test]}}\n{ROUTES}"));
    world.capture(&["apply"]);
    let ca = world.folder.path().join("impostor-ca.pem");
    let ca = ca.to_str().expect("text").to_owned();
    for (url, wanted) in [
        ("http://provider.test/s/e/status/200", "forbidden-destination"),
        ("https://raw.provider.test/s/e/status/200", ""),
    ] {
        let host = url.split('/').nth(2).expect("a host");
        let port = if url.starts_with("https") { 443 } else { 80 };
        let asked = |flags: &[&str]| {
            let words = ["curl", "-4sSi", "--cacert", &*ca, url];
            world.app(&[&words[..], flags].concat())
        };
        let lied = asked(&["--resolve", &format!("{host}:{port}:{IMPOSTOR}")]);
        assert!(lied.out.contains(wanted) && !lied.out.contains(" 200 "), "{lied:?}");
        assert!(!wanted.is_empty() || lied.code != Some(0), "{lied:?}");
        assert_eq!(world.impostors("e")["requests"], 0);
        let provider = world.folder.path().join("provider-ca.pem");
        let honest = asked(&["--cacert", provider.to_str().expect("text")]);
        assert!(honest.out.contains(" 200"), "{honest:?}");
    }
    // An address alone is not on the list.
    let ran = world.app(&["curl", "-sSi", &format!("http://{}/s/e/status/200", PROVIDER[0])]);
    assert!(ran.out.contains("forbidden-destination"), "{ran:?}");
}

#[test]
fn who_was_not_redirected_is_told_whom_to_ask() {
    let world = captured("iptables");
    for host in ["127.0.0.1", "[::1]"] {
        let url = format!("http://{host}:{LISTENER}/");
        let ran = world.app(&["curl", "-sSi", "--max-time", "10", &url]);
        assert!(
            ran.out.starts_with("HTTP/1.1 400") && ran.out.contains("mode: forward"),
            "{ran:?}"
        );
        let url = format!("https://{host}:{LISTENER}/");
        let ran = world.app(&["curl", "-ksS", "--max-time", "10", &url]);
        assert_eq!(ran.code, Some(35), "the handshake ends: {ran:?}");
    }
}

#[test]
fn samekeys_own_calls_that_come_back_are_ended_at_once() {
    for backend in ["nft", "iptables"] {
        let mut world = World::new();
        world.sidecar(ROUTES);
        // The wrong user is spared.
        world.capture(&["apply", "--backend", backend, "--uid", "4242", "--ports", "80,443,25"]);
        world.server("10.77.0.2:25", GREETER);
        let ask =
            |words: &[&str]| world.app(&[&["curl", "-4sSi", "--max-time", "20"], words].concat());
        let plain = ask(&["-d", "x", "http://provider.test/s/circle/v1/jobs"]);
        assert!(plain.out.contains(" 508 ") && plain.out.contains("urn:samekey:loop"), "{plain:?}");
        let opened = ask(&["https://provider.test/s/circle/status/200"]);
        assert!(opened.out.contains(" 502 "), "{opened:?}");
        let tunnelled = ask(&["-k", "https://raw.provider.test/s/circle/status/200"]);
        assert_eq!(tunnelled.code, Some(35), "{tunnelled:?}");
        let greeted = world.run_as(APPLICATION, &["python3", "-c", GREETED, "10.77.0.2:25"]);
        assert!(!greeted.out.contains("220"), "{greeted:?}");
        assert_eq!(world.report("circle")["requests"], 0);
        assert!(world.log().contains("samekey capture apply --uid"), "{}", world.log());
        // Each of the four came back once; a GET is tried four times.
        let connections = world.metric("samekey_connections_total");
        assert!((8.0..=11.0).contains(&connections), "{connections} connections: {}", world.log());
    }
}

const URLLIB: &str = "
import urllib.request
request = urllib.request.Request('https://provider.test/s/python/v1/jobs', b'{}', {'content-type': 'application/json'})
answer = urllib.request.urlopen(request, timeout=20)
print(answer.status, answer.headers['samekey-attempts'])
";

/// Speaks first, then says everything back.
const GREETER: &str = "
    import time
    c.settimeout(0.7)
    first = b''
    try:
        first = c.recv(100)
    except TimeoutError:
        c.sendall(b'220 ready\\n')
    c.settimeout(None)
    c.sendall(first)
    while data := c.recv(100):
        c.sendall(data)
";

const GREETED: &str = "
import socket, sys
host, port = sys.argv[1].rsplit(':', 1)
c = socket.create_connection((host.strip('[]'), int(port)), timeout=20)
out = c.recv(100)
c.sendall(b'\\x00\\x01\\xfe')
back = c.recv(100).hex()
c.sendall(b'GET / no\\n')
back += '|' + c.recv(100).decode()
print(out.decode() + back, end='')
";

const FORWARD: &str = "
import socket, sys
host, port = sys.argv[1].rsplit(':', 1)
c = socket.create_connection((host.strip('[]'), int(port)), timeout=20)
c.sendall(b'\\x00\\x01\\xfe')
out = c.recv(100).hex()
c.sendall(b'\\x00\\x02')
print(out + c.recv(100).hex(), end='')
";

/// Connects, and asks only when its server was let speak.
const SLOW: &str = "
import socket, time
c = socket.create_connection(('10.77.0.2', 80), timeout=20)
time.sleep(1)
c.sendall(b'POST /s/slow/v1/jobs HTTP/1.1\\r\\nHost: provider.test\\r\\nContent-Length: 2\\r\\n\\r\\n{}')
print(c.recv(1000).decode())
";

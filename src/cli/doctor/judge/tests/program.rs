//! A program that was run: what it asked, and what its language wants.

use super::*;

#[test]
fn a_program_came_and_trusts_or_is_told_what_it_lacks() {
    let run = |program: Program| move |facts: &mut Facts| facts.program = Some(program);
    let of = |language| move |talks: Vec<Talk>| run(ran(language, talks));
    let python = of(Language::Python);
    check(
        "well",
        python(vec![talk("api.test", Tls::Used)]),
        (Fine, "it trusts the CA: api.test was asked", ""),
    );
    let plain =
        Talk { asked: Asked::Plain("a.test".to_owned()), answered: Some(200), ..Talk::default() };
    check(
        "plain",
        python(vec![plain]),
        (Fine, "the program is proxied: 1 connection, for a.test", ""),
    );
    let refused = || vec![talk("api.test", Tls::Refused)];
    let wanted = "it does not trust the CA: it refused the certificate of api.test";
    for (language, line) in [
        (Language::Python, "verify=os.environ[\"SSL_CERT_FILE\"]"),
        (Language::Node, "NODE_EXTRA_CA_CERTS"),
        (Language::Go, "RootCAs: nil"),
        (Language::Ruby, "http.ca_file = ENV[\"SSL_CERT_FILE\"]"),
        (Language::Php, "php -d curl.cainfo='/public/bundle.pem'"),
        (Language::Curl, "curl --cacert '/public/bundle.pem'"),
        (Language::Wget, "wget --ca-certificate='/public/bundle.pem'"),
        (Language::Git, "git config --global http.sslCAInfo '/public/bundle.pem'"),
        (Language::Docker, "docker run --network host"),
        (Language::Perl, ""),
        (Language::Java, ""),
        (Language::Unknown, ""),
    ] {
        check("refused", of(language)(refused()), (Wrong, wanted, line));
    }
    let begun = vec![talk("api.test", Tls::Begun)];
    check("silent", python(begun), (Wrong, wanted, "verify="));
    let left = vec![talk("api.test", Tls::Agreed)];
    check(
        "left",
        of(Language::Wget)(left),
        (Wrong, "it hung up on api.test when it had seen", "--ca-certificate"),
    );
    let denied = vec![Talk { answered: Some(407), ..talk("api.test", Tls::None) }];
    check("407", python(denied), (Wrong, "had no right name and password", "NAME:PASSWORD@"));
    let passed =
        vec![Talk { tunnelled: Some("no route names the host"), ..talk("b.test", Tls::Refused) }];
    check(
        "unread",
        python(passed),
        (
            Note,
            "b.test is not opened (no route names the host)",
            "routes: [{name: b-test, match: {hosts: [b.test]}}]",
        ),
    );
    let server = vec![Talk { asked: Asked::Other, ..Talk::default() }];
    check(
        "as a server",
        python(server),
        (Wrong, "it spoke to the proxy as to a server", "mode: reverse"),
    );
    let failed =
        Program { code: Some(3), ..ran(Language::Curl, vec![talk("api.test", Tls::Used)]) };
    check("its end", run(failed), (Note, "the program ended with 3", ""));
}

#[test]
fn a_program_that_did_not_come_is_told_how_it_would() {
    let run = |program: Program| move |facts: &mut Facts| facts.program = Some(program);
    for (language, version, why, line) in [
        (Language::Node, Some((20, 19)), "Node 20.19 reads no proxy variable", "EnvHttpProxyAgent"),
        (Language::Node, Some((22, 20)), "Node 22.20 reads no proxy variable", "mode: reverse"),
        (
            Language::Node,
            Some((23, 11)),
            "Node 23.11 reads no proxy variable",
            "base URL: http://127.0.0.1:8081/api.",
        ),
        (Language::Node, Some((22, 21)), "it asked nobody, or", "no agent or dispatcher"),
        (
            Language::Node,
            Some((24, 4)),
            "before 24.5 Node goes by the variables in fetch alone",
            "mode: reverse",
        ),
        (Language::Node, Some((24, 5)), "it asked nobody, or", "no agent or dispatcher"),
        (Language::Python, None, "aiohttp reads no variable", "ClientSession(trust_env=True)"),
        (Language::Java, None, "it asked nobody, or", "HttpClients.createSystem()"),
        (Language::Go, None, "Go never takes a proxy for localhost", "http.ProxyFromEnvironment"),
        (Language::Ruby, None, "it asked nobody, or", "Net::HTTP.new"),
        (Language::Perl, None, "it asked nobody, or", "env_proxy => 1"),
        (Language::Php, None, "it asked nobody, or", "CURLOPT_PROXY"),
        (Language::Curl, None, "it asked nobody, or", "curl --proxy http://127.0.0.1:8080"),
        (Language::Wget, None, "it asked nobody, or", "https_proxy=http://127.0.0.1:8080"),
        (Language::Git, None, "it asked nobody, or", "http.proxy http://127.0.0.1:8080"),
        (
            Language::Docker,
            None,
            "a container has an environment",
            "samekey env --format dotenv --config samekey.yaml",
        ),
        (Language::Unknown, None, "it asked nobody, or", "mode: reverse"),
    ] {
        let mut program = ran(language, Vec::new());
        program.kind.version = version;
        check("absent", run(program), (Wrong, why, line));
    }
    let beside =
        Program { beside: vec![("127.0.0.1:8081".to_owned(), 2)], ..ran(Language::Node, vec![]) };
    check("beside", run(beside), (Note, "not by these variables: 2 at 127.0.0.1:8081", ""));
}

#[test]
fn an_sdk_that_no_variable_reaches_has_lines_of_its_own() {
    let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    let sdk = Sdk {
        name: "sdk".to_owned(),
        language: Language::Python,
        marks: lines(&["import sdk"]),
        trust: lines(&["sdk.ca = 1"]),
        proxy: lines(&["sdk.proxy = 1"]),
        base: lines(&["sdk.base = \"http://{reverse}/a.test\" # {host} {port}"]),
    };
    let run = |talks| {
        let kind = Kind { language: Language::Python, version: None, sdks: vec![sdk.clone()] };
        let program = Program { kind, ..ran(Language::Python, talks) };
        move |facts: &mut Facts| {
            facts.reverse = Some("127.0.0.1:9191".to_owned());
            facts.program = Some(program);
        }
    };
    check(
        "trust",
        run(vec![talk("a.test", Tls::Refused)]),
        (Wrong, "it does not trust", "sdk.ca = 1"),
    );
    check("proxy", run(vec![]), (Wrong, "no connection of the program", "sdk.proxy = 1"));
    let base = "sdk.base = \"http://127.0.0.1:9191/a.test\" # 127.0.0.1 9191";
    check("base", run(vec![]), (Wrong, "no connection of the program", base));
    let mut listens = sdk.clone();
    listens.base = lines(&["samekey.yaml: {address: \"{reverse}\", mode: reverse, upstream: U}"]);
    for (there, wanted) in
        [(None, "8081"), (Some("127.0.0.1:8081"), "8082"), (Some("127.0.0.1:1"), "8081")]
    {
        let kind = Kind { language: Language::Python, version: None, sdks: vec![listens.clone()] };
        let program = Program { kind, ..ran(Language::Python, vec![]) };
        let run = |facts: &mut Facts| {
            facts.reverse = there.map(str::to_owned);
            facts.program = Some(program);
        };
        let line = format!("{{address: \"127.0.0.1:{wanted}\", mode: reverse, upstream: U}}");
        check("an upstream of its own", run, (Wrong, "no connection of the program", &line));
    }
}

#[test]
fn what_was_seen_to_work_needs_no_further_variable() {
    let works = |facts: &mut Facts| {
        set(facts, "SSL_CERT_FILE", None);
        facts.program = Some(ran(Language::Python, vec![talk("api.test", Tls::Used)]));
    };
    check("works", works, (Note, "SSL_CERT_FILE is not set", "export SSL_CERT_FILE"));
    let others = |facts: &mut Facts| {
        set(facts, "NODE_EXTRA_CA_CERTS", None);
        facts.program = Some(ran(Language::Python, vec![talk("api.test", Tls::Refused)]));
    };
    let mut facts = healthy();
    others(&mut facts);
    let told = judge(&facts).iter().any(|finding| finding.what.contains("NODE_"));
    assert!(!told, "what another language reads is not this program's");
}

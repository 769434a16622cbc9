//! `samekey exec`: what it does for a program, and how it ends.

use super::*;

#[tokio::test]
async fn exec_ends_as_its_program_does() {
    let folder = folder_with(IN_MEMORY);
    std::fs::write(folder.path().join("plain"), "").expect("written");
    for (program, code, words) in [
        (&["sh", "-c", "exit 7"][..], 7, ""),
        (&["true"], 0, ""),
        (&["sh", "-c", "kill -TERM $$"], 128 + 15, ""),
        (&["sh", "-c", "kill -KILL $$"], 128 + 9, ""),
        // Out of its process group, and out of its session.
        (&["timeout", "20", "sh", "-c", "exit 7"], 7, ""),
        (&["timeout", "0.1", "sleep", "20"], 124, ""),
        (&["setsid", "sh", "-c", "exit 7"], 7, ""),
        (&["python3", "-c", "import os; os.setpgid(0, 0); os._exit(7)"], 7, ""),
        (&["no-such-program"], 127, "samekey: no-such-program: No such file"),
        (&["./plain"], 126, "samekey: ./plain: Permission denied"),
    ] {
        let ran = samekey(folder.path(), &[&["exec", "--"], program].concat()).await;
        assert_eq!(ran.code, Some(code), "{program:?}: {}", ran.err);
        let said = beside_the_start(&ran.err);
        assert!(said.starts_with(words), "{program:?}: {}", ran.err);
        assert_eq!(said.is_empty(), words.is_empty(), "{program:?}: {}", ran.err);
    }
}

#[tokio::test]
async fn exec_leaves_input_and_output_to_the_program() {
    let folder = folder_with(IN_MEMORY);
    let mut child = command(folder.path(), &["exec", "--", "sh", "-c", "cat; printf e >&2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let mut stdin = child.stdin.take().expect("it is piped");
    let (written, ended) = tokio::join!(
        async {
            stdin.write_all(&bytes).await.expect("it reads");
            drop(stdin);
        },
        child.wait_with_output()
    );
    let ended = ended.expect("it ends");
    let said = beside_the_start(&String::from_utf8_lossy(&ended.stderr));
    assert_eq!((written, ended.stdout == bytes, said.as_str()), ((), true, "e"));
}

#[tokio::test]
async fn exec_passes_signals_on() {
    let folder = folder_with("");
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::USR1] {
        let script =
            "trap 'echo got; exit 5' TERM INT HUP USR1; echo up; while :; do sleep 0.01; done";
        let mut child = command(folder.path(), &["exec", "--", "sh", "-c", script])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        assert_eq!(lines.next_line().await.expect("text").as_deref(), Some("up"));
        let id = child.id().and_then(|id| i32::try_from(id).ok()).expect("it runs");
        kill_process(Pid::from_raw(id).expect("a process id"), signal).expect("it runs");
        assert_eq!(lines.next_line().await.expect("text").as_deref(), Some("got"), "{signal:?}");
        let ended = child.wait().await.expect("it ends");
        assert_eq!(ended.code(), Some(5), "{signal:?}");
    }
}

#[tokio::test]
async fn exec_sets_what_programs_of_any_language_read() {
    let folder = folder_with("");
    let mut run = command(folder.path(), &["exec", "--", "env"]);
    run.env("NO_PROXY", "intra.test").env("no_proxy", "inner.test");
    let ran = ran(run.env("JAVA_TOOL_OPTIONS", "-Down=1")).await;
    let value = |name: &str| {
        let start = format!("{name}=");
        ran.out.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_default().to_owned()
    };
    let url = value("HTTPS_PROXY");
    assert!(url.starts_with("http://127.0.0.1:"), "{}", ran.out);
    for name in ["HTTP_PROXY", "http_proxy", "https_proxy"] {
        assert_eq!(value(name), url, "{name}");
    }
    let direct = value("NO_PROXY");
    assert_eq!(value("no_proxy"), direct);
    let direct: Vec<_> = direct.split(',').collect();
    for host in [
        "intra.test",
        "inner.test",
        "localhost",
        "127.0.0.1",
        "::1",
        ".svc",
        ".cluster.local",
        "169.254.169.254",
        "169.254.170.2",
        "169.254.170.23",
        "metadata.google.internal",
    ] {
        assert!(direct.contains(&host), "{host} is not in {direct:?}");
    }
    assert_eq!(value("NODE_USE_ENV_PROXY"), "1");
    for name in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE"] {
        assert!(value(name).ends_with("/public/bundle.pem"), "{name}: {}", value(name));
    }
    assert!(value("NODE_EXTRA_CA_CERTS").ends_with("/public/ca.pem"));
    let java = value("JAVA_TOOL_OPTIONS");
    assert!(java.starts_with("-Down=1 -Dhttp.proxyHost=127.0.0.1 "), "{java}");
    assert!(java.contains("/public/truststore.p12\" "), "{java}");
}

#[tokio::test]
async fn two_programs_and_a_sidecar_share_one_config_its_ca_and_its_keys() {
    let provider = Provider::start(Options::default()).await.expect("a provider");
    let folder = Arc::new(folder_beside(
        &provider,
        "intercept: {hosts: all}\nroutes: [{name: r, match: {hosts: ['*']}}]",
    ));
    let running = Samekey::run_in(folder.clone()).await;
    let url = provider.ports.https_url("/s/s/v1/jobs");
    let script = "cat \"$SSL_CERT_FILE\" | tail -n 5 > \"$1\"; \
        exec curl -sS --noproxy '' -H 'Samekey-Key: order-1' -d '{}' -o \"$1.json\" \"$2\"";
    let program = async |name: &str| {
        let arguments = ["exec", "--", "sh", "-c", script, "sh", name, &url];
        let ran = samekey(folder.path(), &arguments).await;
        assert_eq!((beside_the_start(&ran.err).as_str(), ran.code), ("", Some(0)));
    };
    tokio::join!(program("one"), program("two"));
    let answer = Client::through(&running)
        .send(
            http::Method::POST,
            &url,
            &[("samekey-key", "order-1"), ("content-type", "application/x-www-form-urlencoded")],
            "{}",
        )
        .await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let keys: std::collections::HashSet<_> =
        provider.seen("s").into_iter().map(|seen| seen.key).collect();
    assert_eq!(
        (keys.len(), provider.seen("s").len(), provider.effects("s")),
        (1, 3, 1),
        "{keys:?}"
    );
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("written");
    assert_eq!(read("one"), read("two"));
    assert!(running.ca_pem().ends_with(&read("one")), "one CA for all of them");
}

#[tokio::test]
async fn exec_stays_quiet_and_on_its_own_ports_when_its_config_changes() {
    let addresses = "listeners: [{address: '127.0.0.1:1'}]\nadmin: {address: '127.0.0.1:2'}\n";
    let folder = folder_with(&format!("{addresses}{IN_MEMORY}"));
    // Half a second is what a change takes to be seen, and then some.
    let script = "echo 'log: {level: debug}' >> samekey.yaml; sleep 0.5; \
        curl -s --noproxy '' -o /dev/null http://127.0.0.1:1/; true";
    let ran = samekey(folder.path(), &["exec", "--", "sh", "-c", script]).await;
    assert_eq!((beside_the_start(&ran.err).as_str(), ran.code), ("", Some(0)));
}

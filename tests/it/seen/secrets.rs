//! What can never be read off: a secret in a log, a metric or an error.

use super::*;

/// Everything that a client or an operator would not want to find anywhere, each marked.
const MARK: &str = "s3cr3t";

#[tokio::test]
async fn no_secret_reaches_a_log_a_metric_or_an_error() {
    let provider = Provider::start(Options::default()).await.expect("a provider");
    let folder = Arc::new(folder_beside(
        &provider,
        &format!("log: {{level: trace}}\nintercept: {{hosts: all}}\n{ROUTE}"),
    ));
    let config = std::fs::read_to_string(folder.path().join("samekey.yaml")).expect("written");
    let auth = "{address: '127.0.0.1:0', auth: {user: u, password_file: password}}";
    let config = config.replacen("{address: '127.0.0.1:0'}", auth, 1);
    std::fs::write(folder.path().join("samekey.yaml"), config).expect("written");
    std::fs::write(folder.path().join("password"), "s3cr3t-proxy\n").expect("written");
    let samekey = Samekey::run_in(folder.clone()).await;
    let mut told = Vec::new();
    for (scenario, steps) in [
        ("good", "429 retry_after_ms=1; 503; reset_after"),
        ("bad", "garbage forever"),
        ("cut", "reset_before forever"),
        ("no", "402 body={\"error\":{\"code\":\"broke\",\"text\":\"s3cr3t-answer\"}}"),
        ("short", "truncate"),
    ] {
        provider.script(scenario, steps);
        let target = provider.ports.http_url(&format!("/s/{scenario}/v1/jobs?token=s3cr3t-query"));
        for fields in [
            "Idempotency-Key: s3cr3t-key",
            "Samekey-Key: s3cr3t-identity",
            "Idempotency-Key: s3cr3t key, malformed\u{7f}",
            "X-Api-Key: s3cr3t-api\r\nCookie: a=s3cr3t-cookie",
        ] {
            told.push(ask(&samekey, "POST", &target, fields, "{\"card\": \"s3cr3t-body\"}").await);
        }
        // The same key with another body is refused, and says so without either.
        told.push(
            ask(
                &samekey,
                "POST",
                &target,
                "Idempotency-Key: s3cr3t-key",
                "{\"card\": \"s3cr3t-2\"}",
            )
            .await,
        );
    }
    for target in [
        "http://127.0.0.1:1/?q=s3cr3t-query",
        "http://u:s3cr3t-user@127.0.0.1:1/",
        "/s3cr3t?q=s3cr3t",
        "http://[s3cr3t/",
    ] {
        told.push(ask(&samekey, "GET", target, "Authorization: Bearer s3cr3t-bearer", "").await);
    }
    told.push(
        raw(samekey.proxy, b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nX-S: s3cr3t\0\r\n\r\n")
            .await,
    );
    told.push(raw(samekey.proxy, b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nProxy-Authorization: Basic czNjcjN0OnMzY3IzdA==\r\n\r\n").await);
    samekey.until(r#"samekey_inflight_exchanges{route="r"}"#, 0.0).await;
    for path in ["/", "/api/status", "/api/routes", "/api/s3cr3t", "/metrics"] {
        told.push(client::get(samekey.admin, path).await.text());
    }
    for arguments in [
        &["check"][..],
        &["env"],
        &["explain", "POST", "https://localhost/?q=s3cr3t", "-H", "Idempotency-Key: s3cr3t"],
    ] {
        let ran = command(folder.path(), arguments).await;
        told.push(format!("{}{}", ran.out, ran.err));
    }
    for line in samekey.log().iter().chain(&told) {
        let clean = !line.contains(MARK) && !line.contains("czNjcjN0");
        // What the upstream answers is the client's own.
        assert!(clean || line.contains("s3cr3t-answer") || line.contains("job-"), "{line}");
    }
    assert!(samekey.log().iter().any(|line| line.contains("\"exchange\"")), "it did log");
}

#[tokio::test]
async fn no_secret_reaches_the_finest_log_over_tls_and_http2() {
    let provider = Provider::start(Options::default()).await.expect("a provider");
    provider.script("s", "429 retry_after_ms=1; 503; failed_stream");
    let samekey = Samekey::beside(&provider, &format!("log: {{level: trace}}\n{ROUTE}")).await;
    let url = provider.ports.https_url("/s/s/v1/jobs?token=s3cr3t-query");
    for client in [Client::through(&samekey), Client::through(&samekey).h2()] {
        let fields = [
            ("authorization", "Bearer s3cr3t-bearer"),
            ("idempotency-key", "s3cr3t-key"),
            ("x-api-key", "s3cr3t-api"),
            ("cookie", "a=s3cr3t-cookie"),
        ];
        let answer = client.send(Method::POST, &url, &fields, "{\"card\": \"s3cr3t-body\"}").await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    samekey.logged(&["stored"]).await;
    for line in samekey.log() {
        assert!(!line.contains(MARK), "{line}");
    }
}

/// One request with a proxy password and marked credentials; the answer, and not what it echoes.
async fn ask(samekey: &Samekey, method: &str, target: &str, fields: &str, body: &str) -> String {
    let host = target.split('/').nth(2).unwrap_or("a.test");
    let length = body.len();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: Basic dTpzM2NyM3QtcHJveHk=\r\n\
         Authorization: Bearer s3cr3t-bearer\r\n{fields}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    let answer = raw(samekey.proxy, head.as_bytes()).await;
    // The key that was sent is said back to whoever sent it.
    let mine = |line: &&str| !line.to_lowercase().starts_with("idempotency-key:");
    answer.split("\r\n").filter(mine).collect::<Vec<_>>().join("\n")
}

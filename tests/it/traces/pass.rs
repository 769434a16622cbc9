//! What of a client's trace travels upstream, with export and without.

use super::*;

const STATE: &str = "vendor=a:1;b, other@x=%20y";

#[tokio::test]
async fn without_export_both_fields_pass_byte_for_byte() {
    let nothing = Collector::start().await;
    let scene = Scene::set(ROUTE, &[], nothing).await;
    for (parent, state) in [
        (traceparent("01"), STATE),
        (traceparent("00"), "a=1"),
        ("FF-nonsense  ".trim_end().to_owned(), "?"),
        (format!("cc-{TRACE}-{PARENT}-09-more"), ","),
    ] {
        scene.provider.script("s", "503; ok");
        scene.post(&[("traceparent", &parent), ("tracestate", state)]).await;
        assert_eq!(scene.fields("traceparent"), [parent.clone(), parent.clone()]);
        assert_eq!(scene.fields("tracestate"), [state, state]);
    }
    scene.provider.script("s", "ok");
    scene.post(&[]).await;
    assert_eq!(scene.fields("traceparent"), [""], "none is added");
    scene.post(&[("traceparent", &traceparent("01"))]).await;
    scene.samekey.logged(&["\"exchange\"", TRACE]).await;
    assert!(!scene.samekey.metrics().await.contains("samekey_spans_"));
    assert!(scene.collector.posts().is_empty());
}

#[tokio::test]
async fn a_clients_trace_goes_on_in_each_attempt() {
    let scene = Scene::new(ROUTE, &[]).await;
    scene.provider.script("s", "503; ok");
    let fields = [("traceparent", &*traceparent("01")), ("tracestate", STATE), ("baggage", "a=b")];
    scene.post(&fields).await;
    let spans = scene.collector.until(3).await;
    let (exchange, attempts) = family(&spans);
    assert_eq!((exchange.trace.as_str(), exchange.parent.as_str()), (TRACE, PARENT));
    assert_eq!(exchange.state.replace(", ", ","), STATE.replace(", ", ","));
    let wanted: Vec<_> = attempts.iter().map(|it| format!("00-{TRACE}-{}-01", it.id)).collect();
    assert_eq!(scene.fields("traceparent"), wanted);
    assert_eq!(scene.fields("tracestate"), [STATE, STATE]);
    assert_eq!(scene.fields("baggage"), ["a=b", "a=b"]);
}

#[tokio::test]
async fn a_long_state_goes_on_whole_and_spans_keep_the_first_of_it() {
    let scene = Scene::new(ROUTE, &[]).await;
    scene.provider.script("s", "ok");
    let entries: Vec<_> = (0..32).map(|at| format!("v{at}={}", "x".repeat(256))).collect();
    let state = entries.join(",");
    scene.post(&[("traceparent", &traceparent("01")), ("tracestate", &state)]).await;
    assert_eq!(scene.fields("tracestate"), [state]);
    let spans = scene.collector.until(2).await;
    assert!(spans.iter().all(|span| span.state == entries[0]), "an exchange and its attempt");
}

#[tokio::test]
async fn what_is_no_trace_begins_anew_without_its_state() {
    let scene = Scene::new(ROUTE, &[]).await;
    let bad = format!("ff-{TRACE}-{PARENT}-01");
    let good = traceparent("01");
    for fields in [
        vec![("traceparent", bad.as_str()), ("tracestate", STATE)],
        vec![("traceparent", good.as_str()), ("traceparent", good.as_str()), ("tracestate", STATE)],
        vec![("tracestate", STATE)],
    ] {
        scene.provider.script("s", "ok");
        scene.post(&fields).await;
        let sent = scene.fields("traceparent");
        assert!(sent.len() == 1 && !sent[0].contains(TRACE) && sent[0].len() == 55, "{sent:?}");
        assert_eq!(scene.fields("tracestate"), [""]);
    }
    let spans = scene.collector.until(6).await;
    assert!(spans.iter().all(|span| span.trace != TRACE && span.state.is_empty()));
}

#[tokio::test]
async fn what_its_client_does_not_record_is_not_recorded_here() {
    let scene = Scene::new(ROUTE, &[]).await;
    scene.provider.script("s", "ok");
    scene.post(&[("traceparent", &traceparent("00")), ("tracestate", "a=1")]).await;
    let [sent] = &scene.fields("traceparent")[..] else { panic!("one") };
    assert!(sent.starts_with(&format!("00-{TRACE}-")) && sent.ends_with("-00"), "{sent}");
    assert_eq!(scene.fields("tracestate"), ["a=1"]);
    // One that is recorded comes after it, alone.
    scene.post(&[]).await;
    let spans = scene.collector.until(2).await;
    assert!(spans.iter().all(|span| span.trace != TRACE));
}

#[tokio::test]
async fn samplers_decide_where_nobody_did() {
    let off =
        [("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0")];
    let scene = Scene::new(ROUTE, &off).await;
    scene.provider.script("s", "ok");
    scene.post(&[]).await;
    let sent = scene.fields("traceparent");
    assert!(sent[0].ends_with("-00"), "{sent:?}");
    scene.post(&[("traceparent", &traceparent("01"))]).await;
    let spans = scene.collector.until(2).await;
    assert!(spans.iter().all(|span| span.trace == TRACE));
}

#[tokio::test]
async fn of_what_is_signed_or_observed_no_field_changes_and_spans_are_made() {
    let observe = "
routes:
  - name: jobs
    match: {hosts: [localhost], methods: [POST], paths: ['/s/s/v1/jobs']}
  - {name: watched, mode: observe, match: {hosts: [127.0.0.1], methods: [PUT]}}
";
    let scene = Scene::new(observe, &[]).await;
    let signed = (
        "authorization",
        "AWS4-HMAC-SHA256 Credential=A/20260101/eu/s3/aws4_request, SignedHeaders=host, Signature=c",
    );
    let parent = traceparent("01");
    let fields = [("traceparent", &*parent), ("tracestate", STATE)];
    let url = |path: &str| scene.provider.ports.http_url(path);
    scene.provider.script("s", "ok");
    scene.post(&[signed, fields[0], fields[1]]).await;
    scene.post(&[signed]).await;
    scene.client.send(Method::PUT, &url("/s/s/echo"), &fields, "").await;
    scene.client.send(Method::GET, &url("/s/s/echo"), &fields, "").await;
    scene.client.send(Method::GET, &url("/s/s/echo"), &[], "").await;
    assert_eq!(scene.fields("traceparent"), [&*parent, "", &parent, &parent, ""]);
    assert_eq!(scene.fields("tracestate"), [STATE, "", STATE, STATE, ""]);
    let spans = scene.collector.until(10).await;
    let mut names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
    names.sort_unstable();
    let wanted = ["GET none", "GET none", "GET none", "GET none", "POST jobs", "POST jobs"];
    assert_eq!(names[..6], wanted);
    assert_eq!(names[8..], ["PUT watched", "PUT watched"]);
    assert_eq!(spans.iter().filter(|span| span.trace == TRACE).count(), 6);
}

#[tokio::test]
async fn a_trace_is_no_part_of_what_a_request_asks() {
    let scene = Scene::new(ROUTE, &[]).await;
    scene.provider.script("s", "ok");
    let key = ("idempotency-key", "k1");
    for (n, fields) in [
        vec![key, ("traceparent", "00-11111111111111111111111111111111-1111111111111111-01")],
        vec![key, ("traceparent", "00-22222222222222222222222222222222-2222222222222222-00")],
        vec![key],
    ]
    .into_iter()
    .enumerate()
    {
        let answer = scene.post(&fields).await;
        let wanted = if n == 0 { "" } else { "stored" };
        assert_eq!(answer.header("samekey-replay"), wanted, "{fields:?}");
    }
}

#[tokio::test]
async fn who_wants_no_propagation_has_spans_and_untouched_fields() {
    let scene = Scene::new(ROUTE, &[("OTEL_PROPAGATORS", "none")]).await;
    scene.provider.script("s", "ok");
    scene.post(&[("traceparent", &traceparent("01"))]).await;
    assert_eq!(scene.fields("traceparent"), [traceparent("01")]);
    let spans = scene.collector.until(2).await;
    assert!(spans.iter().all(|span| span.trace != TRACE));
}

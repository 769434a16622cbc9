//! Its webhooks, and its requests found by their ids.

use super::*;

#[tokio::test]
async fn a_webhook_is_verified_and_handled_once_by_request_id() {
    // Over the body alone, and over a time and the body, as the provider's page has it.
    tokio::join!(verified_once(false, "body"), verified_once(true, "timestamped"));
}

async fn verified_once(signs_time: bool, signed: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, WEBHOOK_SECRET).expect("written");
    let inbox = format!(
        "identity: {{json: /request_id}}, signature: {{header: X-Clipia-Signature, \
         secret_file: {}, signed: {signed}}}",
        secret.display()
    );
    let route = started(GENERATE, &format!("retry: {{{FAST}}}"));
    let (counter, application) = Counter::with_inbox(Name::Generation, &inbox, &route).await;
    counter.terms(&json!({"takes_ms": 20, "redeliver_ms": 20, "signs_time": signs_time}));
    let mut wanted = prompt("o-1");
    wanted["webhook_url"] = json!(counter.hook());
    let id = text(&counter.post(SUBMIT, &[], wanted).await, "/request_id");
    counter.delivered(&[200]).await;
    counter.hooked("delivered", 1).await;
    let came = application.seen("s").remove(0);
    let body: Value = serde_json::from_str(&came.body).expect("JSON");
    assert_eq!(body["request_id"], id);
    // Five more, as where the provider had not heard that it was taken.
    let proof = field(&came, "x-clipia-signature");
    for _ in 0..5 {
        assert_eq!(counter.call_back(&[("x-clipia-signature", &proof)], &came.body).await, 200);
    }
    counter.hooked("repeated", 5).await;
    // And one that somebody else made up.
    let forged = came.body.replace("OK", "ERROR");
    for fields in [&[("x-clipia-signature", proof.as_str())][..], &[]] {
        assert_eq!(counter.call_back(fields, &forged).await, 400);
    }
    if !signs_time {
        assert_eq!(proof, signature(&came.body));
    }
    assert_eq!((application.seen("s").len(), counter.spent()), (1, (1, 1)));
}

#[tokio::test]
async fn a_webhook_that_is_not_taken_comes_again_until_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "another").expect("written");
    let inbox = format!(
        "identity: {{json: /request_id}}, signature: {{header: X-Clipia-Signature, \
         secret_file: {}}}",
        secret.display()
    );
    let route = started(GENERATE, &format!("retry: {{{FAST}}}"));
    let (counter, application) = Counter::with_inbox(Name::Generation, &inbox, &route).await;
    // The fourth comes 3.5 s after the first, the sixth 15.5 s.
    counter.terms(&json!({"takes_ms": 0, "redeliver_ms": 500, "signs_time": false}));
    let mut wanted = prompt("o-1");
    wanted["webhook_url"] = json!(counter.hook());
    counter.post(SUBMIT, &[], wanted).await;
    counter.delivered(&[400]).await;
    std::fs::write(&secret, WEBHOOK_SECRET).expect("written");
    counter.samekey.signal(rustix::process::Signal::HUP);
    counter.hooked("delivered", 1).await;
    let answers = counter.books().deliveries;
    assert!((2..=6).contains(&answers.len()) && answers.ends_with(&[400, 200]), "{answers:?}");
    assert_eq!((application.seen("s").len(), counter.spent()), (1, (1, 1)));
}

#[tokio::test]
async fn a_key_is_found_by_its_request_id() {
    let counter = preset("").await;
    let answer = counter.post(SUBMIT, &[(OWN, KEY)], prompt("o-1")).await;
    let other = counter.post(SUBMIT, &[], prompt("o-2")).await;
    let [id, another] = [&answer, &other].map(|answer| text(answer, "/request_id"));
    let found = counter.admin(&format!("/api/exchanges?captured=request_id:{id}")).await;
    let rows = found["exchanges"].as_array().expect("a list");
    assert_eq!((rows.len(), &rows[0]["key"]), (1, &json!(KEY)), "the id's key: {found}");
    let found = counter.admin(&format!("/api/exchanges?key={KEY}")).await;
    assert_eq!(found["exchanges"][0]["captured"]["request_id"], id, "the key's id");
    assert_ne!(id, another);
    assert_eq!(counter.spent(), (2, 2));
}

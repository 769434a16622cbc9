//! The page of the admin listener, over what really happened.

use crate::support::{ORDER, Stage, client};

/// The elements of a page that is well formed, each with its text; what is not panics.
fn elements(page: &str) -> Vec<(String, String)> {
    let mut open: Vec<(String, String)> = Vec::new();
    let mut closed = Vec::new();
    let page = page.strip_prefix("<!DOCTYPE html>").expect("a page");
    for piece in page.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').expect("a tag that ends");
        if let Some(name) = tag.strip_prefix('/') {
            let (was, held) = open.pop().expect("something is open");
            assert_eq!(was, name, "tags are closed in their order");
            if let Some((_, around)) = open.last_mut() {
                around.push_str(&held);
            }
            closed.push((was, held));
        } else if !["meta", "br"].contains(&tag.split(' ').next().expect("a name")) {
            open.push((tag.split(' ').next().expect("a name").to_owned(), String::new()));
        }
        if let Some((_, held)) = open.last_mut() {
            held.push_str(text);
        }
    }
    assert!(open.is_empty(), "{open:?} stay open");
    closed
}

#[tokio::test]
async fn the_page_shows_what_happened_and_what_is_to_be_done() {
    let capture = "{job: /id, asked: request:/order/id}";
    let stage = Stage::new(&format!("idempotency: {{capture: {capture}}}")).await;
    let page = async || {
        let answer = client::get(stage.samekey.admin, "/").await;
        assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
        assert!(answer.header("content-security-policy").starts_with("default-src 'none'; "));
        answer.text()
    };
    let empty = elements(&page().await);
    assert!(empty.iter().any(|(name, text)| name == "title" && text == "samekey"), "{empty:?}");
    stage.script("429; ok");
    assert_eq!(stage.order("order-fine").await.status, 201);
    stage.script("reset_after");
    let evil = r#"{"order":{"id":"<script>alert(1)</script>"}}"#;
    let headers = [("idempotency-key", "order-<b>unknown")];
    let url = "/v1/jobs?token=s3cr3t&%3Ci%3E=1";
    let asked = [("content-type", "application/json"), headers[0], ("x-api-key", "s3cr3t")];
    let lost = stage.client.send(http::Method::POST, &stage.url(url), &asked, evil).await;
    assert_eq!(lost.status, 502, "{}", lost.text());
    stage.counted("unknown", 1).await;
    let text = page().await;
    assert!(
        !text.contains("s3cr3t") && !text.contains("<script") && !text.contains("<b>"),
        "{text}"
    );
    let elements = elements(&text);
    let holds = |name: &str, words: &str| {
        let mut found = elements.iter().filter(|(tag, _)| tag == name);
        assert!(found.any(|(_, text)| text.contains(words)), "no {name} says {words}:\n{text}");
    };
    let told = client::get(stage.samekey.admin, "/api/exchanges?state=unknown").await.json();
    let id = told["exchanges"][0]["id"].as_str().expect("an id");
    holds("title", "samekey: 1 unknown");
    holds(
        "pre",
        &format!("samekey ledger resolve {id} landed\nsamekey ledger resolve {id} absent"),
    );
    holds("dd", "order-&lt;b&gt;unknown");
    holds("dd", "&lt;script&gt;alert(1)&lt;/script&gt;");
    holds("dd", "ambiguous");
    holds("td", "throttled 429");
    holds("td", "completed 201");
    holds("td", "job-s-");
    holds("th", "De-duplicates");
    holds("td", &stage.samekey.config().file_name().expect("a name").to_string_lossy());
    assert!(ORDER.starts_with('{'), "it was JSON");
}

//! Each API's promises, asked of it directly: time is given, and nothing is sent.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::request::Received;
use super::{Answer, Around, Content, Head, Name, Site, text};

/// An API that is asked, with a clock of its own.
struct Asked {
    site: Site,
    around: Around,
    headers: Vec<(&'static str, String)>,
}

impl Asked {
    fn new(name: Name, changes: &Value) -> Self {
        let terms = name.terms().with(changes).expect("these are terms");
        let around =
            Around { now: Duration::from_hours(492_312), at_once: 1, lingers: false, forced: None };
        let headers = vec![("x-api-key", "k".to_owned()), ("authorization", "Bearer k".to_owned())];
        Self { site: Site::new(name, terms), around, headers }
    }

    fn head(&self, method: &str) -> Head {
        let headers = self.headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        Head {
            connection: 0,
            api: None,
            version: "HTTP/1.1".to_owned(),
            method: method.to_owned(),
            target: String::new(),
            headers: headers.collect(),
        }
    }

    fn keyed(&mut self, key: &str) {
        self.headers.retain(|(name, _)| *name != "idempotency-key");
        self.headers.push(("idempotency-key", key.to_owned()));
    }

    fn ask(&mut self, method: &str, target: &str, body: &str) -> (u16, Value) {
        let answer = self.answer(method, target, body);
        (answer.status, serde_json::from_slice(&content(&answer)).unwrap_or_default())
    }

    fn answer(&mut self, method: &str, target: &str, body: &str) -> Answer {
        let received = Received {
            bytes: body.len() as u64,
            digest: blake3::hash(body.as_bytes()).to_hex().to_string(),
            kept: body.to_owned().into(),
            trailers: Vec::new(),
        };
        self.site.serve(&self.head(method), target, &received, self.around)
    }

    /// The effects so far, and what they cost.
    fn spent(&self) -> (usize, u64) {
        let books = self.site.books();
        (books.effects, books.spent)
    }
}

fn content(answer: &Answer) -> Vec<u8> {
    match &answer.content {
        Content::Bytes(bytes) => bytes.to_vec(),
        Content::Zeros(_) | Content::File { .. } => Vec::new(),
    }
}

fn field(answer: &Answer, name: &str) -> String {
    let mut fields = answer.headers.iter();
    fields.find(|(n, _)| n == name).map_or_else(String::new, |(_, value)| value.clone())
}

/// What makes an effect at each API.
fn order(name: Name) -> (&'static str, &'static str) {
    match name {
        Name::Background => ("/v1/jobs", r#"{"video_url": "u", "external_job_id": "o-1"}"#),
        Name::Movies => ("/v2/movies", r#"{"scenes": [], "client-data": {"order": "o-1"}}"#),
        Name::Images => ("/v1/remove-background", r#"{"image_url": "o-1"}"#),
        Name::Generation => ("/v1/models/sketch", r#"{"input": {"prompt": "o-1"}}"#),
        Name::Charges => ("/v1/payment_intents", "amount=100&currency=usd&metadata%5Border%5D=o-1"),
        Name::Completions => ("/v1/chat/completions", r#"{"messages": [{"content": "o-1"}]}"#),
        Name::Storage | Name::Repository => unreachable!("{name:?} asks for more than a body"),
    }
}

/// Those with an account, which all but the last two are.
const PAID: std::ops::Range<usize> = 0..6;

#[test]
fn each_order_without_a_key_is_an_effect_that_costs_one_credit() {
    for &name in &Name::ALL[PAID] {
        let mut asked = Asked::new(name, &json!({"credits": 2}));
        let (path, body) = order(name);
        for n in 1..=2 {
            let (status, _) = asked.ask("POST", path, body);
            assert!((200..300).contains(&status), "{name:?}");
            assert_eq!(asked.spent(), (n, n as u64), "{name:?}");
        }
        let books = asked.site.books();
        assert_eq!(books.events.get("o-1"), Some(&2), "{name:?}");
        let (status, said) = asked.ask("POST", path, body);
        assert_eq!(status, name.terms().broke_status, "{name:?}: {said}");
        let books = asked.site.books();
        assert_eq!((books.effects, books.spent, books.left, books.broke), (2, 2, 0, 1), "{name:?}");
    }
}

#[test]
fn nobody_is_served_without_a_credential() {
    for &name in &Name::ALL[PAID] {
        let mut asked = Asked::new(name, &json!({}));
        asked.headers.clear();
        let (path, body) = order(name);
        assert_eq!(asked.ask("POST", path, body).0, 401, "{name:?}");
        assert_eq!(asked.spent(), (0, 0), "{name:?}");
    }
}

#[test]
fn a_window_takes_as_many_as_it_says_and_then_the_next() {
    for &name in &Name::ALL[PAID] {
        let mut asked = Asked::new(name, &json!({"per_minute": 120}));
        let (path, body) = order(name);
        for n in 1..=120 {
            assert!(asked.ask("POST", path, body).0 < 300, "{name:?}: {n} of 120");
        }
        asked.around.now += Duration::from_millis(58_500);
        let over = asked.answer("POST", path, body);
        assert_eq!((over.status, asked.spent().0), (429, 120), "{name:?}");
        let hint = ["Retry-After", "retry-after-ms"].map(|name| field(&over, name)).concat();
        let wanted = if name == Name::Completions { "2000" } else { "2" };
        assert!(name == Name::Charges || hint == wanted, "{name:?}: {hint}");
        asked.around.now += Duration::from_millis(1500);
        assert!(asked.ask("POST", path, body).0 < 300, "{name:?}: a new window");
        assert_eq!(asked.site.books().limited, 1, "{name:?}");
    }
}

#[test]
fn ten_at_one_time_are_served_and_eleven_are_not() {
    let mut asked = Asked::new(Name::Generation, &json!({}));
    let (path, body) = order(Name::Generation);
    for (at_once, status) in [(10, 200), (11, 429), (10, 200)] {
        asked.around.at_once = at_once;
        assert_eq!(asked.ask("POST", path, body).0, status, "{at_once}");
    }
    assert_eq!(asked.spent().0, 2);
}

#[test]
fn limits_are_told_with_every_answer() {
    let mut asked = Asked::new(Name::Generation, &json!({"per_minute": 2}));
    let (path, body) = order(Name::Generation);
    for (status, remaining) in [(200, "1"), (200, "0"), (429, "0")] {
        let answer = asked.answer("POST", path, body);
        assert_eq!(answer.status, status);
        let told = ["RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"];
        assert_eq!(told.map(|name| field(&answer, name)), ["2", remaining, "60"]);
    }
}

const KEY: &str = "8f3a1c7e-2b41-4d2a-9c0e-1200304cf45b";

#[test]
fn a_key_has_one_effect_for_a_day() {
    let mut asked = Asked::new(Name::Generation, &json!({}));
    let (path, body) = order(Name::Generation);
    asked.keyed(KEY);
    let first = asked.ask("POST", path, body);
    assert_eq!(first.0, 200);
    let again = asked.answer("POST", path, body);
    assert_eq!(field(&again, "Idempotent-Replayed"), "", "nothing tells that it was answered");
    asked.around.now += Duration::from_hours(24).saturating_sub(Duration::from_millis(1));
    assert_eq!(asked.ask("POST", path, body), first);
    assert_eq!(asked.spent(), (1, 1));
    asked.around.now += Duration::from_millis(1);
    let next = asked.ask("POST", path, body);
    assert_ne!(next.1.get("request_id"), first.1.get("request_id"), "the key is forgotten");
    assert_eq!(asked.spent(), (2, 2));
}

#[test]
fn a_key_is_refused_with_other_parameters_and_while_the_first_runs() {
    let mut asked = Asked::new(Name::Generation, &json!({}));
    let (path, body) = order(Name::Generation);
    asked.keyed(KEY);
    asked.around.lingers = true;
    asked.ask("POST", path, body);
    let code = |said: (u16, Value)| (said.0, text(&said.1, "/error/code"));
    assert_eq!(code(asked.ask("POST", path, body)), (409, "request_in_progress".to_owned()));
    let other = r#"{"input": {"prompt": "o-2"}}"#;
    assert_eq!(code(asked.ask("POST", path, other)), (409, "idempotency_key_reuse".to_owned()));
    let head = asked.head("POST");
    asked.site.ended(&head);
    assert_eq!(asked.ask("POST", path, body).0, 200);
    asked.keyed("order-12345");
    assert_eq!(code(asked.ask("POST", path, body)), (400, "invalid_request".to_owned()));
    assert_eq!(asked.spent(), (1, 1));
}

#[test]
fn what_is_refused_leaves_its_key_free() {
    let mut asked = Asked::new(Name::Generation, &json!({"credits": 0}));
    let (path, body) = order(Name::Generation);
    asked.keyed(KEY);
    assert_eq!(asked.ask("POST", path, body).0, 402);
    assert_eq!(asked.ask("POST", path, "{}").0, 422);
    asked.site.set(Name::Generation.terms());
    assert_eq!(asked.ask("POST", path, body).0, 200);
    assert_eq!(asked.spent(), (1, 1));
}

#[test]
fn an_estimate_is_what_a_request_then_costs() {
    let mut asked = Asked::new(Name::Generation, &json!({}));
    for (model, cost) in [("sketch", 1), ("film-2", 12)] {
        let path = format!("/v1/models/{model}");
        let said = asked.ask("POST", &format!("{path}/estimate"), "{}").1;
        assert_eq!(said.get("credits"), Some(&cost.into()));
        let said = asked.ask("POST", &path, order(Name::Generation).1).1;
        assert_eq!(said.get("cost"), Some(&cost.into()));
    }
    assert_eq!(asked.spent(), (2, 13));
}

#[test]
fn a_payment_keeps_what_was_answered_even_a_500() {
    let mut asked = Asked::new(Name::Charges, &json!({}));
    let (path, body) = order(Name::Charges);
    asked.keyed("any text");
    asked.around.forced = Some(500);
    assert_eq!(asked.answer("POST", path, body).status, 500);
    asked.around.forced = None;
    let again = asked.answer("POST", path, body);
    assert_eq!((again.status, field(&again, "Idempotent-Replayed").as_str()), (500, "true"));
    assert_eq!(asked.spent(), (1, 1));
    let other = asked.ask("POST", path, "amount=2&currency=usd");
    assert_eq!((other.0, text(&other.1, "/error/type")), (400, "idempotency_error".to_owned()));

    asked.keyed("another");
    asked.around.lingers = true;
    asked.ask("POST", path, body);
    let running = asked.answer("POST", path, body);
    assert_eq!((running.status, field(&running, "Stripe-Should-Retry").as_str()), (409, "true"));

    asked.keyed("a third");
    asked.around.lingers = false;
    assert_eq!(asked.ask("POST", path, "amount=2").0, 400);
    assert_eq!(asked.ask("POST", path, "amount=2&currency=usd").0, 200, "it was not kept");
}

#[test]
fn a_job_moves_as_it_is_asked_for_and_with_time() {
    let mut asked = Asked::new(Name::Background, &json!({"takes_ms": 60_000}));
    let (path, body) = order(Name::Background);
    let id = text(&asked.ask("POST", path, body).1, "/id");
    let job = format!("{path}/{id}");
    let status = |asked: &mut Asked| text(&asked.ask("GET", &job, "").1, "/status");
    assert_eq!(asked.ask("GET", &format!("/api/download/{id}"), "").0, 400);
    let seen = [(); 4].map(|()| status(&mut asked));
    assert_eq!(seen, ["queued", "processing", "processing", "completed"]);

    let idle = r#"{"video_url": "u", "start": false}"#;
    let id = text(&asked.ask("POST", path, idle).1, "/id");
    let job = format!("{path}/{id}");
    let status = |asked: &mut Asked| text(&asked.ask("GET", &job, "").1, "/status");
    asked.around.now += Duration::from_hours(1);
    assert_eq!(status(&mut asked), "created");
    asked.ask("POST", &format!("{job}/start"), "{}");
    assert_eq!(status(&mut asked), "queued");
    asked.around.now += Duration::from_mins(1);
    assert_eq!(status(&mut asked), "completed");
}

#[test]
fn jobs_are_listed_newest_first_page_by_page() {
    let mut asked = Asked::new(Name::Background, &json!({}));
    for n in 0..5 {
        let body = json!({"video_url": "u", "external_job_id": format!("o-{n}")}).to_string();
        asked.ask("POST", "/v1/jobs", &body);
    }
    let mut ids = |query: &str| -> Vec<String> {
        let said = asked.ask("GET", &format!("/v1/jobs?{query}"), "").1;
        let jobs = said.get("jobs").and_then(Value::as_array).expect("a list");
        jobs.iter().map(|job| text(job, "/external_job_id")).collect()
    };
    assert_eq!(ids("limit=2"), ["o-4", "o-3"]);
    assert_eq!(ids("limit=2&offset=4"), ["o-0"]);
    assert_eq!(ids("status=queued").len(), 5);
    assert!(ids("status=completed").is_empty());
}

#[test]
fn an_output_comes_in_pieces_while_it_is_the_same() {
    let mut asked = Asked::new(Name::Background, &json!({"takes_ms": 0}));
    let (path, body) = order(Name::Background);
    let id = text(&asked.ask("POST", path, body).1, "/id");
    let path = format!("/api/download/{id}");
    let whole = asked.answer("GET", &path, "");
    let (all, tag) = (content(&whole), field(&whole, "ETag"));
    assert!(tag.starts_with('"'), "{tag}");
    let mut piece = |range: &'static str, known: &str| {
        asked.headers.push(("range", range.to_owned()));
        asked.headers.push(("if-range", known.to_owned()));
        let answer = asked.answer("GET", &path, "");
        asked.headers.truncate(2);
        answer
    };
    let rest = piece("bytes=1000-", &tag);
    let length = all.len();
    let wanted = format!("bytes 1000-{}/{length}", length - 1);
    assert_eq!((rest.status, field(&rest, "Content-Range")), (206, wanted));
    assert_eq!(content(&rest), all.split_at(1000).1);
    assert_eq!(content(&piece("bytes=10-19", &tag)).len(), 10);
    assert_eq!(piece("bytes=1000-", "\"another\"").status, 200);
    assert_eq!(piece("bytes=65536-", &tag).status, 416);
}

#[test]
fn a_movie_is_refused_in_a_200_and_may_stumble_before_it_is_done() {
    let mut asked = Asked::new(Name::Movies, &json!({"stumbles": true}));
    let (path, body) = order(Name::Movies);
    let (status, said) = asked.ask("POST", path, "{}");
    assert_eq!((status, said.get("success")), (200, Some(&false.into())));
    let project = text(&asked.ask("POST", path, body).1, "/project");
    let poll = format!("{path}?project={project}");
    let seen = [(); 4].map(|()| text(&asked.ask("GET", &poll, "").1, "/movie/status"));
    assert_eq!(seen, ["pending", "running", "error", "done"]);
    assert_eq!(asked.spent(), (1, 1));
}

#[test]
fn movies_are_listed_by_date_with_what_their_client_said() {
    let mut asked = Asked::new(Name::Movies, &json!({}));
    let (path, _) = order(Name::Movies);
    for n in 0..3 {
        let body = json!({"scenes": [], "client-data": {"order": format!("o-{n}")}}).to_string();
        asked.ask("POST", path, &body);
        asked.around.now += Duration::from_hours(24);
    }
    let mut list = |query: &str| {
        let said = asked.ask("GET", &format!("{path}?{query}"), "").1;
        let movies = said.get("movies").and_then(Value::as_array).cloned().expect("a list");
        let orders = movies.iter().map(|movie| text(movie, "/client-data/order"));
        (orders.collect::<Vec<_>>().join(" "), text(&said, "/next_token"))
    };
    let seen = |orders: &str, next: &str| (orders.to_owned(), next.to_owned());
    assert_eq!(list(""), seen("o-2 o-1 o-0", ""));
    assert_eq!(list("limit=2"), seen("o-2 o-1", "2"));
    assert_eq!(list("limit=2&next_token=2"), seen("o-0", ""));
    assert_eq!(list("from=2026-03-02"), seen("o-2 o-1", ""));
    assert_eq!(list("from=2026-03-01&to=2026-03-02T00%3A00%3A00.000Z"), seen("o-1 o-0", ""));
    assert_eq!(list("to=2026-03-01"), seen("o-0", ""));
}

#[test]
fn an_upload_is_an_image_whatever_its_boundary_and_no_two_are_alike() {
    let mut asked = Asked::new(Name::Images, &json!({"credits": 9}));
    let mut images = Vec::new();
    for boundary in ["a", "b"] {
        asked.headers.truncate(2);
        asked.headers.push(("content-type", format!("multipart/form-data; boundary={boundary}")));
        let body = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"image_file\"; \
             filename=\"car.jpg\"\r\n\r\nJPEG\r\n--{boundary}--\r\n"
        );
        let answer = asked.answer("POST", "/v1/remove-background", &body);
        assert_eq!((answer.status, field(&answer, "Content-Type").as_str()), (200, "image/png"));
        images.push(content(&answer));
    }
    assert_ne!(images.first(), images.last());
    assert_eq!(asked.site.books().events.get("car.jpg"), Some(&2));
    assert_eq!(asked.ask("GET", "/account", "").1, json!({"credits": 7}));
    assert_eq!(asked.ask("POST", "/v1/remove-background", "").0, 400);
}

#[test]
fn a_chat_can_be_a_stream() {
    let mut asked = Asked::new(Name::Completions, &json!({}));
    let body = r#"{"model": "m", "stream": true, "messages": [{"content": "o-1"}]}"#;
    let answer = asked.answer("POST", "/v1/chat/completions", body);
    assert_eq!(field(&answer, "Content-Type"), "text/event-stream");
    assert!(content(&answer).ends_with(b"data: [DONE]\n\n"));
}

#[test]
fn the_names_of_terms_are_held_to() {
    let terms = Name::Movies.terms();
    assert_eq!(terms.with(&json!({"credits": 3})).map(|terms| terms.credits), Some(3));
    assert!(terms.with(&json!({"credit": 3})).is_none());
    assert!(terms.with(&json!([])).is_none());
}

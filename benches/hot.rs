//! What a decision costs by itself: `cargo bench --bench hot`.
//!
//! Each line is the least of several runs of a plain loop, on one thread: what is
//! measured here takes no lock that another exchange would hold for long.

use std::hint::black_box;
use std::io::{self, Write as _};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use samekey::exchange::headers::{clean_request, clean_response};
use samekey::exchange::id::Names;
use samekey::exchange::trail::End;
use samekey::idempotency::Carrier;
use samekey::idempotency::Principal;
use samekey::idempotency::fingerprint::{Fingerprint, Fingerprinter};
use samekey::idempotency::key::{Key, Secret};
use samekey::idempotency::scope::{Caller, RecordId, principal};
use samekey::idempotency::store::{
    About, Asked, Memory, Record, Reserved, Settlement, Store, Told,
};
use samekey::journal::Clock;
use samekey::retry::budget::{Budget, Cost, Terms};
use samekey::route::{HostPattern, Index, Matcher, PathPattern};
use tokio::time::Instant;

type Fault = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Fault> {
    writeln!(io::stdout(), "| hot path | ns |\n| --- | --: |")?;
    matching()?;
    budget()?;
    store()?;
    headers()?;
    digests()
}

fn matching() -> Result<(), Fault> {
    let matchers = (0..ROUTES).map(|nth| -> Result<Matcher, Fault> {
        Ok(Matcher {
            hosts: vec![HostPattern::parse(&format!("api-{nth}.example.com"))?],
            methods: vec![],
            paths: vec![PathPattern::parse("/v1/jobs/**")?],
        })
    });
    let mut matchers = matchers.collect::<Result<Vec<_>, _>>()?;
    let every = HostPattern::parse("*.example.net")?;
    matchers.push(Matcher { hosts: vec![every], methods: vec![], paths: vec![] });
    let index = Index::of(matchers.iter());
    let (last, other) = (format!("api-{}.example.com", ROUTES - 1), "objects.example.org");
    for (what, host) in [("the last", last.as_str()), ("none", other)] {
        let takes = |it: &Matcher| it.matches(host, 443, &Method::GET, "/v1/jobs/1/start");
        time(&format!("match: {what} of 60 routes, each asked"), || {
            black_box(&matchers).iter().position(takes)
        })?;
        time(&format!("match: {what} of 60 routes, by their hosts"), || {
            let mut found = black_box(&index).of_host(host).iter().copied();
            found.find(|at| matchers.get(*at).is_some_and(takes))
        })?;
    }
    Ok(())
}

fn budget() -> Result<(), Fault> {
    let terms = Terms { ratio_milli: 200, per_second: 1, burst: 100 };
    let full = Budget::new(terms, Instant::now());
    time("budget: deposit into a full bucket", || full.deposit())?;
    let terms = Terms { ratio_milli: 1000, per_second: 0, burst: u32::MAX };
    let open = Budget::new(terms, Instant::now());
    let now = Instant::now();
    if open.withdraw(Cost::Two, now).is_none() {
        return Err("a full bucket pays".into());
    }
    time("budget: withdraw and deposit", || {
        let receipt = open.withdraw(Cost::One, now);
        open.deposit();
        receipt
    })
}

fn store() -> Result<(), Fault> {
    let store = Store::Memory(Memory::new(1 << 30, Clock::System));
    let names = Names::new(1, SystemTime::UNIX_EPOCH);
    let (headers, body) = (json_fields(), Bytes::from(kibibyte()));
    let mut nth = 0_u64;
    time("store: reserve, settle with a record, forget", || -> Result<(), Fault> {
        nth += 1;
        let asked = asked(&names, nth)?;
        let reserved = now(store.reserve(&asked))??;
        let Reserved::Claimed(mut claim) = reserved else { return Err("it was taken".into()) };
        claim.begin_sending();
        let record = Record::new(StatusCode::CREATED, &headers, body.clone());
        now(claim.settle(completed(record)))?;
        now(store.forget(&asked.id, &asked.key))
    })?;
    let asked = asked(&names, 0)?;
    if let Reserved::Claimed(claim) = now(store.reserve(&asked))?? {
        now(claim.settle(completed(Record::new(StatusCode::CREATED, &headers, body))))?;
    }
    time("store: find a record and replay it", || -> Result<_, Fault> {
        let Reserved::Completed(found) = now(store.reserve(&asked))?? else {
            return Err("it is gone".into());
        };
        Ok(found.record.map(|record| record.replay(&headers)))
    })
}

/// What a store in memory answers: it never makes anybody wait.
fn now<T>(answer: impl Future<Output = T>) -> Result<T, Fault> {
    answer.now_or_never().ok_or_else(|| "it waits".into())
}

fn asked(names: &Names, nth: u64) -> Result<Asked, Fault> {
    Ok(Asked {
        tag: None,
        id: id_of(nth),
        key: Key::parse(b"order-12345")?,
        fingerprint: None,
        exchange: names.next(),
        scope: None,
        about: About {
            route: "jobs".to_owned(),
            method: Method::POST,
            captured: Vec::new(),
            url: "https://api.example.com/v1/jobs".to_owned(),
        },
    })
}

fn headers() -> Result<(), Fault> {
    let key = HeaderName::from_static("idempotency-key");
    let asked = client_fields();
    time("headers: copy a request's, for comparison", || asked.clone())?;
    time("headers: copy and clean a request's", || {
        let mut headers = asked.clone();
        (clean_request(&mut headers, &key), headers)
    })?;
    let answered = json_fields();
    time("headers: copy and clean a response's", || {
        let mut headers = answered.clone();
        clean_response(&mut headers);
        headers
    })
}

fn digests() -> Result<(), Fault> {
    let (headers, body) = (json_fields(), kibibyte());
    let carrier = Carrier::Header(HeaderName::from_static("idempotency-key"));
    time("fingerprint of 1 KiB of JSON", || -> Fingerprint {
        let mut fingerprinter = Fingerprinter::new(None, &headers, &carrier, &[], 1 << 20);
        fingerprinter.feed(black_box(body.as_bytes()));
        fingerprinter.finish()
    })?;
    let (secret, asked) = (Secret::new([7; 32]), client_fields());
    time("digest of a caller's credentials", || {
        let caller = Caller { headers: &asked, query: None, proxy_user: None };
        principal(&secret, Principal::Credentials, &[], caller)
    })
}

fn completed(record: Record) -> Settlement {
    Settlement {
        end: End::Completed,
        stays: true,
        record: Some(record.clone()),
        captured: Vec::new(),
        told: Told::Answer(record),
        ttl: Duration::from_hours(24),
        keep_key: Duration::ZERO,
        attempts: Vec::new(),
    }
}

/// Keys are digests, spread over the store's shards; so are these.
fn id_of(nth: u64) -> RecordId {
    let mut id = [0; 32];
    let spread = nth.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    id.iter_mut().zip(spread.iter().cycle()).for_each(|(place, byte)| *place = *byte);
    RecordId(id)
}

fn json_fields() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("request-id", HeaderValue::from_static("req_0123456789"));
    headers.insert("server", HeaderValue::from_static("bench"));
    headers.insert("cache-control", HeaderValue::from_static("no-store"));
    headers
}

fn client_fields() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static("python-requests/2.32"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("authorization", HeaderValue::from_static("Bearer 0123456789abcdef"));
    headers.insert("proxy-connection", HeaderValue::from_static("keep-alive"));
    headers.insert("accept-encoding", HeaderValue::from_static("gzip, deflate, br"));
    headers
}

/// An order with a few dozen members.
fn kibibyte() -> String {
    let member = |nth: u32| format!(r#""member_{nth:02}":{{"width":{nth},"note":"some text"}}"#);
    let members: Vec<String> = (0..22).map(member).collect();
    format!("{{{}}}", members.join(","))
}

fn time<T>(name: &str, mut act: impl FnMut() -> T) -> Result<(), Fault> {
    let mut least = Duration::MAX;
    for _ in 0..RUNS {
        let start = Instant::now();
        for _ in 0..TIMES {
            black_box(act());
        }
        least = least.min(start.elapsed());
    }
    Ok(writeln!(io::stdout(), "| {name} | {:.1} |", least.as_secs_f64() * 1e9 / f64::from(TIMES))?)
}

/// As many as the presets of providers bring.
const ROUTES: u32 = 60;
const RUNS: u32 = 9;
/// A run takes some milliseconds: shorter than a time slice.
const TIMES: u32 = 2000;

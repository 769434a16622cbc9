//! Tracers: what is recorded, and what attempts carry.

use http::HeaderValue;

use super::*;
use crate::exchange::traceparent::TRACEPARENT;
use crate::metrics::Metrics;
use crate::trace::queue::tests::{Kept, limits};

const GOOD: &str = "00-12345678901234567890123456789012-1234567890123456";
const TRACE: &str = "00-12345678901234567890123456789012-";

fn tracer(root: Root, parent: Parent, propagation: Propagation) -> Tracer {
    Tracer(Arc::new(Inner {
        queue: Queue::new(
            Kept::default(),
            Heard::default(),
            limits(64, 64),
            Metrics::new().spans(),
        ),
        sampler: sampler(settings::Sampler { root, parent }),
        propagation,
        chance: Chance::new([7; 32]),
        scope: InstrumentationScope::default(),
    }))
}

/// What the first attempt of a request with this `traceparent` carries.
fn carried(tracer: &Tracer, traceparent: Option<&str>, more: &[(&'static str, &str)]) -> String {
    let mut headers = HeaderMap::new();
    let pairs = traceparent.map(|text| (TRACEPARENT.as_str().to_owned(), text.to_owned()));
    let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    for (name, value) in pairs.into_iter().chain(more) {
        let name: http::HeaderName = name.parse().expect("a name");
        headers.append(name, HeaderValue::try_from(value).expect("a value"));
    }
    let exchange = tracer.begin(&Asked {
        method: &Method::GET,
        origin: &Origin::parse("https://api.test").expect("an origin"),
        target: &PathAndQuery::from_static("/"),
        headers: &headers,
        route: "r",
        sent: Sent::Cared,
    });
    drop(exchange.begin(&mut headers));
    headers.get(TRACEPARENT).map_or_else(String::new, |it| it.to_str().expect("text").to_owned())
}

#[test]
fn a_sampler_decides_what_the_flags_say() {
    use Parent::{Decides, Ignored};
    for (root, parent, of_none, of_00, of_01) in [
        (Root::On, Decides, "01", "00", "01"),
        (Root::Off, Decides, "00", "00", "01"),
        (Root::Ratio(0.0), Decides, "00", "00", "01"),
        (Root::Ratio(1.0), Decides, "01", "00", "01"),
        (Root::On, Ignored, "01", "01", "01"),
        (Root::Off, Ignored, "00", "00", "00"),
        (Root::Ratio(0.0), Ignored, "00", "00", "00"),
        (Root::Ratio(1.0), Ignored, "01", "01", "01"),
    ] {
        let tracer = tracer(root, parent, Propagation::W3c);
        for (traceparent, wanted) in [
            (None, of_none),
            (Some(format!("{GOOD}-00")), of_00),
            (Some(format!("{GOOD}-01")), of_01),
        ] {
            let sent = carried(&tracer, traceparent.as_deref(), &[]);
            let what = format!("{root:?} {parent:?} {traceparent:?}: {sent}");
            assert!(sent.ends_with(&format!("-{wanted}")), "{what}");
            assert_eq!(sent.starts_with(TRACE), traceparent.is_some(), "{what}");
            assert!(!sent.contains("1234567890123456-0"), "{what}");
        }
    }
}

#[test]
fn half_of_all_traces_is_about_half() {
    let tracer = tracer(Root::Ratio(0.5), Parent::Decides, Propagation::W3c);
    let sampled = (0..1000).filter(|_| carried(&tracer, None, &[]).ends_with("-01")).count();
    assert!((400..600).contains(&sampled), "{sampled} of 1000");
}

#[test]
fn what_is_signed_keeps_its_fields() {
    let tracer = tracer(Root::On, Parent::Decides, Propagation::W3c);
    let signed = [("tl-signature", "x")];
    let own = format!("{GOOD}-01");
    assert_eq!(carried(&tracer, Some(&own), &signed), own);
    assert_eq!(carried(&tracer, None, &signed), "");
    assert_ne!(carried(&tracer, Some(&own), &[]), own);
}

#[test]
fn who_propagates_nothing_changes_nothing() {
    let tracer = tracer(Root::On, Parent::Decides, Propagation::None);
    let own = format!("{GOOD}-00");
    assert_eq!(carried(&tracer, Some(&own), &[]), own);
    assert_eq!(carried(&tracer, None, &[]), "");
}

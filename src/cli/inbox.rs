//! What `samekey explain` says of a delivery for an application.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use samekey::config::Config;
use samekey::exchange::{Failure, Origin, Response};
use samekey::inbox::delivery::{Bounds, Came, Facts, Next, came, next};
use samekey::inbox::signature::Signed;
use samekey::inbox::{Identity, Rules};
use samekey::listen;
use samekey::retry::Backoff;
use samekey::route::Route;

/// The inbox that takes a request in, where there is one.
pub(super) fn of<'a>(
    config: &Config,
    route: &'a Route,
    (method, origin): (&http::Method, &Origin),
) -> Option<&'a Rules> {
    let leads_here = |listener: &listen::Spec| listener.mode.upstream() == Some(origin);
    let taken = !method.is_safe() && config.listeners.iter().any(leads_here);
    route.inbox.as_ref().filter(|_| taken)
}

/// Says what becomes of it.
pub(super) fn describe(text: &mut String, rules: &Rules) {
    let identity = match &rules.identity {
        Identity::Json(pointer) => format!("JSON member {pointer}"),
        Identity::Header(name) => format!("header {name}"),
    };
    let signature = match &rules.signature {
        Some(signature) => {
            let covers = match signature.signed {
                Signed::Body => "the raw body".to_owned(),
                Signed::Timestamped { tolerance } => {
                    format!("its time, at most {tolerance:?} from now, and the raw body")
                }
            };
            format!("in {}, over {covers}; else 400", signature.header)
        }
        None => "none is asked for".to_owned(),
    };
    let most = rules.attempts.map(|most| format!("at most {most}, ")).unwrap_or_default();
    let lines = [
        "inbox: answered 200 once it is journalled, then delivered at least once".to_owned(),
        format!("identity: {identity}; a repeat is dropped for {:?} after that", rules.keep),
        format!("signature: {signature}"),
        format!("attempts: {most}until {:?} after it came", rules.give_up_after),
    ];
    for line in lines {
        writeln!(text, "  {line}").expect("writing into a string never fails");
    }
}

/// Says what follows when the first attempt to deliver ends like this.
pub(super) fn after(rules: &Rules, backoff: &Backoff, end: &Result<Response, Failure>) -> String {
    let came = came(end, SystemTime::now());
    let facts = Facts { attempts: 1, age: Duration::ZERO, failures: 1 };
    let bounds = Bounds { attempts: rules.attempts, give_up_after: rules.give_up_after };
    // The longest of the waits that chance may choose.
    let wait =
        |hint: Option<Duration>, nth, random| hint.unwrap_or_else(|| backoff.wait(nth, random));
    match (next(came, &facts, &bounds, &wait, 0.0), came) {
        (Next::Done, _) => "delivered".to_owned(),
        (Next::GiveUp, _) => "given up, with an error in the log".to_owned(),
        (Next::Again { after, .. }, Came::Refused) => {
            format!("tried again after up to {after:?}; the others go on")
        }
        (Next::Again { hold, .. }, _) => {
            format!("tried again after up to {hold:?}, before which no other is sent either")
        }
    }
}

//! What an outcome leads to that nobody knows, on the route that it was left on.

use samekey::idempotency::lookup::Patience;
use samekey::route::Route;

/// What a repeat comes to.
pub(super) fn of(route: &Route) -> String {
    let open = "until then, and else until `samekey ledger resolve`, a repeat is outcome-unknown";
    match (route.rules.upstream_dedupes, &route.lookup) {
        _ if route.retry.repeat_unsafe => {
            "a repeat is sent again: retry.unsafe accepts duplicates".to_owned()
        }
        (Some(true), _) => format!(
            "a repeat is sent again under the same key, for {:?} less a tenth",
            route.rules.upstream_ttl
        ),
        (_, Some(recipe)) => {
            let Patience { settle, every, readings } = recipe.patience;
            let alone = match recipe.credentials {
                Some(_) => "after a crash too",
                None => "after a crash when it is asked for again",
            };
            let own = match route.rules.upstream_dedupes {
                None => "; where it cannot tell, the client's own key is sent again",
                Some(_) => "",
            };
            format!(
                "the provider is asked ({alone}): what it lists is the answer; not listed \
                 {readings} times, {every:?} apart and from {settle:?} after the last attempt on, \
                 the key is free; {open}{own}"
            )
        }
        (_, None) => {
            "a repeat is outcome-unknown until `samekey ledger resolve`; the client's own \
                      key, where nothing is known of de-duplication, is sent again"
                .to_owned()
        }
    }
}

/// The keys that decide it.
pub(super) const KEYS: &[&str] = &["lookup", "idempotency.upstream_dedupes", "retry.unsafe"];

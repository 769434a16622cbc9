//! Takes up the keys whose outcome a crash, or an exchange long ago, left unknown.

use std::sync::Arc;

use http::Method;
use tower::Service;

use crate::exchange::id::ExchangeId;
use crate::exchange::{Failure, Origin, Request, Response};
use crate::idempotency::Idempotency;
use crate::idempotency::key::Key;
use crate::idempotency::lookup::follow::{Asker, Follow};
use crate::idempotency::scope::RecordId;
use crate::idempotency::store::About;
use crate::idempotency::terms::Shared;
use crate::journal::tags::Left;

impl<S> Idempotency<S>
where
    S: Service<Request, Response = Response, Error = Failure>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send,
{
    /// Asks the provider, in the background, for the keys of this route that the journal has
    /// as unknown, where the route's recipe brings credentials for that.
    pub fn follow_left(&self) {
        let shared = self.shared.clone();
        let wants = |shared: &Shared| {
            let recipe = shared.terms.lookup.as_ref();
            !shared.terms.observes && recipe.is_some_and(|recipe| recipe.credentials.is_some())
        };
        if wants(&shared) {
            let asker = Asker::new(self.inner.clone());
            self.shared.lookups.tasks().spawn(async move { take_up(shared, asker).await });
        }
    }
}

async fn take_up(shared: Arc<Shared>, asker: Asker) {
    let Some(journal) = shared.store.journal() else { return };
    let most = u32::try_from(shared.lookups.followed_max()).unwrap_or(u32::MAX);
    let left = journal.unknowns(shared.terms.metrics.name().to_owned(), most).await;
    let left = left.inspect_err(|fault| {
        tracing::warn!(%fault, "the keys that are unknown could not be read; they wait to be asked for");
    });
    for left in left.unwrap_or_default() {
        let exchange = ExchangeId::from_parts(left.seq, left.instance);
        let follow = of(&left).and_then(|(origin, about, key)| {
            Follow::left(&shared, asker.clone(), origin, (RecordId(left.id), key, about))
        });
        if let Some(follow) = follow {
            follow.begin_soon(exchange);
        }
    }
}

/// Where a row's request went, what the ledger says of it, and its key.
fn of(left: &Left) -> Option<(Origin, About, Key)> {
    let (scheme, rest) = left.url.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let origin = Origin::parse(&format!("{scheme}://{authority}")).ok()?;
    let method = Method::from_bytes(left.method.as_bytes()).ok()?;
    let (route, url) = (left.route.clone(), left.url.clone());
    let about = About { route, method, url, captured: Vec::new() };
    Some((origin, about, Key::parse(left.key.as_bytes()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_row_went_is_read_off_its_url() {
        for (url, wanted) in [
            ("https://a.test/v1/jobs?token&page", Some("https://a.test")),
            ("http://[::1]:8080/v1", Some("http://[::1]:8080")),
            ("https://a.test", Some("https://a.test")),
            ("a.test/v1", None),
        ] {
            let left = Left {
                seq: 1,
                instance: 1,
                id: [0; 32],
                key: "k".to_owned(),
                route: "r".to_owned(),
                method: "POST".to_owned(),
                url: url.to_owned(),
            };
            let origin = of(&left).map(|(origin, ..)| origin.to_string());
            assert_eq!(origin.as_deref(), wanted);
        }
    }
}

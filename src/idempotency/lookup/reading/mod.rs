//! One reading of a provider's list, page by page.

use std::time::{Duration, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use http::header::{AGE, DATE};
use http::uri::PathAndQuery;
use http::{HeaderMap, StatusCode};
use tokio::time::timeout;

use crate::exchange::{Failure, Response, coding, headers};
use crate::idempotency::lookup::access::Access;
use crate::idempotency::lookup::follow::Asker;
use crate::idempotency::lookup::page::Page;
use crate::idempotency::lookup::target::Fill;
use crate::idempotency::lookup::{Next, Recipe};
use crate::journal::moment::micros;

/// What is asked.
pub(super) struct Question<'a> {
    pub(super) recipe: &'a Recipe,
    pub(super) access: &'a Access,
    pub(super) key: &'a str,
    /// When the key first went out, in microseconds since 1970; `None` where nobody can say.
    pub(super) since: Option<i64>,
    pub(super) now: i64,
}

/// What a reading came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// One item names the key: this.
    Found(String),
    /// Several do.
    Several,
    /// All was read, and none does.
    Absent,
    /// What was read proves nothing.
    Inconclusive,
    /// It could not be read.
    Failed,
}

/// How a reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// With the last page.
    Whole,
    /// With something that is not what the recipe says, or before the last page.
    Short,
    /// Without an answer, or with one that is none.
    Failed,
}

/// What the pages so far said.
#[derive(Default)]
struct Gathered {
    found: Vec<String>,
    items: usize,
    names_keys: bool,
    /// Whether any of them may be older than its question.
    stale: bool,
}

/// One answer to one page's request.
enum Said {
    Text(Bytes),
    /// 404.
    Nothing,
    /// More than is read.
    TooMuch,
    Failed,
}

/// Reads the list, within [`WITHIN`].
pub(super) async fn read(question: &Question<'_>, asker: &Asker) -> Read {
    let mut gathered = Gathered::default();
    let ended = timeout(WITHIN, gather(question, asker, &mut gathered)).await;
    gathered.concluded(ended.unwrap_or(Ended::Failed))
}

async fn gather(question: &Question<'_>, asker: &Asker, gathered: &mut Gathered) -> Ended {
    let recipe = question.recipe;
    let mut number = match recipe.next {
        Next::Page(first) => first,
        Next::Never | Next::Offset | Next::Cursor(_) => 1,
    };
    let mut cursor: Option<String> = None;
    for _ in 0..recipe.pages.get() {
        let place = (number, gathered.items);
        let Some(path) = question.path(place, cursor.as_deref()) else { return Ended::Short };
        let answered = asker.ask(question.access.request(path, WITHIN)).await;
        gathered.stale |= answered.as_ref().is_ok_and(|it| !is_current(&it.headers, question.now));
        let text = match said(answered).await {
            Said::Text(text) => text,
            Said::Nothing if recipe.items.is_none() => return Ended::Whole,
            Said::TooMuch => return Ended::Short,
            Said::Nothing | Said::Failed => return Ended::Failed,
        };
        let Some(page) = Page::read(recipe, question.key, &text) else { return Ended::Short };
        let (is_empty, next) = (page.items == 0, page.cursor.clone());
        gathered.add(page);
        match (&recipe.next, next) {
            // Asked for by its key, and another one came.
            (_, _) if recipe.items.is_none() && gathered.found.is_empty() => return Ended::Short,
            (Next::Never, _) | (Next::Cursor(_), None) => return Ended::Whole,
            (Next::Page(_) | Next::Offset, _) if is_empty => return Ended::Whole,
            (Next::Page(_) | Next::Offset, _) => number = number.saturating_add(1),
            (Next::Cursor(_), next) if next == cursor => return Ended::Short,
            (Next::Cursor(_), next) => cursor = next,
        }
    }
    Ended::Short
}

impl Question<'_> {
    /// The page of this number, with so many items before it.
    fn path(&self, (page, offset): (u32, usize), cursor: Option<&str>) -> Option<PathAndQuery> {
        let fill = Fill { key: self.key, since: self.since, now: self.now, page, offset, cursor };
        self.recipe.request.fill(&fill, &self.access.extra)
    }
}

impl Gathered {
    fn add(&mut self, page: Page) {
        for item in page.found {
            // While it is read page by page, an item may move from one to the next.
            if !self.found.contains(&item) {
                self.found.push(item);
            }
        }
        self.items = self.items.saturating_add(page.items);
        self.names_keys |= page.names_keys;
    }

    /// What is found was done, however the reading ended.
    fn concluded(mut self, ended: Ended) -> Read {
        match (self.found.pop(), self.found.is_empty()) {
            (Some(item), true) => return Read::Found(item),
            (Some(_), false) => return Read::Several,
            (None, _) => {}
        }
        match ended {
            Ended::Whole if self.stale => Read::Inconclusive,
            // Where nothing in the list names any key, it is not where they are named.
            Ended::Whole if self.items > 0 && !self.names_keys => Read::Inconclusive,
            Ended::Whole => Read::Absent,
            Ended::Short => Read::Inconclusive,
            Ended::Failed => Read::Failed,
        }
    }
}

/// Whether an answer is as new as its question, as far as it tells. One that a cache kept
/// may be older than what is asked for; and where two clocks differ by much, what was
/// created may stand outside of the times that are asked for.
fn is_current(fields: &HeaderMap, now: i64) -> bool {
    let text = |name| fields.get(name).and_then(|value| value.to_str().ok());
    let kept = text(AGE).is_some_and(|age| age.trim() != "0");
    let date = text(DATE).and_then(|date| httpdate::parse_http_date(date).ok());
    let date = date.and_then(|date| date.duration_since(UNIX_EPOCH).ok()).map(micros);
    !kept && date.is_none_or(|date| date.abs_diff(now) <= micros(CLOCKS_APART).unsigned_abs())
}

async fn said(answered: Result<Response, Failure>) -> Said {
    let Ok(response) = answered else { return Said::Failed };
    match response.status {
        StatusCode::NOT_FOUND => return Said::Nothing,
        // Part of an answer is no answer, and one that was changed on its way is another's.
        StatusCode::PARTIAL_CONTENT | StatusCode::NON_AUTHORITATIVE_INFORMATION => {
            return Said::Failed;
        }
        status if !status.is_success() => return Said::Failed,
        _ => {}
    }
    let mut body = response.body;
    let mut coded = BytesMut::new();
    while let Some(frame) = http_body_util::BodyExt::frame(&mut body).await {
        let Ok(frame) = frame else { return Said::Failed };
        if let Some(data) = frame.data_ref() {
            if coded.len() + data.len() > READ_MAX {
                return Said::TooMuch;
            }
            coded.extend_from_slice(data);
        }
    }
    let encoding = headers::content_coding(&response.headers);
    match coding::decode(encoding, &coded, READ_MAX) {
        Some(text) => Said::Text(Bytes::copy_from_slice(&text)),
        None => Said::TooMuch,
    }
}

/// Less than a target leaves to two clocks, since one is read to the second.
const CLOCKS_APART: Duration = Duration::from_mins(5);
/// What one page may take, coded and decoded.
const READ_MAX: usize = 1024 * 1024;
/// What a reading may take, all its pages and their retries together: a repeat waits for it,
/// as long as for an exchange under way.
pub(super) const WITHIN: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;

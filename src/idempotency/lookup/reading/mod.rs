//! One reading of a provider's list, page by page.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::uri::PathAndQuery;
use tokio::time::timeout;

use crate::exchange::{Failure, Response, coding, headers};
use crate::idempotency::lookup::credit::Credit;
use crate::idempotency::lookup::follow::Asker;
use crate::idempotency::lookup::page::Page;
use crate::idempotency::lookup::target::Fill;
use crate::idempotency::lookup::{Next, Recipe};

/// What is asked.
pub(super) struct Question<'a> {
    pub(super) recipe: &'a Recipe,
    pub(super) credit: &'a Credit,
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
        let text = match said(asker.ask(question.credit.request(path, WITHIN)).await).await {
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
        self.recipe.request.fill(&fill, &self.credit.extra)
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
            // Where nothing in the list names any key, it is not where they are named.
            Ended::Whole if self.items > 0 && !self.names_keys => Read::Inconclusive,
            Ended::Whole => Read::Absent,
            Ended::Short => Read::Inconclusive,
            Ended::Failed => Read::Failed,
        }
    }
}

async fn said(answered: Result<Response, Failure>) -> Said {
    let Ok(response) = answered else { return Said::Failed };
    match response.status {
        StatusCode::NOT_FOUND => return Said::Nothing,
        // Part of an answer is no answer.
        StatusCode::PARTIAL_CONTENT => return Said::Failed,
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

/// What one page may take, coded and decoded.
const READ_MAX: usize = 1024 * 1024;
/// What a reading may take, all its pages and their retries together: a repeat waits for it,
/// as long as for an exchange under way.
pub(super) const WITHIN: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;

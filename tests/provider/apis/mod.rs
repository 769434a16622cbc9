//! Whole APIs, each with its provider's promises, over one small shared part.
//!
//! An API has a port of its own, so that its paths are the provider's. Its requests
//! belong to the scenario of its name, or to NAME where they go to `/s/NAME/...`;
//! scripts and lots break them as they do any other. What it did, and what that cost,
//! is in its [`Books`].

mod background;
mod calendar;
mod charges;
mod completions;
pub(crate) mod courier;
pub(crate) mod desk;
mod generation;
mod images;
mod keys;
mod movies;
mod progress;
mod repository;
mod signature;
pub(crate) mod sites;
mod storage;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answer::{Answer, Content};
use super::request::{Head, Received};
use courier::Delivery;
use desk::{Books, Desk, Effect};

/// One of the APIs, named for what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Name {
    /// Removes the background of videos: create a job, poll it, fetch its output. No keys.
    Background,
    /// Renders movies from JSON. No keys: each POST is a movie, and costs.
    Movies,
    /// Removes the background of images: the answer is the image. No keys.
    Images,
    /// Generates media, with keys that are honoured for 24 hours.
    Generation,
    /// Takes payments, with keys under which every answer is kept, a 500 too.
    Charges,
    /// Completes chats. No keys.
    Completions,
    /// Stores what AWS's SDKs sign. No keys.
    Storage,
    /// A git repository. No keys.
    Repository,
}

/// What an account may do, and how its jobs go.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Terms {
    /// Credits at first.
    pub(crate) credits: u64,
    /// Requests in a window of a minute, per credential.
    pub(crate) per_minute: u32,
    /// Requests at one time, per credential.
    pub(crate) at_once: usize,
    /// The status that says that credits are out.
    pub(crate) broke_status: u16,
    /// The status that refuses a request that makes no sense.
    pub(crate) refusal_status: u16,
    /// A job is done when it was asked for so often...
    pub(crate) polls: u32,
    /// ... or so long after it was made.
    pub(crate) takes_ms: u64,
    /// A job says `error` once before it is done, where the provider's jobs do.
    pub(crate) stumbles: bool,
    /// How long a webhook that was not taken is waited with, at first.
    pub(crate) redeliver_ms: u64,
    /// A webhook's signature is over the time and the body; false: over the body alone.
    pub(crate) signs_time: bool,
}

/// What one provider answers, and does.
trait Api: Send {
    /// Answers a request that came whole.
    fn serve(&mut self, call: &Call<'_>, desk: &mut Desk) -> Answer;

    /// The answer that has this error status and no reason but a script's.
    fn error(&self, status: u16) -> Answer;

    /// Says that the answer to `call` is ready: its key is asked for no longer in vain.
    fn ended(&mut self, _head: &Head) {}
}

/// One API with its books.
pub(crate) struct Site {
    api: Box<dyn Api>,
    desk: Desk,
}

/// What goes on around a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Around {
    /// The time, since 1970.
    pub(crate) now: Duration,
    /// Requests of this credential under way, this one included.
    pub(crate) at_once: usize,
    /// Whether its answer is withheld after its effect.
    pub(crate) lingers: bool,
    /// The status it ends in, whatever it did.
    pub(crate) forced: Option<u16>,
}

/// One request to an API.
struct Call<'a> {
    head: &'a Head,
    path: &'a str,
    query: &'a str,
    body: &'a Bytes,
    digest: &'a str,
    around: Around,
}

impl Name {
    /// Every API.
    pub(crate) const ALL: [Self; 8] = [
        Self::Background,
        Self::Movies,
        Self::Images,
        Self::Generation,
        Self::Charges,
        Self::Completions,
        Self::Storage,
        Self::Repository,
    ];

    /// Its name in ports, scenarios and on the command line.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Background => "background",
            Self::Movies => "movies",
            Self::Images => "images",
            Self::Generation => "generation",
            Self::Charges => "charges",
            Self::Completions => "completions",
            Self::Storage => "storage",
            Self::Repository => "repository",
        }
    }

    /// What its provider says of itself.
    pub(crate) fn terms(self) -> Terms {
        let free = Terms {
            credits: 1_000_000,
            per_minute: 1_000_000,
            at_once: 1_000_000,
            broke_status: 402,
            refusal_status: 400,
            polls: 3,
            takes_ms: 3_600_000,
            stumbles: false,
            redeliver_ms: 1000,
            signs_time: true,
        };
        match self {
            Self::Background | Self::Charges | Self::Storage | Self::Repository => free,
            // Whatever went wrong, `success` says so; the status may not.
            Self::Movies => Terms { broke_status: 400, refusal_status: 200, ..free },
            Self::Images => Terms { per_minute: 500, at_once: 5, ..free },
            Self::Generation => Terms { per_minute: 120, at_once: 10, ..free },
            Self::Completions => Terms { broke_status: 429, ..free },
        }
    }

    fn open(self) -> Box<dyn Api> {
        match self {
            Self::Background => Box::<background::Background>::default(),
            Self::Movies => Box::<movies::Movies>::default(),
            Self::Images => Box::<images::Images>::default(),
            Self::Generation => Box::<generation::Generation>::default(),
            Self::Charges => Box::<charges::Charges>::default(),
            Self::Completions => Box::<completions::Completions>::default(),
            Self::Storage => Box::<storage::Storage>::default(),
            Self::Repository => Box::<repository::Repository>::default(),
        }
    }
}

impl Terms {
    /// These terms, with the ones that `changes` names; `None` where it names others.
    pub(crate) fn with(&self, changes: &Value) -> Option<Self> {
        let mut all = serde_json::to_value(self).ok()?;
        all.as_object_mut()?.extend(changes.as_object()?.clone());
        serde_json::from_value(all).ok()
    }
}

impl Site {
    pub(crate) fn new(name: Name, terms: Terms) -> Self {
        Self { api: name.open(), desk: Desk::new(terms) }
    }

    /// Answers a request; the path is the provider's own. What it did is in the books
    /// when this returns, from the effect with this number on.
    pub(crate) fn serve(
        &mut self,
        head: &Head,
        target: &str,
        received: &Received,
        around: Around,
    ) -> Answer {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (body, digest) = (&received.kept, received.digest.as_str());
        let call = Call { head, path, query, body, digest, around };
        let answer = self.api.serve(&call, &mut self.desk);
        around.forced.map_or(answer, |status| self.api.error(status))
    }

    /// The answer that a script wants in place of the API's own.
    pub(crate) fn error(&self, status: u16) -> Answer {
        self.api.error(status)
    }

    /// Says that the answer to a request is ready.
    pub(crate) fn ended(&mut self, head: &Head) {
        self.api.ended(head);
    }

    /// Sets what the account may do from here on; credits are what is left then.
    pub(crate) fn set(&mut self, terms: Terms) {
        self.desk.set(terms);
    }

    pub(crate) fn books(&self) -> Books {
        self.desk.books()
    }

    /// The effects so far, in order.
    pub(crate) fn effects(&self) -> &[Effect] {
        self.desk.effects()
    }

    /// The webhooks that are due since it was last asked.
    pub(crate) fn due(&mut self) -> Vec<Delivery> {
        self.desk.due()
    }

    /// Notes what a webhook's receiver said.
    pub(crate) fn delivered(&mut self, status: u16) {
        self.desk.delivered(status);
    }
}

impl<'a> Call<'a> {
    /// The method and the parts of the path.
    fn words(&self) -> (&'a str, Vec<&'a str>) {
        (&self.head.method, self.path.split('/').skip(1).collect())
    }

    /// The body, as JSON.
    fn json(&self) -> Value {
        serde_json::from_slice(self.body).unwrap_or_default()
    }

    /// A parameter of the query.
    fn asked(&self, name: &str) -> Option<String> {
        parameter(self.query, name)
    }

    /// A parameter of a form.
    fn form(&self, name: &str) -> Option<String> {
        std::str::from_utf8(self.body).ok().and_then(|text| parameter(text, name))
    }

    fn key(&self) -> Option<&'a str> {
        self.head.field("idempotency-key")
    }

    /// Who asks, as far as the head says.
    fn credential(&self) -> Option<&'a str> {
        credential(self.head)
    }
}

/// Who asks: what limits, keys and the account are counted for.
pub(crate) fn credential(head: &Head) -> Option<&str> {
    let found = ["x-api-key", "authorization"].into_iter().find_map(|name| head.field(name));
    found.filter(|value| !value.is_empty())
}

/// The first value of a parameter, decoded.
fn parameter(text: &str, name: &str) -> Option<String> {
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        percent_decode_str(&text).decode_utf8().map(Cow::into_owned).unwrap_or_default()
    };
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(n, value)| (decode(n), decode(value))).find(|(n, _)| n == name).map(|(_, v)| v)
}

/// Some text of a JSON value; empty where there is none.
fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// An id that tells nothing of its place: so many hex digits of it.
fn opaque(kind: &str, n: usize, digits: usize) -> String {
    let hex = blake3::hash(format!("{kind}/{n}").as_bytes()).to_hex();
    hex.chars().take(digits).collect()
}

/// With one more field.
fn with(mut answer: Answer, name: &str, value: impl fmt::Display) -> Answer {
    answer.headers.push((name.to_owned(), format!("{value}")));
    answer
}

/// An answer of bytes.
fn bytes(media: &str, content: impl Into<Bytes>) -> Answer {
    Answer {
        headers: vec![("Content-Type".to_owned(), media.to_owned())],
        content: Content::Bytes(content.into()),
        ..Answer::json(200, &Value::Null)
    }
}

/// A piece of `whole` where the request asks for one and its `If-Range` agrees.
fn ranged(head: &Head, media: &str, whole: &Bytes, tag: &str) -> Answer {
    let asked = head.field("range").and_then(|text| text.strip_prefix("bytes="));
    let asked = asked.filter(|_| head.field("if-range").is_none_or(|known| known == tag));
    let dressed = |answer| with(with(answer, "ETag", tag), "Accept-Ranges", "bytes");
    let Some((from, to)) = asked.and_then(|text| text.split_once('-')) else {
        return dressed(bytes(media, whole.clone()));
    };
    let last = whole.len().saturating_sub(1);
    let to = to.parse::<usize>().unwrap_or(last).min(last);
    let from = from.parse::<usize>().ok().filter(|from| *from <= to);
    let Some(from) = from else {
        let answer = Answer { status: 416, ..bytes(media, Bytes::new()) };
        return with(dressed(answer), "Content-Range", format!("bytes */{}", whole.len()));
    };
    let piece = Answer { status: 206, ..bytes(media, whole.slice(from..=to)) };
    with(dressed(piece), "Content-Range", format!("bytes {from}-{to}/{}", whole.len()))
}

#[cfg(test)]
mod tests;

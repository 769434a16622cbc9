//! Renders movies from JSON. Its POST is not idempotent: each makes a movie and charges.
//!
//! ```text
//! POST /v2/movies                 {"success": true, "project": ..., "timestamp": ...}
//! GET  /v2/movies?project=ID      how far it is; `error` may come before `done`
//! GET  /v2/movies?from=&to=&limit=&next_token=   the account's movies, newest first
//! ```
//!
//! What is refused says `{"success": false, "message": ...}`, whatever the status.
//! `client-data` is kept with the movie; a webhook comes twice.

use std::time::Duration;

use serde_json::{Value, json};

use super::courier::{Delivery, Times};
use super::desk::{Desk, Effect};
use super::progress::{Progress, Stage};
use super::{Answer, Api, Call, calendar, opaque, text, with};

/// The movies of one account.
#[derive(Default)]
pub(super) struct Movies {
    movies: Vec<Movie>,
}

struct Movie {
    project: String,
    wanted: Value,
    progress: Progress,
}

impl Api for Movies {
    fn serve(&mut self, call: &Call<'_>, desk: &mut Desk) -> Answer {
        if call.head.field("x-api-key").is_none() {
            return refused(401, "Invalid API key");
        }
        let standing = desk.admit(call);
        if standing.over {
            return with(refused(429, "Too many requests"), "Retry-After", standing.reset);
        }
        let (method, words) = call.words();
        let project = call.asked("project").or_else(|| call.asked("id"));
        match (method, words.as_slice(), project) {
            ("POST", ["v2", "movies"], _) => self.create(call, desk),
            ("GET", ["v2", "movies"], Some(project)) => self.poll(call, &project, desk),
            ("GET", ["v2", "movies"], None) => self.list(call, desk),
            _ => refused(404, "Not found"),
        }
    }

    fn error(&self, status: u16) -> Answer {
        refused(status, if status == 429 { "Too many requests" } else { "Internal error" })
    }
}

impl Movies {
    fn create(&mut self, call: &Call<'_>, desk: &mut Desk) -> Answer {
        let wanted = call.json();
        if !wanted.get("scenes").is_some_and(Value::is_array) {
            return refused(desk.terms().refusal_status, "Property 'scenes' is required");
        }
        let project = opaque("movies", self.movies.len(), 16);
        let event = text(&wanted, "/client-data/order");
        let key = call.key().map(str::to_owned);
        if !desk.charge(Effect { id: project.clone(), key, event, cost: COST }) {
            return refused(desk.terms().broke_status, "Insufficient credits");
        }
        let progress = Progress::new(call.around.now);
        let movie = Movie { project: project.clone(), wanted, progress };
        movie.announce(desk);
        self.movies.push(movie);
        let timestamp = calendar::rfc3339(call.around.now);
        Answer::json(200, &json!({"success": true, "project": project, "timestamp": timestamp}))
    }

    fn poll(&mut self, call: &Call<'_>, project: &str, desk: &Desk) -> Answer {
        let Some(movie) = self.movies.iter_mut().find(|movie| movie.project == project) else {
            return refused(404, "Project not found");
        };
        let stage = movie.progress.poll(desk.terms(), call.around.now);
        let quota = json!({"time": desk.left()});
        let body = json!({"success": true, "movie": movie.shown(stage), "remaining_quota": quota});
        Answer::json(200, &body)
    }

    fn list(&self, call: &Call<'_>, desk: &Desk) -> Answer {
        let number = |name| call.asked(name).and_then(|text| text.parse::<usize>().ok());
        let limit = number("limit").unwrap_or(100).clamp(1, 100);
        let first = number("next_token").unwrap_or(0);
        let [from, to] = ["from", "to"].map(|name| call.asked(name).unwrap_or_default());
        // Times of one form compare as text, and so do their beginnings.
        let within = |made: &str| {
            made >= from.as_str()
                && (to.is_empty() || made.get(..to.len()).is_none_or(|m| m <= to.as_str()))
        };
        let found = self.movies.iter().rev();
        let found: Vec<_> =
            found.filter(|movie| within(&calendar::rfc3339(movie.progress.made()))).collect();
        let shown =
            |movie: &&Movie| movie.shown(movie.progress.stage(desk.terms(), call.around.now));
        let page: Vec<_> = found.iter().skip(first).take(limit).map(shown).collect();
        let next = first + page.len();
        let next = (next < found.len()).then(|| next.to_string());
        Answer::json(200, &json!({"success": true, "movies": page, "next_token": next}))
    }
}

impl Movie {
    fn shown(&self, stage: Stage) -> Value {
        let status = match stage {
            Stage::Queued => "pending",
            Stage::Running => "running",
            Stage::Stumbled => "error",
            Stage::Done => "done",
        };
        let url = format!("https://assets.provider.test/renders/{}.mp4", self.project);
        json!({
            "success": stage != Stage::Stumbled,
            "status": status,
            "message": if stage == Stage::Stumbled { "Rendering failed" } else { "" },
            "project": self.project,
            "url": (stage == Stage::Done).then_some(url),
            "created_at": calendar::rfc3339(self.progress.made()),
            "client-data": self.wanted.get("client-data"),
        })
    }

    /// Tells the webhooks that the movie asks for, when it is done.
    fn announce(&self, desk: &mut Desk) {
        let after = Duration::from_millis(desk.terms().takes_ms);
        let exports = self.wanted.get("exports").and_then(Value::as_array).into_iter().flatten();
        let all = exports.filter_map(|export| export.get("destinations")?.as_array()).flatten();
        for to in all.filter(|to| text(to, "/type") == "webhook") {
            let body = json!({"movie": self.shown(Stage::Done)}).to_string();
            let url = text(to, "/endpoint");
            desk.post(Delivery { url, headers: Vec::new(), body, after, times: Times::Twice });
        }
    }
}

fn refused(status: u16, message: &str) -> Answer {
    Answer::json(status, &json!({"success": false, "message": message}))
}

/// What a movie costs.
const COST: u64 = 1;

//! Removes the background of videos: jobs that are made, polled, and fetched.
//!
//! ```text
//! POST /v1/jobs             makes a job and charges for it; `start: false` leaves it be
//! POST /v1/jobs/ID/start    starts one that was left        GET /v1/jobs/ID   how far it is
//! GET  /v1/jobs?limit=&offset=&status=   the account's jobs, newest first
//! GET  /api/download/ID     the output, with a strong ETag and ranges
//! ```
//!
//! There are no keys: each POST is a job. `external_job_id` is kept, and nothing more.

use bytes::Bytes;
use serde_json::{Value, json};

use super::desk::{Desk, Effect};
use super::progress::{Progress, Stage};
use super::{Answer, Api, Call, calendar, opaque, ranged, text, with};

/// The jobs of one account.
#[derive(Default)]
pub(super) struct Background {
    jobs: Vec<Job>,
}

struct Job {
    id: String,
    wanted: Value,
    started: bool,
    progress: Progress,
}

impl Api for Background {
    fn serve(&mut self, call: &Call<'_>, desk: &mut Desk) -> Answer {
        if call.credential().is_none() {
            return error(401, "invalid_api_key");
        }
        let standing = desk.admit(call);
        if standing.over {
            return with(error(429, "rate_limited"), "Retry-After", standing.reset);
        }
        let (method, words) = call.words();
        match (method, words.as_slice()) {
            ("POST", ["v1", "jobs"]) => self.create(call, desk),
            ("POST", ["v1", "jobs", id, "start"]) => self.start(call, id),
            ("GET", ["v1", "jobs"]) => self.list(call, desk),
            ("GET", ["v1", "jobs", id]) => self.poll(call, id, desk),
            ("GET", ["api", "download", id]) => self.download(call, id, desk),
            _ => error(404, "not_found"),
        }
    }

    fn error(&self, status: u16) -> Answer {
        let code = match status {
            429 => "rate_limited",
            402 => "insufficient_credits",
            400..=499 => "invalid_request",
            _ => "internal_error",
        };
        error(status, code)
    }
}

impl Background {
    fn create(&mut self, call: &Call<'_>, desk: &mut Desk) -> Answer {
        let wanted = call.json();
        if text(&wanted, "/video_url").is_empty() {
            return error(desk.terms().refusal_status, "invalid_request");
        }
        let id = format!("job_{}", opaque("background", self.jobs.len(), 12));
        let event = text(&wanted, "/external_job_id");
        let key = call.key().map(str::to_owned);
        if !desk.charge(Effect { id: id.clone(), key, event, cost: COST }) {
            return error(desk.terms().broke_status, "insufficient_credits");
        }
        let started = wanted.get("start") != Some(&Value::Bool(false));
        let job = Job { id, wanted, started, progress: Progress::new(call.around.now) };
        let answer = Answer::json(201, &job.shown(Stage::Queued));
        self.jobs.push(job);
        answer
    }

    /// Starting a job that is started already changes nothing.
    fn start(&mut self, call: &Call<'_>, id: &str) -> Answer {
        let Some(job) = self.jobs.iter_mut().find(|job| job.id == id) else {
            return error(404, "not_found");
        };
        if !job.started {
            (job.started, job.progress) = (true, Progress::new(call.around.now));
        }
        let body = json!({"success": true, "id": id, "status": "processing"});
        Answer::json(200, &body)
    }

    fn poll(&mut self, call: &Call<'_>, id: &str, desk: &Desk) -> Answer {
        let Some(job) = self.jobs.iter_mut().find(|job| job.id == id) else {
            return error(404, "not_found");
        };
        let stage = job.started.then(|| job.progress.poll(desk.terms(), call.around.now));
        Answer::json(200, &job.shown(stage.unwrap_or(Stage::Queued)))
    }

    fn list(&self, call: &Call<'_>, desk: &Desk) -> Answer {
        let number = |name, unless| {
            call.asked(name).and_then(|text| text.parse::<usize>().ok()).unwrap_or(unless)
        };
        let (limit, offset) = (number("limit", 20).min(100), number("offset", 0));
        let status = call.asked("status");
        let shown = self.jobs.iter().rev().map(|job| {
            let stage = job.progress.stage(desk.terms(), call.around.now);
            job.shown(if job.started { stage } else { Stage::Queued })
        });
        let wanted =
            |job: &Value| status.as_ref().is_none_or(|status| text(job, "/status") == *status);
        let all: Vec<_> = shown.filter(wanted).collect();
        let total = all.len();
        let page: Vec<_> = all.into_iter().skip(offset).take(limit).collect();
        let body = json!({"jobs": page, "total": total, "limit": limit, "offset": offset});
        Answer::json(200, &body)
    }

    fn download(&self, call: &Call<'_>, id: &str, desk: &Desk) -> Answer {
        let Some(job) = self.jobs.iter().find(|job| job.id == id) else {
            return error(404, "not_found");
        };
        if job.progress.stage(desk.terms(), call.around.now) != Stage::Done {
            return error(400, "job_not_completed");
        }
        let digest = blake3::hash(id.as_bytes());
        let output = Bytes::from(digest.as_bytes().repeat(OUTPUT / digest.as_bytes().len()));
        ranged(call.head, "video/webm", &output, &format!("\"{}\"", digest.to_hex()))
    }
}

impl Job {
    fn shown(&self, stage: Stage) -> Value {
        let status = match stage {
            Stage::Queued if !self.started => "created",
            Stage::Queued => "queued",
            Stage::Running | Stage::Stumbled => "processing",
            Stage::Done => "completed",
        };
        let output = (stage == Stage::Done).then(|| format!("/api/download/{}", self.id));
        let field = |name: &str| self.wanted.get(name).cloned().unwrap_or_default();
        json!({
            "id": self.id,
            "external_job_id": field("external_job_id"),
            "status": status,
            "model": field("model"),
            "format": field("format"),
            "user_id": field("user_id"),
            "credits": COST,
            "created_at": calendar::rfc3339(self.progress.made()),
            "output_url": output,
        })
    }
}

fn error(status: u16, code: &str) -> Answer {
    Answer::json(status, &json!({"error": {"code": code, "message": code.replace('_', " ")}}))
}

/// What a job costs.
const COST: u64 = 1;
/// The size of an output: a few of the pieces in which a body is written.
const OUTPUT: usize = 64 * 1024;

//! Lists of jobs, as a provider has them that takes no keys: with what each was tagged.

use serde_json::{Value, json};

use super::answer::Answer;
use super::job::Job;

/// One page: by its number from 1 on, else by the cursor that the page before told.
pub(crate) fn page(jobs: &[Job], target: &str) -> Answer {
    let (_, query) = target.split_once('?').unwrap_or_default();
    let asked = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(n, _)| *n == name).and_then(|(_, value)| value.parse::<usize>().ok())
    };
    let from = match asked("page") {
        Some(number) => number.saturating_sub(1) * PAGE,
        None => asked("cursor").unwrap_or(0),
    };
    // The newest first, as lists of jobs are.
    let newest_first = jobs.iter().enumerate().rev().skip(from).take(PAGE);
    let movies: Vec<Value> = newest_first.map(|(n, job)| shown(n + 1, job)).collect();
    let next = (from + PAGE < jobs.len()).then(|| (from + PAGE).to_string());
    Answer::json(200, &json!({"success": true, "movies": movies, "next": next}))
}

/// The job that its request gave this name.
pub(crate) fn named(jobs: &[Job], name: &str) -> Answer {
    let is_it =
        |job: &&Job| job.asked.pointer("/external_job_id").and_then(Value::as_str) == Some(name);
    let missing = || Answer::json(404, &json!({"error": {"code": "not_found"}}));
    jobs.iter().find(is_it).map_or_else(missing, |job| Answer::json(200, &shown(0, job)))
}

fn shown(n: usize, job: &Job) -> Value {
    let said = |name: &str| job.asked.get(name).cloned().unwrap_or_default();
    json!({
        "project": job.id,
        "n": n,
        "client-data": said("client-data"),
        "external_job_id": said("external_job_id"),
    })
}

/// Two a page, so that a list of three has a second one.
const PAGE: usize = 2;

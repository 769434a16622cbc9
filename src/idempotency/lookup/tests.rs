//! What the tests of recipes start from.

use std::time::Duration;

use super::*;

/// Lists `/jobs` with tags, on one page.
pub(super) fn recipe() -> Recipe {
    let pointer = |text| Pointer::parse(text).expect("a pointer");
    Recipe {
        tag: Some(pointer("/tag")),
        request: Target::parse("/v1/jobs?page={page}").expect("a target"),
        items: Some(pointer("/jobs")),
        wanted: pointer("/tag"),
        failures: Vec::new(),
        next: Next::Never,
        pages: NonZeroU32::new(3).expect("three"),
        answer: None,
        status: StatusCode::OK,
        patience: Patience {
            settle: Duration::from_secs(30),
            every: Duration::from_secs(30),
            readings: NonZeroU32::new(2).expect("two"),
        },
        credentials: None,
    }
}

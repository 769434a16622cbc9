//! What the collector said of the last export, or why it said nothing: the exporter keeps
//! both to itself.

use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;

/// What was heard; a clone hears the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard(Arc<Mutex<Word>>);

#[derive(Debug, Default)]
struct Word {
    cause: Option<String>,
    rejected: usize,
}

impl Heard {
    /// Nothing came: why, without anything that was posted.
    pub(super) fn failed(&self, cause: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).cause = Some(cause);
    }

    /// It was taken, but for what the answer says (OTLP, "Partial Success").
    pub(super) fn taken(&self, answer: &[u8]) {
        let said = ExportTraceServiceResponse::decode(answer).ok();
        let partial = said.and_then(|said| said.partial_success);
        let rejected = partial.and_then(|partial| usize::try_from(partial.rejected_spans).ok());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).rejected = rejected.unwrap_or(0);
    }

    /// Why nothing came, once.
    pub(super) fn cause(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).cause.take()
    }

    /// How many of so many were not taken, once.
    pub(super) fn rejected(&self, of: usize) -> usize {
        let mut word = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut word.rejected).min(of)
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    use super::*;

    #[test]
    fn what_is_taken_in_part_says_how_much_is_not() {
        let heard = Heard::default();
        let said = |rejected_spans| {
            let error_message = String::new();
            let partial_success = Some(ExportTracePartialSuccess { rejected_spans, error_message });
            ExportTraceServiceResponse { partial_success }.encode_to_vec()
        };
        for (answer, wanted) in
            [(said(3), 3), (said(0), 0), (said(9), 5), (said(-1), 0), (vec![], 0), (vec![0xff], 0)]
        {
            heard.taken(&answer);
            assert_eq!((heard.rejected(5), heard.rejected(5)), (wanted, 0), "{answer:?}");
        }
        heard.failed("away".to_owned());
        assert_eq!((heard.cause().as_deref(), heard.cause()), (Some("away"), None));
    }
}

//! idempotency, end to end.

//! What the journal's tests start from.

//! seen, end to end.

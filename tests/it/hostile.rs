//! hostile, end to end.

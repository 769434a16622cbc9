//! config, end to end.

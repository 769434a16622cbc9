//! cli, end to end.

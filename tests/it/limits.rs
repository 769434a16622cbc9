//! limits, end to end.

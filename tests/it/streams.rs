//! streams, end to end.

//! http2, end to end.

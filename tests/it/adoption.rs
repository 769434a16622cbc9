//! adoption, end to end.

//! clients, end to end.

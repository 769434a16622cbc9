//! intercept, end to end.

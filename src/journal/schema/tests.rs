//! Files that can be trusted, and files that cannot.

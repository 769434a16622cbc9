//! The one file in which keys and answers outlive the process.

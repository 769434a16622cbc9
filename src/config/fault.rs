//! What is wrong with a configuration: where, which key, and what is wanted there.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// One thing that is wrong, on one line.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fault {
    place: Place,
    key: String,
    wish: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    File(PathBuf, Option<u64>),
    Environment,
}

impl Fault {
    /// Blames a key of a file; an empty key stands for the file itself.
    pub(super) fn in_file(file: &Path, line: Option<u64>, key: &str, wish: String) -> Self {
        Self { place: Place::File(file.to_owned(), line), key: key.to_owned(), wish }
    }

    /// Blames an environment variable.
    pub(super) fn in_variable(name: &str, wish: String) -> Self {
        Self { place: Place::Environment, key: name.to_owned(), wish }
    }

    /// The full path of the key, such as `routes[0].retry.attempts`, or the variable.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Puts each file's faults in the order of its lines, and the environment's last.
    pub(super) fn order(&self) -> (bool, &Path, u64) {
        match &self.place {
            Place::File(file, line) => (false, file, line.unwrap_or(0)),
            Place::Environment => (true, Path::new(""), 0),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File(file, Some(line)) => write!(f, "{}:{line}: ", file.display())?,
            Place::File(file, None) => write!(f, "{}: ", file.display())?,
            Place::Environment => {}
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.wish)
    }
}

/// Everything that is wrong with a configuration, one line each; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Takes what was found, in the order of the file; `None` where nothing was.
    pub(super) fn of(mut found: Vec<Fault>) -> Option<Self> {
        found.sort_by(|one, other| one.order().cmp(&other.order()));
        // What is wrong in `defaults` is met again in each route.
        let mut told = HashSet::new();
        found.retain(|fault| told.insert(fault.clone()));
        (!found.is_empty()).then_some(Self(found))
    }

    /// The faults, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self(vec![fault])
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, fault) in self.0.iter().enumerate() {
            write!(f, "{}{fault}", if nth == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

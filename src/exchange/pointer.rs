//! Places in a JSON text, and what is expected there.

/// A JSON pointer (RFC 6901): empty, or `/` and reference tokens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pointer(Vec<String>);

/// The scalar at a pointer is one of a list: `{json: /error/code, in: [a, b]}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Where to look.
    pub pointer: Pointer,
    /// What is looked for.
    pub values: Vec<Scalar>,
}

/// A JSON value that is not an object or an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as text.
    Number(String),
    /// A string.
    String(String),
}

impl Pointer {
    /// Reads a pointer.
    ///
    /// # Errors
    ///
    /// Says what is wanted when `written` is neither empty nor starts with `/`,
    /// or holds a `~` that is not `~0` or `~1` (RFC 6901, section 3).
    pub fn parse(written: &str) -> Result<Self, &'static str> {
        if written.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let rest = written.strip_prefix('/').ok_or("a JSON pointer that starts with `/`")?;
        rest.split('/').map(unescape).collect::<Result<_, _>>().map(Self)
    }

    /// The reference tokens, unescaped, from the root down.
    pub fn tokens(&self) -> &[String] {
        &self.0
    }
}

impl std::fmt::Display for Pointer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0
            .iter()
            .try_for_each(|token| write!(f, "/{}", token.replace('~', "~0").replace('/', "~1")))
    }
}

fn unescape(token: &str) -> Result<String, &'static str> {
    let mut tildes = token.match_indices('~').map(|(at, _)| token.get(at + 1..at + 2));
    if tildes.any(|next| !matches!(next, Some("0" | "1"))) {
        return Err("a JSON pointer whose `~` are all `~0` or `~1`");
    }
    // `~1` first: `~01` means `~1`, not `/` (RFC 6901, section 4).
    Ok(token.replace("~1", "/").replace("~0", "~"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_reads_back_as_written() {
        for written in ["", "/", "/a/b", "/a~1b/m~0n/0", "/~01"] {
            assert_eq!(Pointer::parse(written).expect("a pointer").to_string(), written);
        }
        assert_eq!(Pointer::parse("/~01").expect("a pointer").tokens(), ["~1"]);
        for bad in ["a", "/a~", "/~2"] {
            assert!(Pointer::parse(bad).is_err(), "{bad:?} was taken");
        }
    }
}

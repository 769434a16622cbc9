//! Why the coordinator could not say.

use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why Redis could not do what it was asked; nothing in it tells a password, a key or an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// No connection, or it broke.
    #[error("redis cannot be reached: {0}")]
    Unreachable(String),
    /// It did not answer in time; whether it did what it was asked is not known.
    #[error("redis did not answer within {0:?}")]
    TimedOut(Duration),
    /// It answered that it will not.
    #[error("redis refused: {0}")]
    Refused(String),
    /// It keeps something there that this program did not write.
    #[error("redis holds something that samekey did not put there")]
    Garbled,
    /// Fewer replicas than wanted have it.
    #[error("{acknowledged} of {wanted} redis replicas acknowledged")]
    NotReplicated {
        /// How many have it.
        acknowledged: u32,
        /// How many are to have it.
        wanted: u32,
    },
    /// This process holds as many claims as it may.
    #[error("too many claims are held at one time")]
    Full,
    /// The handle was closed.
    #[error("the connection to redis was closed by the shutdown")]
    Closed,
}

impl From<RedisError> for Unavailable {
    fn from(error: RedisError) -> Self {
        match error.kind() {
            ErrorKind::Server(kind) => Self::Refused(refusal(kind, &error)),
            ErrorKind::Extension => Self::Refused(extension(&error)),
            ErrorKind::AuthenticationFailed => Self::Refused("the credentials are wrong".into()),
            ErrorKind::UnexpectedReturnType | ErrorKind::Parse => Self::Garbled,
            ErrorKind::MasterNameNotFoundBySentinel => {
                Self::Unreachable("no sentinel knows a master of that name".into())
            }
            ErrorKind::Io => Self::Unreachable(error.to_string()),
            _ => Self::Unreachable(error.category().to_owned()),
        }
    }
}

/// What a refusal says: its code, and its words where those never repeat what was sent.
fn refusal(kind: ServerErrorKind, error: &RedisError) -> String {
    let code = error.code().unwrap_or("ERR");
    match kind {
        // `unknown command 'X', with args beginning with: ...`
        ServerErrorKind::ResponseError | ServerErrorKind::ExecAbort => format!("{code} (an error)"),
        _ => worded(code, error),
    }
}

/// Codes that the client library does not know, such as OOM and WRONGPASS.
fn extension(error: &RedisError) -> String {
    worded(error.code().unwrap_or("an error"), error)
}

fn worded(code: &str, error: &RedisError) -> String {
    match error.detail() {
        Some(words) => format!("{code} {}", words.chars().take(WORDS_MAX).collect::<String>()),
        None => code.to_owned(),
    }
}

/// A line of the log.
const WORDS_MAX: usize = 160;

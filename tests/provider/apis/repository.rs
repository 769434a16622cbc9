//! A git repository, by `git http-backend`: empty at first, and anybody may push.
//!
//! ```text
//! GET  /NAME.git/info/refs           POST /NAME.git/git-upload-pack
//!                                    POST /NAME.git/git-receive-pack   an effect
//! ```

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bytes::Bytes;
use serde_json::json;
use tempfile::TempDir;

use super::desk::{Desk, Effect};
use super::{Answer, Api, Call, Content};

/// One repository, whatever its name.
#[derive(Default)]
pub(super) struct Repository {
    folder: Option<TempDir>,
}

impl Api for Repository {
    fn serve(&mut self, call: &Call<'_>, desk: &mut Desk) -> Answer {
        let answer = self.ask(call).unwrap_or_else(|error| {
            Answer::json(500, &json!({"error": format!("git http-backend: {error}")}))
        });
        if call.path.ends_with("/git-receive-pack") && answer.status == 200 {
            let key = call.key().map(str::to_owned);
            desk.charge(Effect { id: pushed(call.body), key, event: String::new(), cost: 1 });
        }
        answer
    }

    fn error(&self, status: u16) -> Answer {
        Answer::json(status, &json!({"error": status}))
    }
}

impl Repository {
    fn ask(&mut self, call: &Call<'_>) -> io::Result<Answer> {
        let field = |name| call.head.field(name).unwrap_or_default();
        let mut git = Command::new("git")
            .arg("http-backend")
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("GIT_PROTOCOL", field("git-protocol"))
            // Whoever has a name may push.
            .env("REMOTE_USER", "anybody")
            .env("REQUEST_METHOD", &call.head.method)
            .env("PATH_TRANSLATED", self.below(call.path)?)
            .env("QUERY_STRING", call.query)
            .env("CONTENT_TYPE", field("content-type"))
            .env("CONTENT_LENGTH", call.body.len().to_string())
            .env("HTTP_CONTENT_ENCODING", field("content-encoding"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        // It reads all before it says anything, and drops its end here.
        if let Some(mut stdin) = git.stdin.take() {
            stdin.write_all(call.body)?;
        }
        answer(&git.wait_with_output()?.stdout).ok_or_else(|| io::Error::other("no answer"))
    }

    fn folder(&mut self) -> io::Result<&Path> {
        if self.folder.is_none() {
            let folder = tempfile::tempdir()?;
            let init = ["init", "--quiet", "--bare", "--initial-branch=main", "."];
            let made = Command::new("git").args(init).current_dir(folder.path()).status()?;
            if !made.success() {
                return Err(io::Error::other("git init failed"));
            }
            self.folder = Some(folder);
        }
        self.folder.as_ref().map(TempDir::path).ok_or_else(|| io::Error::other("no folder"))
    }

    /// Where the path points: the first segment names the repository.
    fn below(&mut self, path: &str) -> io::Result<PathBuf> {
        let rest = path.trim_start_matches('/').split_once('/').map_or("", |(_, rest)| rest);
        Ok(self.folder()?.join(rest))
    }
}

/// What a CGI program says: fields, an empty line, the body.
fn answer(said: &[u8]) -> Option<Answer> {
    let end = said.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, body) = said.split_at_checked(end)?;
    let head = std::str::from_utf8(head).ok()?;
    let content = Content::Bytes(Bytes::copy_from_slice(body.get(4..)?));
    let mut answer = Answer { content, ..Answer::empty() };
    for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
        match name {
            "Status" => answer.status = value.split(' ').next()?.parse().ok()?,
            _ => answer.headers.push((name.to_owned(), value.to_owned())),
        }
    }
    Some(answer)
}

/// What a push makes of a branch: `LENGTH OLD NEW REF` comes first.
fn pushed(body: &[u8]) -> String {
    let first = String::from_utf8_lossy(body.get(..LINE).unwrap_or_default()).into_owned();
    first.split(' ').nth(1).unwrap_or_default().to_owned()
}

/// As much of a body as holds two ids of forty digits.
const LINE: usize = 86;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_cgi_program_says_becomes_an_answer() {
        let said = answer(b"Status: 404 Not Found\r\nExpires: 0\r\n\r\nno\r\n\r\n").unwrap();
        assert_eq!((said.status, said.headers.len()), (404, 1));
        assert!(matches!(said.content, Content::Bytes(body) if body == "no\r\n\r\n"));
        assert_eq!(answer(b"Expires: 0\r\n\r\n").unwrap().status, 200);
        assert!(answer(b"fatal: no").is_none());
    }

    #[test]
    fn a_push_is_known_by_what_it_makes_of_a_branch() {
        let (old, new) = ("0".repeat(40), "1a".repeat(20));
        let body = format!("0094{old} {new} refs/heads/main\0 report-status");
        assert_eq!(pushed(body.as_bytes()), new);
        assert_eq!(pushed(b"0000"), "");
    }
}

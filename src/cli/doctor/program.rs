//! What kind of program a command runs: the language decides which variables it reads.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// A program, as far as its command line and its files tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) language: Language,
    /// Major and minor, where they matter.
    pub(super) version: Option<(u32, u32)>,
    /// SDKs that it uses and that need a line of their own.
    pub(super) sdks: Vec<Sdk>,
}

/// What reads the variables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Language {
    Python,
    Node,
    Java,
    Go,
    Ruby,
    Php,
    Perl,
    Curl,
    Wget,
    Git,
    Docker,
    #[default]
    Unknown,
}

/// An SDK that a variable does not reach, and the lines that do: `config/sdks.yaml`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sdk {
    pub(super) name: String,
    pub(super) language: Language,
    /// Texts of which one stands in a program that uses it.
    pub(super) marks: Vec<String>,
    /// What lets it trust the CA.
    #[serde(default)]
    pub(super) trust: Vec<String>,
    /// What points it at a proxy.
    #[serde(default)]
    pub(super) proxy: Vec<String>,
    /// What points it at a `reverse` listener.
    #[serde(default)]
    pub(super) base: Vec<String>,
}

/// Reads a command; `version` is asked for what a program says of itself.
pub(super) fn kind(command: &[OsString], version: impl Fn(&str) -> Option<String>) -> Kind {
    let words: Vec<String> =
        command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let (program, rest) = innermost(&words);
    let mut language = of_name(program);
    let mut interpreter = program.to_owned();
    if language == Language::Unknown
        && let Some(file) = found(program)
    {
        (language, interpreter) = of_file(&file);
    }
    let node = if of_name(&interpreter) == Language::Node && base(&interpreter).starts_with("node")
    {
        interpreter
    } else {
        "node".to_owned()
    };
    let version = (language == Language::Node)
        .then(|| version(&node).and_then(|said| numbers(&said)))
        .flatten();
    let used = |sdk: &Sdk| sdk.language == language && mentions(rest, &sdk.marks);
    Kind { language, version, sdks: sdks().into_iter().filter(used).collect() }
}

/// The program behind those that only run another, and what follows it.
fn innermost(words: &[String]) -> (&str, &[String]) {
    let mut rest = words;
    while let [first, after @ ..] = rest {
        let skipped: fn(&str) -> bool = match base(first) {
            "env" => |word| word.contains('=') || word.starts_with('-'),
            "nice" | "nohup" | "exec" | "time" | "command" | "sudo" | "setsid" | "stdbuf" => {
                |word| word.starts_with('-')
            }
            "timeout" => is_span,
            "uv" | "poetry" | "pipenv" | "rye" | "pdm" | "hatch" => |word| word == "run",
            _ => break,
        };
        let skip = after.iter().take_while(|word| skipped(word)).count();
        match after.get(skip..) {
            Some(inner @ [_, ..]) => rest = inner,
            Some([]) | None => break,
        }
    }
    rest.split_first().map_or(("", &[]), |(first, after)| (first.as_str(), after))
}

/// An option of `timeout`, or how long.
fn is_span(word: &str) -> bool {
    word.starts_with('-') || word.trim_end_matches(['s', 'm', 'h', 'd']).parse::<f64>().is_ok()
}

fn base(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

fn of_name(program: &str) -> Language {
    let name = base(program).trim_end_matches(|sign: char| sign.is_ascii_digit() || sign == '.');
    match name {
        "python" | "pypy" | "pytest" | "pip" | "ipython" | "uvicorn" | "gunicorn" | "celery" => {
            Language::Python
        }
        "node" | "nodejs" | "npm" | "npx" | "yarn" | "pnpm" | "tsx" | "ts-node" => Language::Node,
        "java" | "mvn" | "mvnw" | "gradle" | "gradlew" | "kotlin" | "scala" | "sbt" => {
            Language::Java
        }
        "go" => Language::Go,
        "ruby" | "bundle" | "rails" | "rake" | "irb" => Language::Ruby,
        "php" | "composer" | "artisan" => Language::Php,
        "perl" | "lwp-request" => Language::Perl,
        "curl" => Language::Curl,
        "wget" => Language::Wget,
        "git" => Language::Git,
        "docker" | "podman" | "nerdctl" => Language::Docker,
        _ => Language::Unknown,
    }
}

/// Where a program is, as a shell finds it.
fn found(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// What a file is written in: its first line, or what Go puts into what it builds.
fn of_file(file: &Path) -> (Language, String) {
    let bytes = head(file, PROGRAM_READ).unwrap_or_default();
    if let Some(line) = bytes.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line).into_owned();
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let (interpreter, _) = innermost(&words);
        return (of_name(interpreter), interpreter.to_owned());
    }
    let built = memchr::memmem::find(&bytes, b"\xff Go buildinf:").is_some();
    (if built { Language::Go } else { Language::Unknown }, String::new())
}

/// Whether one of these texts stands in a file, or a line of code, that the command names.
fn mentions(rest: &[String], marks: &[String]) -> bool {
    rest.iter().any(|word| {
        let text = head(Path::new(word), SCRIPT_READ).unwrap_or_default();
        marks.iter().any(|mark| {
            word.contains(mark.as_str()) || memchr::memmem::find(&text, mark.as_bytes()).is_some()
        })
    })
}

fn head(file: &Path, most: u64) -> Option<Vec<u8>> {
    use std::io::Read as _;
    // A pipe would be read empty before its program gets to it.
    let regular = file.metadata().is_ok_and(|about| about.is_file());
    let mut bytes = Vec::new();
    let open = std::fs::File::open(file).ok().filter(|_| regular)?;
    open.take(most).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// `v20.19.2` as 20 and 19.
fn numbers(said: &str) -> Option<(u32, u32)> {
    let mut parts = said.trim().trim_start_matches('v').split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn sdks() -> Vec<Sdk> {
    serde_saphyr::from_str(SDKS).unwrap_or_default()
}

const SDKS: &str = include_str!("../../../config/sdks.yaml");
/// What Go writes stands near the begin of a program's data.
const PROGRAM_READ: u64 = 64 * 1024 * 1024;
/// A script is no longer.
const SCRIPT_READ: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(command: &str) -> Kind {
        let words: Vec<OsString> = command.split(' ').map(OsString::from).collect();
        kind(&words, |_| Some("v20.19.2\n".to_owned()))
    }

    #[test]
    fn the_language_of_a_command_is_that_of_its_innermost_program() {
        for (command, wanted) in [
            ("python3.12 x.py", Language::Python),
            ("/opt/venv/bin/python x.py", Language::Python),
            ("env -i A=b NO_PROXY= python3 x.py", Language::Python),
            ("timeout -k 5 30s uv run python x.py", Language::Python),
            ("nice -n5 node x.mjs", Language::Node),
            ("npx tsx x.ts", Language::Node),
            ("./gradlew run", Language::Java),
            ("go run .", Language::Go),
            ("bundle exec rake", Language::Ruby),
            ("php8.2 x.php", Language::Php),
            ("perl -MLWP::Simple x.pl", Language::Perl),
            ("curl -s https://a.test", Language::Curl),
            ("git fetch", Language::Git),
            ("wget https://a.test", Language::Wget),
            ("docker run x", Language::Docker),
            ("/bin/sh -c true", Language::Unknown),
            ("no-such-program", Language::Unknown),
            ("env", Language::Unknown),
            ("", Language::Unknown),
        ] {
            assert_eq!(of(command).language, wanted, "{command}");
        }
        assert_eq!(of("node x").version, Some((20, 19)));
        assert_eq!(of("python x").version, None);
    }

    #[test]
    fn a_script_says_by_its_first_line_what_reads_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("tool");
        for (text, wanted) in [
            (&b"#!/usr/bin/env python3\nimport x"[..], Language::Python),
            (b"#!/usr/bin/env -S node --no-warnings\n", Language::Node),
            (b"#!/usr/bin/ruby\n", Language::Ruby),
            (b"#!/bin/sh\n", Language::Unknown),
            (b"\x7fELF....\xff Go buildinf:....", Language::Go),
            (b"\x7fELF", Language::Unknown),
        ] {
            std::fs::write(&file, text).expect("written");
            let found = kind(&[file.clone().into_os_string()], |_| None);
            assert_eq!(found.language, wanted, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn an_sdk_is_seen_in_the_script_that_uses_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let all: Vec<Sdk> = serde_saphyr::from_str(SDKS).expect("the file is well formed");
        assert!(!all.is_empty());
        for sdk in all {
            let program = match sdk.language {
                Language::Python => "python3",
                Language::Node => "node",
                other => panic!("{other:?} has no program here"),
            };
            assert!(!sdk.base.is_empty() && !sdk.marks.is_empty(), "{}", sdk.name);
            let file = dir.path().join("script");
            std::fs::write(&file, format!("# x\n{}\n", sdk.marks[0])).expect("written");
            let command = [OsString::from(program), file.into_os_string()];
            assert_eq!(kind(&command, |_| None).sdks, [sdk]);
        }
        std::fs::write(dir.path().join("none"), "import json").expect("written");
        let command = [OsString::from("python3"), dir.path().join("none").into_os_string()];
        assert_eq!(kind(&command, |_| None).sdks, []);
    }
}

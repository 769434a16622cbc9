//! What a scenario does to its requests, one step a request.
//!
//! A script is text, so that a test, the demo and the control port write it
//! alike: steps parted by `;`, each a word and its options, `x3` to repeat it and
//! `forever` on the last. When the steps are used up, requests are answered well.
//!
//! ```text
//! 429 retry_after=1; 503 x2; reset_after; ok
//! 503 forever
//! 402 body={"error":{"code":"insufficient_credits"}} +x-should-retry:false
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use super::download::Bent;

/// The steps of one scenario.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    steps: VecDeque<Step>,
    /// What comes when `steps` are used up.
    rest: Option<Step>,
}

/// What happens to one request.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) kind: Kind,
    /// The text it was read from, for the report.
    pub(crate) text: String,
    /// Status answers alone: the effect is made all the same.
    pub(crate) effect: bool,
    /// Fields added to the answer.
    pub(crate) headers: Vec<(String, String)>,
    /// Sent in place of the answer's own body.
    pub(crate) body: Option<String>,
    /// Blanks after the answer's own body, for one that is large.
    pub(crate) pad: usize,
    /// What happens to a download.
    pub(crate) bent: Bent,
    /// How a whole answer is written.
    pub(crate) shape: Shape,
    /// What becomes of the connection after a whole answer.
    pub(crate) then: Then,
    /// How long the answer is withheld, the effect being made.
    pub(crate) wait: Duration,
    /// The answer is withheld until the test releases it, the effect being made.
    pub(crate) held: bool,
}

/// The fault, or its absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The API's own answer.
    Good,
    /// This status, after the request was read to its end.
    Status(u16),
    /// This status, before the body was read; the connection closes.
    Early(u16),
    /// The connection is cut, the request's body unread.
    Before(Cut),
    /// The request is read, its effect made, and the connection cut.
    After(Cut),
    /// Bytes that are no HTTP, after the effect.
    Garbage,
    /// `100 Continue` whether asked for or not, then the API's own answer.
    Hundred,
}

/// How a connection, or a stream of HTTP/2, ends without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// TCP reset.
    Reset,
    /// TCP end of stream, TLS closed properly.
    Eof,
    /// Nothing ever comes; the connection stays.
    Hang,
    /// HTTP/2: `RST_STREAM` with `REFUSED_STREAM`. HTTP/1: as `Reset`.
    RefusedStream,
    /// HTTP/2: `RST_STREAM` with `INTERNAL_ERROR`. HTTP/1: as `Reset`.
    FailedStream,
    /// HTTP/2: GOAWAY below this stream, then end of stream. HTTP/1: as `Eof`.
    GoawayBelow,
    /// HTTP/2: GOAWAY that includes this stream, then end of stream. HTTP/1: as `Eof`.
    GoawayAbove,
}

/// How an answer is put on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// With its length.
    Whole,
    /// In chunks.
    Chunked,
    /// Without a length; the end of the connection ends it.
    UntilClose,
    /// Byte by byte, with this time between two.
    Drip(Duration),
    /// A length larger than what comes, then end of stream.
    Truncated,
    /// A length larger than what comes, then a reset.
    TruncatedReset,
    /// A chunk whose size is no number.
    BadChunk,
}

/// What becomes of a connection after a whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// It is kept, as HTTP says.
    Keep,
    /// It is closed, and the answer said so.
    Close,
    /// It is closed without a word: a pooled connection gone stale.
    Eof,
    /// It is reset without a word.
    Reset,
}

/// Why a script could not be read.
#[derive(Debug)]
pub(crate) struct BadScript(String);

impl Script {
    /// Reads a script as the head of this module describes.
    pub(crate) fn parse(text: &str) -> Result<Self, BadScript> {
        let mut script = Self::default();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            if script.rest.is_some() {
                return Err(BadScript(format!("{part}: follows a step that is forever")));
            }
            script.append(part)?;
        }
        Ok(script)
    }

    fn append(&mut self, part: &str) -> Result<(), BadScript> {
        let (text, last) = part.rsplit_once(' ').unwrap_or((part, ""));
        if last == "forever" {
            self.rest = Some(Step::parse(text.trim())?);
            return Ok(());
        }
        let times = last.strip_prefix('x').and_then(|digits| digits.parse::<usize>().ok());
        let step = Step::parse(if times.is_some() { text.trim() } else { part })?;
        // A thousand is more than any test sends; it bounds what the control port can ask for.
        self.steps.extend(std::iter::repeat_n(step, times.unwrap_or(1).min(1000)));
        Ok(())
    }

    /// Takes the step of the next request, where the script has one left.
    pub(crate) fn next(&mut self) -> Option<Step> {
        self.steps.pop_front().or_else(|| self.rest.clone())
    }
}

impl Default for Step {
    fn default() -> Self {
        Self {
            kind: Kind::Good,
            text: "ok".to_owned(),
            effect: false,
            headers: Vec::new(),
            body: None,
            pad: 0,
            bent: Bent::default(),
            shape: Shape::Whole,
            then: Then::Keep,
            wait: Duration::ZERO,
            held: false,
        }
    }
}

impl Step {
    fn parse(text: &str) -> Result<Self, BadScript> {
        let mut words = text.split_whitespace();
        let mut step = Self { text: text.to_owned(), ..Self::default() };
        match words.next().unwrap_or("ok") {
            "ok" => {}
            "held" => step.held = true,
            "slow" => step.wait = Duration::from_millis(number(text, words.next())?),
            "drip" => {
                step.shape = Shape::Drip(Duration::from_millis(number(text, words.next())?));
            }
            "early" => step.kind = Kind::Early(status(text, words.next())?),
            "truncate" => step.shape = Shape::Truncated,
            "truncate_reset" => step.shape = Shape::TruncatedReset,
            "bad_chunk" => step.shape = Shape::BadChunk,
            word => step.kind = kind(text, word)?,
        }
        for word in words {
            step.option(text, word)?;
        }
        Ok(step)
    }

    fn option(&mut self, text: &str, word: &str) -> Result<(), BadScript> {
        if let Some(field) = word.strip_prefix('+') {
            let (name, value) = field.split_once(':').ok_or_else(|| unknown(text, word))?;
            self.headers.push((name.to_owned(), value.to_owned()));
            return Ok(());
        }
        match word.split_once('=').unwrap_or((word, "")) {
            ("effect", "") => self.effect = true,
            ("held", "") => self.held = true,
            ("chunked", "") => self.shape = Shape::Chunked,
            ("until_close", "") => (self.shape, self.then) = (Shape::UntilClose, Then::Close),
            ("then_close", "") => self.then = Then::Close,
            ("then_eof", "") => self.then = Then::Eof,
            ("then_reset", "") => self.then = Then::Reset,
            ("wait", ms) => self.wait = Duration::from_millis(number(text, Some(ms))?),
            ("pad", size) => self.pad = number(text, Some(size))?,
            ("body", body) => self.body = Some(body.to_owned()),
            ("retry_after", wait) => {
                self.headers.push(("retry-after".to_owned(), wait.to_owned()));
            }
            ("retry_after_ms", wait) => {
                self.headers.push(("retry-after-ms".to_owned(), wait.to_owned()));
            }
            _ if self.bent.option(word) => {}
            _ => return Err(unknown(text, word)),
        }
        Ok(())
    }
}

fn kind(text: &str, word: &str) -> Result<Kind, BadScript> {
    Ok(match word {
        "reset_before" => Kind::Before(Cut::Reset),
        "reset_after" => Kind::After(Cut::Reset),
        "eof_before" => Kind::Before(Cut::Eof),
        "eof_after" => Kind::After(Cut::Eof),
        "hang" => Kind::Before(Cut::Hang),
        "hang_after" => Kind::After(Cut::Hang),
        "refused_stream" => Kind::Before(Cut::RefusedStream),
        "failed_stream" => Kind::After(Cut::FailedStream),
        "goaway_below" => Kind::Before(Cut::GoawayBelow),
        "goaway_above" => Kind::After(Cut::GoawayAbove),
        "garbage" => Kind::Garbage,
        "hundred" => Kind::Hundred,
        _ => Kind::Status(status(text, Some(word))?),
    })
}

/// A final status: what is below 200 is no answer.
fn status(text: &str, word: Option<&str>) -> Result<u16, BadScript> {
    let status = number(text, word)?;
    if (200..600).contains(&status) { Ok(status) } else { Err(unknown(text, &status.to_string())) }
}

fn number<N: std::str::FromStr>(text: &str, word: Option<&str>) -> Result<N, BadScript> {
    let word = word.unwrap_or_default();
    word.parse().ok().ok_or_else(|| unknown(text, word))
}

fn unknown(text: &str, word: &str) -> BadScript {
    BadScript(format!("`{text}`: `{word}` is no step and no option of one"))
}

impl fmt::Display for BadScript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts of the first `count` steps, parted by a comma.
    fn played(script: &str, count: usize) -> String {
        let mut script = Script::parse(script).expect("the test's script is right");
        (0..count).map(|_| script.next().unwrap_or_default().text).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn a_script_is_played_in_order_and_ends_well() {
        assert_eq!(played("429 retry_after=1; 503 x2", 4), "429 retry_after=1,503,503,ok");
        assert_eq!(played("reset_after; 503 forever", 3), "reset_after,503,503");
        assert_eq!(played("", 1), "ok");
    }

    #[test]
    fn a_word_that_means_nothing_is_named() {
        for (script, word) in
            [("50x", "50x"), ("slow", "``"), ("503 loud", "loud"), ("ok +x", "+x")]
        {
            let fault = Script::parse(script).expect_err("the script is wrong").to_string();
            assert!(fault.contains(word), "{fault}");
        }
        assert!(Script::parse("503 forever; ok").is_err());
    }

    #[test]
    fn options_are_read() {
        let step =
            Step::parse(r#"402 +x-a:b body={"a":1} wait=20 then_close"#).expect("it is right");
        assert_eq!(step.headers, [("x-a".to_owned(), "b".to_owned())]);
        assert_eq!(step.body.as_deref(), Some(r#"{"a":1}"#));
        assert_eq!((step.wait.as_millis(), step.then), (20, Then::Close));
    }
}

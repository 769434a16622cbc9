//! The `inbox` block of a route: what makes two deliveries one, what proves whose they are,
//! how many may wait.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use http::HeaderName;

use crate::config::leaf::{
    Count, DAY, MIB, MINUTE, Parse, Parsed, SECOND, SIZE_MAX, Size, Span, Word, Words, meant,
};
use crate::config::reading::{Reading, block, join};
use crate::config::route::RouteBlock;
use crate::exchange::Pointer;
use crate::inbox::signature::{Format, Signed};
use crate::inbox::{Identity, Rules, Secret, Signature};
use crate::listen;
use crate::retry::policy::{Attempts, Policy};
use crate::route::{Mode, Route};

block! {
    /// Takes deliveries in for the application behind a reverse listener: each is answered
    /// 200 once it is in the journal, and then brought to the application at least once.
    InboxBlock {
        /// What makes two deliveries one: {json: POINTER} or {header: NAME}.
        identity: Option<InboxIdentityBlock> = None,
        /// What proves whose a delivery is; null: nothing is asked for, and whoever reaches
        /// the listener can send the application what he likes.
        signature: Option<InboxSignatureBlock> = None,
        /// How long a delivery is remembered, so that a repeat is dropped; and how long it is
        /// tried, where the route's own `retry.deadline` does not say.
        keep: Span<MINUTE, { 365 * DAY }> = Span::of(7 * DAY),
        /// Bytes of one delivery's body; past it 400.
        max_size: Size<1, { 64 * MIB }> = Size::of(MIB),
        /// Deliveries that wait at one time; past it 503, and the provider comes again.
        max_waiting: Count<1, 1_000_000> = Count(10_000),
        /// Bytes of all that wait; past it 503. They count for `state.max_size` too.
        max_bytes: Size<1, SIZE_MAX> = Size::of(256 * MIB),
        /// Bodies that are read at one time, each of up to `max_size`; past it 503.
        // As much as may wait, at the default sizes.
        max_reading: Count<1, 1_000_000> = Count(256),
        /// With `state.journal: memory`, deliveries that are remembered after their end, at
        /// some hundred bytes each; past it the oldest is forgotten before `keep` is over.
        max_remembered: Count<1, 10_000_000> = Count(100_000),
        /// Further fields that the application gets. The usual ones, those of the signature
        /// and the identity, and `x-`, `webhook-` and `ce-` ones are; credentials never.
        headers: Vec<Parsed<KeptField>> = Vec::new(),
    }
}

block! {
    /// What makes two deliveries one: exactly one of these.
    InboxIdentityBlock {
        /// A member of the JSON body: a JSON pointer such as /data/id.
        json: Option<Parsed<Pointer>> = None,
        /// A header field, by name.
        header: Option<Parsed<Field>> = None,
    }
}

block! {
    /// What proves whose a delivery is: HMAC-SHA256 over its raw body, or over a time and it.
    InboxSignatureBlock {
        /// The header field that it stands in.
        header: Option<Parsed<Field>> = None,
        /// A file with the secret; its last newline is dropped.
        secret_file: Option<PathBuf> = None,
        /// How it is written.
        format: Word<Format> = Word(Format::Hex),
        /// What stands before it, such as sha256=; where it is timestamped and this is empty, v1=.
        prefix: Parsed<Prefix> = Prefix::none(),
        /// What it covers: the raw body; or what stands in t=SECONDS,v1=SIGNATURE, a dot and the body.
        signed: Word<Covered> = Word(Covered::Body),
        /// With `signed: timestamped`, how far that time may be from ours; past it 400.
        tolerance: Span<SECOND, DAY> = Span::of(5 * MINUTE),
    }
}

impl InboxBlock {
    /// Reads the block once; [`Rules`] need no second look.
    pub(super) fn meant(
        &self,
        at: &str,
        retry: &Policy,
        reading: &mut Reading<'_>,
    ) -> Option<Rules> {
        let block = join(at, "inbox");
        let identity = self.identity(&join(&block, "identity"), reading);
        let signature = match &self.signature {
            None => None,
            Some(signature) => Some(signature.meant(&join(&block, "signature"), reading)?),
        };
        let identity = identity?;
        let mut headers: Vec<HeaderName> =
            meant(&self.headers).into_iter().map(|KeptField(name)| name).collect();
        headers.extend(signature.as_ref().map(|signature| signature.header.clone()));
        if let Identity::Header(name) = &identity {
            headers.push(name.clone());
        }
        // What `defaults` say is meant for calls that somebody waits for.
        let own = |key: &str| reading.wrote(&join(at, key));
        let attempts = match retry.attempts {
            Attempts::AtMost(most) if own("retry.attempts") => Some(most),
            Attempts::AtMost(_) | Attempts::Unlimited => None,
        };
        let keep = self.keep.duration();
        let give_up_after = if own("retry.deadline") { retry.deadline.after } else { keep };
        Some(Rules {
            identity,
            signature,
            headers,
            keep,
            max_size: usize::try_from(self.max_size.bytes()).unwrap_or(usize::MAX),
            max_waiting: self.max_waiting.0.into(),
            max_bytes: self.max_bytes.bytes(),
            max_reading: self.max_reading.size(),
            max_remembered: self.max_remembered.size(),
            attempts,
            give_up_after,
        })
    }

    fn identity(&self, at: &str, reading: &mut Reading<'_>) -> Option<Identity> {
        let block = self.identity.clone().unwrap_or_default();
        match (block.json, block.header) {
            (Some(json), None) => Some(Identity::Json(json.meant)),
            (None, Some(header)) => Some(Identity::Header(header.meant.0)),
            (None, None) | (Some(_), Some(_)) => {
                let wish = "must be {json: POINTER}, such as /request_id, or {header: NAME}";
                reading.miss(at, wish);
                None
            }
        }
    }
}

impl InboxSignatureBlock {
    fn meant(&self, at: &str, reading: &mut Reading<'_>) -> Option<Signature> {
        let [header_at, file_at] = [join(at, "header"), join(at, "secret_file")];
        if self.header.is_none() {
            reading.miss(&header_at, "must be given: the field that the signature stands in");
        }
        let Some(file) = &self.secret_file else {
            reading.miss(&file_at, "must be given: a file with the secret");
            return None;
        };
        let (signed, prefix) = self.covered(at, reading);
        match secret(file) {
            Ok(secret) => Some(Signature {
                header: self.header.clone()?.meant.0,
                secret,
                format: self.format.0,
                prefix,
                signed,
            }),
            Err(wish) => {
                reading.fault(&file_at, format!("{}: {wish}", file.display()));
                None
            }
        }
    }
}

impl InboxSignatureBlock {
    /// What the signature covers, and what stands before it.
    fn covered(&self, at: &str, reading: &mut Reading<'_>) -> (Signed, String) {
        let prefix = &self.prefix.text;
        match self.signed.0 {
            Covered::Body => {
                let tolerance = join(at, "tolerance");
                if reading.wrote(&tolerance) {
                    reading.fault(&tolerance, "goes with `signed: timestamped`");
                }
                (Signed::Body, prefix.clone())
            }
            Covered::Timestamped => {
                if prefix.starts_with("t=") {
                    let wish = "must not be `t=` where that is the time";
                    reading.fault(&join(at, "prefix"), wish);
                }
                let prefix = if prefix.is_empty() { "v1=" } else { prefix };
                let tolerance = self.tolerance.duration();
                (Signed::Timestamped { tolerance }, prefix.to_owned())
            }
        }
    }
}

fn secret(file: &Path) -> Result<Secret, String> {
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|file| file.take(SECRET_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > SECRET_MAX {
        return Err(format!("is longer than {SECRET_MAX} bytes"));
    }
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err("is empty".to_owned());
    }
    Ok(Secret::new(line))
}

/// Blames inboxes that nothing can reach, and those that would only observe.
pub(super) fn inboxes_are_reached(
    blocks: &[(String, RouteBlock)],
    routes: &[Route],
    listeners: &[listen::Spec],
    reading: &mut Reading<'_>,
) {
    let with_inbox = blocks.iter().filter(|(_, block)| block.inbox.is_some());
    for (at, block) in with_inbox {
        let key = join(at, "inbox");
        if block.mode.0 == Mode::Observe {
            let mode = reading.written_at(at, "mode");
            let wish = "answers for the application, which `mode: observe` must not";
            reading.clash(&key, &mode, wish);
        }
        let name = block.name.as_ref().map(|name| name.text.as_str());
        let Some(route) = routes.iter().find(|route| Some(route.name.as_str()) == name) else {
            continue;
        };
        let leads_here = |listener: &listen::Spec| {
            let upstream = listener.mode.upstream();
            upstream.is_some_and(|origin| route.matcher.names(&origin.host, origin.port))
        };
        if !listeners.iter().any(leads_here) {
            let wish = "needs a listener with `mode: reverse`, whose `upstream` the route matches";
            reading.clash(&key, "listeners", wish);
        }
    }
}

/// A header field's name.
#[derive(Clone, Debug)]
pub(super) struct Field(HeaderName);

impl Parse for Field {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_invalid| "must be a header's name".to_owned())
    }
}

/// The name of a field that an application may get.
#[derive(Clone, Debug)]
pub(super) struct KeptField(HeaderName);

impl Parse for KeptField {
    fn parse(text: &str) -> Result<Self, String> {
        let Field(name) = Field::parse(text)?;
        if NEVER_KEPT.contains(&name.as_str()) {
            return Err("must be neither a credential nor a field of the connection".to_owned());
        }
        Ok(Self(name))
    }
}

/// What stands before a signature.
#[derive(Clone, Debug)]
pub(super) struct Prefix;

impl Prefix {
    fn none() -> Parsed<Self> {
        Parsed { text: String::new(), meant: Self }
    }
}

impl Parse for Prefix {
    fn parse(text: &str) -> Result<Self, String> {
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',');
        plain.then_some(Self).ok_or_else(|| "must be visible ASCII without a comma".to_owned())
    }
}

/// What a signature covers, as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Covered {
    Body,
    Timestamped,
}

impl Words for Covered {
    const WORDS: &'static [(&'static str, Self)] =
        &[("body", Self::Body), ("timestamped", Self::Timestamped)];
}

impl Words for Format {
    const WORDS: &'static [(&'static str, Self)] = &[("hex", Self::Hex), ("base64", Self::Base64)];
}

/// Longer than any secret; a mistaken path is not read into memory.
const SECRET_MAX: u64 = 4096;
/// What is not kept, and what the connection to the application has of its own.
const NEVER_KEPT: &[&str] = &[
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

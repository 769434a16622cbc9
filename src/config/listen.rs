//! The file's `listeners`: where requests get in, and who may bring them.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, json_schema};
use serde::Serialize;

use crate::config::environment::AUTH;
use crate::config::leaf::{
    Count, HOUR, KIB, MIB, MINUTE, Parse, Parsed, SECOND, Size, Span, Word, Words, form,
};
use crate::config::reading::{Leaf, Reading, Written, block, join};
use crate::config::tree::{Node, Value};
use crate::exchange::Origin;
use crate::listen;

block! {
    /// A listener.
    ListenerBlock {
        /// Where it binds: `host:port`; port 0 takes a free one.
        address: Address = Address::loopback(8080),
        /// What it takes its requests for.
        mode: Word<Mode> = Word(Mode::Forward),
        /// With `mode: reverse`, where everything goes; null: where the first segment of
        /// the path says, as in `http://127.0.0.1:8081/api.example.com/v1/jobs`.
        upstream: Option<Parsed<Origin>> = None,
        /// Who may use it. Off loopback it must be given.
        auth: Auth = Auth::Unsaid(()),
        /// Connections at one time; further ones wait in the kernel's queue.
        max_connections: Count<1, 1_000_000> = Count(4096),
        /// Bytes of a request's head.
        header_size: Size<{ 8 * KIB }, { 16 * MIB }> = Size::of(64 * KIB),
        /// Fields in a request's head.
        header_count: Count<1, 10_000> = Count(100),
        /// Bytes of a request target.
        uri_size: Size<1, URI_MAX> = Size::of(16 * KIB),
        /// How long a head may take to arrive.
        header_timeout: Span<1, HOUR> = Span::of(30 * SECOND),
        /// With `mode: transparent`, how long a client may be silent before its server is let
        /// speak first, as those of SMTP or SSH do.
        first_word_timeout: Span<1, MINUTE> = Span::of(300),
        /// How long a connection may stay open without an exchange.
        idle_timeout: Span<1, { 24 * HOUR }> = Span::of(5 * MINUTE),
        /// Streams at one time on one HTTP/2 connection.
        max_streams: Count<1, 65_535> = Count(256),
    }
}

/// `mode` as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Forward,
    Transparent,
    Reverse,
}

impl Words for Mode {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("forward", Self::Forward),
        ("transparent", Self::Transparent),
        ("reverse", Self::Reverse),
    ];
}

/// `auth` as written: null, `open`, or a user.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(super) enum Auth {
    /// Nothing is asked for, on loopback only.
    Unsaid(()),
    /// Nothing is asked for.
    Open(Word<Open>),
    /// Proxy-Authorization is asked for.
    Basic(UserBlock),
}

/// The word `open`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Open;

impl Words for Open {
    const WORDS: &'static [(&'static str, Self)] = &[("open", Self)];
}

block! {
    /// A user and where the password is.
    UserBlock {
        /// The user's name.
        user: Option<Parsed<User>> = None,
        /// A file with the password; its last newline is dropped.
        password_file: Option<PathBuf> = None,
    }
}

/// A user's name, as Basic authentication can carry it (RFC 7617, section 2).
#[derive(Clone, Debug)]
pub(super) struct User;

impl Parse for User {
    // `NAME:PASSWORD`, as curl takes it.
    const IS_PRIVATE: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        let named =
            !text.is_empty() && !text.contains([':', '\0']) && !text.contains(char::is_control);
        named.then_some(Self).ok_or_else(|| "must be a name without a colon".to_owned())
    }
}

impl Parse for Origin {
    fn parse(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|wish| format!("must be {wish}"))
    }
}

impl Written for Auth {
    fn fresh(node: &Node, at: &str, reading: &mut Reading<'_>) -> Option<Self> {
        match &node.value {
            Value::Null => Some(Self::Unsaid(())),
            Value::Text(text) if text == "open" => Some(Self::Open(Word(Open))),
            Value::Map(_) => UserBlock::fresh(node, at, reading).map(Self::Basic),
            other => {
                let wish = "must be null, `open` or {user: NAME, password_file: FILE}";
                let got = || format!("{wish} (got {})", other.shown());
                let may_be_secret = matches!(other, Value::Text(text) if text.contains(':'));
                reading.fault(at, if may_be_secret { wish.to_owned() } else { got() });
                None
            }
        }
    }
}

impl Auth {
    /// Reads what a variable says in place of the file: `open`, or `NAME:PASSWORD_FILE`.
    pub(super) fn lay_over(&mut self, text: &str, variable: &str, reading: &mut Reading<'_>) {
        // A name holds no colon, so the first one ends it.
        *self = match text.split_once(':') {
            None if text == "open" => Self::Open(Word(Open)),
            Some((user, file)) if User::parse(user).is_ok() && !file.is_empty() => {
                let user = Some(Parsed { text: user.to_owned(), meant: User });
                Self::Basic(UserBlock { user, password_file: Some(PathBuf::from(file)) })
            }
            _ => {
                reading.fault(variable, WANTED_AUTH);
                return;
            }
        };
    }

    fn meant(&self, at: &str, reading: &mut Reading<'_>) -> Option<listen::Auth> {
        let block = match self {
            Self::Unsaid(()) | Self::Open(_) => return Some(listen::Auth::Open),
            Self::Basic(block) => block,
        };
        if block.user.is_none() {
            reading.miss(&join(at, "user"), "must be given with `password_file`");
        }
        let Some(file) = &block.password_file else {
            reading.miss(&join(at, "password_file"), "must be given with `user`");
            return None;
        };
        match password(file) {
            Ok(password) => Some(listen::Auth::Basic { user: block.user.clone()?.text, password }),
            // It may be the password itself that stands there.
            Err(wish) if at == AUTH => {
                reading.fault(at, format!("{WANTED_AUTH}: that file {wish}"));
                None
            }
            Err(wish) => {
                reading.fault(&join(at, "password_file"), format!("{}: {wish}", file.display()));
                None
            }
        }
    }
}

/// What `SAMEKEY_AUTH` says.
const WANTED_AUTH: &str = "must be `open` or NAME:PASSWORD_FILE";

/// The one line that a file with a secret holds.
pub(super) fn password(file: &Path) -> Result<String, String> {
    let size = fs::metadata(file).map_err(|error| format!("cannot be read: {error}"))?.len();
    if size > PASSWORD_MAX {
        return Err(format!("is longer than {PASSWORD_MAX} bytes"));
    }
    let text = fs::read_to_string(file).map_err(|error| format!("cannot be read: {error}"))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    match line {
        "" => Err("is empty".to_owned()),
        line if line.contains(char::is_control) => Err("holds more than one line".to_owned()),
        line => Ok(line.to_owned()),
    }
}

impl ListenerBlock {
    /// Reads the block once; a [`listen::Spec`] needs no second look.
    ///
    /// `bound` and `auth` are what its address and `auth` go by: the keys, or the variables
    /// over them.
    pub(super) fn meant(
        &self,
        at: &str,
        [bound, auth]: [&str; 2],
        reading: &mut Reading<'_>,
    ) -> Option<listen::Spec> {
        let transparent = self.mode.0 == Mode::Transparent;
        if transparent && matches!(self.auth, Auth::Basic(_)) {
            let wish = "must be `open` or left out: who knows of no proxy cannot say who it is";
            reading.clash(&join(at, "auth"), &join(at, "mode"), wish);
        }
        if !self.address.is_loopback() && matches!(self.auth, Auth::Unsaid(())) {
            let address = &self.address.text;
            let why = format!("{address} can be reached from other machines");
            let ways = if transparent { "`open`" } else { "{user, password_file} or `open`" };
            let wish = format!("must be {ways}: {why}");
            if bound.starts_with(at) {
                reading.clash(auth, bound, wish);
            } else {
                reading.clash(bound, auth, format!("{auth} (or {AUTH}) {wish}"));
            }
        }
        let mode = self.mode(at, reading);
        let auth = self.auth.meant(auth, reading);
        let address = self.address.text.clone();
        Some(listen::Spec { address, mode: mode?, auth: auth?, caps: self.caps() })
    }

    fn mode(&self, at: &str, reading: &mut Reading<'_>) -> Option<listen::Mode> {
        let [mode, upstream] = [join(at, "mode"), join(at, "upstream")];
        match (self.mode.0, &self.upstream) {
            (Mode::Forward, None) => return Some(listen::Mode::Forward),
            (Mode::Reverse, Some(origin)) => {
                let target = listen::Target::One(origin.meant.clone());
                return Some(listen::Mode::Reverse(target));
            }
            (Mode::Transparent, None) if cfg!(target_os = "linux") => {
                return Some(listen::Mode::Transparent);
            }
            (Mode::Transparent, None) => {
                reading.fault(
                    &mode,
                    "`transparent` needs Linux, whose kernel says where a \
                                      redirected connection was going",
                );
            }
            (Mode::Reverse, None) => return Some(listen::Mode::Reverse(listen::Target::ByPath)),
            (Mode::Forward | Mode::Transparent, Some(_)) => {
                reading.clash(&upstream, &mode, "must not be given without `mode: reverse`");
            }
        }
        None
    }

    fn caps(&self) -> listen::Caps {
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        listen::Caps {
            connections: self.max_connections.0,
            header_size: bytes(self.header_size.bytes()),
            header_count: self.header_count.size(),
            uri_size: bytes(self.uri_size.bytes()),
            header_timeout: self.header_timeout.duration(),
            first_word_timeout: self.first_word_timeout.duration(),
            idle_timeout: self.idle_timeout.duration(),
            streams: self.max_streams.0,
        }
    }
}

/// Blames each address that an earlier one takes already.
pub(super) fn no_two_alike(addresses: &[(String, &Address)], reading: &mut Reading<'_>) {
    for (n, (key, address)) in addresses.iter().enumerate() {
        let taken = addresses.iter().take(n).find(|(_, earlier)| address.overlaps(earlier));
        if let Some((first, _)) = taken {
            reading.clash(key, first, format!("{} is taken by {first}", address.text));
        }
    }
}

/// Blames a further proxy that is one of our own addresses.
pub(super) fn no_way_back(
    (key, proxy): (&str, &str),
    bound: &[(String, &Address)],
    reading: &mut Reading<'_>,
) {
    // Which machine has an address that is not loopback is known when it is dialled.
    let Some(proxy) = Address::parse(proxy).filter(Address::is_loopback) else { return };
    if let Some((ours, _)) = bound.iter().find(|(_, address)| proxy.overlaps(address)) {
        reading.clash(key, ours, format!("is {ours}: samekey would go through itself"));
    }
}

/// `host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// As written.
    pub(super) text: String,
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Ip(IpAddr),
    Name(String),
}

impl Address {
    /// A default: this port of 127.0.0.1.
    pub(super) fn loopback(port: u16) -> Self {
        let host = Host::Ip(IpAddr::from([127, 0, 0, 1]));
        Self { text: format!("127.0.0.1:{port}"), host, port }
    }

    /// Reads `host:port`; an IPv6 address stands in brackets.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = digits.then(|| port.parse().ok())??;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match (bracketed, host.parse()) {
            (Some(bare), _) => Host::Ip(IpAddr::V6(bare.parse().ok()?)),
            (None, Ok(IpAddr::V4(ip))) => Host::Ip(IpAddr::V4(ip)),
            (None, _) => Host::Name(host_name(host)?),
        };
        Some(Self { text: text.to_owned(), host, port })
    }

    /// Whether nobody but this machine can reach it.
    pub(super) fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Ip(ip) => ip.is_loopback(),
            Host::Name(name) => name == "localhost",
        }
    }

    /// Whether both cannot be bound at one time; a free port is nobody else's.
    fn overlaps(&self, other: &Self) -> bool {
        let same = match (&self.host, &other.host) {
            (Host::Ip(a), Host::Ip(b)) => {
                a == b || (a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()))
            }
            (Host::Name(a), Host::Name(b)) => a == b,
            (Host::Ip(ip), Host::Name(name)) | (Host::Name(name), Host::Ip(ip)) => {
                name == "localhost" && (ip.is_loopback() || ip.is_unspecified())
            }
        };
        same && self.port == other.port && self.port != 0
    }
}

fn host_name(host: &str) -> Option<String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let numeric = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    (!numeric && host.split('.').all(label)).then(|| host.to_ascii_lowercase())
}

impl Leaf for Address {
    fn leaf(value: &Value) -> Result<Self, String> {
        let address = match value {
            Value::Text(text) => Self::parse(text),
            _ => None,
        };
        address.ok_or_else(|| WANTED_ADDRESS.to_owned())
    }
}

form!([] Address, self => self.text, json_schema!({ "type": "string", "pattern": ":[0-9]+$" }));

const WANTED_ADDRESS: &str = "must be host:port, such as 127.0.0.1:8080, [::1]:8080 or localhost:0";

/// What the `http` crate can hold as a URI.
const URI_MAX: u64 = 65_534;

/// Longer than any password; a mistaken path is not read into memory.
const PASSWORD_MAX: u64 = 4096;

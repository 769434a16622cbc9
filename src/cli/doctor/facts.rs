//! What was observed: of the sidecar, of this shell, and of the program that was run.

use std::path::PathBuf;
use std::time::SystemTime;

use samekey::intercept::Shown;

/// All that the findings are drawn from; none of it is a secret.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// Which config was read.
    pub(super) config: String,
    /// The proxy of that config, as `http://host:port`; none where no listener is one.
    pub(super) proxy: Option<String>,
    /// Whether it wants a name and a password.
    pub(super) wants_user: bool,
    /// A listener that takes a base URL and lets the path name the upstream.
    pub(super) reverse: Option<String>,
    /// Listeners that programs come to by no variable.
    pub(super) others: Vec<Other>,
    /// What answers where the proxy is to be.
    pub(super) reached: Reached,
    /// What answers where the admin side is to be.
    pub(super) admin: Admin,
    /// What programs are to read.
    pub(super) public: PathBuf,
    /// The CA's certificate among it.
    pub(super) ca: Pem,
    /// Files whose mode lets too few read, or too many.
    pub(super) modes: Vec<Mode>,
    /// What `samekey env` prints, beside what this shell has.
    pub(super) variables: Vec<Variable>,
    /// What answers where this shell points instead, by its first variable that does.
    pub(super) elsewhere: Option<(String, Reached)>,
    /// Hosts that routes of the config name, none of a preset's.
    pub(super) hosts: Vec<String>,
    pub(super) now: SystemTime,
    /// The program, where one was given.
    pub(super) program: Option<Program>,
    /// Whether a program was given and not run, since no sidecar is there.
    pub(super) withheld: bool,
}

impl Facts {
    /// Whether there is a sidecar for programs to come to; where none of its listeners is a
    /// proxy, which can be asked, by the word of its admin side.
    pub(super) fn is_up(&self) -> bool {
        match &self.reached {
            Reached::Samekey { .. } | Reached::WantsUser => true,
            Reached::Nobody(_) | Reached::Stranger(_) => {
                self.proxy.is_none() && matches!(self.admin, Admin::Says { .. })
            }
        }
    }

    /// Whether programs come redirected, and know of no proxy.
    pub(super) fn is_transparent(&self) -> bool {
        self.proxy.is_none()
            && self.others.iter().any(|other| matches!(other, Other::Redirected(_)))
    }
}

/// A listener that is no proxy, and where it listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Other {
    /// Connections are redirected to it.
    Redirected(String),
    /// It is in the place of this upstream, or of the one that the path names.
    BaseUrl(String, Option<String>),
}

/// What answers at an address that is to be a proxy's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// Nothing: why not.
    Nobody(String),
    /// Something that is no samekey.
    Stranger(String),
    /// It wants a name and a password, and was given none, or wrong ones.
    WantsUser,
    /// A samekey.
    Samekey {
        version: String,
        /// The digest of the CA that it signs with.
        ca: String,
        trust: Trust,
        /// The folder of what programs read, by its own word.
        public: PathBuf,
    },
}

/// Whether its leaves are accepted by who trusts `ca.pem` alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    Accepted,
    /// Why not.
    Refused(String),
}

/// What answers at the admin side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Admin {
    /// Nothing: where was asked, and why not.
    Silent(String),
    /// What it says of itself.
    Says { address: String, config: String, draining: bool, reload_failed: bool },
}

/// A file of certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pem {
    /// Why it cannot be read.
    Unreadable(String),
    Holds(Vec<Shown>),
}

/// A file whose mode is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mode {
    pub(super) path: PathBuf,
    pub(super) bits: u32,
    /// What it has to be.
    pub(super) wanted: &'static str,
}

/// A variable of `samekey env`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Variable {
    pub(super) name: &'static str,
    pub(super) wanted: String,
    /// What this shell has.
    pub(super) found: Option<String>,
    /// The file that it names, where it is to name one.
    pub(super) file: Option<Pem>,
}

/// A program that was run with this shell's variables.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) kind: super::program::Kind,
    /// How it ended: its exit code, none where a signal ended it.
    pub(super) code: Option<i32>,
    /// Its connections to the sidecar, by these variables.
    pub(super) talks: Vec<Talk>,
    /// Connections that came to listeners meanwhile, by other ways: whose is not known.
    pub(super) beside: Vec<(String, u64)>,
}

/// One connection of the program to the proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Talk {
    pub(super) asked: Asked,
    /// The status of the first answer.
    pub(super) answered: Option<u16>,
    pub(super) tls: super::hello::Tls,
    /// Why the host's TLS is not opened, by the config.
    pub(super) tunnelled: Option<&'static str>,
}

/// What a connection asked for first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Asked {
    #[default]
    Nothing,
    /// `CONNECT`, and the host and port.
    Connect(String, u16),
    /// A whole URL, and its host.
    Plain(String),
    /// No request of a client that knows it talks to a proxy.
    Other,
}

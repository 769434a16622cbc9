//! The scripts: one a transition, each atomic in Redis, and how they are called.

use std::sync::LazyLock;

use redis::{Cmd, Script, ToRedisArgs};

use super::wire;
use crate::idempotency::scope::RecordId;

macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident = $($part:literal)+;)*) => {
        $($(#[$doc])* pub(super) static $name: Source = Source(LazyLock::new(|| {
            let code = concat!($(include_str!(concat!("lua/", $part, ".lua"))),+);
            (code, Script::new(code))
        }));)*
    };
}

scripts! {
    RESERVE = "common" "reserve";
    PEEK = "common" "peek";
    ABANDON = "common" "abandon";
    RESUME = "common" "resume";
    IDENTIFY = "common" "identify";
    RENEW = "common" "renew";
    SETTLE = "common" "settle";
    IMPOSE = "common" "impose";
    RESOLVE = "common" "resolve";
    FORGET = "common" "forget";
    TOLD = "common" "told";
    RATE = "rate";
    PAUSE = "pause";
    PAUSED = "paused";
    SECRET = "secret";
}

/// The text of a script, and its digest.
pub(super) struct Source(LazyLock<(&'static str, Script)>);

/// A script with its keys and arguments, to be run as often as it takes.
pub(super) struct Call {
    source: &'static Source,
    keys: Vec<String>,
    args: Vec<Vec<u8>>,
}

/// How a script is named to the server.
#[derive(Clone, Copy, Debug)]
pub(super) enum By {
    /// By its digest: the server has it, as a rule.
    Digest,
    /// By its text, which teaches it to the server.
    Text,
}

impl Call {
    /// A call about a claim; all keys of an id share a slot of a cluster.
    pub(super) fn on(source: &'static Source, id: &RecordId, owner: &[u8; 16]) -> Self {
        let id = wire::id_to(id);
        let keys = ["claim", "answer", "told", "resolved"];
        let keys = keys.map(|part| format!("{PREFIX}{{{id}}}:{part}")).to_vec();
        let args = vec![NEWS.as_bytes().to_vec(), id.into_bytes(), owner.to_vec()];
        Self { source, keys, args }
    }

    /// A call about `part` of a scope, or of all.
    pub(super) fn about(source: &'static Source, tag: &str, part: &str) -> Self {
        Self { source, keys: vec![format!("{PREFIX}{{{tag}}}:{part}")], args: Vec::new() }
    }

    pub(super) fn arg(mut self, arg: impl ToRedisArgs) -> Self {
        arg.write_redis_args(&mut self.args);
        self
    }

    pub(super) fn command(&self, by: By) -> Cmd {
        let (text, script) = &*self.source.0;
        let mut command = match by {
            By::Digest => redis::cmd("EVALSHA"),
            By::Text => redis::cmd("EVAL"),
        };
        match by {
            By::Digest => command.arg(script.get_hash()),
            By::Text => command.arg(text),
        };
        command.arg(self.keys.len()).arg(&self.keys).arg(&self.args);
        command
    }

    /// The key that says which node of a cluster it is for.
    pub(super) fn routing_key(&self) -> &str {
        self.keys.first().map_or("", String::as_str)
    }
}

/// What all keys begin with.
const PREFIX: &str = "samekey:";
/// Where ids are called out of which something is new. One channel for all: each
/// replica would listen to every shard anyway.
pub(super) const NEWS: &str = "samekey:news";

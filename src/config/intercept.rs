//! The file's `intercept`: which hosts are opened.

use std::path::PathBuf;

use crate::config::leaf::{Count, Parse, Parsed, Word, Words};
use crate::config::reading::{Reading, block, join};
use crate::intercept::{CaFiles, Hosts, OnDistrust, Rules};
use crate::route::HostPattern;

block! {
    /// Which hosts are opened, and with which CA.
    InterceptBlock {
        /// The hosts that routes name, all, or none.
        hosts: Word<Hosts> = Word(Hosts::Routed),
        /// Hosts never opened, always tunnelled: names, `*.suffix`.
        except: Vec<Parsed<HostName>> = Vec::new(),
        /// What happens to a host whose client refused our certificate.
        on_distrust: Word<OnDistrust> = Word(OnDistrust::Fail),
        /// A CA of your own; null: made once in `state.dir`/ca.
        ca: Option<CaBlock> = None,
        /// Leaf certificates kept ready.
        leaf_cache: Count<1, 1_000_000> = Count(1024),
    }
}

block! {
    /// A CA of your own.
    CaBlock {
        /// The certificate, a PEM file.
        cert: Option<PathBuf> = None,
        /// Its private key, a PEM file.
        key: Option<PathBuf> = None,
    }
}

impl Words for Hosts {
    const WORDS: &'static [(&'static str, Self)] =
        &[("routed", Self::Routed), ("all", Self::All), ("none", Self::Nothing)];
}

impl Words for OnDistrust {
    const WORDS: &'static [(&'static str, Self)] =
        &[("fail", Self::Fail), ("tunnel", Self::Tunnel)];
}

impl InterceptBlock {
    /// Reads the block once; [`Rules`] need no second look.
    pub(super) fn meant(&self, reading: &mut Reading<'_>) -> Rules {
        Rules {
            hosts: self.hosts.0,
            except: self.except.iter().map(|name| name.meant.0.clone()).collect(),
            on_distrust: self.on_distrust.0,
            ca: self.ca.as_ref().and_then(|ca| ca.meant(reading)),
            leaf_cache: self.leaf_cache.size(),
        }
    }
}

impl CaBlock {
    fn meant(&self, reading: &mut Reading<'_>) -> Option<CaFiles> {
        let at = "intercept.ca";
        for (key, given) in [("cert", &self.cert), ("key", &self.key)] {
            if given.is_none() {
                reading.miss(&join(at, key), "must be given: `cert` and `key` go together");
            }
        }
        Some(CaFiles { cert: self.cert.clone()?, key: self.key.clone()? })
    }
}

/// `api.example.com` or `*.example.net`, lower case, without port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostName(pub(super) String);

impl Parse for HostName {
    fn parse(text: &str) -> Result<Self, String> {
        let pattern = <HostPattern as Parse>::parse(text)?;
        // A pattern without a port matches on every port.
        let example = text.replace('*', "a").to_ascii_lowercase();
        let bare = example.trim_matches(['[', ']']).trim_end_matches('.');
        if text == "*" || !(pattern.matches(bare, 1) && pattern.matches(bare, 2)) {
            return Err(
                "must be a host without port, such as api.example.com or *.example.net".into()
            );
        }
        let name = text.trim_matches(['[', ']']).trim_end_matches('.');
        Ok(Self(name.to_ascii_lowercase()))
    }
}

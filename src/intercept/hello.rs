//! Reads the name off a client's first TLS message, and leaves the message as it is.

use std::io::Cursor;

use rustls::server::Acceptor;

/// What a client's hello says, as far as it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// The name that it is for: lower case, no final dot.
    Names(String),
    /// It is whole, and names nobody.
    Nameless,
    /// It is not a hello that can be read.
    Unreadable,
    /// More of it has to come.
    More,
}

/// A hello that comes in pieces.
#[derive(Default)]
pub struct Hearing {
    acceptor: Acceptor,
}

impl Hearing {
    /// Reads the next piece.
    pub fn hear(&mut self, mut piece: &[u8]) -> Hello {
        while !piece.is_empty() {
            let mut read = Cursor::new(piece);
            // Its buffer takes what makes one message, and refuses what is more.
            if !self.acceptor.read_tls(&mut read).is_ok_and(|count| count > 0) {
                return Hello::Unreadable;
            }
            let count = usize::try_from(read.position()).unwrap_or(usize::MAX);
            piece = piece.get(count..).unwrap_or_default();
            match self.acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let name = accepted.client_hello().server_name().map(bare);
                    return name.map_or(Hello::Nameless, Hello::Names);
                }
                Err(_) => return Hello::Unreadable,
            }
        }
        Hello::More
    }
}

fn bare(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

impl std::fmt::Debug for Hearing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hearing").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    fn hello(name: &str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut bytes = Vec::new();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// Hears `bytes` in pieces of each of a few sizes.
    fn check(bytes: &[u8], wanted: &Hello) {
        for size in [1, 7, 100, bytes.len()] {
            let mut hearing = Hearing::default();
            let heard = bytes.chunks(size).map(|piece| hearing.hear(piece));
            let said = heard.into_iter().find(|heard| *heard != Hello::More);
            assert_eq!(said.as_ref().unwrap_or(&Hello::More), wanted, "in pieces of {size}");
        }
    }

    #[test]
    fn a_hello_says_whom_it_is_for() {
        check(&hello("API.example.com"), &Hello::Names("api.example.com".to_owned()));
        check(&hello("192.0.2.1"), &Hello::Nameless);
        let whole = hello("a.test");
        check(&whole[..whole.len() - 1], &Hello::More);
        // What follows in the same piece is not its matter.
        check(&[whole, vec![0; 90_000]].concat(), &Hello::Names("a.test".to_owned()));
    }

    #[test]
    fn what_only_looks_like_a_hello_is_unreadable() {
        check(b"\x16\x03\x01\x00\x05hello", &Hello::Unreadable);
        check(b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", &Hello::Unreadable);
        check(b"\x16\x03\x01\x00\x00", &Hello::Unreadable);
        let endless = [b"\x16\x03\x01\x40\x00\x01\x00\xff\xfb".to_vec(), vec![0; 70_000]].concat();
        check(&endless, &Hello::Unreadable);
    }
}

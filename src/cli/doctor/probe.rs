//! Asks what listens at a proxy's address whether it is a samekey, and whether its
//! certificates are accepted by who trusts the published CA.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use samekey::intercept::OWN_HOST;

use crate::cli::doctor::facts::{Reached, Trust};

/// Asks at `address`, with the name and password `user`, as who trusts `ca_pem` alone.
pub(super) fn probe(address: &str, user: Option<&str>, ca_pem: &[u8]) -> Reached {
    let target = format!("http://{OWN_HOST}/check");
    let said = connect(address).and_then(|mut stream| {
        ask(&mut stream, &format!("GET {target} HTTP/1.1\r\nHost: {OWN_HOST}"), user)?;
        rest(&mut stream)
    });
    let said = match said {
        Ok(said) => said,
        Err(error) => return Reached::Nobody(error.to_string()),
    };
    let (head, body) = said.split_once("\r\n\r\n").unwrap_or((&said, ""));
    let line = head.lines().next().unwrap_or("nothing");
    if line.split(' ').nth(1) == Some("407") {
        return Reached::WantsUser;
    }
    let check: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let text = |name: &str| check.get(name).and_then(|value| value.as_str()).map(str::to_owned);
    match (text("version"), text("ca_sha256")) {
        (Some(version), Some(ca)) => {
            let trust = match through_tls(address, user, ca_pem) {
                Ok(()) => Trust::Accepted,
                Err(error) => Trust::Refused(error.to_string()),
            };
            let public = text("public").unwrap_or_default().into();
            Reached::Samekey { version, ca, trust, public }
        }
        _ => Reached::Stranger(line.chars().take(LINE_SHOWN).collect()),
    }
}

/// Asks the same in a tunnel, inside TLS.
fn through_tls(address: &str, user: Option<&str>, ca_pem: &[u8]) -> io::Result<()> {
    let mut stream = connect(address)?;
    let authority = format!("{OWN_HOST}:443");
    ask(&mut stream, &format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}"), user)?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < ANSWER_MAX {
        stream.read_exact(&mut byte)?;
        head.extend_from_slice(&byte);
    }
    if !head.starts_with(b"HTTP/1.1 200") {
        return Err(io::Error::other("the tunnel was refused"));
    }
    let name = ServerName::try_from(OWN_HOST).map_err(io::Error::other)?;
    let client = ClientConnection::new(Arc::new(trusting(ca_pem)?), name);
    let mut stream = StreamOwned::new(client.map_err(io::Error::other)?, stream);
    ask(&mut stream, &format!("GET /check HTTP/1.1\r\nHost: {OWN_HOST}"), None)?;
    let said = rest(&mut stream)?;
    let trusted = said.contains("\"tls\":true");
    if trusted { Ok(()) } else { Err(io::Error::other("its answer is not a samekey's")) }
}

fn trusting(ca_pem: &[u8]) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(ca_pem).filter_map(Result::ok));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(io::Error::other)?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let mut addresses = address.to_socket_addrs()?;
    let address = addresses.next().ok_or_else(|| io::Error::other("the name has no address"))?;
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn ask(stream: &mut impl Write, head: &str, user: Option<&str>) -> io::Result<()> {
    let user = user.map(|user| format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(user)));
    // A tunnel stays open; all else ends with its answer.
    let close = if head.starts_with("CONNECT") { "" } else { "Connection: close\r\n" };
    let request = format!("{head}\r\n{close}{}\r\n", user.unwrap_or_default());
    stream.write_all(request.as_bytes())?;
    stream.flush()
}

fn rest(stream: &mut impl Read) -> io::Result<String> {
    let mut said = Vec::new();
    match stream.take(ANSWER_MAX as u64).read_to_end(&mut said) {
        // Whoever closes without a goodbye has said all the same what came.
        Err(error) if said.is_empty() => Err(error),
        Ok(_) | Err(_) => Ok(String::from_utf8_lossy(&said).into_owned()),
    }
}

const PATIENCE: Duration = Duration::from_secs(3);
const ANSWER_MAX: usize = 64 * 1024;
const LINE_SHOWN: usize = 80;

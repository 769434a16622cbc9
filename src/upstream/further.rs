//! A further proxy that upstreams are reached through: for whom, and what is said to it.

use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, BytesMut};
use http::{HeaderValue, StatusCode};
use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::exchange::{Failure, Origin};
use crate::upstream::Allowed;
use crate::upstream::line::Line;

/// The `upstream.proxy` block, as meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FurtherProxy {
    /// Where it is; the scheme says whether TLS is spoken with it.
    pub origin: Origin,
    /// What it is told in `Proxy-Authorization`; never shown.
    authorization: Option<HeaderValue>,
    /// What is reached without it.
    except: Vec<Allowed>,
}

impl FurtherProxy {
    /// A proxy at `origin`, which is told this name and password.
    pub fn new(origin: Origin, credentials: Option<(&str, &str)>, except: Vec<Allowed>) -> Self {
        let authorization = credentials.and_then(|(user, password)| {
            let encoded = STANDARD.encode(format!("{user}:{password}"));
            // Base64 is always a field's value.
            let mut value = HeaderValue::try_from(format!("Basic {encoded}")).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Self { origin, authorization, except }
    }

    /// What it is told in `Proxy-Authorization`.
    pub(super) fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    /// Whether a host is reached without it, whatever its addresses are.
    ///
    /// What is on this machine always is (RFC 6761, section 6.3): a proxy elsewhere
    /// would look for it on its own.
    pub(super) fn spares_name(&self, host: &str) -> bool {
        host == "localhost"
            || host.ends_with(".localhost")
            || self.except.iter().any(|except| except.covers(host, None))
    }

    /// Whether a host with these addresses is reached without it.
    pub(super) fn spares(&self, host: &str, found: &[SocketAddr]) -> bool {
        let spared = |address: IpAddr| {
            let local = address.is_loopback() || address.is_unspecified();
            local || self.except.iter().any(|except| except.covers(host, Some(address)))
        };
        !found.is_empty() && found.iter().all(|found| spared(found.ip().to_canonical()))
    }

    /// Asks for a tunnel; what comes behind the consent is the upstream's.
    ///
    /// # Errors
    ///
    /// [`Failure::Unreachable`] or [`Failure::Barred`]; nothing was sent to the upstream.
    pub(super) async fn tunnel(
        &self,
        mut line: Line,
        host: &str,
        port: u16,
    ) -> Result<Line, Failure> {
        let broken = |error: std::io::Error| self.silent(&error.to_string());
        line.write_all(&self.connect(host, port)).await.map_err(broken)?;
        line.flush().await.map_err(broken)?;
        let mut seen = BytesMut::with_capacity(HEAD_USUAL);
        loop {
            match said(&seen) {
                Said::Granted(length) => {
                    seen.advance(length);
                    return Ok(line.after(seen.freeze()));
                }
                Said::Refused(status) => return Err(self.refusal(status, host, port)),
                Said::Nonsense => return Err(self.silent("what it answers is not HTTP/1")),
                Said::More => {}
            }
            if line.read_buf(&mut seen).await.map_err(broken)? == 0 {
                return Err(self.silent("it hung up"));
            }
        }
    }

    /// RFC 9110, section 9.3.6.
    fn connect(&self, host: &str, port: u16) -> Vec<u8> {
        let authority =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let mut head =
            format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n").into_bytes();
        if let Some(value) = &self.authorization {
            head.extend_from_slice(b"Proxy-Authorization: ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        head
    }

    /// What it means that it does not let us through to a host.
    pub(super) fn refusal(&self, status: StatusCode, host: &str, port: u16) -> Failure {
        let proxy = &self.origin;
        match status.as_u16() {
            407 => self.asks_who_we_are(),
            408 | 425 | 429 | 500.. => Failure::Unreachable {
                detail: format!("the proxy {proxy} answered {status} to CONNECT {host}:{port}"),
                kind: "destination_unavailable",
            },
            _ => Failure::Barred {
                detail: format!("the proxy {proxy} refuses CONNECT {host}:{port} with {status}"),
                kind: "http_request_denied",
            },
        }
    }

    /// What a 407 from it means: the client cannot know its password.
    pub(super) fn asks_who_we_are(&self) -> Failure {
        let why = match self.authorization {
            Some(_) => "does not take upstream.proxy.user with the password of password_file",
            None => "asks who we are: give upstream.proxy.user and password_file",
        };
        Failure::Barred {
            detail: format!("the proxy {} {why} (407)", self.origin),
            kind: "proxy_configuration_error",
        }
    }

    fn silent(&self, why: &str) -> Failure {
        Failure::Unreachable {
            detail: format!("no tunnel through the proxy {}: {why}", self.origin),
            kind: "connection_terminated",
        }
    }
}

/// What was said to a CONNECT so far.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// Not all of it yet.
    More,
    /// The tunnel is there, behind so many bytes.
    Granted(usize),
    Refused(StatusCode),
    Nonsense,
}

/// Reads the head of an answer; interim ones are passed over (RFC 9110, section 15.2).
fn said(bytes: &[u8]) -> Said {
    let mut read = 0;
    loop {
        let rest = bytes.get(read..).unwrap_or_default();
        let Some(end) = memmem::find(rest, b"\r\n\r\n") else {
            let begun = rest.iter().zip(BEGINS).all(|(came, wanted)| came == wanted);
            return if begun && bytes.len() < HEAD_MAX { Said::More } else { Said::Nonsense };
        };
        let Some(status) = status(rest) else { return Said::Nonsense };
        read += end + b"\r\n\r\n".len();
        if status.is_success() {
            return Said::Granted(read);
        }
        if !status.is_informational() {
            return Said::Refused(status);
        }
    }
}

/// The status of `HTTP/1.1 200 Connection established`.
fn status(head: &[u8]) -> Option<StatusCode> {
    let rest = head.strip_prefix(BEGINS)?;
    let [minor, b' ', status @ ..] = rest else { return None };
    let ends = matches!(status.get(3), Some(b' ' | b'\r'));
    let status = status.get(..3).filter(|_| minor.is_ascii_digit() && ends)?;
    StatusCode::from_bytes(status).ok()
}

const BEGINS: &[u8] = b"HTTP/1.";
/// Nobody says more in a consent; more is no proxy.
const HEAD_MAX: usize = 16 * 1024;
const HEAD_USUAL: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(credentials: Option<(&str, &str)>) -> FurtherProxy {
        let except = vec![
            Allowed::Host("intra.test".to_owned()),
            Allowed::Host("*.svc".to_owned()),
            Allowed::Network("10.0.0.0/8".parse().expect("a network")),
        ];
        let origin = Origin::parse("http://proxy.test:3128").expect("an origin");
        FurtherProxy::new(origin, credentials, except)
    }

    #[test]
    fn what_is_spared_is_reached_without_it() {
        let proxy = proxy(None);
        for (host, found, wanted) in [
            ("api.test", &[][..], false),
            ("api.test", &["203.0.113.9:443"], false),
            ("api.test", &["10.1.2.3:443"], true),
            ("api.test", &["10.1.2.3:443", "203.0.113.9:443"], false),
            ("api.test", &["127.0.0.1:443", "10.1.2.3:443"], true),
            ("127.9.9.9", &["127.9.9.9:80"], true),
            ("::1", &["[::1]:80"], true),
            ("::ffff:127.0.0.1", &["[::ffff:127.0.0.1]:80"], true),
            ("0.0.0.0", &["0.0.0.0:80"], true),
            ("169.254.169.254", &["169.254.169.254:80"], false),
            ("localhost", &[], true),
            ("a.localhost", &[], true),
            ("localhost.test", &[], false),
            ("intra.test", &[], true),
            ("b.intra.test", &[], false),
            ("billing.prod.svc", &[], true),
            ("svc", &[], false),
        ] {
            let addresses: Vec<SocketAddr> =
                found.iter().map(|found| found.parse().expect("an address")).collect();
            let spared = proxy.spares_name(host) || proxy.spares(host, &addresses);
            assert_eq!(spared, wanted, "{host} at {found:?}");
        }
    }

    #[test]
    fn a_tunnel_is_asked_for_by_authority_and_the_password_is_never_shown() {
        let known = proxy(Some(("ann", "hunter2")));
        let asked = String::from_utf8(known.connect("api.test", 443)).expect("text");
        assert_eq!(
            asked,
            "CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\
             Proxy-Authorization: Basic YW5uOmh1bnRlcjI=\r\n\r\n"
        );
        let asked = String::from_utf8(proxy(None).connect("2001:db8::1", 8443)).expect("text");
        assert_eq!(
            asked,
            "CONNECT [2001:db8::1]:8443 HTTP/1.1\r\nHost: [2001:db8::1]:8443\r\n\r\n"
        );
        let shown = format!("{known:?}{:?}", known.asks_who_we_are());
        for secret in ["hunter2", "YW5uOmh1bnRlcjI"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    #[test]
    fn what_a_proxy_says_is_read_as_it_comes() {
        let refused = |status| Said::Refused(StatusCode::from_u16(status).expect("a status"));
        for (text, wanted) in [
            ("", Said::More),
            ("HTT", Said::More),
            ("HTTP/1.1 200 OK\r\nVia: x\r\n", Said::More),
            ("HTTP/1.1 200 OK\r\n\r\n", Said::Granted(19)),
            ("HTTP/1.0 200 Connection established\r\n\r\nSSH-2.0", Said::Granted(39)),
            ("HTTP/1.1 204\r\n\r\n", Said::Granted(16)),
            ("HTTP/1.1 100 Continue\r\n\r\n", Said::More),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Said::Granted(44)),
            ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", refused(407)),
            ("HTTP/1.1 302 Found\r\nLocation: http://portal.test\r\n\r\n", refused(302)),
            ("HTTP/1.1 20 OK\r\n\r\n", Said::Nonsense),
            ("HTTP/1.1 2000 OK\r\n\r\n", Said::Nonsense),
            ("HTTP/2 200 OK\r\n\r\n", Said::Nonsense),
            ("SSH-2.0-OpenSSH_9.6\r\n", Said::Nonsense),
            ("\u{16}\u{3}\u{1}", Said::Nonsense),
        ] {
            assert_eq!(said(text.as_bytes()), wanted, "{text:?}");
        }
        let long = |size: usize| format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(size - 20));
        assert_eq!(said(long(HEAD_MAX - 1).as_bytes()), Said::More);
        assert_eq!(said(long(HEAD_MAX).as_bytes()), Said::Nonsense);
    }

    #[test]
    fn a_refusal_is_final_where_it_is_a_rule_and_passes_where_it_is_a_state() {
        let known = proxy(Some(("ann", "hunter2")));
        for (status, barred, words) in [
            (407, true, "upstream.proxy.user with the password of password_file"),
            (403, true, "refuses CONNECT api.test:443 with 403"),
            (302, true, "302"),
            (404, true, "404"),
            (408, false, "408"),
            (429, false, "429"),
            (502, false, "answered 502 Bad Gateway to CONNECT api.test:443"),
            (503, false, "503"),
            (504, false, "504"),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            let failure = known.refusal(status, "api.test", 443);
            assert_eq!(matches!(failure, Failure::Barred { .. }), barred, "{failure:?}");
            assert!(failure.to_string().contains(words), "{failure}");
        }
        let unknown = proxy(None).asks_who_we_are().to_string();
        assert!(unknown.contains("give upstream.proxy.user and password_file"), "{unknown}");
    }
}

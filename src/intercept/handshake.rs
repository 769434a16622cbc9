//! Accepts TLS in a host's name, and reads off how a client refused.

use std::error::Error;
use std::io;
use std::time::Duration;

use rustls::AlertDescription;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::authority::Authority;
use super::leaf::MintFault;

/// What a client speaks inside TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, agreed on or not spoken of.
    Http1,
    /// HTTP/2.
    H2,
}

/// TLS that a client has accepted.
#[derive(Debug)]
pub struct Opened<IO> {
    /// The bytes inside.
    pub stream: TlsStream<IO>,
    /// What was agreed on by ALPN.
    pub protocol: Protocol,
    /// The name that the client gave, lower case.
    pub sni: Option<String>,
}

/// Why TLS did not come about.
#[derive(Debug, thiserror::Error)]
pub enum Handshake {
    /// The client said that it does not accept our certificate.
    #[error("the client refused the certificate ({0:?})")]
    Distrusted(AlertDescription),

    /// The client hung up on our certificate without a word: distrust, or a change of mind.
    #[error("the client hung up when it saw the certificate")]
    Reset,

    /// The client was not done in this time.
    #[error("TLS was not agreed on within {0:?}")]
    TimedOut(Duration),

    /// There is no certificate to show.
    #[error("no certificate could be shown")]
    Minting(#[source] MintFault),

    /// It was not TLS, nothing in common was found, or the client left before our certificate.
    #[error("TLS could not be agreed on")]
    Other(#[source] io::Error),
}

/// Accepts TLS with a leaf for the name that the client gives, else for `host`.
///
/// # Errors
///
/// See [`Handshake`]. In TLS 1.3 a client may refuse when all seems done: see [`distrust_in`].
///
/// # Cancel safety
///
/// The connection is lost.
pub async fn handshake<IO>(
    io: IO,
    authority: &Authority,
    host: &str,
    limit: Duration,
) -> Result<Opened<IO>, Handshake>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let opened = timeout(limit, accept(io, authority, host)).await;
    opened.unwrap_or(Err(Handshake::TimedOut(limit)))
}

async fn accept<IO>(io: IO, authority: &Authority, host: &str) -> Result<Opened<IO>, Handshake>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let hello = LazyConfigAcceptor::new(Acceptor::default(), io).await.map_err(Handshake::Other)?;
    let sni = hello.client_hello().server_name().map(str::to_ascii_lowercase);
    let config = authority.server_config(sni.as_deref().unwrap_or(host));
    let config = config.map_err(Handshake::Minting)?;
    let stream = hello.into_stream(config).await.map_err(refusal)?;
    let protocol = match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Protocol::H2,
        _ => Protocol::Http1,
    };
    Ok(Opened { stream, protocol, sni })
}

/// Whether a client's refusal of our certificate is behind this error, or the cause of it.
///
/// In TLS 1.3 the refusal can follow the client's last word of the handshake, and
/// is met by the first read. Some never say it: Node hangs up, which is
/// [`Handshake::Reset`], and wget with `GnuTLS` once all is agreed, without a byte.
pub fn distrust_in(error: &(dyn Error + 'static)) -> bool {
    alert_in(error).is_some_and(refuses_certificate)
}

fn refusal(error: io::Error) -> Handshake {
    match alert_in(&error) {
        Some(alert) if refuses_certificate(alert) => Handshake::Distrusted(alert),
        None if hung_up(error.kind()) => Handshake::Reset,
        Some(_) | None => Handshake::Other(error),
    }
}

fn alert_in(error: &(dyn Error + 'static)) -> Option<AlertDescription> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::AlertReceived(alert)) = error.downcast_ref() {
            return Some(*alert);
        }
        // An `io::Error` names the source of what it holds, and skips what it holds.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(held) => Some(held),
            None => error.source(),
        };
    }
    None
}

/// The words for "not this certificate", by who says them.
fn refuses_certificate(alert: AlertDescription) -> bool {
    use AlertDescription as Alert;
    match alert {
        // OpenSSL (curl, Python, Ruby, PHP), rustls, newer Go, NSS.
        Alert::UnknownCA
        // Go, GnuTLS, NSS, and pinned certificates.
        | Alert::BadCertificate
        // Java, BoringSSL, Schannel, SecureTransport.
        | Alert::CertificateUnknown
        | Alert::UnsupportedCertificate
        // A clock that is off, or a CA that ended.
        | Alert::CertificateExpired
        | Alert::CertificateRevoked
        // Valid, says the client, and still not wanted: pinned.
        | Alert::AccessDenied => true,
        _ => false,
    }
}

fn hung_up(kind: io::ErrorKind) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        kind,
        Kind::UnexpectedEof | Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};
    use tempfile::tempdir;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio_rustls::TlsConnector;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn authority() -> Authority {
        Authority::load_or_make(tempdir().unwrap().path(), 8).unwrap()
    }

    fn client(trusted: &Authority, alpn: &[&str]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.cert_der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config).into()
    }

    async fn check(name: &str, host: &str, alpn: &[&str], wanted: (Protocol, Option<&str>)) {
        let authority = authority();
        let (near, far) = duplex(16 * 1024);
        let server = async {
            let mut opened = handshake(far, &authority, host, LIMIT).await.unwrap();
            assert_eq!((opened.protocol, opened.sni.as_deref()), wanted, "{name}");
            opened.stream.write_all(b"seen").await.unwrap();
            opened.stream.shutdown().await.unwrap();
        };
        let client = async {
            let name = ServerName::try_from(name.to_owned()).unwrap();
            let mut stream = client(&authority, alpn).connect(name, near).await.unwrap();
            let mut read = String::new();
            stream.read_to_string(&mut read).await.unwrap();
            assert_eq!(read, "seen");
        };
        tokio::join!(server, client);
        assert_eq!(authority.minted(), 1);
    }

    #[tokio::test]
    async fn a_client_that_trusts_the_ca_verifies_the_leaf() {
        use Protocol::{H2, Http1};
        let name = "api.example.com";
        check(name, "other.example", &["h2", "http/1.1"], (H2, Some(name))).await;
        check(name, name, &["http/1.1", "h2"], (H2, Some(name))).await;
        check(name, name, &["http/1.1"], (Http1, Some(name))).await;
        check("API.example.com", name, &[], (Http1, Some(name))).await;
        check("127.0.0.1", "127.0.0.1", &[], (Http1, None)).await;
        check("::1", "[::1]", &["h2"], (H2, None)).await;
        let long = format!("{}.example", ["abcdefghijklmnopqrstuvwxyz"; 9].join("."));
        check(&long, "x", &[], (Http1, Some(&long))).await;
    }

    /// A server, and what `client` makes of its connection.
    async fn failing<F: Future<Output = ()>>(client: impl FnOnce(DuplexStream) -> F) -> Handshake {
        let (near, far) = duplex(16 * 1024);
        let authority = authority();
        let (opened, ()) = tokio::join!(handshake(far, &authority, "a.b", LIMIT), client(near));
        opened.unwrap_err()
    }

    fn a_b() -> ServerName<'static> {
        ServerName::try_from("a.b").unwrap()
    }

    #[tokio::test]
    async fn a_client_that_does_not_know_the_ca_says_so() {
        let fault = failing(async |near| {
            client(&authority(), &[]).connect(a_b(), near).await.unwrap_err();
        });
        let fault = fault.await;
        assert!(matches!(fault, Handshake::Distrusted(AlertDescription::UnknownCA)), "{fault:?}");
    }

    #[tokio::test]
    async fn a_client_that_hangs_up_on_the_certificate_is_told_from_one_that_never_saw_it() {
        let fault = failing(async |mut near| {
            let mut hello = Vec::new();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth();
            let mut speaker = rustls::ClientConnection::new(Arc::new(config), a_b()).unwrap();
            speaker.write_tls(&mut hello).unwrap();
            near.write_all(&hello).await.unwrap();
            assert_ne!(near.read(&mut [0; 1024]).await.unwrap(), 0);
        });
        assert!(matches!(fault.await, Handshake::Reset));
        let fault = failing(async |near| drop(near)).await;
        assert!(matches!(fault, Handshake::Other(_)), "{fault:?}");
        let fault = failing(async |mut near| near.write_all(b"GET / HTTP/1.1\r\n").await.unwrap());
        assert!(matches!(fault.await, Handshake::Other(_)));
        let fault = failing(async |near| {
            client(&authority(), &["spdy/3"]).connect(a_b(), near).await.unwrap_err();
        });
        assert!(matches!(fault.await, Handshake::Other(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_not_waited_for() {
        let (_near, far) = duplex(1024);
        let fault = handshake(far, &authority(), "a.b", LIMIT).await.unwrap_err();
        assert!(matches!(fault, Handshake::TimedOut(limit) if limit == LIMIT));
    }

    #[test]
    fn each_alert_is_put_down_to_the_certificate_or_not() {
        use AlertDescription as Alert;
        for (alert, refused) in [
            (Alert::UnknownCA, true),
            (Alert::BadCertificate, true),
            (Alert::CertificateUnknown, true),
            (Alert::UnsupportedCertificate, true),
            (Alert::CertificateExpired, true),
            (Alert::CertificateRevoked, true),
            (Alert::AccessDenied, true),
            (Alert::HandshakeFailure, false),
            (Alert::ProtocolVersion, false),
            (Alert::InternalError, false),
            (Alert::UserCanceled, false),
            (Alert::DecryptError, false),
            (Alert::NoApplicationProtocol, false),
        ] {
            let tls =
                || io::Error::new(io::ErrorKind::InvalidData, rustls::Error::AlertReceived(alert));
            assert_eq!(distrust_in(&tls()), refused, "{alert:?}");
            assert_eq!(distrust_in(&io::Error::other(tls())), refused, "{alert:?}");
            assert_eq!(distrust_in(&Handshake::Other(tls())), refused, "{alert:?}");
            assert_eq!(matches!(refusal(tls()), Handshake::Distrusted(_)), refused, "{alert:?}");
        }
        assert!(!distrust_in(&io::Error::from(io::ErrorKind::ConnectionReset)));
    }
}

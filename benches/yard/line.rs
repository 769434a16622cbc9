//! One keep-alive connection of a client: straight, through a proxy, or through a tunnel.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST as HOST_FIELD, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::yard::origin::Origin;
use crate::yard::payload::{Payload, drain};
use crate::yard::{Fault, HOST};

/// Whether TLS is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// Plain: a proxy forwards.
    Http,
    /// TLS: a proxy intercepts.
    Https,
}

/// How the origin is reached.
#[derive(Clone)]
pub(crate) struct Way {
    /// The origin.
    pub(crate) origin: Origin,
    /// A proxy before it.
    pub(crate) proxy: Option<SocketAddr>,
    /// What a client trusts.
    pub(crate) trust: Arc<ClientConfig>,
    /// Plain or TLS.
    pub(crate) scheme: Scheme,
}

/// What is asked, again and again.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// GET or POST.
    pub(crate) method: Method,
    /// The path.
    pub(crate) path: &'static str,
    /// The body.
    pub(crate) body: Payload,
    /// Which `Idempotency-Key` goes with it.
    pub(crate) key: Key,
}

/// Which key a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// None: a proxy may inject one.
    None,
    /// A new one each time.
    Fresh,
    /// The same one each time: a proxy may replay, and is held to it where `samekey` is true.
    Same {
        /// Whether the answer has to be a stored one.
        replayed: bool,
    },
}

/// A connection that is ready for its next request.
pub(crate) struct Line {
    sender: SendRequest<Payload>,
    uri: Uri,
    host: HeaderValue,
    /// Drives the connection, and ends with it.
    _driver: JoinSet<()>,
}

impl Ask {
    /// A small GET.
    pub(crate) fn get() -> Self {
        Self { method: Method::GET, path: "/v1/jobs/1", body: Payload::of(Bytes::new()), key: Key::None }
    }

    /// A POST.
    pub(crate) fn post(body: Payload, key: Key) -> Self {
        Self { method: Method::POST, path: "/v1/jobs", body, key }
    }
}

impl Line {
    /// Connects, for requests to `path`.
    pub(crate) async fn open(way: &Way, path: &str) -> Result<Self, Fault> {
        let target = match way.scheme {
            Scheme::Http => way.origin.plain,
            Scheme::Https => way.origin.tls,
        };
        let authority = format!("{HOST}:{}", target.port());
        let host = HeaderValue::from_str(&authority)?;
        let mut stream = TcpStream::connect(way.proxy.unwrap_or(target)).await?;
        stream.set_nodelay(true)?;
        let mut driver = JoinSet::new();
        let (sender, uri) = match (way.scheme, way.proxy) {
            (Scheme::Http, Some(_)) => {
                let uri = format!("http://{authority}{path}");
                (speak(stream, &mut driver).await?, uri)
            }
            (Scheme::Http, None) => (speak(stream, &mut driver).await?, path.to_owned()),
            (Scheme::Https, proxy) => {
                if proxy.is_some() {
                    tunnel(&mut stream, &authority).await?;
                }
                let connector = TlsConnector::from(way.trust.clone());
                let stream = connector.connect(ServerName::try_from(HOST)?, stream).await?;
                (speak(stream, &mut driver).await?, path.to_owned())
            }
        };
        Ok(Self { sender, uri: uri.parse()?, host, _driver: driver })
    }

    /// Asks once; says how many bytes came back.
    pub(crate) async fn ask(&mut self, ask: &Ask, nth: u64) -> Result<u64, Fault> {
        let mut request = Request::new(ask.body.clone());
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert(HOST_FIELD, self.host.clone());
        if ask.method == Method::POST {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        match ask.key {
            Key::None => {}
            Key::Fresh => drop(headers.insert(KEY, HeaderValue::from_str(&format!("key-{nth}"))?)),
            Key::Same { .. } => drop(headers.insert(KEY, HeaderValue::from_static("key"))),
        }
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let wanted = if ask.method == Method::POST { StatusCode::CREATED } else { StatusCode::OK };
        if response.status() != wanted {
            return Err(format!("{} where {wanted} is wanted", response.status()).into());
        }
        if ask.key == (Key::Same { replayed: true }) && !response.headers().contains_key(REPLAYED) {
            return Err("an answer that is not a stored one".into());
        }
        Ok(drain(response.into_body()).await?)
    }
}

async fn speak<IO>(io: IO, driver: &mut JoinSet<()>) -> Result<SendRequest<Payload>, Fault>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(io)).await?;
    driver.spawn(async move { drop(connection.await) });
    Ok(sender)
}

async fn tunnel(stream: &mut TcpStream, authority: &str) -> Result<(), Fault> {
    let head = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    // TLS has the client speak first, so nothing follows the head of the answer.
    let mut answer = Vec::with_capacity(HEAD_MAX);
    while !answer.ends_with(b"\r\n\r\n") && answer.len() < HEAD_MAX {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err("the proxy hung up on CONNECT".into());
        }
    }
    if answer.starts_with(b"HTTP/1.1 200") { Ok(()) } else { Err("CONNECT was refused".into()) }
}

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const HEAD_MAX: usize = 4096;

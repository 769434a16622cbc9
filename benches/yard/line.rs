//! One keep-alive connection of a client: straight, through a proxy, or through a tunnel.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
    /// Whether the answer has to be a stored one.
    pub(crate) is_replay: bool,
}

/// Which key a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// None: a proxy may inject one.
    None,
    /// A new one each time.
    Fresh,
    /// The same one each time.
    Same,
}

/// A connection that is ready for its next request.
pub(crate) struct Line {
    sender: SendRequest<Payload>,
    /// What stands before a path: nothing, or the origin where a proxy is told of it.
    base: String,
    /// The path that was asked for last, as it goes out.
    aim: (&'static str, Uri),
    host: HeaderValue,
    /// Drives the connection, and ends with it.
    _driver: JoinSet<()>,
}

impl Ask {
    /// A small GET.
    pub(crate) fn get() -> Self {
        let body = Payload::of(Bytes::new());
        Self { method: Method::GET, path: "/v1/jobs/1", body, key: Key::None, is_replay: false }
    }

    /// A POST.
    pub(crate) fn post(body: Payload, key: Key) -> Self {
        Self { method: Method::POST, path: "/v1/jobs", body, key, is_replay: false }
    }
}

impl Line {
    /// Connects.
    pub(crate) async fn open(way: &Way) -> Result<Self, Fault> {
        let target = match way.scheme {
            Scheme::Http => way.origin.plain,
            Scheme::Https => way.origin.tls,
        };
        let authority = format!("{HOST}:{}", target.port());
        let host = HeaderValue::from_str(&authority)?;
        let mut stream = TcpStream::connect(way.proxy.unwrap_or(target)).await?;
        stream.set_nodelay(true)?;
        let mut driver = JoinSet::new();
        let sender = match way.scheme {
            Scheme::Http => speak(stream, &mut driver).await?,
            Scheme::Https => {
                if way.proxy.is_some() {
                    tunnel(&mut stream, &authority).await?;
                }
                let connector = TlsConnector::from(way.trust.clone());
                let stream = connector.connect(ServerName::try_from(HOST)?, stream).await?;
                speak(stream, &mut driver).await?
            }
        };
        let is_told = way.scheme == Scheme::Http && way.proxy.is_some();
        let base = if is_told { format!("http://{authority}") } else { String::new() };
        Ok(Self { sender, base, aim: ("", Uri::default()), host, _driver: driver })
    }

    /// Asks once; says how many bytes came back.
    pub(crate) async fn ask(&mut self, ask: &Ask) -> Result<u64, Fault> {
        let mut request = Request::new(ask.body.clone());
        *request.method_mut() = ask.method.clone();
        if self.aim.0 != ask.path {
            self.aim = (ask.path, format!("{}{}", self.base, ask.path).parse()?);
        }
        *request.uri_mut() = self.aim.1.clone();
        let headers = request.headers_mut();
        headers.insert(HOST_FIELD, self.host.clone());
        if ask.method == Method::POST {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        match ask.key {
            Key::None => {}
            Key::Fresh => {
                let nth = KEYS.fetch_add(1, Ordering::Relaxed);
                headers.insert(KEY, HeaderValue::from_str(&format!("key-{nth}"))?);
            }
            Key::Same => {
                headers.insert(KEY, HeaderValue::from_static("key"));
            }
        }
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let wanted = if ask.method == Method::POST { StatusCode::CREATED } else { StatusCode::OK };
        if response.status() != wanted {
            return Err(format!("{} where {wanted} is wanted", response.status()).into());
        }
        if ask.is_replay && !response.headers().contains_key(REPLAYED) {
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

/// Keys that were given out: no two rounds share one.
static KEYS: AtomicU64 = AtomicU64::new(0);

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const HEAD_MAX: usize = 4096;

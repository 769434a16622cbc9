//! Clients: one that speaks HTTP through the proxy, and bare sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::Samekey;

/// A response, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Whether the body ended as its framing promised.
    pub(crate) whole: bool,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    /// A header's text; empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

/// Makes requests through a sidecar; each on a connection of its own.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    proxy: SocketAddr,
    ca_pem: String,
    h2: bool,
}

impl Client {
    /// Goes through `samekey`, and trusts its CA.
    pub(crate) fn through(samekey: &Samekey) -> Self {
        Self { proxy: samekey.proxy, ca_pem: samekey.ca_pem(), h2: false }
    }

    /// Goes through `samekey`, and trusts these certificates alone.
    pub(crate) fn trusting(samekey: &Samekey, ca_pem: &str) -> Self {
        Self { proxy: samekey.proxy, ca_pem: ca_pem.to_owned(), h2: false }
    }

    /// Speaks HTTP/2 inside tunnels.
    pub(crate) fn h2(mut self) -> Self {
        self.h2 = true;
        self
    }

    pub(crate) async fn get(&self, url: &str) -> Answer {
        self.send(Method::GET, url, &[], "").await
    }

    pub(crate) async fn post(&self, url: &str, body: &str) -> Answer {
        self.send(Method::POST, url, &[("content-type", "application/json")], body).await
    }

    /// Sends one request, absolute-form for http and through a tunnel for https.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let sent = self.try_send(method, url, headers, body).await;
        sent.expect("an answer came")
    }

    /// As [`send`](Self::send), for answers that may not come.
    pub(crate) async fn try_send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Answer, String> {
        let uri: Uri = url.parse().expect("a URL");
        let request = request(method, &uri, headers, body);
        if uri.scheme_str() == Some("http") {
            let stream = TcpStream::connect(self.proxy).await.map_err(|error| error.to_string())?;
            return over_http1(stream, request).await;
        }
        let stream = self.tls(&uri).await?;
        if self.h2 { over_http2(stream, request).await } else { over_http1(stream, request).await }
    }

    /// A TLS connection to the URL's host, through CONNECT.
    pub(crate) async fn tls(&self, uri: &Uri) -> Result<TlsStream<TcpStream>, String> {
        let host = uri.host().expect("a host").to_owned();
        let authority = format!("{host}:{}", uri.port_u16().unwrap_or(443));
        let stream = connect(self.proxy, &authority).await?;
        let name = ServerName::try_from(host).expect("a name");
        let connector = TlsConnector::from(Arc::new(trusting(&self.ca_pem, self.h2)));
        connector.connect(name, stream).await.map_err(|error| error.to_string())
    }
}

/// A TLS config that trusts one CA.
pub(crate) fn trusting(ca_pem: &str, h2: bool) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.expect("a certificate")).expect("a root");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![if h2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    config
}

/// A tunnel; the error is the proxy's answer where it refuses.
pub(crate) async fn connect(proxy: SocketAddr, authority: &str) -> Result<TcpStream, String> {
    let mut stream = TcpStream::connect(proxy).await.map_err(|error| error.to_string())?;
    let head = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte).await {
            Ok(1) => seen.push(byte[0]),
            Ok(_) | Err(_) => return Err(String::from_utf8_lossy(&seen).into_owned()),
        }
    }
    let head = String::from_utf8_lossy(&seen).into_owned();
    if head.starts_with("HTTP/1.1 200") { Ok(stream) } else { Err(head) }
}

/// Writes these bytes to a new connection and reads until it is closed, or nothing
/// more comes for a second.
pub(crate) async fn raw(proxy: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(proxy).await.expect("it listens");
    stream.write_all(bytes).await.expect("it takes them");
    read_all(&mut stream).await
}

/// Reads until the end, or until nothing more comes for a second.
pub(crate) async fn read_all<IO: AsyncRead + Unpin>(stream: &mut IO) -> String {
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    let quiet = std::time::Duration::from_secs(1);
    while let Ok(Ok(count)) = tokio::time::timeout(quiet, stream.read(&mut piece)).await {
        if count == 0 {
            break;
        }
        seen.extend_from_slice(&piece[..count]);
    }
    String::from_utf8_lossy(&seen).into_owned()
}

/// Asks a server itself, without any proxy.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Answer {
    let uri: Uri = format!("http://{address}{path}").parse().expect("a URL");
    let mut request = request(Method::GET, &uri, &[], "");
    *request.uri_mut() = path.parse().expect("a path");
    let stream = TcpStream::connect(address).await.expect("it listens");
    over_http1(stream, request).await.expect("an answer")
}

pub(crate) fn request(
    method: Method,
    uri: &Uri,
    headers: &[(&str, &str)],
    body: &str,
) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(Bytes::from(body.to_owned())));
    *request.method_mut() = method;
    *request.uri_mut() = uri.clone();
    let authority = uri.authority().expect("a URL with a host").as_str();
    request.headers_mut().insert("host", authority.parse().expect("a value"));
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().expect("a name");
        request.headers_mut().append(name, value.parse().expect("a value"));
    }
    request
}

/// Sends a request over a connection of HTTP/1.1. A URL with https is inside a tunnel already.
pub(crate) async fn over_http1<IO>(
    io: IO,
    mut request: Request<Full<Bytes>>,
) -> Result<Answer, String>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if request.uri().scheme_str() == Some("https") {
        let path = request.uri().path_and_query().expect("a path").as_str().parse();
        *request.uri_mut() = path.expect("a path");
    }
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(io)).await.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    Ok(read(response).await)
}

/// Sends a request over a connection of HTTP/2.
pub(crate) async fn over_http2<IO>(
    io: IO,
    mut request: Request<Full<Bytes>>,
) -> Result<Answer, String>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    request.headers_mut().remove("host");
    *request.version_mut() = http::Version::HTTP_2;
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io))
        .await
        .map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    Ok(read(response).await)
}

async fn read(response: http::Response<hyper::body::Incoming>) -> Answer {
    let (parts, mut incoming) = response.into_parts();
    let mut body = Vec::new();
    let mut whole = true;
    while let Some(frame) = incoming.frame().await {
        match frame.map(hyper::body::Frame::into_data) {
            Ok(Ok(data)) => body.extend_from_slice(&data),
            Ok(Err(_trailers)) => {}
            Err(_broken) => {
                whole = false;
                break;
            }
        }
    }
    Answer { status: parts.status, headers: parts.headers, body: body.into(), whole }
}

//! A further proxy: grants tunnels, forwards plain HTTP, refuses by script, keeps books.
//!
//! It takes every host for this machine, so that names which nobody else knows lead to
//! the provider by their port.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::header::{HeaderValue, PROXY_AUTHORIZATION};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::provider::tls;

/// A running proxy.
#[derive(Clone, Debug)]
pub(crate) struct Further {
    pub(crate) address: SocketAddr,
    /// Whom its certificate is signed by, where it speaks TLS.
    pub(crate) ca_pem: String,
    books: Arc<Mutex<Books>>,
}

#[derive(Debug, Default)]
struct Books {
    /// What it was asked, as `CONNECT host:port` or `GET http://host:port/path`.
    asked: Vec<String>,
    /// The `Proxy-Authorization` of each; empty where there was none.
    told: Vec<String>,
    /// The first byte of what went through each tunnel.
    began: Vec<u8>,
    /// What it answers next instead of doing what it is asked; 0: hangs up, 1: is silent.
    refusals: VecDeque<u16>,
    /// What it wants to be told.
    wanted: Option<String>,
}

impl Further {
    pub(crate) async fn start() -> Self {
        Self::serve(None, String::new()).await
    }

    /// As [`start`](Self::start), speaking TLS as `localhost`.
    pub(crate) async fn start_tls() -> Self {
        let tls::Identity { acceptor, ca_pem } =
            tls::identity(&["localhost".to_owned()], &["h2".to_owned(), "http/1.1".to_owned()]);
        Self::serve(Some(acceptor), ca_pem).await
    }

    async fn serve(acceptor: Option<TlsAcceptor>, ca_pem: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let proxy = Self { address, ca_pem, books: Arc::default() };
        let serving = proxy.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(serving.clone().accepted(tcp, acceptor.clone()));
            }
        });
        proxy
    }

    async fn accepted(self, tcp: TcpStream, acceptor: Option<TlsAcceptor>) {
        let Some(acceptor) = acceptor else { return self.connection(tcp).await };
        // A client that does not trust it hangs up.
        let Ok(tls) = acceptor.accept(tcp).await else { return };
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        self.connection(tls).await;
    }

    /// Its next answers: statuses, 0 where it hangs up, 1 where it is silent for good.
    pub(crate) fn refuses(&self, refusals: &[u16]) {
        self.books().refusals = refusals.iter().copied().collect();
    }

    /// Answers 407 to whoever does not say this in `Proxy-Authorization`.
    pub(crate) fn wants(&self, authorization: &str) {
        self.books().wanted = Some(authorization.to_owned());
    }

    /// What it was asked since it was looked at last.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.books().asked)
    }

    /// What it was told in `Proxy-Authorization` since it was looked at last.
    pub(crate) fn told(&self) -> Vec<String> {
        std::mem::take(&mut self.books().told)
    }

    /// The first byte of what went through each tunnel.
    pub(crate) fn began(&self) -> Vec<u8> {
        self.books().began.clone()
    }

    fn books(&self) -> std::sync::MutexGuard<'_, Books> {
        self.books.lock().expect("nothing panics over the books")
    }

    async fn connection<IO>(self, io: IO)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let answer = service_fn(|request| {
            let proxy = self.clone();
            async move { proxy.answer(request).await }
        });
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.preserve_header_case(true);
        let serving = builder.serve_connection(TokioIo::new(io), answer).with_upgrades();
        // It hangs up where it was told to.
        drop(serving.await);
    }

    async fn answer(
        self,
        request: Request<Incoming>,
    ) -> Result<Response<BoxBody<Bytes, hyper::Error>>, String> {
        let told = request.headers().get(PROXY_AUTHORIZATION).map(HeaderValue::to_str);
        let told = told.map_or(String::new(), |told| told.expect("text").to_owned());
        let (refusal, wanted) = {
            let mut books = self.books();
            books.asked.push(format!("{} {}", request.method(), request.uri()));
            books.told.push(told.clone());
            (books.refusals.pop_front(), books.wanted.clone())
        };
        match refusal {
            Some(0) => return Err("it hangs up".to_owned()),
            Some(1) => std::future::pending::<()>().await,
            Some(status) => return Ok(bare(status)),
            None => {}
        }
        if wanted.is_some_and(|wanted| wanted != told) {
            let mut refused = bare(407);
            let challenge = HeaderValue::from_static("Basic realm=\"further\"");
            refused.headers_mut().insert("proxy-authenticate", challenge);
            return Ok(refused);
        }
        let port = request.uri().port_u16().expect("tests name the port");
        let upstream = TcpStream::connect(("127.0.0.1", port)).await;
        let upstream = upstream.map_err(|error| error.to_string())?;
        if request.method() == Method::CONNECT {
            tokio::spawn(self.tunnel(request, upstream));
            return Ok(bare(200));
        }
        forward(request, upstream).await.map_err(|error| error.to_string())
    }

    async fn tunnel(self, request: Request<Incoming>, mut upstream: TcpStream) {
        let client = hyper::upgrade::on(request).await.expect("a tunnel");
        let mut client = TokioIo::new(client);
        let mut first = [0];
        if client.read_exact(&mut first).await.is_ok() {
            self.books().began.push(first[0]);
            upstream.write_all(&first).await.expect("it is taken");
            // How a tunnel ends is its users' matter.
            drop(tokio::io::copy_bidirectional(&mut client, &mut upstream).await);
        }
    }
}

fn bare(status: u16) -> Response<BoxBody<Bytes, hyper::Error>> {
    let nothing = Empty::new().map_err(|never: Infallible| match never {}).boxed();
    let mut response = Response::new(nothing);
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response
}

/// Asks the host itself, by the path alone.
async fn forward(
    mut request: Request<Incoming>,
    upstream: TcpStream,
) -> Result<Response<BoxBody<Bytes, hyper::Error>>, hyper::Error> {
    request.headers_mut().remove(PROXY_AUTHORIZATION);
    let path = request.uri().path_and_query().expect("a path").clone();
    *request.uri_mut() = Uri::from(path);
    let (mut sender, connection) = http1::handshake(TokioIo::new(upstream)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?.map(BodyExt::boxed))
}

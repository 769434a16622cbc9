//! The upstream: as little as can answer.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, mpsc};
use std::thread;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::yard::Fault;
use crate::yard::payload::{Payload, drain, kibibyte_of_json};

/// Where it listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    /// Without TLS.
    pub(crate) plain: SocketAddr,
    /// With it.
    pub(crate) tls: SocketAddr,
}

#[derive(Clone)]
struct Goods {
    json: Bytes,
    receipt: Bytes,
    piece: Bytes,
}

impl Origin {
    /// Serves on a thread of its own for as long as the process lives.
    pub(crate) fn start(config: Arc<ServerConfig>) -> Result<Self, Fault> {
        let (tell, told) = mpsc::channel();
        thread::Builder::new().name("origin".to_owned()).spawn(move || -> Result<(), Fault> {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let plain = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
                let tls = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
                tell.send(Self { plain: plain.local_addr()?, tls: tls.local_addr()? })?;
                serve(plain, tls, TlsAcceptor::from(config)).await
            })
        })?;
        Ok(told.recv()?)
    }
}

async fn serve(plain: TcpListener, tls: TcpListener, acceptor: TlsAcceptor) -> Result<(), Fault> {
    let tasks = TaskTracker::new();
    let piece = Bytes::from(vec![b'x'; PIECE]);
    let receipt = Bytes::from_static(br#"{"id":"job_1","status":"queued"}"#);
    let goods = Goods { json: kibibyte_of_json(), receipt, piece };
    loop {
        tokio::select! {
            accepted = plain.accept() => {
                let (stream, goods) = (accepted?.0, goods.clone());
                stream.set_nodelay(true)?;
                tasks.spawn(connection(stream, goods));
            }
            accepted = tls.accept() => {
                let (stream, goods) = (accepted?.0, goods.clone());
                stream.set_nodelay(true)?;
                let accepting = acceptor.accept(stream);
                tasks.spawn(async move {
                    if let Ok(stream) = accepting.await {
                        connection(stream, goods).await;
                    }
                });
            }
        }
    }
}

async fn connection<IO>(io: IO, goods: Goods)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| answer(request, goods.clone()));
    // A proxy that ends a connection breaks nothing that is measured.
    drop(http1::Builder::new().serve_connection(TokioIo::new(io), service).await);
}

async fn answer(
    request: Request<Incoming>,
    goods: Goods,
) -> Result<Response<Payload>, hyper::Error> {
    let (head, body) = request.into_parts();
    drain(body).await?;
    let length = head.uri.path().strip_prefix("/bytes/").and_then(|text| text.parse().ok());
    let (status, payload) = match (head.method == Method::POST, length) {
        (true, _) => (StatusCode::CREATED, Payload::of(goods.receipt)),
        (false, Some(length)) => (StatusCode::OK, Payload::repeat(goods.piece, length)),
        (false, None) => (StatusCode::OK, Payload::of(goods.json)),
    };
    let mut response = Response::new(payload);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// What a write takes at a time; the proxies' buffers are as large.
const PIECE: usize = 64 * 1024;

//! The floor: a forward proxy on hyper and rustls, without any policy.
//!
//! It forwards absolute-form requests, opens TLS inside CONNECT with leaves that it
//! mints, and keeps a pool: what samekey does to a request that nothing is to be
//! decided about, and no line more. Runtime, cipher suite and pool order are
//! samekey's, so that the difference is what its decisions cost.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::{self, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread;

use bytes::Bytes;
use http::uri::Uri;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use rcgen::{Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::task::TaskTracker;

use crate::yard::Fault;
use crate::yard::pki::{self, Files};

#[derive(Clone)]
struct Bare(Arc<Inner>);

struct Inner {
    issuer: Issuer<'static, KeyPair>,
    leaf_key: KeyPair,
    leaves: Mutex<HashMap<String, Arc<ServerConfig>>>,
    connector: TlsConnector,
    idle: Mutex<HashMap<Target, Vec<SendRequest<Incoming>>>>,
    tasks: TaskTracker,
}

/// Whether TLS is spoken, and `host:port`.
type Target = (bool, Arc<str>);

/// Serves until its standard input ends, and says there where it listens.
pub(crate) fn run(mut arguments: impl Iterator<Item = String>) -> Result<(), Fault> {
    let mut file = || arguments.next().map(PathBuf::from).ok_or("three files are wanted");
    let files = Files { roots: file()?, ca: file()?, ca_key: file()? };
    let bare = Bare(Arc::new(Inner {
        issuer: files.issuer()?,
        leaf_key: KeyPair::generate()?,
        leaves: Mutex::default(),
        connector: TlsConnector::from(pki::client(&[&files.roots])?),
        idle: Mutex::default(),
        tasks: TaskTracker::new(),
    }));
    let (tell, ended) = oneshot::channel::<()>();
    thread::spawn(move || {
        let read = io::stdin().read_to_end(&mut Vec::new());
        drop((read, tell));
    });
    let runtime = match thread::available_parallelism()?.get() {
        1 => Builder::new_current_thread().enable_all().build()?,
        threads => Builder::new_multi_thread().worker_threads(threads).enable_all().build()?,
    };
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        writeln!(io::stdout(), "{}", listener.local_addr()?)?;
        tokio::select! {
            _closed = ended => Ok(()),
            broke = bare.accept(listener) => broke,
        }
    })
}

impl Bare {
    async fn accept(&self, listener: TcpListener) -> Result<(), Fault> {
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let bare = self.clone();
            self.0.tasks.spawn(async move {
                let service = service_fn(|request| bare.answer(request));
                let mut builder = http1::Builder::new();
                let served = builder.max_buf_size(BUFFER_MAX);
                drop(served.serve_connection(TokioIo::new(stream), service).with_upgrades().await);
            });
        }
    }

    async fn answer(&self, mut request: Request<Incoming>) -> Result<Response<Reply>, Infallible> {
        let authority: Option<Arc<str>> = request.uri().authority().map(|a| a.as_str().into());
        let Some(authority) = authority else { return Ok(failed(StatusCode::BAD_REQUEST)) };
        if request.method() == Method::CONNECT {
            let (bare, upgrade) = (self.clone(), hyper::upgrade::on(&mut request));
            self.0.tasks.spawn(async move { drop(bare.open(upgrade, authority).await) });
            return Ok(failed(StatusCode::OK));
        }
        Ok(self.forward(request, (false, authority)).await)
    }

    /// Serves what is inside a tunnel.
    async fn open(&self, upgrade: OnUpgrade, authority: Arc<str>) -> Result<(), Fault> {
        let host = authority.rsplit_once(':').map_or(&*authority, |(host, _)| host);
        let acceptor = TlsAcceptor::from(self.leaf(host)?);
        let upgraded = upgrade.await?.downcast::<TokioIo<TcpStream>>();
        let parts = upgraded.map_err(|_other| "the stream is another one")?;
        let tls = acceptor.accept(parts.io.into_inner()).await?;
        let service = service_fn(|request| {
            let target = (true, authority.clone());
            async { Ok::<_, Infallible>(self.forward(request, target).await) }
        });
        let mut builder = http1::Builder::new();
        let served = builder.max_buf_size(BUFFER_MAX);
        Ok(served.serve_connection(TokioIo::new(tls), service).await?)
    }

    fn leaf(&self, host: &str) -> Result<Arc<ServerConfig>, Fault> {
        let mut leaves = self.0.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = leaves.get(host) {
            return Ok(config.clone());
        }
        let config = Arc::new(pki::server(host, &self.0.leaf_key, &self.0.issuer)?);
        leaves.insert(host.to_owned(), config.clone());
        Ok(config)
    }

    async fn forward(&self, request: Request<Incoming>, target: Target) -> Response<Reply> {
        let sent = self.send(request, target).await;
        sent.unwrap_or_else(|_fault| failed(StatusCode::BAD_GATEWAY))
    }

    async fn send(
        &self,
        mut request: Request<Incoming>,
        target: Target,
    ) -> Result<Response<Reply>, Fault> {
        let path = request.uri().path_and_query().cloned().ok_or("no path")?;
        *request.uri_mut() = Uri::from(path);
        let mut sender = self.take(&target).await?;
        let response = sender.send_request(request).await?;
        let place = Some((self.clone(), target, sender));
        Ok(response.map(|body| Reply { body: Some(body), place }))
    }

    async fn take(&self, target: &Target) -> Result<SendRequest<Incoming>, Fault> {
        while let Some(mut sender) = self.pop(target) {
            if sender.ready().await.is_ok() {
                return Ok(sender);
            }
        }
        let (tls, authority) = target;
        let stream = TcpStream::connect(&**authority).await?;
        stream.set_nodelay(true)?;
        if !tls {
            return self.speak(stream).await;
        }
        let host = authority.rsplit_once(':').map_or(&**authority, |(host, _)| host);
        let name = ServerName::try_from(host.to_owned())?;
        self.speak(self.0.connector.connect(name, stream).await?).await
    }

    async fn speak<IO>(&self, io: IO) -> Result<SendRequest<Incoming>, Fault>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = handshake(TokioIo::new(io)).await?;
        self.0.tasks.spawn(connection);
        Ok(sender)
    }

    fn pop(&self, target: &Target) -> Option<SendRequest<Incoming>> {
        let mut idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.get_mut(target)?.pop()
    }

    fn put(&self, target: Target, sender: SendRequest<Incoming>) {
        if !sender.is_closed() {
            let mut idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.entry(target).or_default().push(sender);
        }
    }
}

/// A response's body, and the connection that is free once it has ended.
struct Reply {
    body: Option<Incoming>,
    place: Option<(Bare, Target, SendRequest<Incoming>)>,
}

impl Body for Reply {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some((bare, target, sender)) = self.place.take() {
            bare.put(target, sender);
        }
    }
}

fn failed(status: StatusCode) -> Response<Reply> {
    let mut response = Response::new(Reply { body: None, place: None });
    *response.status_mut() = status;
    response
}

/// As samekey's.
const BUFFER_MAX: usize = 64 * 1024;

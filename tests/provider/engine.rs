//! A provider that fails on demand, and keeps books of what it was asked.
//!
//! It serves an API that creates jobs, over plain HTTP and over TLS with a CA of
//! its own, as HTTP/1.1 and HTTP/2. A request to `/s/NAME/...` meets the next step
//! of the script that scenario NAME was given (`script`); any other belongs to the
//! scenario `default`. What came in, and what it did, is read off afterwards.
//!
//! ```text
//! POST /v1/jobs        one effect; a key that is honoured has one effect in all
//! GET  /v2/movies      the jobs, two a page: ?page=N from 1, or ?cursor=C
//! GET  /v1/jobs/ID     the job        ANY /status/N    that status
//! ANY  /echo           the body       ANY /inspect     the request as JSON
//! ANY  /sink           counts a body  GET /bytes/N     that many zeros
//! GET  /files/NAME?size=N             a file, in ranges too (`download`)
//! POST /duplex         HTTP/2: says each piece back at once, with trailers
//! Upgrade: ...         HTTP/1: says everything back
//! ```
//!
//! Where it is asked for them, it serves whole APIs of known providers beside that,
//! each on a port of its own, with TLS and without (`apis`).

mod answer;
pub(crate) mod api;
pub(crate) mod apis;
mod book;
mod control;
pub(crate) mod download;
pub(crate) mod faults;
mod gather;
mod http1;
mod http2;
mod job;
mod listing;
pub(crate) mod request;
mod script;
mod socket;
pub(crate) mod tls;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use api::Sim;
use apis::Name;
use apis::courier::Delivery;
use apis::sites::Sites;
use book::Book;
use faults::Faults;
use socket::Socket;

/// How a provider is started; by default on free ports of 127.0.0.1.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    pub(crate) control: SocketAddr,
    /// Whether a repeated key has one effect, where a scenario does not say.
    pub(crate) honours_keys: bool,
    /// What TLS offers: `h2`, `http/1.1`.
    pub(crate) alpn: Vec<String>,
    /// Streams at one time on a connection of HTTP/2, where it is limited.
    pub(crate) max_streams: Option<u32>,
    /// What the certificate is for.
    pub(crate) names: Vec<String>,
    /// Where the CA certificate is written.
    pub(crate) ca_out: Option<PathBuf>,
    /// Where each effect is written down before its answer goes out.
    pub(crate) book: Option<PathBuf>,
    /// What happens to requests that no script speaks for.
    pub(crate) faults: Option<Faults>,
    /// The whole APIs that are served, each on a free port of 127.0.0.1.
    pub(crate) apis: Vec<Name>,
}

/// A running provider; dropped, it stops and its connections die.
///
/// It derefs to [`Sim`], which has the books.
pub(crate) struct Provider {
    pub(crate) ports: Ports,
    engine: Engine,
}

/// Where a provider listens, and what to trust.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Ports {
    pub(crate) http_addr: SocketAddr,
    pub(crate) https_addr: SocketAddr,
    pub(crate) control_addr: SocketAddr,
    /// Where each API listens, for plain HTTP and for TLS.
    pub(crate) apis: BTreeMap<Name, SocketAddr>,
    pub(crate) ca_pem: String,
}

/// The parts that listeners and connections share.
#[derive(Clone)]
pub(crate) struct Engine(Arc<Shared>);

pub(crate) struct Shared {
    ports: Ports,
    sim: Sim,
    tasks: TaskTracker,
    stop: CancellationToken,
    max_streams: Option<u32>,
    connections: AtomicU64,
    errors: Mutex<VecDeque<String>>,
}

#[derive(Clone, Copy)]
enum Role {
    Api(Option<Name>),
    Control,
}

/// Whether a listener's connections speak TLS.
#[derive(Clone)]
enum Speaks {
    Plain,
    Tls(TlsAcceptor),
    /// As each begins.
    Either(TlsAcceptor),
}

impl Default for Options {
    fn default() -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let names = ["localhost", "127.0.0.1", "::1", "provider.test", "*.provider.test"];
        Self {
            http: free,
            https: free,
            control: free,
            honours_keys: true,
            alpn: vec!["h2".to_owned(), "http/1.1".to_owned()],
            max_streams: None,
            names: names.map(str::to_owned).to_vec(),
            ca_out: None,
            book: None,
            faults: None,
            apis: Vec::new(),
        }
    }
}

impl Provider {
    /// Binds, makes a CA, and serves until the provider is dropped.
    ///
    /// # Errors
    ///
    /// When an address cannot be bound or the CA not be written.
    pub(crate) async fn start(options: Options) -> io::Result<Self> {
        let tls::Identity { acceptor, ca_pem } = tls::identity(&options.names, &options.alpn);
        if let Some(path) = &options.ca_out {
            tokio::fs::write(path, &ca_pem).await?;
        }
        let book = options.book.as_deref().map(Book::open).transpose()?;
        let http = TcpListener::bind(options.http).await?;
        let https = TcpListener::bind(options.https).await?;
        let control = TcpListener::bind(options.control).await?;
        let mut apis = Vec::new();
        for name in options.apis {
            apis.push((name, TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?));
        }
        let at = apis.iter().map(|(name, listener)| Ok((*name, listener.local_addr()?)));
        let ports = Ports {
            http_addr: http.local_addr()?,
            https_addr: https.local_addr()?,
            control_addr: control.local_addr()?,
            apis: at.collect::<io::Result<_>>()?,
            ca_pem,
        };
        let (outbox, posted) = mpsc::unbounded_channel();
        let sites = Sites::new(outbox);
        let engine = Engine(Arc::new(Shared {
            ports: ports.clone(),
            sim: Sim::new(options.honours_keys, book, options.faults, sites),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            max_streams: options.max_streams,
            connections: AtomicU64::new(0),
            errors: Mutex::default(),
        }));
        engine.spawn(engine.clone().accept(http, Speaks::Plain, Role::Api(None)));
        let tls = Speaks::Tls(acceptor.clone());
        engine.spawn(engine.clone().accept(https, tls, Role::Api(None)));
        engine.spawn(engine.clone().accept(control, Speaks::Plain, Role::Control));
        for (name, listener) in apis {
            let speaks = Speaks::Either(acceptor.clone());
            engine.spawn(engine.clone().accept(listener, speaks, Role::Api(Some(name))));
        }
        engine.spawn(engine.clone().deliver(posted));
        Ok(Self { ports, engine })
    }

    /// Gives a scenario its script and forgets what it did before.
    ///
    /// # Panics
    ///
    /// When the script cannot be read: the test is wrong then.
    pub(crate) fn script(&self, scenario: &str, steps: &str) {
        self.engine.sim.script(scenario, steps).expect("the script can be read");
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.engine.stop.cancel();
    }
}

impl Deref for Provider {
    type Target = Sim;

    fn deref(&self) -> &Sim {
        &self.engine.sim
    }
}

impl Ports {
    /// `http://127.0.0.1:PORT` and `path`.
    pub(crate) fn http_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http_addr)
    }

    /// `https://localhost:PORT` and `path`.
    pub(crate) fn https_url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.https_addr.port())
    }

    /// `localhost:PORT` of an API.
    ///
    /// # Panics
    ///
    /// When the provider does not serve it: the test is wrong then.
    pub(crate) fn authority(&self, api: Name) -> String {
        let at = self.apis.get(&api).expect("the API is served");
        format!("localhost:{}", at.port())
    }
}

impl Engine {
    /// Runs `task` until it ends or the provider stops; its error goes to the books.
    fn spawn(&self, task: impl Future<Output = io::Result<()>> + Send + 'static) {
        let engine = self.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = engine.stop.cancelled() => {}
                ended = task => if let Err(error) = ended { engine.note(&error) },
            }
        });
    }

    /// Keeps an error for the report; a fault that was asked for is one too.
    fn note(&self, error: &io::Error) {
        let mut errors = self.errors.lock().expect("nothing panics over the errors");
        errors.truncate(ERRORS_MAX - 1);
        errors.push_front(error.to_string());
    }

    fn status(&self) -> Value {
        json!({
            "ports": self.ports,
            "http": self.ports.http_url(""),
            "https": self.ports.https_url(""),
            "apis": self.ports.apis.keys().map(|name| (name.as_str(), self.ports.authority(*name))).collect::<BTreeMap<_, _>>(),
            "errors": *self.errors.lock().expect("nothing panics over the errors"),
        })
    }

    async fn accept(self, listener: TcpListener, speaks: Speaks, role: Role) -> io::Result<()> {
        loop {
            let (tcp, _) = listener.accept().await?;
            if matches!(role, Role::Api(_)) && self.sim.refuses() {
                tcp.set_zero_linger()?;
                continue;
            }
            tcp.set_nodelay(true)?;
            let number = self.connections.fetch_add(1, Ordering::Relaxed);
            self.spawn(self.clone().connection(tcp, speaks.clone(), role, number));
        }
    }

    async fn connection(
        self,
        tcp: TcpStream,
        speaks: Speaks,
        role: Role,
        number: u64,
    ) -> io::Result<()> {
        let tls = match speaks {
            Speaks::Plain => None,
            Speaks::Tls(tls) => Some(tls),
            Speaks::Either(tls) => begins_with_tls(&tcp).await?.then_some(tls),
        };
        let Some(tls) = tls else {
            return http1::Wire::new(&self, Socket::plain(tcp), number).serve(role).await;
        };
        let tls = tls.accept(tcp).await?;
        let is_http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        let socket = Socket::tls(tls);
        if is_http2 {
            return http2::serve(self, socket, role, number).await;
        }
        http1::Wire::new(&self, socket, number).serve(role).await
    }

    /// Posts webhooks, each on its own.
    async fn deliver(
        self,
        mut posted: mpsc::UnboundedReceiver<(String, Delivery)>,
    ) -> io::Result<()> {
        while let Some((scenario, delivery)) = posted.recv().await {
            let engine = self.clone();
            self.spawn(async move {
                let told = |status| engine.sim.sites.delivered(&scenario, status);
                delivery.post(told).await;
                Ok(())
            });
        }
        Ok(())
    }
}

impl Role {
    /// The whole API that is served.
    fn api(self) -> Option<Name> {
        match self {
            Self::Api(api) => api,
            Self::Control => None,
        }
    }
}

/// Whether a connection begins with a handshake of TLS.
async fn begins_with_tls(tcp: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    Ok(tcp.peek(&mut first).await? == 1 && first == [22])
}

impl Deref for Engine {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// Errors that are kept; the latest are what is read.
const ERRORS_MAX: usize = 100;

#[cfg(test)]
mod tests;

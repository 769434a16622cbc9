//! How a request gets in.
//!
//! A [`Listener`] accepts; [`explicit`], [`transparent`] and [`reverse`] learn where a
//! request is to go, [`sniff`] looks at first bytes, [`inside`] takes what is found in a
//! tunnel, [`wire`] and [`serve`] read requests off a connection, and [`tunnel`] copies
//! what is not to be read.

mod explicit;
mod inside;
mod reverse;
mod seat;
mod serve;
pub mod sniff;
mod transparent;
mod tunnel;
pub mod wire;

pub use reverse::Target;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::exchange::Origin;
use crate::intercept::{self, Authority, Distrust};
use crate::listen::seat::Seated;
use crate::metrics::Metrics;
use crate::proxy::Proxy;
use crate::upstream::Dialer;

/// A listener, as meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Where it binds: `host:port`, resolved at start; port 0 takes a free one.
    pub address: String,
    /// What it takes its requests for.
    pub mode: Mode,
    /// Who may use it.
    pub auth: Auth,
    /// What it bears.
    pub caps: Caps,
}

/// What a listener takes its requests for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// An explicit proxy: absolute-form and CONNECT.
    Forward,
    /// Connections that were redirected here, whose clients know of no proxy.
    Transparent,
    /// A base URL.
    Reverse(Target),
}

impl Mode {
    /// The one upstream behind a listener, where it has but one.
    pub fn upstream(&self) -> Option<&Origin> {
        match self {
            Self::Reverse(Target::One(origin)) => Some(origin),
            Self::Reverse(Target::ByPath) | Self::Forward | Self::Transparent => None,
        }
    }
}

/// Who may use a listener.
#[derive(Clone, PartialEq, Eq)]
pub enum Auth {
    /// Everyone who can reach it.
    Open,
    /// Who knows the name and the password.
    Basic {
        /// The user's name.
        user: String,
        /// The password, read from its file.
        password: String,
    },
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open => f.write_str("Open"),
            Self::Basic { user, .. } => write!(f, "Basic({user})"),
        }
    }
}

/// What all connections share; a clone shares it too.
#[derive(Clone, Debug)]
pub struct House {
    /// Answers requests.
    pub proxy: Proxy,
    /// Signs leaves.
    pub authority: Authority,
    /// Which hosts are opened.
    pub rules: Arc<ArcSwap<intercept::Rules>>,
    /// Hosts whose clients refused our certificate.
    pub distrust: Arc<Distrust>,
    /// Opens tunnels.
    pub dialer: Dialer,
    /// Where connections run, so that draining waits for them.
    pub tasks: TaskTracker,
    /// Cancelled when draining begins.
    pub draining: CancellationToken,
    /// Cancelled when the grace is over: connections are cut.
    pub cut: CancellationToken,
    /// Where connections are counted.
    pub metrics: Metrics,
}

impl House {
    /// Runs a connection where draining waits for it, until it ends or is cut.
    fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.cut.child_token().run_until_cancelled_owned(connection));
    }
}

/// A bound listener.
#[derive(Debug)]
pub struct Listener {
    spec: Arc<Spec>,
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds.
    ///
    /// # Errors
    ///
    /// When the address cannot be resolved, or is in use, or not ours.
    pub async fn bind(spec: Spec) -> io::Result<Self> {
        let socket = TcpListener::bind(&spec.address).await?;
        let address = socket.local_addr()?;
        Ok(Self { spec: Arc::new(spec), socket, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it was made from.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Accepts until draining begins; past the cap, callers wait in the kernel's queue.
    ///
    /// # Panics
    ///
    /// Never: the places are this function's own, and nobody closes them.
    pub async fn run(self, house: House) {
        let name = self.address.to_string();
        let places = Arc::new(Semaphore::new(self.spec.caps.connections as usize));
        loop {
            let accepted = async {
                let place = places.clone().acquire_owned().await.expect("it is never closed");
                (place, self.socket.accept().await)
            };
            let (place, accepted) = tokio::select! {
                accepted = accepted => accepted,
                () = house.draining.cancelled() => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, mostly: trying at once would only spin.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            let stream = Seated::new(stream, (house.metrics.connection(&name), place));
            // Each look at a token takes its lock: no two connections share one.
            let own = House { draining: house.draining.child_token(), ..house.clone() };
            house.spawn(connection(self.spec.clone(), stream, own));
        }
    }
}

async fn connection(spec: Arc<Spec>, stream: Seated, house: House) {
    // Nagle's algorithm against delayed ACK costs 40 ms a connection.
    if let Err(error) = stream.tcp().set_nodelay(true) {
        tracing::debug!(%error, "a connection ended before it began");
        return;
    }
    match &spec.mode {
        Mode::Forward => explicit::serve(stream, spec, house).await,
        Mode::Transparent => transparent::serve(stream, spec, house).await,
        Mode::Reverse(target) => reverse::serve(stream, target.clone(), spec, house).await,
    }
}

const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// What a listener bears before it refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Connections at one time; further ones wait in the kernel's queue.
    pub connections: u32,
    /// Bytes of a request's head.
    pub header_size: usize,
    /// Fields in a request's head.
    pub header_count: usize,
    /// Bytes of a request target.
    pub uri_size: usize,
    /// How long a head may take to arrive.
    pub header_timeout: Duration,
    /// How long a redirected client may be silent before its server is let speak first.
    pub first_word_timeout: Duration,
    /// How long a connection may stay open without an exchange.
    pub idle_timeout: Duration,
    /// Streams at one time on one HTTP/2 connection.
    pub streams: u32,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            connections: 4096,
            header_size: 64 * 1024,
            header_count: 100,
            uri_size: 16 * 1024,
            header_timeout: Duration::from_secs(30),
            first_word_timeout: Duration::from_millis(300),
            idle_timeout: Duration::from_mins(5),
            streams: 256,
        }
    }
}

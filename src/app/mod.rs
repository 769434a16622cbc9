//! Builds every part, runs, reloads, drains.

mod commons;
mod desk;
mod ending;
mod inbox;
mod kept;
pub mod ledger;
mod reload;
mod shared;
mod state;
mod traces;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{self, Arc};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin;
use crate::config::{Config, Faults};
use crate::idempotency::Commons;
use crate::intercept::{self, Authority, CaFault, Distrust, Roots, RootsFault};
use crate::listen::{House, Listener, Mode, Target};
use crate::metrics::{Metrics, Operation};
use crate::proxy::{About, Proxy, Router};
use crate::route::Route;
use crate::trace::Tracer;
use crate::upstream::{Dialer, Ourselves, Pool};

pub use ending::AFTER_GRACE;
use kept::Kept;
pub use reload::Reloader;
pub use shared::ShareFault;
use state::full;
pub use state::{Home, StateFault};

/// Why the sidecar did not start; each is one line.
#[derive(Debug, thiserror::Error)]
pub enum StartFault {
    /// The state directory is not usable.
    #[error(transparent)]
    State(#[from] StateFault),
    /// The journal is not usable.
    #[error(transparent)]
    Journal(#[from] ledger::Unusable),
    /// What replicas share is not there.
    #[error(transparent)]
    Share(#[from] shared::ShareFault),
    /// The certificate authority is not usable.
    #[error(transparent)]
    Authority(#[from] CaFault),
    /// The roots are not usable.
    #[error(transparent)]
    Roots(#[from] RootsFault),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// A leaf certificate cannot be made.
    #[error("certificates cannot be made")]
    Mint(#[from] intercept::MintFault),
    /// A listener cannot be bound.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// The address, as the config has it.
        address: String,
        /// Why not.
        error: io::Error,
    },
    /// What applications read cannot be written.
    #[error("{}: cannot be written: {error}", dir.display())]
    Public {
        /// `state.public`.
        dir: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

/// Puts another log level in force.
pub type SetLevel = Arc<dyn Fn(&str) + Send + Sync>;

/// Reads the config as it was read at the start.
pub type Load = Arc<dyn Fn() -> Result<Config, Faults> + Send + Sync>;

/// A sidecar whose sockets are bound.
pub struct App {
    core: Arc<Core>,
    listeners: Vec<Listener>,
    admin: (TcpListener, SocketAddr),
    _home: Home,
}

/// What a reload works on.
struct Core {
    config: ArcSwap<Config>,
    /// The one it was started with.
    first: Arc<Config>,
    load: Load,
    /// Held for the whole of a reload: one that began later wins, and none is half in force.
    reloading: sync::Mutex<()>,
    /// Of the text that was loaded, or refused, last.
    tried: ArcSwap<blake3::Hash>,
    proxy: Proxy,
    commons: Commons,
    pool: Pool,
    house: House,
    kept: Kept,
    metrics: Metrics,
    tracer: Option<Tracer>,
    set_level: SetLevel,
    /// Cancelled when it is told to end: from then on it is not ready.
    leaving: CancellationToken,
    /// Upstream connections and housekeeping: nobody waits for them when draining.
    background: TaskTracker,
    /// After how many commits unknown outcomes were counted last.
    counted_at: Mutex<Option<u64>>,
    started: SystemTime,
    /// Of the listeners, and of the admin side.
    addresses: (Vec<SocketAddr>, SocketAddr),
}

impl App {
    /// Builds every part and binds every socket.
    ///
    /// # Errors
    ///
    /// A [`StartFault`]: one line that names what is wrong.
    pub async fn build(
        config: Config,
        load: Load,
        home: Home,
        set_level: SetLevel,
    ) -> Result<Self, StartFault> {
        // AWS-LC gathers entropy for 40 ms at first use: before anybody waits for it.
        intercept::warm()?;
        let metrics = Metrics::new();
        let (tasks, background) = (TaskTracker::new(), TaskTracker::new());
        let authority = authority(&config, &home)?;
        let roots = Roots::system();
        let ourselves = Ourselves::default();
        let seen = (background.clone(), metrics.clone());
        let dialer = dialer(&config, (&roots, &authority), &ourselves, seen)?;
        let limits = &config.upstream;
        let pool = Pool::new(dialer.clone(), limits.idle_timeout, limits.idle_per_host);
        let means = commons::Means { tasks: &tasks, background: &background, metrics: &metrics };
        let (commons, gates) = commons::build(&config, &home, &roots, means).await?;
        let draining = CancellationToken::new();
        let kept = Kept::new(&config.state, gates, inbox::trays(&config, &commons, &draining));
        let lasting = |route: &Route| kept.of(route, &metrics);
        let router = Router::new(config.routes.clone(), lasting, &commons, &pool, &metrics);
        let tracer = traces::tracer(&config, (&roots, &authority), &commons, &background);
        let proxy = Proxy::new(router, commons.clone(), tracer.clone());
        let house = House {
            proxy: proxy.clone(),
            authority: authority.clone(),
            rules: Arc::new(ArcSwap::from_pointee(config.intercept.clone())),
            distrust: Arc::new(Distrust::default()),
            dialer,
            tasks,
            draining,
            cut: commons.cut.clone(),
            metrics: metrics.clone(),
        };
        let listeners = bind(&config).await?;
        let admin = bind_admin(&config.admin.address).await?;
        home.tell_admin(admin.1)?;
        let own: Vec<SocketAddr> = listeners.iter().map(Listener::address).collect();
        introduce(&ourselves, &listeners, admin.1);
        publish(&config, &authority, &roots, &proxy_url(&listeners))?;
        proxy.tell(about(&config, &authority, &listeners));
        ledger::warn_of_loss(&config);
        inbox::warn_of_loss(&config, &kept.trays).await?;
        describe(&metrics, &config, &authority);
        let first = Arc::new(config);
        let core = Core {
            tried: ArcSwap::from_pointee(first.digest),
            config: ArcSwap::new(first.clone()),
            first,
            load,
            reloading: sync::Mutex::default(),
            proxy,
            commons,
            pool,
            house,
            kept,
            metrics,
            tracer,
            set_level,
            leaving: CancellationToken::new(),
            background,
            counted_at: Mutex::default(),
            started: SystemTime::now(),
            addresses: (own, admin.1),
        };
        Ok(Self { core: Arc::new(core), listeners, admin, _home: home })
    }

    /// Where the listeners listen, in the order of the config.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(Listener::address).collect()
    }

    /// The URL that programs are pointed at.
    pub fn proxy_url(&self) -> String {
        proxy_url(&self.listeners)
    }

    /// A handle that loads the config anew.
    pub fn reloader(&self) -> Reloader {
        Reloader(self.core.clone())
    }

    /// Serves until `told`, or a caller on this machine says so; then drains for as long
    /// as `shutdown.grace` allows.
    pub async fn run(self, told: impl Future<Output = ()>) {
        self.announce();
        let core = self.core;
        let desk = desk::of(&core);
        let closing = CancellationToken::new();
        let closed = closing.clone();
        let connections = core.config.load().admin.connections;
        let serving = admin::serve(self.admin.0, desk, connections, closed);
        let admin = core.background.spawn(serving);
        core.background.spawn(sweep(core.clone()));
        core.proxy.follow_left();
        reload::watch(&core);
        for listener in self.listeners {
            core.background.spawn(listener.run(core.house.clone()));
        }
        ending::follow(&core, told).await;
        ending::close(&closing, admin).await;
    }
}

fn authority(config: &Config, home: &Home) -> Result<Authority, CaFault> {
    let leaf_cache = config.intercept.leaf_cache;
    match &config.intercept.ca {
        Some(files) => Authority::load(&files.cert, &files.key, leaf_cache),
        None => Authority::load_or_make(&home.ca_dir(), leaf_cache),
    }
}

/// Trusts the system's roots and the config's, never our own.
fn dialer(
    config: &Config,
    (roots, authority): (&Roots, &Authority),
    ourselves: &Ourselves,
    seen: (TaskTracker, Metrics),
) -> Result<Dialer, StartFault> {
    let trusted = roots.store(config.upstream.extra_roots.as_deref(), authority.cert_der())?;
    let egress = config.egress.clone();
    Ok(Dialer::new(trusted, egress, &config.upstream, ourselves.clone(), seen)?)
}

/// Writes what applications need to trust the CA and to find the proxy.
fn publish(
    config: &Config,
    authority: &Authority,
    roots: &Roots,
    proxy_url: &str,
) -> Result<(), StartFault> {
    let dir = &config.state.public;
    intercept::publish(dir, authority, roots, proxy_url)
        .map_err(|error| StartFault::Public { dir: dir.clone(), error })
}

/// What is told at `http://samekey.internal/`.
fn about(config: &Config, authority: &Authority, listeners: &[Listener]) -> About {
    About {
        proxy_url: proxy_url(listeners),
        listeners: listeners.iter().map(in_words).collect(),
        public: full(&config.state.public),
        ca_pem: authority.cert_pem().to_owned(),
        ca_digest: authority.digest(),
    }
}

async fn bind(config: &Config) -> Result<Vec<Listener>, StartFault> {
    let mut bound = Vec::with_capacity(config.listeners.len());
    for spec in &config.listeners {
        let address = spec.address.clone();
        let listener = Listener::bind(spec.clone()).await;
        bound.push(listener.map_err(|error| StartFault::Bind { address, error })?);
    }
    Ok(bound)
}

async fn bind_admin(address: &str) -> Result<(TcpListener, SocketAddr), StartFault> {
    let bound = async {
        let socket = TcpListener::bind(address).await?;
        let address = socket.local_addr()?;
        Ok((socket, address))
    };
    let address = address.to_owned();
    bound.await.map_err(|error| StartFault::Bind { address, error })
}

/// Sets what the metrics say of this process for as long as it runs, or until a reload.
fn describe(metrics: &Metrics, config: &Config, authority: &Authority) {
    metrics.config_loaded(SystemTime::now());
    metrics.ca_ends(authority.expires());
    metrics.store_max(config.state.max_size);
}

/// Tells the dialer what would come back here.
fn introduce(ourselves: &Ourselves, listeners: &[Listener], admin: SocketAddr) {
    if listeners.iter().any(|listener| listener.spec().mode == Mode::Transparent) {
        ourselves.remember_calls();
    }
    ourselves.set(listeners.iter().map(Listener::address).chain([admin]).collect());
}

/// The URL of the first listener that is a proxy; programs on this machine reach
/// a wildcard address on loopback. Empty where there is none.
fn proxy_url(listeners: &[Listener]) -> String {
    let first = listeners.iter().find(|listener| listener.spec().mode == Mode::Forward);
    let Some(mut address) = first.map(Listener::address) else { return String::new() };
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    format!("http://{address}")
}

impl App {
    fn announce(&self) {
        let core = &self.core;
        let config = core.config.load();
        reload::warn_of_overridden(&config, &[]);
        let listeners: Vec<String> = self.listeners.iter().map(in_words).collect();
        tracing::info!(
            target: "samekey::start",
            version = env!("CARGO_PKG_VERSION"),
            listeners = listeners.join(", "),
            admin = %self.admin.1,
            config = %config.source,
            state_dir = %full(&config.state.dir).display(),
            upstream_proxy = core.upstream_proxy(),
            "samekey is up"
        );
    }
}

/// What a listener is, and where.
fn in_words(listener: &Listener) -> String {
    match &listener.spec().mode {
        Mode::Forward => format!("forward proxy on {}", listener.address()),
        Mode::Transparent => format!("transparent proxy on {}", listener.address()),
        Mode::Reverse(Target::One(origin)) => {
            format!("reverse proxy on {} to {origin}", listener.address())
        }
        Mode::Reverse(Target::ByPath) => {
            format!("reverse proxy on {} to /HOST", listener.address())
        }
    }
}

/// Housekeeping: what is past its time goes.
async fn sweep(core: Arc<Core>) {
    let mut every = interval(SWEEP_EVERY);
    loop {
        every.tick().await;
        let now = Instant::now();
        core.pool.sweep();
        core.commons.suspensions.sweep(now);
        core.kept.sweep(now);
        for (id, key) in core.commons.orphans.sweep(ledger::adoption_window(&core.config.load())) {
            core.commons.store.forget(&id, &key).await;
        }
        if let Err(fault) = core.commons.store.sweep().await {
            core.metrics.store_error(Operation::Sweep);
            tracing::warn!(%fault, "the store could not be swept");
        }
    }
}

const SWEEP_EVERY: Duration = Duration::from_secs(5);

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("listeners", &self.addresses()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reloader")
    }
}

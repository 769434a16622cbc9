//! A connection that is made when it is wanted, and made anew once it is broken.
//!
//! # Invariants
//!
//! - A connection that failed, or that did not answer in time, is never used again:
//!   what comes next asks afresh where the master is.
//! - Dialling goes on when whoever began it no longer waits.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use redis::aio::{MultiplexedConnection, PubSub};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{Route, SingleNodeRoutingInfo, Slot, SlotAddr};
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, IntoConnectionInfo as _,
    Pipeline, RedisConnectionInfo, RedisError, RedisResult, TlsCertificates, TlsMode, Value,
};
use tokio::time::timeout;

use super::address::{Address, Host, Site};

/// How to get there.
#[derive(Clone)]
pub(super) struct Dialer {
    pub(super) address: Address,
    /// PEM roots that are trusted instead of the system's.
    pub(super) roots: Option<Vec<u8>>,
}

/// One connection, shared by all who use it at one time.
pub(super) struct Link {
    dialer: Dialer,
    slot: Mutex<Place>,
}

#[derive(Default)]
struct Place {
    generation: u64,
    dialling: Option<Dialling>,
}

type Dialling = Shared<BoxFuture<'static, RedisResult<Connection>>>;

/// A connection, to one server or to all of a cluster.
#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Link {
    pub(super) fn new(dialer: Dialer) -> Self {
        Self { dialer, slot: Mutex::default() }
    }

    /// The connection, and which of its lives it is.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the next to ask goes on where this one left off.
    pub(super) async fn connection(&self) -> RedisResult<(u64, Connection)> {
        let (generation, dialling) = {
            let mut place = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
            let dialling = place.dialling.get_or_insert_with(|| {
                let dialer = self.dialer.clone();
                async move { dialer.dial().await }.boxed().shared()
            });
            let dialling = dialling.clone();
            (place.generation, dialling)
        };
        let dialled = dialling.await;
        if dialled.is_err() {
            self.drop_generation(generation);
        }
        Ok((generation, dialled?))
    }

    /// Drops the connection, unless another has taken its place already.
    pub(super) fn drop_generation(&self, generation: u64) {
        let mut place = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        if place.generation == generation {
            *place = Place { generation: generation + 1, dialling: None };
        }
    }

    /// Drops whatever connection there is.
    pub(super) fn reset(&self) {
        let mut place = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        *place = Place { generation: place.generation + 1, dialling: None };
    }
}

impl Connection {
    pub(super) async fn ask(&mut self, command: &Cmd) -> RedisResult<Value> {
        let value: Value = match self {
            Self::Single(connection) => command.query_async(connection).await?,
            Self::Cluster(connection) => command.query_async(connection).await?,
        };
        refuse_error(value)
    }

    /// Runs `command`, and then waits until so many replicas have what this very
    /// connection wrote. One pipeline, for a reconnect between the two would wait
    /// for nothing.
    pub(super) async fn ask_and_wait(
        &mut self,
        command: Cmd,
        routing_key: &str,
        (replicas, wait): (u32, Duration),
    ) -> RedisResult<(Value, u32)> {
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.add_command(command);
        let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        pipeline.cmd("WAIT").arg(replicas).arg(wait);
        let values = match self {
            Self::Single(connection) => connection.send_packed_commands(&pipeline, 0, 2).await?,
            Self::Cluster(connection) => {
                let route = Route::with_slot(Slot::for_key(routing_key), SlotAddr::Master);
                let route = SingleNodeRoutingInfo::SpecificNode(route);
                connection.route_pipeline(pipeline, 0, 2, route).await?
            }
        };
        let mut values = values.into_iter();
        let value = refuse_error(values.next().unwrap_or_default())?;
        let acknowledged = refuse_error(values.next().unwrap_or_default())?;
        Ok((value, redis::from_redis_value(acknowledged)?))
    }
}

impl Dialer {
    async fn dial(&self) -> RedisResult<Connection> {
        let dialled = timeout(DIAL_MAX, async {
            if self.address.is_cluster() {
                let connection = self.cluster()?.build()?.get_async_connection().await?;
                return Ok(Connection::Cluster(connection));
            }
            // How long an answer may take is for whoever asks to say.
            let config = AsyncConnectionConfig::new()
                .set_response_timeout(None)
                .set_connection_timeout(Some(CONNECT_MAX));
            let client = self.client().await?;
            let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
            Ok(Connection::Single(connection))
        });
        dialled.await.unwrap_or_else(|_elapsed| Err(no_connection()))
    }

    /// A connection that is told the news; in a cluster every node tells them all.
    pub(super) async fn listen(&self) -> RedisResult<PubSub> {
        let dialled = timeout(DIAL_MAX, async {
            let Site::Cluster(hosts) = &self.address.site else {
                return self.client().await?.get_async_pubsub().await;
            };
            let mut last = no_connection();
            for host in hosts {
                match timeout(CONNECT_MAX, self.to(host)?.get_async_pubsub()).await {
                    Ok(Ok(listening)) => return Ok(listening),
                    Ok(Err(error)) => last = error,
                    Err(_elapsed) => {}
                }
            }
            Err(last)
        });
        dialled.await.unwrap_or_else(|_elapsed| Err(no_connection()))
    }

    async fn client(&self) -> RedisResult<Client> {
        match &self.address.site {
            Site::Single(host) => self.to(host),
            Site::Sentinel(hosts, master) => {
                self.sentinels(hosts, master)?.async_get_client().await
            }
            Site::Cluster(_) => Err(no_connection()),
        }
    }

    fn to(&self, host: &Host) -> RedisResult<Client> {
        let address = &self.address;
        let mut login = RedisConnectionInfo::default().set_db(address.database);
        if let Some(user) = &address.user {
            login = login.set_username(user);
        }
        if let Some(password) = &address.password {
            login = login.set_password(password);
        }
        let info = self.at(host).into_connection_info()?.set_redis_settings(login);
        match self.certificates() {
            Some(certificates) => Client::build_with_tls(info, certificates),
            None => Client::open(info),
        }
    }

    /// User and password are those of the servers; sentinels are asked without.
    fn sentinels(&self, hosts: &[Host], master: &str) -> RedisResult<SentinelClient> {
        let address = &self.address;
        let hosts = hosts.iter().map(|host| self.at(host));
        let mut builder = SentinelClientBuilder::new(hosts, master, SentinelServerType::Master)?
            .set_client_to_redis_db(address.database);
        if let Some(user) = &address.user {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = &address.password {
            builder = builder.set_client_to_redis_password(password);
        }
        if address.tls {
            builder = builder
                .set_client_to_redis_tls_mode(TlsMode::Secure)
                .set_client_to_sentinel_tls_mode(TlsMode::Secure);
        }
        if let Some(certificates) = self.certificates() {
            builder = builder
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_certificates(certificates);
        }
        builder.build()
    }

    fn cluster(&self) -> RedisResult<ClusterClientBuilder> {
        let address = &self.address;
        let Site::Cluster(hosts) = &address.site else { return Err(no_connection()) };
        let mut builder = ClusterClientBuilder::new(hosts.iter().map(|host| self.at(host)))
            .connection_timeout(CONNECT_MAX)
            .response_timeout(DIAL_MAX)
            .retries(CLUSTER_RETRIES)
            .min_retry_wait(CLUSTER_RETRY_WAIT_MS)
            .max_retry_wait(CLUSTER_RETRY_WAIT_MS * 4);
        if let Some(user) = &address.user {
            builder = builder.username(user);
        }
        if let Some(password) = &address.password {
            builder = builder.password(password);
        }
        if address.tls {
            builder = builder.tls(TlsMode::Secure);
        }
        if let Some(certificates) = self.certificates() {
            builder = builder.certs(certificates);
        }
        Ok(builder)
    }

    fn at(&self, host: &Host) -> ConnectionAddr {
        let (name, port) = (host.name.clone(), host.port);
        if self.address.tls {
            return ConnectionAddr::TcpTls { host: name, port, insecure: false, tls_params: None };
        }
        ConnectionAddr::Tcp(name, port)
    }

    fn certificates(&self) -> Option<TlsCertificates> {
        let root_cert = self.roots.clone().filter(|_| self.address.tls)?;
        Some(TlsCertificates { client_tls: None, root_cert: Some(root_cert) })
    }
}

/// A value that is a refusal is an error.
fn refuse_error(value: Value) -> RedisResult<Value> {
    match value {
        Value::ServerError(error) => Err(error.into()),
        value => Ok(value),
    }
}

fn no_connection() -> RedisError {
    RedisError::from((ErrorKind::ClusterConnectionNotFound, "no server could be reached in time"))
}

/// Longer than anybody waits for an answer: it takes several sentinels, or nodes, to dial.
const DIAL_MAX: Duration = Duration::from_secs(5);
/// A server that is there takes a connection within this.
const CONNECT_MAX: Duration = Duration::from_secs(1);
const CLUSTER_RETRIES: u32 = 3;
const CLUSTER_RETRY_WAIT_MS: u64 = 50;

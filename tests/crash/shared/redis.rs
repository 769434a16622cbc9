//! Redis processes that a test may kill, pause and start again empty.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// One server, or one sentinel; dropping it kills it.
pub(super) struct Redis {
    pub(super) port: u16,
    config: String,
    folder: TempDir,
    child: Child,
}

impl Redis {
    /// A server that keeps nothing on disk: started again, it is empty.
    pub(super) async fn start() -> Self {
        Self::with("").await
    }

    /// A server that follows another.
    pub(super) async fn following(master: &Self) -> Self {
        let replica = Self::with(&format!("replicaof 127.0.0.1 {}\n", master.port)).await;
        replica.until("INFO replication", "master_link_status:up").await;
        replica
    }

    async fn with(more: &str) -> Self {
        let lasting = "save \"\"\nappendonly no\nmaxmemory-policy noeviction\n\
                       repl-diskless-sync-delay 0\n";
        Self::run(free_port(), &format!("{lasting}{more}"), false).await
    }

    /// One that watches a master, with two others.
    pub(super) async fn watching(master: &Self) -> Self {
        let config = format!(
            "sentinel monitor {MASTER} 127.0.0.1 {} 2\n\
             sentinel down-after-milliseconds {MASTER} 500\n\
             sentinel failover-timeout {MASTER} 3000\n",
            master.port
        );
        Self::run(free_port(), &config, true).await
    }

    async fn run(port: u16, config: &str, is_sentinel: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let text =
            format!("port {port}\nbind 127.0.0.1\ndir {}\n{config}", folder.path().display());
        let role = if is_sentinel { "sentinel" } else { "server" };
        fs::write(folder.path().join(role), text).expect("written");
        let child = spawn(&folder, role);
        let redis = Self { port, config: role.to_owned(), folder, child };
        redis.until("PING", "PONG").await;
        redis
    }

    /// Its URL.
    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// SIGKILL.
    pub(super) async fn kill(&mut self) {
        self.child.kill().await.expect("it runs");
    }

    /// Starts again on its port, knowing nothing.
    pub(super) async fn start_again(&mut self) {
        self.child = spawn(&self.folder, &self.config);
        self.until("PING", "PONG").await;
    }

    /// SIGSTOP: its connections stay, and nothing answers.
    pub(super) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Ends a pause.
    /// Cuts off the replicas that follow it: what it is told from now on they do not hear,
    /// not even when they wake.
    pub(super) async fn cut_off(&self) {
        self.ask("CLIENT KILL TYPE replica").await.expect("it answers");
    }

    pub(super) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Waits until a command's answer holds some text.
    pub(super) async fn until(&self, command: &str, wanted: &str) {
        let began = Instant::now();
        let mut last = String::new();
        while !last.contains(wanted) {
            assert!(began.elapsed() < PATIENCE, "redis {command}: no {wanted} in {last}");
            last = self.ask(command).await.unwrap_or_default();
            if !last.contains(wanted) {
                sleep(Duration::from_millis(20)).await;
            }
        }
    }

    async fn ask(&self, command: &str) -> std::io::Result<String> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let mut stream = TcpStream::connect(address).await?;
        // A sentinel knows no QUIT; what no server knows ends the answer.
        stream.write_all(format!("{command}\r\n{NONSENSE}\r\n").as_bytes()).await?;
        let mut answer = String::new();
        let mut piece = [0; 4096];
        while !answer.contains("unknown command") {
            let read = timeout(Duration::from_secs(2), stream.read(&mut piece)).await;
            let count = read.map_err(std::io::Error::other)??;
            if count == 0 {
                break;
            }
            answer.push_str(&String::from_utf8_lossy(&piece[..count]));
        }
        Ok(answer)
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        kill_process(id.expect("it runs"), signal).expect("it runs");
    }
}

/// A master, a replica, and three sentinels that put the one in the other's place.
pub(super) struct Sentinels {
    pub(super) master: Redis,
    pub(super) replica: Redis,
    watchers: Vec<Redis>,
}

impl Sentinels {
    pub(super) async fn start() -> Self {
        let master = Redis::start().await;
        let replica = Redis::following(&master).await;
        let mut watchers = Vec::new();
        for _ in 0..3 {
            watchers.push(Redis::watching(&master).await);
        }
        for watcher in &watchers {
            let about = format!("SENTINEL MASTER {MASTER}");
            watcher.until(&about, "num-slaves\r\n$1\r\n1").await;
            watcher.until(&about, "num-other-sentinels\r\n$1\r\n2").await;
        }
        Self { master, replica, watchers }
    }

    /// Their URL.
    pub(super) fn url(&self) -> String {
        let hosts = self.watchers.iter().map(|watcher| format!("127.0.0.1:{}", watcher.port));
        format!("redis+sentinel://{}/{MASTER}", hosts.collect::<Vec<_>>().join(","))
    }

    /// Waits until the replica is the master, for all who ask.
    pub(super) async fn until_promoted(&self) {
        self.replica.until("INFO replication", "role:master").await;
        for watcher in &self.watchers {
            let address = format!("SENTINEL GET-MASTER-ADDR-BY-NAME {MASTER}");
            watcher.until(&address, &self.replica.port.to_string()).await;
        }
    }
}

fn spawn(folder: &TempDir, role: &str) -> Child {
    let mut command = Command::new("redis-server");
    command.arg(folder.path().join(role)).stdin(Stdio::null()).stdout(Stdio::null());
    if role == "sentinel" {
        command.arg("--sentinel");
    }
    command.kill_on_drop(true).spawn().expect("redis-server is installed: run .ci/install")
}

/// A port that nobody had a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    listener.local_addr().expect("it is bound").port()
}

/// A command that no server knows, and each says so.
const NONSENSE: &str = "END-OF-ANSWER";
/// What the sentinels call it.
const MASTER: &str = "mymaster";
/// Longer than a failover takes.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn sentinels_put_the_replica_in_the_place_of_a_dead_master() {
    let mut sentinels = Sentinels::start().await;
    sentinels.master.kill().await;
    sentinels.until_promoted().await;
}

//! A real redis-server for one test, on a port of its own.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use redis::Value;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::Instant;

use super::*;

/// A server that ends with the test.
pub(in crate::idempotency::store) struct Server {
    pub(super) port: u16,
    args: Vec<String>,
    child: Option<Child>,
    home: TempDir,
}

impl Server {
    pub(in crate::idempotency::store) async fn start() -> Self {
        Self::with(&[]).await
    }

    pub(super) async fn with(args: &[&str]) -> Self {
        for _ in 0..20 {
            let probe = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let port = probe.local_addr().expect("it is bound").port();
            drop(probe);
            let args = args.iter().map(|arg| (*arg).to_owned()).collect();
            let home = tempfile::tempdir().expect("a folder");
            let mut server = Self { port, args, child: None, home };
            if server.run().await {
                return server;
            }
        }
        panic!("redis-server does not start: is it installed? (.ci/install)");
    }

    /// A sentinel that watches a master by the name of `main`.
    pub(super) async fn sentinel(master: u16) -> Self {
        let sentinel = Self::with(&["--sentinel"]).await;
        let port = master.to_string();
        sentinel.command(&["SENTINEL", "MONITOR", "main", "127.0.0.1", &port, "1"]).await;
        sentinel
    }

    /// Starts it, and waits until it takes connections; false where another took its port.
    async fn run(&mut self) -> bool {
        let mut command = Command::new("redis-server");
        if self.args.iter().any(|arg| arg == "--sentinel") {
            // One keeps its notes in its configuration file, and has to have one.
            let notes = self.home.path().join("sentinel.conf");
            std::fs::write(&notes, "").expect("it is written");
            command.arg(notes);
        }
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"]);
        command.args(["--save", "", "--appendonly", "no"]);
        command.arg("--dir").arg(self.home.path()).args(&self.args);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.spawn().expect("redis-server is installed (.ci/install)");
        let until = Instant::now() + Duration::from_secs(10);
        let up = loop {
            if child.try_wait().expect("it is ours").is_some() || Instant::now() > until {
                break false;
            }
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                break true;
            }
            tokio::task::yield_now().await;
        };
        self.child = Some(child);
        up
    }

    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is ours");
            child.wait().expect("it is ours");
        }
    }

    /// The same again, and empty.
    pub(super) async fn restart(&mut self) {
        self.kill();
        assert!(self.run().await, "its port is still free");
    }

    /// It is there, and does nothing.
    pub(super) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub(super) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        let pid = Pid::from_child(child);
        kill_process(pid, signal).expect("it is ours");
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(super) fn options(&self, owner: u8) -> Options {
        Options {
            address: Address::parse(&self.url()).expect("a URL"),
            roots: None,
            lease: LEASE,
            wait_replicas: 0,
            owner: [owner; 16],
        }
    }

    /// A process of its own.
    pub(in crate::idempotency::store) async fn owner(&self, owner: u8) -> Redis {
        connect(self.options(owner)).await
    }

    /// Runs any command, as an operator would.
    pub(in crate::idempotency::store) async fn command(&self, words: &[&str]) -> Value {
        self.try_command(words).await.expect("it takes connections, and knows that")
    }

    pub(super) async fn try_command(&self, words: &[&str]) -> redis::RedisResult<Value> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let (first, rest) = words.split_first().expect("a command");
        redis::cmd(first).arg(rest).query_async(&mut connection).await
    }

    pub(super) async fn text(&self, words: &[&str]) -> String {
        redis::from_redis_value(self.command(words).await).expect("text")
    }

    pub(super) async fn number(&self, words: &[&str]) -> i64 {
        redis::from_redis_value(self.command(words).await).expect("a number")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Also one that is paused; there is nobody to tell where that fails.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

pub(super) async fn connect(options: Options) -> Redis {
    Redis::connect(options, &TaskTracker::new()).await.expect("it answers")
}

/// No lease runs out by itself in a test that does not say so.
pub(super) const LEASE: Duration = Duration::from_mins(1);

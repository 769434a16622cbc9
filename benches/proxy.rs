//! What samekey costs, against a direct connection and a bare proxy: `make bench`.
//!
//! Three tables, in Markdown: small requests, large bodies, memory. Rounds of the
//! three ways alternate, and a ratio is the median of those of single rounds, so
//! that a busy machine weighs on both sides of it. `BENCH_SECONDS` is the length of
//! a round, `BENCH_ROUNDS` their number, and `BENCH_ONLY` keeps the rows that
//! contain it.

mod store;
mod yard;

use std::cell::Cell;
use std::io::{self, Write as _};
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::runtime::Builder;
use tokio::time::sleep;

use yard::Fault;
use yard::cores::Cores;
use yard::line::{Ask, Key, Scheme, Way};
use yard::load::{self, Round, count};
use yard::origin::Origin;
use yard::payload::{Payload, kibibyte_of_json};
use yard::pki::Pki;
use yard::process::{Kind, Proxy};

fn main() -> Result<(), Fault> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("bare") {
        raise_file_limit()?;
        return yard::bare::run(arguments);
    }
    raise_file_limit()?;
    if std::env::args().any(|argument| argument == "store") {
        return store::run();
    }
    let cores = Cores::split()?;
    let folder = tempfile::tempdir()?;
    let pki = Pki::make(folder.path())?;
    let origin = Origin::start(pki.origin.clone())?;
    let bench = Bench { cores, pki, origin, wishes: Wishes::read()? };
    // The load is as much a part of the machine as the origin: one thread each.
    Builder::new_current_thread().enable_all().build()?.block_on(bench.run())
}

/// What is measured, and with what.
struct Bench {
    cores: Cores,
    pki: Pki,
    origin: Origin,
    wishes: Wishes,
}

/// What whoever runs it may choose.
struct Wishes {
    round: Duration,
    rounds: usize,
    only: String,
}

impl Wishes {
    #[expect(clippy::disallowed_methods, reason = "a bench has no config file")]
    fn read() -> Result<Self, Fault> {
        let wish = |name, usual: &str| std::env::var(name).unwrap_or_else(|_| usual.to_owned());
        Ok(Self {
            round: Duration::from_secs_f64(wish("BENCH_SECONDS", "0.8").parse()?),
            rounds: wish("BENCH_ROUNDS", "5").parse::<usize>()?.clamp(1, 1000),
            only: wish("BENCH_ONLY", ""),
        })
    }

    fn want(&self, row: &str) -> bool {
        row.contains(&self.only)
    }
}

/// A row of the first table.
struct Small {
    name: &'static str,
    scheme: Scheme,
    connections: u64,
    ask: Ask,
    /// The share of the bare proxy's requests per CPU-second that samekey is to reach.
    aim: Option<f64>,
}

/// A row of the second table.
struct Large {
    name: &'static str,
    scheme: Scheme,
    ask: Ask,
}

/// Rounds of the three ways, in the order in which they were run.
#[derive(Default)]
struct Rounds {
    direct: Vec<Round>,
    bare: Vec<Round>,
    samekey: Vec<Round>,
}

impl Bench {
    async fn run(&self) -> Result<(), Fault> {
        let place = if self.cores.is_split() { "on a core of its own" } else { "on any core" };
        say(&format!(
            "{} rounds of {:?} a way; the proxy runs {place}",
            self.wishes.rounds, self.wishes.round
        ))?;
        let bare = self.start(Kind::Bare).await?;
        let samekey = self.start(Kind::Samekey).await?;
        self.small(&bare, &samekey).await?;
        self.large(&bare, &samekey).await?;
        drop((bare, samekey));
        self.memory().await
    }

    async fn small(&self, bare: &Proxy, samekey: &Proxy) -> Result<(), Fault> {
        say(SMALL_HEAD)?;
        for row in small_rows().iter().filter(|row| self.wishes.want(row.name)) {
            let mut rounds = Rounds::default();
            if row.ask.is_replay {
                let first = Ask { is_replay: false, ..row.ask.clone() };
                load::once(&self.way(row.scheme, Some(samekey)), &first).await?;
            }
            for _ in 0..self.wishes.rounds {
                let rush = async |proxy: Option<&Proxy>| {
                    let way = self.way(row.scheme, proxy);
                    let (ask, length) = (row.ask_through(proxy), self.wishes.round);
                    load::rush(&way, proxy, &ask, row.connections, length).await
                };
                rounds.direct.push(rush(None).await?);
                rounds.bare.push(rush(Some(bare)).await?);
                rounds.samekey.push(rush(Some(samekey)).await?);
            }
            let aim = row.aim.map_or_else(String::new, |aim| format!("≥ {aim:.2}"));
            say(&format!(
                "| {} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} | {:.2} | {aim} |",
                row.name,
                median(rounds.direct.iter().map(Round::per_second)),
                median(rounds.bare.iter().map(Round::per_second)),
                median(rounds.samekey.iter().map(Round::per_second)),
                median(rounds.bare.iter().map(Round::cpu_us)),
                median(rounds.samekey.iter().map(Round::cpu_us)),
                rounds.ratio(),
            ))?;
        }
        Ok(())
    }

    async fn large(&self, bare: &Proxy, samekey: &Proxy) -> Result<(), Fault> {
        say(LARGE_HEAD)?;
        for row in large_rows().iter().filter(|row| self.wishes.want(row.name)) {
            let mut rounds = Rounds::default();
            for _ in 0..self.wishes.rounds {
                let haul = async |proxy: Option<&Proxy>| {
                    load::haul(&self.way(row.scheme, proxy), proxy, &row.ask, TRANSFERS).await
                };
                rounds.direct.push(haul(None).await?);
                rounds.bare.push(haul(Some(bare)).await?);
                rounds.samekey.push(haul(Some(samekey)).await?);
            }
            let megabytes = |round: &Round| round.per_second() * count(LARGE) / 1e6;
            let cpu_ms = |round: &Round| round.cpu_us() / 1e3;
            say(&format!(
                "| {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.2} |",
                row.name,
                median(rounds.direct.iter().map(megabytes)),
                median(rounds.bare.iter().map(megabytes)),
                median(rounds.samekey.iter().map(megabytes)),
                median(rounds.bare.iter().map(cpu_ms)),
                median(rounds.samekey.iter().map(cpu_ms)),
                rounds.ratio(),
            ))?;
        }
        Ok(())
    }

    async fn memory(&self) -> Result<(), Fault> {
        if !self.wishes.want("memory") {
            return Ok(());
        }
        say(MEMORY_HEAD)?;
        let mut started = Vec::new();
        for kind in [Kind::Bare, Kind::Samekey] {
            started.push(mebibytes(self.start(kind).await?.pss_kib()?));
        }
        say_memory("just started", &started)?;
        for (name, scheme) in [("plain", Scheme::Http), ("intercepted", Scheme::Https)] {
            let mut cells = Vec::new();
            for kind in [Kind::Bare, Kind::Samekey] {
                let (before, after) = self.held(kind, scheme).await?;
                let each = after.saturating_sub(before) / HELD as u64;
                cells.push(format!("{}, {each} KiB each", mebibytes(after)));
            }
            say_memory(&format!("{HELD} idle {name} connections"), &cells)?;
        }
        let (down, up) = (download("/bytes/1073741824"), upload("/v1/files", HUGE));
        for (name, ask) in [("down", down), ("up", up)] {
            let mut cells = Vec::new();
            for kind in [Kind::Bare, Kind::Samekey] {
                let (before, peak) = self.streamed(kind, &ask).await?;
                cells.push(format!("{} → {} at most", mebibytes(before), mebibytes(peak)));
            }
            say_memory(&format!("1 GiB {name}, intercepted"), &cells)?;
        }
        Ok(())
    }

    /// Memory before and while connections are held idle.
    async fn held(&self, kind: Kind, scheme: Scheme) -> Result<(u64, u64), Fault> {
        let proxy = self.start(kind).await?;
        let way = self.way(scheme, Some(&proxy));
        drop(load::hold(&way, 1).await?);
        let before = proxy.pss_kib()?;
        let lines = load::hold(&way, HELD).await?;
        sleep(SETTLE).await;
        let after = proxy.pss_kib()?;
        drop(lines);
        Ok((before, after))
    }

    /// Memory before, and the most of it while a body goes through.
    async fn streamed(&self, kind: Kind, ask: &Ask) -> Result<(u64, u64), Fault> {
        let proxy = self.start(kind).await?;
        let way = self.way(Scheme::Https, Some(&proxy));
        drop(load::hold(&way, 1).await?);
        let before = proxy.pss_kib()?;
        let peak = Cell::new(before);
        let watch = async {
            loop {
                sleep(LOOK_EVERY).await;
                match proxy.pss_kib() {
                    Ok(pss) => peak.set(peak.get().max(pss)),
                    Err(fault) => return fault,
                }
            }
        };
        tokio::select! {
            hauled = load::haul(&way, Some(&proxy), ask, 1) => drop(hauled?),
            fault = watch => return Err(fault),
        }
        Ok((before, peak.get()))
    }

    async fn start(&self, kind: Kind) -> Result<Proxy, Fault> {
        Proxy::start(kind, &self.pki.files, &self.cores).await
    }

    fn way(&self, scheme: Scheme, proxy: Option<&Proxy>) -> Way {
        let (origin, trust) = (self.origin, self.pki.client.clone());
        Way { origin, proxy: proxy.map(|proxy| proxy.address), trust, scheme }
    }
}

impl Small {
    /// What is asked through `proxy`; only samekey is held to what it promises.
    fn ask_through(&self, proxy: Option<&Proxy>) -> Ask {
        let is_samekey = proxy.is_some_and(|proxy| proxy.kind != Kind::Bare);
        Ask { is_replay: self.ask.is_replay && is_samekey, ..self.ask.clone() }
    }
}

impl Rounds {
    /// How much samekey does for a second of CPU time, where the bare proxy does 1.
    fn ratio(&self) -> f64 {
        let pairs = self.bare.iter().zip(&self.samekey);
        median(pairs.map(|(bare, samekey)| bare.cpu_us() / samekey.cpu_us()))
    }
}

fn small_rows() -> Vec<Small> {
    let (http, https) = (Scheme::Http, Scheme::Https);
    let row = |name, scheme, connections, ask, aim| Small { name, scheme, connections, ask, aim };
    let post = |key| Ask::post(Payload::of(kibibyte_of_json()), key);
    let replay = Ask { is_replay: true, ..post(Key::Same) };
    vec![
        row("GET 1 KiB, forwarded, 1 connection", http, 1, Ask::get(), Some(UNKEYED)),
        row("GET 1 KiB, forwarded, 32 connections", http, 32, Ask::get(), Some(UNKEYED)),
        row("GET 1 KiB, forwarded, 256 connections", http, 256, Ask::get(), Some(UNKEYED)),
        row("GET 1 KiB, intercepted, 1 connection", https, 1, Ask::get(), Some(UNKEYED)),
        row("GET 1 KiB, intercepted, 32 connections", https, 32, Ask::get(), Some(UNKEYED)),
        row("GET 1 KiB, intercepted, 256 connections", https, 256, Ask::get(), Some(UNKEYED)),
        row("POST 1 KiB, key injected, 32 connections", https, 32, post(Key::None), Some(KEYED)),
        row("POST 1 KiB, client's key, 32 connections", https, 32, post(Key::Fresh), Some(KEYED)),
        row("POST 1 KiB, replayed, 32 connections", https, 32, replay, None),
    ]
}

fn large_rows() -> Vec<Large> {
    let (http, https) = (Scheme::Http, Scheme::Https);
    let row = |name, scheme, ask| Large { name, scheme, ask };
    vec![
        row("download, forwarded", http, download("/bytes/104857600")),
        row("download, intercepted", https, download("/bytes/104857600")),
        row("upload, forwarded, kept on disk", http, upload("/v1/files", LARGE)),
        row("upload, forwarded, not kept", http, upload("/memory/files", LARGE)),
        row("upload, intercepted, kept on disk", https, upload("/v1/files", LARGE)),
        row("upload, intercepted, not kept", https, upload("/memory/files", LARGE)),
    ]
}

fn download(path: &'static str) -> Ask {
    Ask { path, ..Ask::get() }
}

fn upload(path: &'static str, length: u64) -> Ask {
    let body = Payload::repeat(Bytes::from(vec![b'x'; PIECE]), length);
    Ask { path, ..Ask::post(body, Key::None) }
}

fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_unstable_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

fn mebibytes(kibibytes: u64) -> String {
    format!("{:.1} MiB", count(kibibytes) / 1024.0)
}

fn say(line: &str) -> Result<(), Fault> {
    Ok(writeln!(io::stdout(), "{line}")?)
}

fn say_memory(name: &str, cells: &[String]) -> Result<(), Fault> {
    say(&format!("| {name} | {} |", cells.join(" | ")))
}

/// Both ends of a connection are ours, and the usual soft limit is 1024.
fn raise_file_limit() -> Result<(), Fault> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

const SMALL_HEAD: &str = "
| small requests | direct req/s | bare req/s | samekey req/s \
| bare CPU µs | samekey CPU µs | samekey/bare a CPU-second | aim |
| --- | --: | --: | --: | --: | --: | --: | --: |";
const LARGE_HEAD: &str = "
| 100 MiB | direct MB/s | bare MB/s | samekey MB/s \
| bare CPU ms | samekey CPU ms | samekey/bare a CPU-second |
| --- | --: | --: | --: | --: | --: | --: |";
const MEMORY_HEAD: &str = "
| memory (PSS) | bare | samekey |
| --- | --: | --: |";

/// What is asked of an exchange without a key: no more than a sixth on top.
const UNKEYED: f64 = 0.85;
/// What is asked of one with a key.
const KEYED: f64 = 0.75;
/// What the paths of downloads say, and uploads hold.
const LARGE: u64 = 100 << 20;
const HUGE: u64 = 1 << 30;
/// Transfers a round: the kernel counts CPU time in hundredths of a second.
const TRANSFERS: u64 = 3;
const PIECE: usize = 64 * 1024;
const HELD: usize = 1000;
/// Freed buffers are given back by then.
const SETTLE: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(20);

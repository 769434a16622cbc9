//! What it costs that keys and answers outlive the process: `make bench-store`.
//!
//! Two tables, in Markdown. The first sets the journal against memory, over the whole
//! proxy, in rounds that alternate; `kept` is how many requests a CPU-second of it does
//! for one of memory's. The second looks at a journal of a thousand keys and of a
//! million. The disk's own syncs a second stand beside them. `BENCH_SECONDS`,
//! `BENCH_ROUNDS` and `BENCH_KEYS` choose the length of a round, their number, and the
//! larger journal.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use samekey::exchange::id::Names;
use samekey::exchange::trail::End;
use samekey::idempotency::fingerprint::Fingerprint;
use samekey::idempotency::key::Key as RequestKey;
use samekey::idempotency::scope::RecordId;
use samekey::idempotency::store::{About, Asked, Disk, Record, Reserved, Settlement, Store, Told};
use samekey::journal::moment::micros;
use samekey::journal::{Clock, Durability, Journal, Options};
use samekey::metrics::Metrics;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::yard::Fault;
use crate::yard::cores::Cores;
use crate::yard::line::{Ask, Key, Scheme, Way};
use crate::yard::load::{self, Round, count};
use crate::yard::origin::Origin;
use crate::yard::payload::{Payload, kibibyte_of_json};
use crate::yard::pki::Pki;
use crate::yard::process::{Kind, Proxy};
use crate::{median, say};

/// Runs both tables.
pub(crate) fn run() -> Result<(), Fault> {
    let wishes = Wishes::read()?;
    let folder = tempfile::tempdir()?;
    say(&format!("the disk does {:.0} syncs a second of 4 KiB each", syncs(folder.path())?))?;
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(sizes(&wishes))?;
    drop(runtime);
    let cores = Cores::split()?;
    let pki = Pki::make(folder.path())?;
    let origin = Origin::start(pki.origin.clone())?;
    Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(whole(&wishes, &cores, &pki, origin))
}

/// What whoever runs it may choose.
struct Wishes {
    round: Duration,
    rounds: usize,
    keys: u64,
}

impl Wishes {
    #[expect(clippy::disallowed_methods, reason = "a bench has no config file")]
    fn read() -> Result<Self, Fault> {
        let wish = |name, usual: &str| std::env::var(name).unwrap_or_else(|_| usual.to_owned());
        Ok(Self {
            round: Duration::from_secs_f64(wish("BENCH_SECONDS", "1").parse()?),
            rounds: wish("BENCH_ROUNDS", "5").parse::<usize>()?.clamp(1, 1000),
            keys: wish("BENCH_KEYS", "1000000").parse()?,
        })
    }
}

/// The whole proxy, with memory, and with a journal of either durability.
async fn whole(wishes: &Wishes, cores: &Cores, pki: &Pki, origin: Origin) -> Result<(), Fault> {
    say(
        "\n| over the whole proxy | memory µs | process µs | power µs | process kept | power kept \
         | exchanges a commit, process | power | process req/s | power req/s |\n\
         | --- | --: | --: | --: | --: | --: | --: | --: | --: | --: |",
    )?;
    let post = |key| Ask::post(Payload::of(kibibyte_of_json()), key);
    let replay = Ask { is_replay: true, ..post(Key::Same) };
    for (name, connections, ask) in [
        ("POST 1 KiB, client's key, 1 connection", 1, post(Key::Fresh)),
        ("POST 1 KiB, client's key, 32 connections", 32, post(Key::Fresh)),
        ("POST 1 KiB, client's key, 256 connections", 256, post(Key::Fresh)),
        ("POST 1 KiB, key injected, 32 connections", 32, post(Key::None)),
        ("POST 1 KiB, replayed, 32 connections", 32, replay),
    ] {
        let mut rounds: [Vec<(Round, f64)>; 3] = Default::default();
        for _ in 0..wishes.rounds {
            for (rounds, kind) in rounds.iter_mut().zip([Kind::Samekey, Kind::Disk, Kind::Power]) {
                let proxy = Proxy::start(kind, &pki.files, cores).await?;
                let way = Way {
                    origin,
                    proxy: Some(proxy.address),
                    trust: pki.client.clone(),
                    scheme: Scheme::Http,
                };
                let first = Ask { is_replay: false, ..ask.clone() };
                load::once(&way, &first).await?;
                let before = proxy.commits().unwrap_or_default();
                let round = load::rush(&way, Some(&proxy), &ask, connections, wishes.round).await?;
                let commits = proxy.commits().unwrap_or_default().saturating_sub(before);
                rounds.push((round, count(round.done) / count(commits.max(1))));
            }
        }
        report(name, &rounds)?;
    }
    Ok(())
}

fn report(name: &str, rounds: &[Vec<(Round, f64)>; 3]) -> Result<(), Fault> {
    let [memory, process, power] = rounds;
    let cpu = |rounds: &[(Round, f64)]| median(rounds.iter().map(|(round, _)| round.cpu_us()));
    let kept = |rounds: &[(Round, f64)]| {
        let pairs = memory.iter().zip(rounds);
        median(pairs.map(|((memory, _), (round, _))| memory.cpu_us() / round.cpu_us()))
    };
    let shared = |rounds: &[(Round, f64)]| median(rounds.iter().map(|(_, shared)| *shared));
    let speed =
        |rounds: &[(Round, f64)]| median(rounds.iter().map(|(round, _)| round.per_second()));
    say(&format!(
        "| {name} | {:.1} | {:.1} | {:.1} | {:.2} | {:.2} | {:.1} | {:.1} | {:.0} | {:.0} |",
        cpu(memory),
        cpu(process),
        cpu(power),
        kept(process),
        kept(power),
        shared(process),
        shared(power),
        speed(process),
        speed(power),
    ))
}

/// A small journal and a large one: how they start, and what a look-up takes.
async fn sizes(wishes: &Wishes) -> Result<(), Fault> {
    say(
        "\n| keys in the journal | file MiB | start ms | memory MiB more | look-up of a cold answer µs \
         | claim of a new key µs |\n| --: | --: | --: | --: | --: | --: |",
    )?;
    for keys in [1000, wishes.keys] {
        let folder = tempfile::tempdir()?;
        fill(&open(folder.path()).await?, keys).await?;
        let size = folder_size(&folder.path().join("journal"))?;
        let (before, began) = (pss_kib()?, Instant::now());
        let store = open(folder.path()).await?;
        let started = began.elapsed();
        let cold = looked_up(&store, keys).await?;
        let memory = pss_kib()?.saturating_sub(before);
        let fresh = claimed(&store, keys).await?;
        say(&format!(
            "| {keys} | {:.1} | {:.0} | {:.1} | {cold:.1} | {fresh:.1} |",
            count(size) / 1_048_576.0,
            started.as_secs_f64() * 1e3,
            count(memory) / 1024.0,
        ))?;
    }
    Ok(())
}

async fn open(folder: &Path) -> Result<Store, Fault> {
    let journal = Journal::open(Options {
        folder: folder.join("journal"),
        durability: Durability::Process,
        bytes_max: 1 << 40,
        ledger_micros: micros(Duration::from_hours(90 * 24)),
        clock: Clock::System,
    })?;
    let (_, epoch) = journal.newest().await?;
    // Nothing in memory: each look-up asks the file.
    Ok(Store::Disk(Disk::new(journal, 0, epoch, Metrics::new())))
}

/// Claims and answers so many keys.
async fn fill(store: &Store, keys: u64) -> Result<(), Fault> {
    let names = Arc::new(Names::new(1, SystemTime::now()));
    let mut fillers = JoinSet::new();
    for lane in 0..LANES {
        let (store, names) = (store.clone(), names.clone());
        fillers.spawn(async move {
            for nth in (u64::from(lane)..keys).step_by(LANES as usize) {
                let Reserved::Claimed(mut claim) = store.reserve(&asked(&names, nth)).await? else {
                    return Err("it was taken".into());
                };
                claim.begin_sending();
                claim.settle(settlement()).await;
            }
            Ok::<(), Fault>(())
        });
    }
    while let Some(filled) = fillers.join_next().await {
        filled??;
    }
    Ok(())
}

/// Microseconds for an answer that is in the file alone.
async fn looked_up(store: &Store, keys: u64) -> Result<f64, Fault> {
    let names = Names::new(2, SystemTime::now());
    let began = Instant::now();
    for nth in 0..LOOKS {
        // Spread over the file, and never the same page twice in a row.
        let key = nth.wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys;
        let Reserved::Completed(done) = store.reserve(&asked(&names, key)).await? else {
            return Err("it was not answered".into());
        };
        done.record.ok_or("its answer is gone")?;
    }
    Ok(began.elapsed().as_secs_f64() * 1e6 / count(LOOKS))
}

/// Microseconds for a key that is not there.
async fn claimed(store: &Store, keys: u64) -> Result<f64, Fault> {
    let names = Names::new(3, SystemTime::now());
    let began = Instant::now();
    for nth in 0..LOOKS {
        let Reserved::Claimed(mut claim) = store.reserve(&asked(&names, keys + nth)).await? else {
            return Err("it was taken".into());
        };
        claim.begin_sending();
        drop(claim);
    }
    Ok(began.elapsed().as_secs_f64() * 1e6 / count(LOOKS))
}

fn asked(names: &Names, nth: u64) -> Asked {
    let digest = blake3::hash(&nth.to_be_bytes());
    Asked {
        tag: None,
        id: RecordId(*digest.as_bytes()),
        key: RequestKey::parse(digest.to_hex().as_bytes()).expect("hexadecimal digits are a key"),
        fingerprint: Some(Fingerprint(*digest.as_bytes())),
        exchange: names.next(),
        scope: None,
        about: About {
            route: "example-create".to_owned(),
            method: Method::POST,
            captured: Vec::new(),
            url: "https://api.example.com/v1/workspaces/w-123/jobs".to_owned(),
        },
    }
}

fn settlement() -> Settlement {
    let body = Bytes::from_static(&[b'x'; 300]);
    let record = Record::new(StatusCode::CREATED, &HeaderMap::new(), body);
    Settlement {
        end: End::Completed,
        stays: true,
        record: Some(record.clone()),
        captured: Vec::new(),
        told: Told::Answer(record),
        ttl: Duration::from_hours(24),
        keep_key: Duration::from_hours(90 * 24),
        attempts: Vec::new(),
    }
}

/// How many times a second four KiB reach the disk.
fn syncs(folder: &Path) -> Result<f64, Fault> {
    let mut file = File::create(folder.join("syncs"))?;
    let (began, mut done) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(1) {
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        done += 1;
    }
    Ok(count(done) / began.elapsed().as_secs_f64())
}

fn folder_size(folder: &Path) -> Result<u64, Fault> {
    let mut size = 0;
    for file in fs::read_dir(folder)? {
        size += file?.metadata()?.len();
    }
    Ok(size)
}

fn pss_kib() -> Result<u64, Fault> {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let value = line.and_then(|line| line.split_whitespace().next());
    Ok(value.ok_or("no Pss in smaps_rollup")?.parse()?)
}

const LANES: u32 = 64;
const LOOKS: u64 = 2000;

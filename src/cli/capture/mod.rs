//! `samekey capture`: the packet filter's rules that lead connections to a transparent listener.

mod iptables;
mod nft;
mod plan;

use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};

use clap::{Subcommand, ValueEnum};
use ipnet::IpNet;

use crate::cli::{Stop, load, print};
use iptables::{Step, When};
use plan::{Plan, Targets};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Print the rules: for `nft -f -`, or with `--backend iptables` for `sh`
    Print {
        #[command(flatten)]
        wanted: Wanted,
        /// Write them to this file instead
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Put the rules in place, or in the place of earlier ones
    Apply {
        #[command(flatten)]
        wanted: Wanted,
    },
    /// Take the rules away, where there are any
    Remove {
        /// What they were put in place with; `auto` is all that is here
        #[arg(long, value_enum, default_value_t = Backend::Auto)]
        backend: Backend,
    },
}

#[derive(Debug, clap::Args)]
struct Wanted {
    /// TCP ports that are redirected
    #[arg(long, value_delimiter = ',', default_values_t = [80, 443], value_name = "PORT,...",
          value_parser = clap::value_parser!(u16).range(1..))]
    ports: Vec<u16>,
    /// The user that samekey runs as, whose connections are left alone; by default the image's
    #[arg(long, default_value_t = IMAGE_UID)]
    uid: u32,
    /// Redirect what this user's programs connect to, and nothing else
    #[arg(long, value_name = "UID")]
    only_uid: Option<u32>,
    /// Networks that are left alone, beside loopback and the metadata addresses of clouds
    #[arg(long, value_delimiter = ',', value_name = "NET,...", value_parser = network)]
    except: Vec<IpNet>,
    /// What holds the rules; `auto` is nftables where `nft` is here
    #[arg(long, value_enum, default_value_t = Backend::Auto)]
    backend: Backend,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Backend {
    Auto,
    Iptables,
    Nft,
}

pub(super) fn capture(path: Option<&Path>, arguments: &Arguments) -> Result<ExitCode, Stop> {
    match &arguments.act {
        Act::Print { wanted, output } => {
            let plan = planned(path, wanted)?;
            // Where the tools are is not where this is printed.
            let rules = match wanted.backend {
                Backend::Auto | Backend::Nft => nft::apply(&plan),
                Backend::Iptables => iptables::script(&iptables::apply(&plan)),
            };
            match output {
                Some(file) => std::fs::write(file, rules).map_err(|error| {
                    Stop::Failed(format!("samekey: {}: {error}", file.display()))
                })?,
                None => print(&rules)?,
            }
        }
        Act::Apply { wanted } => {
            let plan = planned(path, wanted)?;
            permitted("apply")?;
            match backends(wanted.backend)?.first() {
                Some(Backend::Iptables) => take(&iptables::apply(&plan))?,
                _ => ran(&NFT, Some(&nft::apply(&plan)))?,
            }
        }
        Act::Remove { backend } => {
            permitted("remove")?;
            for backend in backends(*backend)? {
                match backend {
                    Backend::Iptables => take(&iptables::remove())?,
                    Backend::Nft | Backend::Auto => ran(&NFT, Some(&nft::remove()))?,
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn planned(path: Option<&Path>, wanted: &Wanted) -> Result<Plan, Stop> {
    let usage = |wish: String| Stop::Usage(format!("samekey capture: {wish}"));
    let Wanted { uid: own_uid, only_uid, ref except, .. } = *wanted;
    if only_uid == Some(own_uid) {
        let wish =
            format!("--only-uid {own_uid} is samekey's own user: nothing would be redirected");
        return Err(usage(wish));
    }
    let to = Targets::of(&load(path)?.listeners, resolved).map_err(usage)?;
    if let Some(gap) = to.gap() {
        // Beside the rules, which may be on their way into a pipe.
        drop(writeln!(io::stderr(), "samekey capture: {gap}"));
    }
    let mut ports = wanted.ports.clone();
    ports.sort_unstable();
    ports.dedup();
    Ok(Plan { ports, to, own_uid, only_uid, except: except.clone() })
}

fn resolved(written: &str) -> Option<SocketAddr> {
    written.to_socket_addrs().ok()?.next()
}

/// A network, or one address.
fn network(text: &str) -> Result<IpNet, String> {
    let one = text.parse::<IpAddr>().map(IpNet::from);
    let network = text.parse::<IpNet>().or(one);
    network
        .map(|network| network.trunc())
        .map_err(|_neither| "must be a network such as 10.0.0.0/8 or fd00::/8".to_owned())
}

/// The backends that are meant and here, the preferred one first.
fn backends(wanted: Backend) -> Result<Vec<Backend>, Stop> {
    let here = |backend: &Backend| {
        let command = if *backend == Backend::Iptables { "iptables" } else { "nft" };
        ran(&[command.to_owned(), "--version".to_owned()], None).is_ok()
    };
    let all = match wanted {
        Backend::Auto => vec![Backend::Nft, Backend::Iptables],
        one => vec![one],
    };
    let found: Vec<_> = all.into_iter().filter(here).collect();
    if found.is_empty() {
        let missing = match wanted {
            Backend::Auto => "neither `nft` nor `iptables` is",
            Backend::Nft => "`nft` is not",
            Backend::Iptables => "`iptables` is not",
        };
        let hint = "on Debian: apt-get install nftables; or pipe `samekey capture print` to an image that has it";
        return Err(Stop::Failed(format!("samekey capture: {missing} here ({hint})")));
    }
    Ok(found)
}

/// The kernel would say so too, less plainly, and after the first step.
fn permitted(act: &str) -> Result<(), Stop> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    if effective.is_some_and(|bits| bits & NET_ADMIN == 0) {
        let wish = format!("samekey capture: {act} needs root or CAP_NET_ADMIN");
        return Err(Stop::Failed(wish));
    }
    Ok(())
}

fn take(steps: &[Step]) -> Result<(), Stop> {
    for step in steps {
        let taken = match &step.when {
            When::Always => true,
            When::Succeeds(test) => ran(test, None).is_ok(),
            When::Fails(test) => ran(test, None).is_err(),
        };
        if taken {
            ran(&step.command, step.input.as_deref())?;
        }
    }
    Ok(())
}

/// Runs a command to its end; its words go into the error.
fn ran(command: &[impl AsRef<str>], input: Option<&str>) -> Result<(), Stop> {
    let words: Vec<&str> = command.iter().map(AsRef::as_ref).collect();
    let failed = |why: String| Stop::Failed(format!("samekey capture: {}: {why}", words.join(" ")));
    let Output { status, stderr, .. } =
        output(&words, input).map_err(|error| failed(error.to_string()))?;
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&stderr);
    Err(failed(format!("{status}: {}", said.trim())))
}

fn output(words: &[&str], input: Option<&str>) -> io::Result<Output> {
    let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(stdin)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        // One that ended early says why on its standard error.
        drop(stdin.write_all(input.as_bytes()));
    }
    child.wait_with_output()
}

/// Who samekey is in its own image.
const IMAGE_UID: u32 = 65532;

/// `CAP_NET_ADMIN` in the sets of capabilities(7).
const NET_ADMIN: u64 = 1 << 12;

const NFT: [&str; 3] = ["nft", "-f", "-"];

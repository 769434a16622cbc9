//! `samekey env`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use clap::ValueEnum;
use samekey::config::Config;
use samekey::intercept::{Environment as Variables, Format, Own};
use samekey::listen;

use crate::cli::{Stop, load, print};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// How the variables are written
    #[arg(long, value_enum, default_value_t = Written::Shell)]
    format: Written,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Written {
    Shell,
    Dotenv,
    K8s,
    Java,
}

pub(super) fn env(path: Option<&Path>, arguments: &Arguments) -> Result<ExitCode, Stop> {
    let config = load(path)?;
    let url = proxy_url(&config)?;
    let public = std::path::absolute(&config.state.public).unwrap_or(config.state.public);
    let own = own();
    let variables = Variables::new(&url, &public, borrowed(&own));
    let format = match arguments.format {
        Written::Shell => Format::Shell,
        Written::Dotenv => Format::Dotenv,
        Written::K8s => Format::Kubernetes,
        Written::Java => Format::Java,
    };
    print(&variables.written(format))?;
    Ok(ExitCode::SUCCESS)
}

/// What the reader's own programs must not send through a proxy, Java's options, PHP's folders.
#[expect(clippy::disallowed_methods, reason = "the reader's own setting, not samekey's config")]
pub(super) fn own() -> [Option<String>; 3] {
    let read = |name| std::env::var(name).ok();
    // Programs differ in which of the two they read.
    let no_proxy: Vec<String> = ["NO_PROXY", "no_proxy"].into_iter().filter_map(read).collect();
    let no_proxy = (!no_proxy.is_empty()).then(|| no_proxy.join(","));
    [no_proxy, read("JAVA_TOOL_OPTIONS"), read("PHP_INI_SCAN_DIR")]
}

pub(super) fn borrowed(own: &[Option<String>; 3]) -> Own<'_> {
    let [no_proxy, java, php] = own.each_ref().map(Option::as_deref);
    Own { no_proxy, java, php }
}

/// Where the running sidecar's first proxy listens, by the config; empty where programs
/// are redirected to it or know its base URL, and need but the CA.
fn proxy_url(config: &Config) -> Result<String, Stop> {
    let forward = |spec: &&listen::Spec| spec.mode == listen::Mode::Forward;
    let Some(spec) = config.listeners.iter().find(forward) else { return Ok(String::new()) };
    if spec.address.ends_with(":0") {
        let hint = "samekey: the listener takes a free port, which env.sh in state.public names";
        return Err(Stop::Failed(hint.to_owned()));
    }
    let address = match spec.address.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_unspecified() => format!("127.0.0.1:{}", address.port()),
        Ok(_) | Err(_) => spec.address.clone(),
    };
    Ok(format!("http://{address}"))
}

//! `samekey ca`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use samekey::intercept::{Authority, Roots, bundle, truststore};

use crate::cli::{Stop, failed, load, print_bytes};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What to print
    #[arg(value_enum)]
    what: What,
    /// Write it to this file instead
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// The CA certificate, PEM
    Cert,
    /// The system's roots and the CA certificate, one PEM
    Bundle,
    /// The same as a Java PKCS12 truststore; its password is `changeit`
    Truststore,
}

pub(super) fn ca(path: Option<&Path>, arguments: &Arguments) -> Result<ExitCode, Stop> {
    let config = load(path)?;
    let authority = match &config.intercept.ca {
        Some(files) => Authority::load(&files.cert, &files.key, 1),
        None => Authority::load_or_make(&config.state.dir.join("ca"), 1),
    };
    let authority = authority.map_err(failed)?;
    let written = match arguments.what {
        What::Cert => authority.cert_pem().as_bytes().to_vec(),
        What::Bundle => bundle(&authority, &Roots::system()),
        What::Truststore => truststore(&authority, &Roots::system()),
    };
    match &arguments.output {
        Some(file) => std::fs::write(file, written)
            .map_err(|error| Stop::Failed(format!("samekey: {}: {error}", file.display())))?,
        None => print_bytes(&written)?,
    }
    Ok(ExitCode::SUCCESS)
}

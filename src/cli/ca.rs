//! `samekey ca`.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use samekey::intercept::{Authority, CaFault, Roots, bundle, truststore};

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
    let written = match authority {
        Ok(authority) => made(arguments.what, &authority),
        Err(fault) => published(arguments.what, &config.state.public, fault)?,
    };
    match &arguments.output {
        Some(file) => std::fs::write(file, written)
            .map_err(|error| Stop::Failed(format!("samekey: {}: {error}", file.display())))?,
        None => print_bytes(&written)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn made(what: What, authority: &Authority) -> Vec<u8> {
    match what {
        What::Cert => authority.cert_pem().as_bytes().to_vec(),
        What::Bundle => bundle(authority, &Roots::system()),
        What::Truststore => truststore(authority, &Roots::system()),
    }
}

/// What a sidecar has published: whoever uses it may read that, and not the CA's key.
fn published(what: What, public: &Path, fault: CaFault) -> Result<Vec<u8>, Stop> {
    let closed = [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem];
    let file = match what {
        What::Cert => "ca.pem",
        What::Bundle => "bundle.pem",
        What::Truststore => "truststore.p12",
    };
    match &fault {
        CaFault::File(_, error) if closed.contains(&error.kind()) => {
            std::fs::read(public.join(file)).map_err(|_nothing_there| failed(fault))
        }
        _ => Err(failed(fault)),
    }
}

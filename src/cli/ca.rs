//! `samekey ca`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use samekey::intercept::{Authority, Roots, publish};

use crate::cli::{Stop, failed, load, print};

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
    /// A Java PKCS12 truststore
    Truststore,
}

pub(super) fn ca(path: Option<&Path>, arguments: &Arguments) -> Result<ExitCode, Stop> {
    let config = load(path)?;
    let authority = match &config.intercept.ca {
        Some(files) => Authority::load(&files.cert, &files.key, 1),
        None => Authority::load_or_make(&config.state.dir.join("ca"), 1),
    };
    let authority = authority.map_err(failed)?;
    let text = match arguments.what {
        What::Cert => authority.cert_pem().to_owned(),
        What::Bundle => bundle(&authority)?,
        What::Truststore => {
            return Err(Stop::Failed(
                "samekey: the PKCS12 truststore comes with a later version; until then: samekey \
                 ca cert -o ca.pem && keytool -importcert -noprompt -alias samekey -file ca.pem \
                 -keystore truststore.p12 -storetype PKCS12 -storepass changeit"
                    .to_owned(),
            ));
        }
    };
    match &arguments.output {
        Some(file) => std::fs::write(file, text)
            .map_err(|error| Stop::Failed(format!("samekey: {}: {error}", file.display())))?,
        None => print(&text)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What the sidecar itself publishes, made in a folder that goes again.
fn bundle(authority: &Authority) -> Result<String, Stop> {
    let folder = tempfile::tempdir().map_err(failed)?;
    publish(folder.path(), authority, &Roots::system(), "http://127.0.0.1:8080").map_err(failed)?;
    std::fs::read_to_string(folder.path().join("bundle.pem")).map_err(failed)
}

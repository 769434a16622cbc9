//! `samekey inject`: manifests in, the same with a sidecar out, and no cluster asked.
//!
//! Documents that need nothing are passed on byte for byte; so is what was injected before, so
//! that a second run changes nothing. A document that is changed is written anew, without its
//! comments but those above its first line.

mod java;
mod node;
mod place;
mod pod;
mod read;
mod sidecar;
mod stream;
mod variables;
mod write;

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::cli::inject::pod::{Told, has_pod, into_object};
use crate::cli::inject::sidecar::{Names, Place, Sidecar};
use crate::cli::inject::stream::{Document, directives, documents};
use crate::cli::{Stop, print};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Manifests to add the sidecar to; `-` is standard input
    #[arg(short = 'f', long = "file", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The image of samekey
    #[arg(long)]
    image: Option<String>,
    /// The config map that holds `samekey.yaml`
    #[arg(long, value_name = "NAME")]
    config_map: Option<String>,
    /// The Secret whose `secret` derives keys
    #[arg(long, value_name = "NAME")]
    secret: Option<String>,
    /// A plain container, for clusters before 1.29
    #[arg(long)]
    classic: bool,
}

pub(super) fn inject(arguments: &Arguments) -> Result<ExitCode, Stop> {
    let sidecar = sidecar(arguments)?;
    let (mut out, mut told) = (String::new(), Told::default());
    for path in &arguments.files {
        let text = text_of(path)?;
        let written = into_stream(&text, &shown(path), &sidecar, &mut told);
        append(&mut out, &written);
    }
    for warning in &told.warnings {
        // Nobody is left to tell when this fails.
        drop(writeln!(io::stderr(), "samekey: warning: {warning}"));
    }
    if !told.faults.is_empty() {
        return Err(Stop::Usage(told.faults.join("\n")));
    }
    print(&out)?;
    Ok(ExitCode::SUCCESS)
}

fn sidecar(arguments: &Arguments) -> Result<Sidecar<'_>, Stop> {
    let names = Names {
        image: arguments.image.as_deref(),
        config_map: arguments.config_map.as_deref(),
        secret: arguments.secret.as_deref(),
    };
    let given =
        [("--image", names.image), ("--config-map", names.config_map), ("--secret", names.secret)];
    if let Some((flag, _)) = given.iter().find(|(_, name)| *name == Some("")) {
        return Err(Stop::Usage(format!("samekey inject: {flag} is empty")));
    }
    let place = if arguments.classic { Place::Classic } else { Place::Native };
    Sidecar::new(place, names)
        .ok_or_else(|| Stop::Failed("samekey: the built-in manifests cannot be read".to_owned()))
}

fn text_of(path: &Path) -> Result<String, Stop> {
    let fault = |error: io::Error| Stop::Usage(format!("{}: {error}", shown(path)));
    let file: Box<dyn io::Read> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(path).map_err(fault)?)
    };
    let mut text = String::new();
    let length = file.take(SIZE_MAX + 1).read_to_string(&mut text).map_err(fault)?;
    if u64::try_from(length).is_ok_and(|length| length > SIZE_MAX) {
        return Err(fault(io::Error::other(format!("is larger than {} MiB", SIZE_MAX >> 20))));
    }
    Ok(text)
}

/// A stream with the sidecar in each of its workloads.
fn into_stream(text: &str, name: &str, sidecar: &Sidecar<'_>, told: &mut Told) -> String {
    let one = |(n, document): (usize, Document<'_>)| {
        let mut own = Told::default();
        let written = into_document(document, sidecar, &mut own);
        let at = |what| format!("{name}: document {}: {what}", n + 1);
        told.faults.extend(own.faults.into_iter().map(at));
        told.warnings.extend(own.warnings.into_iter().map(at));
        written.unwrap_or_else(|| document.text.to_owned())
    };
    documents(text).into_iter().enumerate().map(one).collect()
}

/// The document written anew; `None`: it stays as it is.
fn into_document(document: Document<'_>, sidecar: &Sidecar<'_>, told: &mut Told) -> Option<String> {
    let line =
        |fault: &read::Fault| format!("line {}", document.line + fault.line.saturating_sub(1));
    let read = match read::read(document.text) {
        Ok(read) => read,
        Err(fault) => {
            told.fault(&line(&fault), &fault.what);
            return None;
        }
    };
    let before = read.node.filter(has_pod)?;
    let mut object = before.clone();
    into_object(&mut object, "", sidecar, told);
    if object == before {
        return None;
    }
    if let Some(fault) = read.lossy {
        told.fault(&line(&fault), &fault.what);
        return None;
    }
    Some(format!("{}{}{}", document.head(), write::written(&object), document.tail()))
}

/// Files one after the other are documents one after the other.
fn append(out: &mut String, more: &str) {
    if !out.is_empty() {
        if !out.ends_with('\n') {
            out.push('\n');
        }
        // Directives are none unless what is above them has ended.
        if directives(more).is_some() {
            out.push_str("...\n");
        } else if !more.starts_with("---") {
            out.push_str("---\n");
        }
    }
    out.push_str(more);
}

fn shown(path: &Path) -> String {
    if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() }
}

/// Far above what one `kubectl apply` carries.
const SIZE_MAX: u64 = 64 << 20;

#[cfg(test)]
mod tests;

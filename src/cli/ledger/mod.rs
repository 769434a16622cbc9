//! `samekey ledger`: what was tried, and what came of it.
//!
//! The journal's file is read beside whoever writes it. It is written by one process
//! alone: by the sidecar that runs, or by this one while none does.

mod settle;
mod source;
mod table;

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;
use samekey::admin::wanted::{LIMIT_MAX, LIMIT_USUAL, state_words};
use samekey::exchange::id::ExchangeId;
use samekey::journal::State;
use samekey::journal::ledger::Filter;
use source::Source;

use crate::cli::{Stop, load, print};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print exchanges, newest first
    List(List),
    /// Print all that is known of one
    Show {
        /// Its name, as answers, the log and `list` have it
        id: ExchangeId,
        /// As the admin API has it
        #[arg(long)]
        json: bool,
    },
    /// Settle one whose outcome is unknown
    Resolve {
        /// Its name
        id: ExchangeId,
        /// What came of it, by the provider's word
        #[arg(value_enum)]
        outcome: Outcome,
    },
}

#[derive(Debug, clap::Args)]
struct List {
    /// Of this route alone
    #[arg(long)]
    route: Option<String>,
    /// With this key alone, as it went upstream
    #[arg(long)]
    key: Option<String>,
    /// In this state alone: `in_flight`, `completed`, `unknown`, `released`, `failed`
    #[arg(long, value_parser = state)]
    state: Option<State>,
    /// With this id alone, that was captured from the request or the answer
    #[arg(long, value_name = "NAME=VALUE", value_parser = captured)]
    captured: Option<(String, String)>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = LIMIT_USUAL,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(LIMIT_MAX)))]
    limit: u32,
    /// Older than this one: what `next` of the page before says
    #[arg(long, value_name = "ID")]
    cursor: Option<ExchangeId>,
    /// As the admin API has it
    #[arg(long)]
    json: bool,
}

/// What an operator found out.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Outcome {
    /// It had its effect: a repeat is told so, and nothing is sent
    Landed,
    /// It had none: the key is free again
    Absent,
}

pub(super) fn ledger(path: Option<&Path>, arguments: &Arguments) -> Result<ExitCode, Stop> {
    let config = load(path)?;
    match &arguments.command {
        Command::List(wanted) => list(&Source::of(&config), wanted),
        Command::Show { id, json } => show(&Source::of(&config), *id, *json),
        Command::Resolve { id, outcome } => {
            let exchange = settle::resolve(&config, *id, *outcome)?;
            print(&table::told(&exchange))
        }
    }?;
    Ok(ExitCode::SUCCESS)
}

fn list(source: &Source, wanted: &List) -> Result<(), Stop> {
    let page = source.list(&Filter {
        route: wanted.route.clone(),
        key: wanted.key.clone(),
        state: wanted.state,
        captured: wanted.captured.clone(),
        before: wanted.cursor.map(|cursor| cursor.parts().0),
        limit: wanted.limit,
    })?;
    if wanted.json {
        return print(&table::json(&page)?);
    }
    print(&table::rows(&page.exchanges))?;
    match page.next {
        // Not among the rows, which another program may read.
        Some(next) => table::hint(&format!("there are more: --cursor {next}")),
        None => Ok(()),
    }
}

fn show(source: &Source, id: ExchangeId, json: bool) -> Result<(), Stop> {
    let exchange = source.show(id)?;
    print(&if json { table::json(&exchange)? } else { table::told(&exchange) })
}

fn captured(pair: &str) -> Result<(String, String), String> {
    let pair = pair.split_once('=').filter(|(name, _)| !name.is_empty());
    let wanted = || "it has to be NAME=VALUE".to_owned();
    pair.map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or_else(wanted)
}

fn state(word: &str) -> Result<State, String> {
    State::parse(word).ok_or_else(|| format!("it has to be {}", state_words()))
}

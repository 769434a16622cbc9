//! Kills by the dozen against the journal on disk: never twice, never lost.

use std::io::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::task::JoinSet;

use crate::game::{Setting, play};
use crate::tally::Tally;
use crate::upstream::Keys;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whenever_it_is_killed_nothing_is_done_twice_and_no_answer_is_lost() {
    let kills = number("CRASH_KILLS").unwrap_or(KILLS);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
    let seed = number("CRASH_SEED").unwrap_or(now);
    let mut lanes = JoinSet::new();
    for keys in [Keys::Ignored, Keys::Honoured] {
        for lane in 0..LANES {
            let seed = seed.wrapping_add(lane as u64);
            let kills = kills.div_ceil(2 * LANES as u64);
            let lane = (lane, LANES);
            lanes.spawn(play(Setting { keys, journal: "disk", seed, kills, faults: 25, lane }));
        }
    }
    let tally = lanes.join_all().await.into_iter().fold(Tally::default(), Tally::and);
    // Past the harness's capture: it is what the long form is run for.
    writeln!(io::stdout(), "crash: seed {seed}\n{tally}").expect("it can be written");
    assert!(tally.violations.is_empty(), "CRASH_SEED={seed}\n{}", tally.violations.join("\n"));
    let met = |place: &str| tally.kills.contains_key(place);
    let places = samekey::failpoint::Failpoint::ALL.map(samekey::failpoint::Failpoint::as_str);
    let unmet: Vec<_> = places.into_iter().filter(|place| !met(place)).collect();
    assert!(unmet.is_empty(), "never killed at {unmet:?}");
    assert!(tally.survived() >= kills && tally.replays > 0 && tally.unknowns > 0, "{tally}");
}

/// A number that the environment gives.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_none| panic!("{name}={text} is no number")))
}

/// The short form; half a minute on two cores that have nothing else to do.
const KILLS: u64 = 200;
/// Sidecars at a time for each kind of upstream.
const LANES: usize = 2;

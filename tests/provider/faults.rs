//! Faults by lot, for what no script foresaw; the same seed draws the same lots.

use std::str::FromStr;

use super::script::{Script, Step};

/// How often a request that no script speaks for fails, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    seed: u64,
    percent: u64,
    /// A GET meets none of them.
    spares_reads: bool,
}

impl Faults {
    /// Faults of creating calls alone.
    #[cfg(test)]
    pub(crate) fn sparing_reads(self) -> Self {
        Self { spares_reads: true, ..self }
    }

    /// Whether requests with this method meet them.
    pub(crate) fn meet(self, method: &str) -> bool {
        method != "GET" || !self.spares_reads
    }

    /// The lot of one request: drawn for its scenario and its place there, so that
    /// what goes on beside it changes nothing.
    pub(crate) fn draw(self, scenario: &str, nth: usize) -> Option<Step> {
        let text = format!("{}/{scenario}/{nth}", self.seed);
        let digest = blake3::hash(text.as_bytes());
        let lot = u64::from_le_bytes(*digest.as_bytes().first_chunk()?);
        if lot % 100 >= self.percent {
            return None;
        }
        let nth = usize::try_from(lot / 100).unwrap_or_default() % MIX.len();
        let mut script = MIX.get(nth).and_then(|step| Script::parse(step).ok())?;
        script.next()
    }
}

impl FromStr for Faults {
    type Err = String;

    /// Reads `SEED:PERCENT`.
    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (seed, percent) = text.split_once(':')?;
            let (seed, percent) = (seed.parse().ok()?, percent.parse().ok()?);
            Some(Self { seed, percent, spares_reads: false })
        };
        read().filter(|faults| faults.percent <= 100).ok_or_else(|| "want SEED:PERCENT".to_owned())
    }
}

/// What an upstream does to its clients. None is a lie: where it says 429, it did nothing.
const MIX: [&str; 20] = [
    "429",
    "429 retry_after_ms=40",
    "503",
    "503 effect",
    "500 effect",
    "reset_before",
    "eof_before",
    "reset_after",
    "eof_after",
    "hang_after",
    "garbage",
    "truncate",
    "truncate_reset",
    "bad_chunk",
    "drip 1",
    "slow 20",
    "slow 60",
    "ok then_reset",
    "ok pad=300000",
    "slow 5 pad=300000",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_lots_and_as_many_as_it_says() {
        let faults: Faults = "7:30".parse().expect("it is right");
        let drawn = |nth| faults.draw("a", nth).map(|step| step.text);
        let lots: Vec<_> = (0..1000).map(drawn).collect();
        assert_eq!(lots, (0..1000).map(drawn).collect::<Vec<_>>());
        let failing = lots.iter().flatten().count();
        assert!((250..350).contains(&failing), "{failing} of 1000");
        let sparing = faults.sparing_reads();
        assert!(faults.meet("GET") && sparing.meet("POST") && !sparing.meet("GET"));
        for text in ["", "7", "7:101", "x:1", "7:-1"] {
            assert!(text.parse::<Faults>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_fault_can_be_played() {
        for text in MIX {
            Script::parse(text).expect("it is a step");
        }
    }
}

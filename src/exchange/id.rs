//! Names for exchanges: short, unique in a process's life and beyond, sorted by time.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The name of one exchange, as the ledger and the log show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExchangeId(u64, u32);

/// Makes names.
#[derive(Debug)]
pub struct Names {
    instance: u32,
    next: AtomicU64,
}

impl Names {
    /// `instance` tells processes apart; names start at `now`, in microseconds.
    pub fn new(instance: u32, now: SystemTime) -> Self {
        let micros = now.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_micros());
        Self { instance, next: AtomicU64::new(u64::try_from(micros).unwrap_or(u64::MAX / 2)) }
    }

    /// Starts after `newest`, which was given before, whatever the clock says now.
    #[must_use]
    pub fn after(self, newest: u64) -> Self {
        self.next.fetch_max(newest.saturating_add(1), Ordering::Relaxed);
        self
    }

    /// A name that this process has not given before.
    pub fn next(&self) -> ExchangeId {
        ExchangeId(self.next.fetch_add(1, Ordering::Relaxed), self.instance)
    }
}

impl ExchangeId {
    /// The name that has these parts.
    pub fn from_parts(seq: u64, instance: u32) -> Self {
        Self(seq, instance)
    }

    /// What orders names by time, and what tells processes apart.
    pub fn parts(self) -> (u64, u32) {
        (self.0, self.1)
    }
}

impl fmt::Display for ExchangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0SEQ_DIGITS$x}{:0INSTANCE_DIGITS$x}", self.0, self.1)
    }
}

/// A text that is no name of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an exchange id is 21 hex digits in lower case")]
pub struct NoExchangeId;

impl FromStr for ExchangeId {
    type Err = NoExchangeId;

    /// Reads what is displayed, and nothing else.
    fn from_str(text: &str) -> Result<Self, NoExchangeId> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        // Signs and upper case are digits to the standard library.
        if text.len() != SEQ_DIGITS + INSTANCE_DIGITS || !text.bytes().all(is_digit) {
            return Err(NoExchangeId);
        }
        let (seq, instance) = text.split_at_checked(SEQ_DIGITS).ok_or(NoExchangeId)?;
        match (u64::from_str_radix(seq, 16), u32::from_str_radix(instance, 16)) {
            (Ok(seq), Ok(instance)) => Ok(Self(seq, instance)),
            _ => Err(NoExchangeId),
        }
    }
}

/// Microseconds since 1970 take no more until the year 2112.
const SEQ_DIGITS: usize = 13;
const INSTANCE_DIGITS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_shown_and_in_no_other_way() {
        for parts in [(0, 0), (1_764_078_061_123_456, 4_242), ((1 << 52) - 1, u32::MAX)] {
            let id = ExchangeId::from_parts(parts.0, parts.1);
            assert_eq!((id.to_string().parse(), id.parts()), (Ok(id), parts));
        }
        let good = "0064465d1a2c000001092";
        assert_eq!(good.parse::<ExchangeId>().expect("a name").to_string(), good);
        for text in [
            "",
            "1",
            "0064465D1A2C000001092",
            "+064465d1a2c000001092",
            "0064465d1a2c0+0001092",
            " 064465d1a2c000001092",
            "0064465d1a2c00000109",
            "0064465d1a2c0000010920",
            "0064465d1a2c0-00001092",
            "0064465d1a2c00000109g",
            "0x64465d1a2c000001092",
            "0064465d1a2céé0001092",
        ] {
            assert_eq!(text.parse::<ExchangeId>(), Err(NoExchangeId), "{text}");
        }
    }
}

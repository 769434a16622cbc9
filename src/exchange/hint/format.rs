//! The forms in which peers write times, each read strictly and without overflow.

use std::time::{Duration, SystemTime};

/// Seconds: a non-negative decimal of at most ten digits before its point.
pub(super) fn seconds(text: &str) -> Option<Duration> {
    number(text, DIGITS_MAX)
}

/// Milliseconds, written likewise.
pub(super) fn milliseconds(text: &str) -> Option<Duration> {
    seconds(text).map(|told| told / 1000)
}

/// A plain decimal with at most `digits` before its point, as seconds: no sign,
/// no exponent, no `inf`. What is finer than a nanosecond is dropped.
pub(super) fn number(text: &str, digits: usize) -> Option<Duration> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let whole = (whole.len() <= digits).then(|| plain(whole))??;
    Some(Duration::new(whole, nanos(part)?))
}

/// `6m0s`, `1.5s`, `120ms`: as Go prints a duration.
pub(super) fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let (figure, tail) = split(rest, |c| !c.is_ascii_digit() && c != '.');
        let (unit, tail) = split(tail, |c| c.is_ascii_digit());
        let figure = seconds(figure)?;
        let part = match unit {
            "h" => figure.checked_mul(3600)?,
            "m" => figure.checked_mul(60)?,
            "s" => figure,
            "ms" => figure / 1000,
            "us" => figure / 1_000_000,
            "ns" => figure / 1_000_000_000,
            _ => return None,
        };
        sum = sum.checked_add(part)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(sum)
}

/// `10S`, `500m`: up to eight digits and a unit, as gRPC writes a timeout.
pub(super) fn grpc_timeout(text: &str) -> Option<Duration> {
    let (figure, unit) = split(text, |c| !c.is_ascii_digit());
    if figure.is_empty() || figure.len() > 8 {
        return None;
    }
    let figure: u64 = figure.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(figure * 3600),
        "M" => Duration::from_secs(figure * 60),
        "S" => Duration::from_secs(figure),
        "m" => Duration::from_millis(figure),
        "u" => Duration::from_micros(figure),
        "n" => Duration::from_nanos(figure),
        _ => return None,
    })
}

/// `2026-01-31T23:59:59.5Z`, or with an offset such as `+02:00`.
pub(super) fn rfc3339(text: &str) -> Option<SystemTime> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let (clock, zone) = split(time, |c| matches!(c, 'Z' | 'z' | '+' | '-'));
    let day = days(fields(date, '-', [4, 2, 2])?)?;
    let (whole, part) = clock.split_once('.').unwrap_or((clock, "0"));
    let seconds = day * DAY + seconds_of_day(fields(whole, ':', [2, 2, 2])?)?;
    let east = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => 0,
        ("+", offset) => offset_seconds(offset)?,
        ("-", offset) => -offset_seconds(offset)?,
        _ => return None,
    };
    let at = Duration::new(seconds.checked_add_signed(-east)?, nanos(part)?);
    SystemTime::UNIX_EPOCH.checked_add(at)
}

/// `20260131T235959Z`.
pub(super) fn basic_date(text: &str) -> Option<SystemTime> {
    let part = |from: usize, to: usize| text.get(from..to).and_then(plain);
    if text.len() != 16 || text.get(8..9) != Some("T") || text.get(15..) != Some("Z") {
        return None;
    }
    let day = days([part(0, 4)?, part(4, 6)?, part(6, 8)?])?;
    let second = seconds_of_day([part(9, 11)?, part(11, 13)?, part(13, 15)?])?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(day * DAY + second))
}

/// The longest `t` of the items of a `RateLimit` list whose `r` is 0: zero where
/// there is none, `None` where it is no such list.
pub(super) fn used_up(text: &str) -> Option<Duration> {
    let mut most = Duration::ZERO;
    let mut rest = text;
    loop {
        let (_policy, mut tail) = bare_item(rest)?;
        let (mut used, mut ends_in) = (false, Duration::ZERO);
        while let Some(parameter) = tail.strip_prefix(';') {
            let (name, after) =
                split(parameter.trim_start(), |c| matches!(c, '=' | ';' | ',' | ' '));
            let (value, after) = match after.strip_prefix('=') {
                Some(after) => bare_item(after)?,
                None => ("", after),
            };
            match name {
                "" => return None,
                "r" => used = seconds(value)?.is_zero(),
                "t" => ends_in = seconds(value)?,
                _ => (),
            }
            tail = after;
        }
        if used {
            most = most.max(ends_in);
        }
        match tail.trim_start() {
            "" => return Some(most),
            more => rest = more.strip_prefix(',')?.trim_start(),
        }
    }
}

/// A structured field's bare item, quotes included, and what follows it.
fn bare_item(text: &str) -> Option<(&str, &str)> {
    let (item, rest) = if text.starts_with('"') {
        let mut escaped = false;
        let end = text.bytes().skip(1).position(|byte| {
            let closes = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            closes
        })?;
        text.split_at_checked(end + 2)?
    } else {
        split(text, |c| matches!(c, ';' | ',' | ' ' | '\t'))
    };
    (!item.is_empty()).then_some((item, rest))
}

fn split(text: &str, at: impl Fn(char) -> bool) -> (&str, &str) {
    text.find(at).and_then(|end| text.split_at_checked(end)).unwrap_or((text, ""))
}

/// Three numbers of so many digits each, set apart by `mark`.
fn fields(text: &str, mark: char, widths: [usize; 3]) -> Option<[u64; 3]> {
    let mut parts = text
        .split(mark)
        .zip(widths)
        .map(|(part, width)| if part.len() == width { plain(part) } else { None });
    let read = [parts.next()??, parts.next()??, parts.next()??];
    (text.len() == widths.iter().sum::<usize>() + 2).then_some(read)
}

/// Digits and nothing else.
fn plain(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// The digits after a point, as nanoseconds.
fn nanos(digits: &str) -> Option<u32> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nine = digits.bytes().chain(std::iter::repeat(b'0')).take(9);
    Some(nine.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0')))
}

fn offset_seconds(text: &str) -> Option<i64> {
    let (hours, minutes) = text.split_once(':')?;
    let read = |part: &str, below: u64| {
        plain(part).filter(|number| part.len() == 2 && *number < below)?.try_into().ok()
    };
    let (hours, minutes): (i64, i64) = (read(hours, 24)?, read(minutes, 60)?);
    Some((hours * 60 + minutes) * 60)
}

/// Seconds since midnight; a leap second counts as the next minute's first.
fn seconds_of_day([hour, minute, second]: [u64; 3]) -> Option<u64> {
    (hour < 24 && minute < 60 && second <= 60).then_some((hour * 60 + minute) * 60 + second)
}

/// Days since 1970-01-01 in the Gregorian calendar, from 1970 on.
fn days([year, month, day]: [u64; 3]) -> Option<u64> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years that begin in March end with the leap day: their months before any
    // given one have (153 m + 2) / 5 days together.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let before = year * 365 + year / 4 - year / 100 + year / 400;
    (before + (153 * month + 2) / 5 + day - 1).checked_sub(DAYS_TO_1970)
}

/// Ten digits of seconds are three centuries; more is no time at all.
const DIGITS_MAX: usize = 10;

const DAY: u64 = 24 * 3600;

/// Days from 0000-03-01 to 1970-01-01.
const DAYS_TO_1970: u64 = 719_468;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn epoch(at: Option<SystemTime>) -> Option<Duration> {
        at.map(|at| at.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970"))
    }

    #[test]
    fn dates_are_read_and_nonsense_is_not() {
        for (text, wanted) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:00:00Z", Some(951_825_600_000)),
            ("2026-01-31T23:59:59.25Z", Some(1_769_903_999_250)),
            ("2026-02-01T01:59:59+02:00", Some(1_769_903_999_000)),
            ("2026-01-31t18:29:59-05:30", Some(1_769_903_999_000)),
            ("9999-12-31T23:59:60Z", Some(253_402_300_800_000)),
            ("1970-01-01T00:00:00+01:00", None),
            ("1969-12-31T23:59:59Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-1-01T00:00:00Z", None),
            ("2026-01-01T24:00:00Z", None),
            ("2026-01-01T00:00:00", None),
            ("2026-01-01T00:00:00.Z", None),
            ("2026-01-01T00:00:00.1.2Z", None),
            ("2026-01-01T00:00:00+2:00", None),
            ("2026-01-01T00:00:00:00Z", None),
            ("2026-01-01", None),
            ("+026-01-01T00:00:00Z", None),
        ] {
            assert_eq!(epoch(rfc3339(text)), wanted.map(Duration::from_millis), "{text}");
        }
        assert_eq!(epoch(basic_date("20260131T235959Z")), Some(Duration::from_secs(1_769_903_999)));
        for bad in ["20260131T235959", "2026013123595911Z", "20260131T23595éZ", ""] {
            assert_eq!(basic_date(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn dates_agree_with_httpdate(seconds in 0_u64..253_402_300_800) {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            let text = httpdate::fmt_http_date(at);
            let words: Vec<_> = text.split(' ').collect();
            let month = "JanFebMarAprMayJunJulAugSepOctNovDec".find(words[2]).expect("a month");
            let (day, year, clock) = (words[1], words[3], words[4]);
            let iso = format!("{year}-{:02}-{day}T{clock}Z", month / 3 + 1);
            prop_assert_eq!(rfc3339(&iso), Some(at), "{}", iso);
        }

        #[test]
        fn plain_seconds_are_read_exactly(whole in 0_u64..10_000_000_000, nanos in 0_u32..1_000_000_000) {
            let wanted = Duration::new(whole, nanos);
            prop_assert_eq!(seconds(&format!("{whole}.{nanos:09}")), Some(wanted));
            prop_assert_eq!(milliseconds(&format!("{whole}.{nanos:09}")), Some(wanted / 1000));
        }
    }
}

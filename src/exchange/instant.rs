//! A point in time, as RFC 3339 writes it.

/// UTC, with milliseconds; what is finer is cut off.
pub fn rfc3339(micros: i64) -> String {
    let (days, of_day) = (micros.div_euclid(DAY), micros.rem_euclid(DAY) / 1000);
    let (year, month, day) = civil(days);
    let (seconds, millis) = (of_day / 1000, of_day % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// The day alone, in UTC.
pub fn date(micros: i64) -> String {
    let (year, month, day) = civil(micros.div_euclid(DAY));
    format!("{year:04}-{month:02}-{day:02}")
}

/// Year, month and day of a day that is counted from 1970-01-01.
///
/// Years are counted from March on, so that a leap day is the last of its year: Howard
/// Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn civil(days: i64) -> (i64, i64, i64) {
    let since = days + 719_468; // 0000-03-01
    let (era, of_era) = (since.div_euclid(ERA), since.rem_euclid(ERA));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// In microseconds.
const DAY: i64 = 86_400_000_000;
/// Days in four hundred years, after which the calendar repeats.
const ERA: i64 = 146_097;

#[cfg(test)]
mod tests {
    use super::*;

    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

    #[test]
    fn a_day_is_written_without_its_time() {
        assert_eq!(date(951_782_399_999_000), "2000-02-28");
        assert_eq!(date(951_782_400_000_000), "2000-02-29");
    }

    #[test]
    fn a_time_is_written_as_the_calendar_has_it() {
        for (micros, wanted) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (999_999, "1970-01-01T00:00:00.999Z"),
            (951_782_399_999_000, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000_000, "2000-03-01T00:00:00.000Z"),
            (1_709_164_800_000_000, "2024-02-29T00:00:00.000Z"),
            (1_735_689_599_123_456, "2024-12-31T23:59:59.123Z"),
            (1_735_689_600_000_000, "2025-01-01T00:00:00.000Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799_999_999, "9999-12-31T23:59:59.999Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(micros), wanted, "{micros}");
        }
    }

    #[test]
    fn it_is_the_time_that_an_http_date_says() {
        for seconds in (0_u32..).step_by(7_654_321).take(500) {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds.into());
            let date = httpdate::fmt_http_date(time);
            let words: Vec<&str> = date.split(' ').collect();
            let month = MONTHS.iter().position(|month| *month == words[2]).expect("a month") + 1;
            let wanted = format!("{}-{month:02}-{}T{}.000Z", words[3], words[1], words[4]);
            assert_eq!(rfc3339(i64::from(seconds) * 1_000_000), wanted);
        }
    }
}

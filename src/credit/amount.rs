//! A decimal number, exact: money is compared digit by digit and never rounded.

use std::cmp::Ordering;
use std::fmt;

/// A decimal number, as somebody wrote it; two are equal where their values are.
#[derive(Clone, Debug)]
pub struct Amount {
    /// As written.
    text: String,
    sign: Sign,
    /// Without zeros at either end; the value is `0.digits` times ten to the `point`.
    digits: String,
    point: i32,
}

/// On which side of zero a number stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sign {
    Below,
    Zero,
    Above,
}

impl Amount {
    /// Reads a number as JSON writes it, leading zeros allowed.
    ///
    /// None where it is no number, is longer than 64 signs, or has an exponent
    /// beyond a thousand: no sum of money does.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > TEXT_MAX {
            return None;
        }
        let bare = text.strip_prefix('-').unwrap_or(text);
        let (mantissa, exponent) = match bare.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, read_exponent(exponent)?),
            None => (bare, 0),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((_, "")) => return None,
            Some(parts) => parts,
            None => (mantissa, ""),
        };
        let written = format!("{whole}{fraction}");
        if whole.is_empty() || !written.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let zeros = written.len() - written.trim_start_matches('0').len();
        let digits = written.trim_matches('0').to_owned();
        let sign = match (digits.is_empty(), text.starts_with('-')) {
            (true, _) => Sign::Zero,
            (false, true) => Sign::Below,
            (false, false) => Sign::Above,
        };
        let point = i32::try_from(whole.len()).ok()? - i32::try_from(zeros).ok()? + exponent;
        Some(Self { text: text.to_owned(), sign, digits, point })
    }

    /// Whether it is below zero.
    pub fn is_negative(&self) -> bool {
        self.sign == Sign::Below
    }

    /// The nearest float: good enough to be drawn in a graph, and for nothing else.
    pub fn nearest(&self) -> f64 {
        // What is read above is read there too; beyond its range it is infinite.
        self.text.parse().unwrap_or(f64::NAN)
    }

    /// Without its sign.
    fn magnitude(&self, other: &Self) -> Ordering {
        // Digits begin with one that is not zero, so the point decides first.
        self.point.cmp(&other.point).then_with(|| self.digits.cmp(&other.digits))
    }
}

fn read_exponent(text: &str) -> Option<i32> {
    text.parse().ok().filter(|exponent| (-EXPONENT_MAX..=EXPONENT_MAX).contains(exponent))
}

impl Ord for Amount {
    fn cmp(&self, other: &Self) -> Ordering {
        self.sign.cmp(&other.sign).then_with(|| match self.sign {
            Sign::Below => other.magnitude(self),
            Sign::Zero => Ordering::Equal,
            Sign::Above => self.magnitude(other),
        })
    }
}

impl PartialOrd for Amount {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Amount {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Amount {}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A float in full has 17 digits, and no provider counts in more than 30.
const TEXT_MAX: usize = 64;
const EXPONENT_MAX: i32 = 1000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn amount(text: &str) -> Amount {
        Amount::parse(text).unwrap_or_else(|| panic!("{text} is a number"))
    }

    #[test]
    fn numbers_are_in_the_order_of_their_values() {
        let ascending = [
            "-1e3",
            "-10",
            "-9.99",
            "-0.1",
            "-0.09",
            "0",
            "1e-1000",
            "0.09",
            "0.1",
            "0.11",
            "1",
            "1.000000000000000000000000000001",
            "9.99",
            "10",
            "10.5",
            "1e3",
            "1e1000",
        ];
        for (n, low) in ascending.iter().enumerate() {
            assert_eq!(amount(low), amount(low));
            for high in ascending.iter().skip(n + 1) {
                assert!(amount(low) < amount(high), "{low} < {high}");
                assert!(amount(high) > amount(low), "{high} > {low}");
            }
        }
    }

    #[test]
    fn one_value_has_many_spellings() {
        for (one, other) in [
            ("50", "50.000"),
            ("50", "5e1"),
            ("50", "0.5E+2"),
            ("0", "-0.00e9"),
            ("0.5", "500e-3"),
            ("007.10", "7.1"),
            ("-1.5", "-15e-1"),
        ] {
            assert_eq!(amount(one), amount(other), "{one} is {other}");
        }
        // Added as floats they are 0.30000000000000004.
        assert!(amount("0.30000000000000004") > amount("0.3"));
        assert_eq!(amount("12.50").to_string(), "12.50", "it is shown as it was written");
    }

    #[test]
    fn what_is_no_number_is_none() {
        for text in [
            "", "-", ".", ".5", "5.", "1e", "1e+", "1e1001", "1e-1001", "+1", " 1", "1 ", "1,5",
            "0x1", "NaN", "inf", "--1", "1.2.3", "1e1.5", "true", "١", "1_000",
        ] {
            assert_eq!(Amount::parse(text), None, "{text:?}");
        }
        assert!(Amount::parse(&"9".repeat(TEXT_MAX)).is_some(), "at the limit");
        assert!(Amount::parse(&"9".repeat(TEXT_MAX + 1)).is_none(), "over it");
        assert!(Amount::parse("1e1000").is_some() && Amount::parse("1e-1000").is_some());
    }

    proptest! {
        #[test]
        fn they_compare_as_whole_numbers_of_the_smallest_unit_do(
            one in -1_000_000_000_i64..1_000_000_000, other in -1_000_000_000_i64..1_000_000_000,
            close in any::<bool>(), scale in 0_i32..9,
        ) {
            let other = if close { one + other % 3 } else { other };
            let scaled = |units: i64| amount(&format!("{units}e-{scale}"));
            prop_assert_eq!(scaled(one).cmp(&scaled(other)), one.cmp(&other));
            let ten = 10_i64.pow(scale.unsigned_abs());
            let sign = if one < 0 { "-" } else { "" };
            let width = usize::try_from(scale).expect("it is small");
            let (whole, rest) = ((one / ten).abs(), (one % ten).abs());
            let plain = if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{rest:0width$}") };
            prop_assert_eq!(amount(&plain), scaled(one));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-+0-9.eE]{0,70}") {
            if let Some(amount) = Amount::parse(&text) {
                prop_assert!(!amount.nearest().is_nan());
                prop_assert_eq!(&amount, &amount);
            }
        }
    }
}

//! A set of HTTP statuses, written the way an operator writes one.

use http::StatusCode;

/// Statuses from 100 to 599, held as bits: asking costs one load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statuses([u64; 8]);

impl Statuses {
    /// The empty set.
    pub const NONE: Self = Self([0; 8]);

    /// Adds one status; statuses outside 100–599 are not in any set.
    #[must_use]
    pub fn with(mut self, status: u16) -> Self {
        if let Some((word, bit)) = place(status)
            && let Some(bits) = self.0.get_mut(word)
        {
            *bits |= bit;
        }
        self
    }

    /// Takes one status out.
    #[must_use]
    pub fn without(mut self, status: u16) -> Self {
        if let Some((word, bit)) = place(status)
            && let Some(bits) = self.0.get_mut(word)
        {
            *bits &= !bit;
        }
        self
    }

    /// Adds a whole class: `class` 2 is 200–299.
    #[must_use]
    pub fn with_class(self, class: u16) -> Self {
        (0..100).fold(self, |set, n| set.with(class.saturating_mul(100).saturating_add(n)))
    }

    /// Whether `status` is in the set.
    pub fn contains(self, status: StatusCode) -> bool {
        place(status.as_u16())
            .and_then(|(word, bit)| self.0.get(word).map(|bits| bits & bit != 0))
            .unwrap_or(false)
    }

    /// Whether the set holds nothing.
    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }
}

fn place(status: u16) -> Option<(usize, u64)> {
    let nth = status.checked_sub(100).filter(|nth| *nth < 500)?;
    Some((usize::from(nth / 64), 1 << (nth % 64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_holds_its_hundred_and_no_more() {
        let set = Statuses::NONE.with_class(5).without(501).with(429);
        let holds = |n| set.contains(StatusCode::from_u16(n).expect("a status"));
        assert!(holds(500) && holds(599) && holds(429));
        assert!(!holds(501) && !holds(499) && !holds(600) && !holds(999) && !holds(100));
    }
}

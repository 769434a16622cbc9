//! How many outcomes are unknown, counted off the rows: right after a crash, too.

use crate::journal::{Fault, Journal};

/// How many of one route's outcomes are unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// The name of the route, of this config or of one before it.
    pub route: String,
    /// Whether it is those whose key is closed until somebody settles them.
    pub closed: bool,
    /// How many.
    pub count: u64,
}

impl Journal {
    /// Counts them as of the last commit; of very many of either sort, the oldest.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when they cannot be read.
    pub async fn tally_unknowns(&self) -> Result<Vec<Tally>, Fault> {
        self.read_as_it_is(|connection| {
            // The state is written out, so that the index of those alone serves. However many
            // close no key, those that do are counted: somebody has to settle them.
            let mut counted = connection.prepare_cached(
                "SELECT route, holds, count(*) FROM (
                 SELECT * FROM (SELECT route, holds FROM exchanges
                                WHERE state = 2 AND holds = 1 ORDER BY seq LIMIT ?1)
                 UNION ALL
                 SELECT * FROM (SELECT route, holds FROM exchanges
                                WHERE state = 2 AND holds = 0 ORDER BY seq LIMIT ?1))
                 GROUP BY route, holds",
            )?;
            let counted = counted.query_map([COUNTED_MAX], |row| {
                let count = row.get::<_, i64>(2)?.cast_unsigned();
                Ok(Tally { route: row.get(0)?, closed: row.get(1)?, count })
            })?;
            counted.collect()
        })
        .await
    }
}

/// A scrape does not wait for more of either sort.
const COUNTED_MAX: i64 = 10_000;

//! Where a request names its key to its provider, and the keys that can be asked after.
//!
//! What is known of that has to outlive the process: that the provider lists nothing
//! under a key says something only where the request named the key there.

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::journal::bodies::Hash;
use crate::journal::row::{State, signed};
use crate::journal::{Fault, Journal};

/// A key whose outcome was left unknown, with what it takes to ask for it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// The first part of the exchange's name.
    pub seq: u64,
    /// The second part.
    pub instance: u32,
    /// What the key is found by.
    pub id: Hash,
    /// The key.
    pub key: String,
    /// The name of the route.
    pub route: String,
    /// The method.
    pub method: String,
    /// The URL without its query's values.
    pub url: String,
}

impl Journal {
    /// Notes where the request of a claim names its key; nobody waits for it.
    pub fn note_tag(&self, (seq, epoch): (u64, u64), place: String) {
        self.post(move |connection, _delta| {
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO tags (seq, place)
                     SELECT seq, ?3 FROM exchanges WHERE seq = ?1 AND epoch = ?2",
                )?
                .execute(params![signed(seq), signed(epoch), place])
                .map(drop)
        });
    }

    /// The keys of a route whose outcome is unknown, oldest first and at most `most` of them.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when they cannot be read.
    pub async fn unknowns(&self, route: String, most: u32) -> Result<Vec<Left>, Fault> {
        self.submit(move |connection, _delta| {
            let mut rows = connection.prepare(
                "SELECT seq, instance, id, key, route, method, url FROM exchanges
                 WHERE state = ?1 AND state IN (0, 2) AND holds = 1
                 AND id IS NOT NULL AND key IS NOT NULL AND route = ?2 ORDER BY seq LIMIT ?3",
            )?;
            let rows = rows.query_map(params![State::Unknown, route, most], |row| {
                Ok(Left {
                    seq: row.get::<_, i64>(0)?.cast_unsigned(),
                    instance: row.get(1)?,
                    id: row.get(2)?,
                    key: row.get(3)?,
                    route: row.get(4)?,
                    method: row.get(5)?,
                    url: row.get(6)?,
                })
            })?;
            rows.collect()
        })
        .await
    }
}

/// Notes where the request of a claim names its key.
pub(super) fn put(connection: &Connection, seq: u64, place: Option<&str>) -> rusqlite::Result<()> {
    let Some(place) = place else { return Ok(()) };
    connection
        .prepare_cached("INSERT OR REPLACE INTO tags (seq, place) VALUES (?1, ?2)")?
        .execute(params![signed(seq), place])
        .map(drop)
}

/// Forgets it where the key goes out again and does not stand in the same place: of two
/// requests under it, one could not be found.
pub(super) fn narrow(
    connection: &Connection,
    seq: u64,
    place: Option<&str>,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM tags WHERE seq = ?1 AND place IS NOT ?2")?
        .execute(params![signed(seq), place])
        .map(drop)
}

/// Where the request of a claim names its key.
pub(super) fn of(connection: &Connection, seq: u64) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT place FROM tags WHERE seq = ?1")?
        .query_row([signed(seq)], |row| row.get(0))
        .optional()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::key::Reserve;
    use crate::journal::tests::{SECOND, START, Scene, after, id, reserve, settle};

    fn tagged(n: u64) -> Reserve {
        Reserve { tag: Some("/tag".to_owned()), ..reserve(n) }
    }

    async fn left(scene: &Scene) -> Vec<u64> {
        let left = scene.journal.unknowns("r".to_owned(), 10).await.expect("they are read");
        left.into_iter().map(|left| left.seq).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn where_a_key_stands_outlives_a_kill() {
        let scene = Scene::new();
        scene.journal.reserve(tagged(1)).await.expect("there is room");
        scene.claim(2).await;
        let scene = scene.killed(after(START, SECOND)).await;
        assert_eq!(scene.unknown(1, 11).await.tag.as_deref(), Some("/tag"));
        assert_eq!(scene.unknown(2, 12).await.tag, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_goes_out_again_elsewhere_stands_nowhere() {
        for (again, stands) in [(Some("/tag"), true), (Some("/other"), false), (None, false)] {
            let scene = Scene::new();
            scene.journal.reserve(tagged(1)).await.expect("there is room");
            scene.end(1, settle(State::Unknown)).await;
            let resumed = scene.journal.resume((1, 1), 2, again.map(str::to_owned)).await;
            assert_eq!(resumed, Ok(true));
            scene.journal.settle(1, 2, settle(State::Unknown)).await.expect("it is written");
            assert_eq!(scene.unknown(1, 11).await.tag.is_some(), stands, "{again:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_tag_outlives_its_row() {
        let scene = Scene::new();
        scene.journal.reserve(tagged(1)).await.expect("there is room");
        assert_eq!(scene.count("count(*) FROM tags"), 1);
        scene.journal.withdraw((1, 1), |_| ()).await.expect("it is written");
        assert_eq!(scene.count("count(*) FROM tags"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_are_the_keys_that_are_unknown() {
        let scene = Scene::new();
        for n in 1..=4 {
            scene.claim(n).await;
        }
        scene.end(2, settle(State::Completed)).await;
        for n in [1, 3] {
            scene.end(n, settle(State::Unknown)).await;
        }
        assert_eq!(left(&scene).await, [1, 3]);
        let all = scene.journal.unknowns("r".to_owned(), 1).await.expect("they are read");
        let others = scene.journal.unknowns("other".to_owned(), 10).await;
        assert_eq!(others, Ok(Vec::new()));
        assert_eq!((all.len(), all[0].id, all[0].key.as_str()), (1, id(1), "key-1"));
    }
}

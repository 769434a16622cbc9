//! What `samekey explain` says of the polls of a route.

use samekey::exchange::Scalar;
use samekey::poll::Terminal;
use samekey::route::{Kind, Route};

use crate::cli::explain::Line;

/// How polls are spaced, and when their job is over.
pub(super) fn lines(route: &Route) -> Vec<Line> {
    let spaced = route.polls.interval.map(|interval| {
        let most = interval * 2;
        let words =
            format!("{interval:?} between polls of one job, {most:?} while nothing changes");
        ("interval", words, &["interval"][..])
    });
    let terminal = route.polls.terminal.as_ref().map(|terminal| {
        let Terminal { condition, lasts } = terminal;
        let values: Vec<_> = condition.values.iter().map(scalar).collect();
        let values = values.join(", ");
        let words = format!("{} in [{values}], remembered for {lasts:?}", condition.pointer);
        ("terminal", words, &["terminal"][..])
    });
    let joins = (route.kind == Some(Kind::Poll)).then(|| {
        let words = "those of one caller that ask the same while one is under way share it";
        ("polls", words.to_owned(), &["kind"][..])
    });
    joins.into_iter().chain(spaced).chain(terminal).collect()
}

/// A value as it is written in the config.
pub(super) fn scalar(scalar: &Scalar) -> &str {
    match scalar {
        Scalar::Null => "null",
        Scalar::Bool(true) => "true",
        Scalar::Bool(false) => "false",
        Scalar::Number(text) | Scalar::String(text) => text,
    }
}

//! What a route of kind `poll` says about its polls: `interval` and `terminal`.

use crate::config::leaf::{DAY, MINUTE, Parsed, Span, Word};
use crate::config::reading::{Reading, block, join};
use crate::config::retry::{Sought, condition};
use crate::config::route::RouteBlock;
use crate::exchange::Pointer;
use crate::poll::{Rules, Terminal};
use crate::route::Kind;

block! {
    /// What an answer says when its job is over.
    TerminalBlock {
        /// Where to look: a JSON pointer.
        json: Option<Parsed<Pointer>> = None,
        /// The values looked for, of which one must stand there.
        r#in: Vec<Sought> = Vec::new(),
        /// How long the answer is remembered. Not for ever: the URLs in it expire.
        r#for: Span<1, DAY> = Span::of(10 * MINUTE),
    }
}

/// Reads what a route says about its polls; a [`Rules`] needs no second look.
pub(super) fn meant(route: &RouteBlock, at: &str, reading: &mut Reading<'_>) -> Rules {
    let kind = reading.written_at(at, "kind");
    for (key, written) in
        [("interval", route.interval.is_some()), ("terminal", route.terminal.is_some())]
    {
        if written && route.kind != Some(Word(Kind::Poll)) {
            reading.clash(&join(at, key), &kind, "needs `kind: poll`");
        }
    }
    let terminal_at = join(at, "terminal");
    let terminal = route.terminal.as_ref().and_then(|block| {
        let condition = condition(block.json.as_ref(), &block.r#in, &terminal_at, reading)?;
        Some(Terminal { condition, lasts: block.r#for.duration() })
    });
    Rules { interval: route.interval.map(Span::duration), terminal }
}

//! The `lookup` block of a route: how the provider is asked what became of a key.

use std::path::PathBuf;

use http::{HeaderName, HeaderValue, StatusCode};
use schemars::{JsonSchema, SchemaGenerator, json_schema};
use serde::Serialize;

use crate::config::idempotency::{Member, header_name};
use crate::config::leaf::{Count, DAY, Parse, Parsed, SECOND, Span};
use crate::config::listen::password;
use crate::config::reading::{Reading, Written, block, join};
use crate::config::tree::{Node, Value};
use crate::exchange::Pointer;
use crate::idempotency::lookup::{Credentials, Next, Patience, Recipe, Shape, Target};
use crate::idempotency::{Mismatch, Rules};
use crate::retry::Policy;
use crate::route::Kind;

block! {
    /// How the provider is asked what became of a key whose outcome is unknown.
    LookupBlock {
        /// Where the key is put into a creating request's JSON body; null: it carries the key itself.
        tag: Option<TagBlock> = None,
        /// Path and query of the lookup: {key}, {since}, {until}, {since:date}, {until:date}, {page}, {offset}, {cursor}.
        request: Option<Parsed<Target>> = None,
        /// Where the list stands in the answer, a JSON pointer; null: the answer is the one item.
        items: Option<Parsed<Pointer>> = None,
        /// Where in an item the key stands: a JSON pointer.
        r#match: Option<Parsed<Member>> = None,
        /// How the next page is asked for: {page: FIRST}, {offset: 0} or {cursor: POINTER}; null: there is one.
        next: Option<NextBlock> = None,
        /// Pages that one reading may take; where there are more, it proves nothing.
        pages: Count<1, 1000> = Count(10),
        /// What a found item becomes: JSON whose strings may hold {json:POINTER}; null: itself.
        answer: Option<Answer> = None,
        /// The status of that answer.
        status: Count<200, 299> = Count(200),
        /// How long after the last attempt ended absence begins to count.
        settle: Span<0, DAY> = Span::of(30 * SECOND),
        /// How long after one reading the next may count.
        every: Span<SECOND, DAY> = Span::of(30 * SECOND),
        /// Readings in a row without the key that free it.
        readings: Count<2, 10> = Count(2),
        /// With what it is asked on its own after a crash; null: with those of a live request alone.
        credentials: Option<LookupCredentialsBlock> = None,
    }
}

block! {
    /// Where a key is put.
    TagBlock {
        /// In a member of a JSON body: a JSON pointer.
        json: Option<Parsed<Member>> = None,
    }
}

block! {
    /// How the next page is asked for: exactly one of these.
    NextBlock {
        /// By its number, from this one on, until a page is empty.
        page: Option<Count<0, 1>> = None,
        /// By how many items came before, from this one on, until a page is empty.
        offset: Option<Count<0, 0>> = None,
        /// By what stands here in the page before, until nothing does: a JSON pointer.
        cursor: Option<Parsed<Member>> = None,
    }
}

block! {
    /// A header field that stands for the account.
    LookupCredentialsBlock {
        /// The field's name.
        header: Option<Parsed<FieldName>> = None,
        /// A file with its value; the last newline is dropped.
        file: Option<PathBuf> = None,
    }
}

/// A header field's name.
#[derive(Clone, Debug)]
pub(super) struct FieldName(HeaderName);

impl Parse for FieldName {
    fn parse(text: &str) -> Result<Self, String> {
        header_name(text).map(Self)
    }
}

impl Parse for Target {
    fn parse(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
}

/// `answer` as written, and what it means.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    written: serde_json::Value,
    meant: Shape,
}

impl LookupBlock {
    /// Reads the block once; a [`Recipe`] needs no second look.
    pub(super) fn meant(
        &self,
        route: &str,
        (kind, rules, retry): (Option<Kind>, &Rules, &Policy),
        reading: &mut Reading<'_>,
    ) -> Option<Recipe> {
        let at = join(route, "lookup");
        fits(route, (kind, rules), reading);
        for (key, missing) in
            [("request", self.request.is_none()), ("match", self.r#match.is_none())]
        {
            if missing {
                reading.miss(&join(&at, key), "must be given");
            }
        }
        let tag = self.tag.as_ref().map(|block| block.json.as_ref());
        if matches!(tag, Some(None)) {
            reading.miss(&join(&at, "tag.json"), "must be given: a JSON pointer");
        }
        let next = self.next(&at, reading);
        let credentials = self.credentials.as_ref().map(|block| block.meant(&at, reading));
        let status = u16::try_from(self.status.0).ok();
        Some(Recipe {
            tag: match tag {
                Some(pointer) => Some(pointer?.meant.0.clone()),
                None => None,
            },
            request: self.request.as_ref()?.meant.clone(),
            items: self.items.as_ref().map(|items| items.meant.clone()),
            wanted: self.r#match.as_ref()?.meant.0.clone(),
            failures: retry.failed_when.iter().map(|failed| failed.condition.clone()).collect(),
            next: next?,
            pages: self.pages.nonzero(),
            answer: self.answer.as_ref().map(|answer| answer.meant.clone()),
            status: status.and_then(|status| StatusCode::from_u16(status).ok())?,
            patience: Patience {
                settle: self.settle.duration(),
                every: self.every.duration(),
                readings: self.readings.nonzero(),
            },
            credentials: match credentials {
                Some(credentials) => Some(credentials?),
                None => None,
            },
        })
    }

    fn next(&self, at: &str, reading: &mut Reading<'_>) -> Option<Next> {
        let request = &self.request.as_ref()?.meant;
        let key = join(at, "next");
        let next = match &self.next {
            None => Next::Never,
            Some(NextBlock { page: Some(Count(first)), offset: None, cursor: None }) => {
                Next::Page(*first)
            }
            Some(NextBlock { page: None, offset: Some(_), cursor: None }) => Next::Offset,
            Some(NextBlock { page: None, offset: None, cursor: Some(pointer) }) => {
                Next::Cursor(pointer.meant.0.clone())
            }
            Some(_) => {
                reading.miss(&key, "must be {page: FIRST}, {offset: 0} or {cursor: POINTER}");
                return None;
            }
        };
        let wanted =
            [matches!(next, Next::Page(_)), next == Next::Offset, matches!(next, Next::Cursor(_))];
        let other = join(at, "request");
        if [request.names_page(), request.names_offset(), request.names_cursor()] != wanted {
            let wish = "must go with `request`: {page: FIRST} with {page} in it, {offset: 0} with \
                        {offset}, {cursor: POINTER} with {cursor}, null with none of them";
            reading.clash(&key, &other, wish);
        } else if next == Next::Never && self.items.is_some() && !request.names_key() {
            let wish = "must be given, unless `request` asks for the {key}: a list that is cut \
                        off proves nothing";
            reading.clash(&key, &other, wish);
        }
        Some(next)
    }
}

/// Blames what of the route does not go with a lookup.
fn fits(route: &str, (kind, rules): (Option<Kind>, &Rules), reading: &mut Reading<'_>) {
    let at = join(route, "lookup");
    if kind.is_some_and(|kind| kind != Kind::Effect) {
        let other = reading.written_at(route, "kind");
        reading.clash(&at, &other, "goes with `kind: effect`: nothing else leaves unknowns");
    }
    if rules.mismatch == Mismatch::Forward {
        let other = reading.written_at(route, "idempotency.mismatch");
        let wish = "does not go with `mismatch: forward`: of two requests under one key \
                    nobody could tell which was found";
        reading.clash(&at, &other, wish);
    }
}

impl LookupCredentialsBlock {
    fn meant(&self, at: &str, reading: &mut Reading<'_>) -> Option<Credentials> {
        let [header, file] = ["header", "file"].map(|key| join(&join(at, "credentials"), key));
        if self.header.is_none() {
            reading.miss(&header, "must be given with `file`");
        }
        let Some(path) = &self.file else {
            reading.miss(&file, "must be given with `header`");
            return None;
        };
        let value = password(path).and_then(|line| {
            HeaderValue::try_from(line).map_err(|_invalid| "holds no header's value".to_owned())
        });
        match value {
            Ok(mut value) => {
                value.set_sensitive(true);
                Some(Credentials { header: self.header.as_ref()?.meant.0.clone(), value })
            }
            Err(wish) => {
                reading.fault(&file, format!("{}: {wish}", path.display()));
                None
            }
        }
    }
}

impl Written for Answer {
    fn fresh(node: &Node, at: &str, reading: &mut Reading<'_>) -> Option<Self> {
        match shape(&node.value) {
            Ok((written, meant)) => Some(Self { written, meant }),
            Err(wish) => {
                reading.fault(at, wish);
                None
            }
        }
    }
}

/// A value as JSON, and the shape that it is.
fn shape(value: &Value) -> Result<(serde_json::Value, Shape), String> {
    let plain = |json: serde_json::Value| Ok((json.clone(), Shape::Literal(json.to_string())));
    match value {
        Value::Null => plain(serde_json::Value::Null),
        Value::Bool(is) => plain((*is).into()),
        Value::Whole(number) => match i64::try_from(*number) {
            Ok(number) => plain(number.into()),
            Err(_too_large) => Err("must hold numbers of at most 64 bits".to_owned()),
        },
        Value::Decimal(number) => plain((*number).into()),
        Value::Text(text) => Ok((text.clone().into(), Shape::parse(text)?)),
        Value::List(items) => {
            let items = items.iter().map(|item| shape(&item.value));
            let (written, meant): (Vec<_>, Vec<_>) =
                items.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
            Ok((written.into(), Shape::List(meant)))
        }
        Value::Map(members) => {
            let (mut written, mut meant) = (serde_json::Map::new(), Vec::new());
            for (name, node) in members {
                let (json, shape) = shape(&node.value)?;
                if written.insert(name.clone(), json).is_some() {
                    return Err(format!("must name each member once (`{name}`)"));
                }
                meant.push((name.clone(), shape));
            }
            Ok((written.into(), Shape::Object(meant)))
        }
    }
}

impl Serialize for Answer {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.written.serialize(serializer)
    }
}

impl JsonSchema for Answer {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Answer".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> schemars::Schema {
        json_schema!(true)
    }
}

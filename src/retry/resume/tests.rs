//! Which downloads may be resumed, and which answers are their rest.

use proptest::prelude::*;

use super::*;
use crate::exchange::Body;
use crate::exchange::tests::{headers, measured, response, streamed};

type Fields<'a> = &'a [(&'static str, &'a str)];

/// A thousand bytes under one strong tag, served in ranges.
const GOOD: Fields<'_> = &[("etag", "\"a\""), ("accept-ranges", "bytes")];

/// A body of so many bytes, whose reader is told so.
fn bytes(count: usize) -> Body {
    Body::full(vec![0; count].into())
}

fn begun(status: u16, asked: Fields<'_>, fields: Fields<'_>, body: Body) -> Option<Resumption> {
    may_resume(&headers(asked), &answer(status, fields, body))
}

fn answer(status: u16, fields: Fields<'_>, body: Body) -> Response {
    response(status, fields, body)
}

#[test]
fn a_download_may_be_resumed_where_its_rest_can_be_proved() {
    let range = &[("range", "bytes=100-")][..];
    let part = |more: Fields<'static>| [GOOD, more].concat();
    for (status, asked, fields, wanted) in [
        (200, &[][..], GOOD.to_vec(), true),
        (200, &[], vec![("etag", "\"\"")], true),
        (200, range, GOOD.to_vec(), true), // the range was not served: all of it comes
        (200, &[], part(&[("content-encoding", "gzip")]), true),
        (200, &[], part(&[("accept-ranges", "items")]), true), // and bytes, by the other line
        (206, range, part(&[("content-range", "bytes 100-1099/2000")]), true),
        (206, range, part(&[("content-range", "bytes 100-1099/*")]), true),
        (200, &[], vec![], false),
        (200, &[], vec![("etag", "W/\"a\"")], false),
        (200, &[], vec![("etag", "a")], false),
        (200, &[], vec![("etag", "\"")], false),
        (200, &[], vec![("etag", "\"a\"b\"")], false),
        (200, &[], vec![("etag", "\"a b\"")], false),
        (200, &[], vec![("etag", "\"a\""), ("etag", "\"a\"")], false),
        (200, &[], vec![("etag", "\"a\""), ("accept-ranges", "none")], false),
        (200, &[], vec![("etag", "\"a\""), ("accept-ranges", "items")], false),
        (206, &[], part(&[("content-range", "bytes 100-1099/2000")]), false),
        (206, &[("range", "bytes=0-9,20-")], part(&[("content-range", "bytes 0-999/*")]), false),
        (206, range, GOOD.to_vec(), false),
        (206, range, part(&[("content-range", "bytes 100-1099/1099")]), false),
        (206, range, part(&[("content-range", "bytes 100-1098/2000")]), false), // not its length
        (206, range, part(&[("content-range", "bytes 100-99/2000")]), false),
        (206, range, part(&[("content-range", "bytes +100-1099/2000")]), false),
        (206, range, part(&[("content-range", "bytes */2000")]), false),
        (206, range, part(&[("content-range", "items 100-1099/2000")]), false),
        (
            206,
            range,
            part(&[
                ("content-range", "bytes 100-1099/2000"),
                ("content-type", "Multipart/ByteRanges; boundary=x"),
            ]),
            false,
        ),
        (203, &[], GOOD.to_vec(), false),
        (404, &[], GOOD.to_vec(), false),
    ] {
        let found = begun(status, asked, &fields, bytes(1000));
        assert_eq!(found.is_some(), wanted, "{status} {asked:?} {fields:?}");
    }
}

#[test]
fn what_is_asked_for_is_the_rest_and_only_if_it_is_the_same() {
    let part = [GOOD, &[("content-range", "bytes 100-1099/2000")]].concat();
    for (status, fields, body, wanted) in [
        (200, GOOD.to_vec(), bytes(1000), "bytes=7-999"),
        (200, GOOD.to_vec(), streamed([]), "bytes=7-"),
        (206, part, bytes(1000), "bytes=107-1099"),
    ] {
        let asked = &[
            ("range", "bytes=100-"),
            ("if-range", "\"b\""),
            ("if-none-match", "\"c\""),
            ("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("if-match", "\"a\""),
            ("accept-encoding", "gzip"),
            ("authorization", "Bearer t"),
        ][..];
        let mut resumption = begun(status, asked, &fields, body).expect("it may be resumed");
        resumption.advance(7);
        let mut sent = headers(asked);
        resumption.ask(&mut sent);
        let wanted = headers(&[
            ("range", wanted),
            ("if-range", "\"a\""),
            ("if-match", "\"a\""),
            ("accept-encoding", "gzip"),
            ("authorization", "Bearer t"),
        ]);
        assert_eq!(sent, wanted);
    }
}

/// A download of a thousand bytes that stopped before the byte 400.
fn stopped(length: Option<usize>) -> Resumption {
    let body = length.map_or_else(|| streamed([]), bytes);
    let mut resumption = begun(200, &[], GOOD, body).expect("it may be resumed");
    resumption.advance(400);
    resumption
}

#[test]
fn only_the_rest_of_the_same_is_accepted() {
    use Refusal::{Changed, Refused};
    let tag = ("etag", "\"a\"");
    let good = ("content-range", "bytes 400-999/1000");
    let at = |range| ("content-range", range);
    for (status, fields, length, wanted) in [
        (206, vec![tag, good], 600, Ok(())),
        (206, vec![tag, ("content-range", "Bytes 400-999/*")], 600, Ok(())),
        (206, vec![tag, good], 599, Err(Refused)),
        (206, vec![tag, good], 601, Err(Refused)),
        (206, vec![tag], 600, Err(Refused)),
        (206, vec![tag, good, good], 600, Err(Refused)),
        (206, vec![tag, at("bytes 399-998/1000")], 600, Err(Refused)),
        (206, vec![tag, at("bytes 401-999/1000")], 599, Err(Refused)),
        (206, vec![tag, at("bytes 0-999/1000")], 1000, Err(Refused)),
        (206, vec![tag, at("bytes 400-998/1000")], 599, Err(Refused)),
        (206, vec![tag, at("bytes 400-1000/1001")], 601, Err(Refused)),
        (206, vec![tag, at("bytes 400-999/1001")], 600, Err(Refused)),
        (206, vec![tag, at("bytes 400-18446744073709551615/*")], 600, Err(Refused)),
        (206, vec![good], 600, Err(Refused)),
        (206, vec![("etag", "W/\"a\""), good], 600, Err(Refused)),
        (206, vec![("etag", "\"b\""), good], 600, Err(Changed)),
        (206, vec![tag, good, ("content-encoding", "gzip")], 600, Err(Refused)),
        (206, vec![tag, good, ("content-type", "multipart/byteranges")], 600, Err(Refused)),
        (200, vec![tag], 1000, Err(Refused)),
        (200, vec![], 1000, Err(Changed)),
        (200, vec![("etag", "\"b\"")], 1000, Err(Changed)),
        (412, vec![], 9, Err(Changed)),
        (416, vec![("content-range", "bytes */1000")], 9, Err(Refused)),
        (304, vec![tag], 0, Err(Refused)),
        (404, vec![], 9, Err(Refused)),
        (302, vec![], 0, Err(Refused)),
    ] {
        let answer = answer(status, &fields, bytes(length));
        let found = stopped(Some(1000)).accepts(&answer).map(|_span| ());
        assert_eq!(found, wanted, "{status} {fields:?} {length}");
    }
}

#[test]
fn where_no_length_was_told_the_first_range_says_it() {
    let rest = |range| [("etag", "\"a\""), ("content-range", range)];
    for (range, accepted) in
        [("bytes 400-999/1000", true), ("bytes 400-998/1000", false), ("bytes 400-999/*", false)]
    {
        let answer = answer(206, &rest(range), streamed([]));
        assert_eq!(stopped(None).accepts(&answer).is_ok(), accepted, "{range}");
    }
    let mut resumption = stopped(None);
    let span = resumption.accepts(&answer(206, &rest("bytes 400-999/1000"), streamed([])));
    resumption.learn(span.expect("it is accepted"));
    resumption.advance(100);
    assert_eq!(resumption.left(), Some(500));
    for (range, accepted) in [("bytes 500-999/1000", true), ("bytes 500-1000/1001", false)] {
        let answer = answer(206, &rest(range), streamed([]));
        assert_eq!(resumption.accepts(&answer).is_ok(), accepted, "{range}");
    }
}

#[test]
fn a_length_that_is_told_is_the_bodys() {
    let found = begun(200, &[], GOOD, measured(&["ab", "cd"])).expect("it may be resumed");
    assert_eq!(found.left(), Some(4));
}

proptest! {
    /// Whatever is accepted continues what came, ends where that ends, and is as long as it says.
    #[test]
    fn what_is_accepted_is_what_is_missing(
        came in 0_u64..40,
        length in 1_u64..40,
        first in 0_u64..40,
        last in 0_u64..40,
        total in proptest::option::of(0_u64..40),
        told in proptest::option::of(0_usize..40),
        known in any::<bool>(),
        tag in "(W/)?\"?[ab]\"?",
    ) {
        let body = if known { bytes(usize::try_from(length).unwrap()) } else { streamed([]) };
        let mut resumption = begun(200, &[], GOOD, body).expect("it may be resumed");
        let came = came.min(length - 1);
        resumption.advance(usize::try_from(came).unwrap());
        let total_text = total.map_or_else(|| "*".to_owned(), |total| total.to_string());
        let range = format!("bytes {first}-{last}/{total_text}");
        let body = told.map_or_else(|| streamed([]), bytes);
        let fields = [("etag", tag.as_str()), ("content-range", range.as_str())];
        if resumption.accepts(&answer(206, &fields, body)).is_ok() {
            prop_assert_eq!(&tag, "\"a\"");
            prop_assert_eq!(first, came);
            prop_assert!(first <= last);
            prop_assert!(total.is_none_or(|total| total == last + 1));
            prop_assert!(!known || last + 1 == length);
            prop_assert!(known || total.is_some());
            prop_assert!(told.is_none_or(|told| told as u64 == last + 1 - first));
        }
    }

    /// No field makes it panic.
    #[test]
    fn any_field_is_read_without_panic(range in "\\PC{0,40}", digits in "bytes [0-9]{0,25}-[0-9]{0,25}/[0-9*]{0,25}") {
        for range in [range, digits] {
            let mut fields = HeaderMap::new();
            if let Ok(value) = HeaderValue::try_from(range) {
                fields.insert(CONTENT_RANGE, value);
            }
            if let Some(span) = span(&fields) {
                prop_assert!(span.first < span.end);
            }
        }
    }
}

//! The parameters of a query, looked up without rewriting it.
//!
//! Names and values are percent-decoded (RFC 3986, section 2.1); a `+` stays a
//! `+`, because keys and signatures in base64 hold it, and spaces do not occur in
//! what is looked up here.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The decoded values of the parameters called `name`, in order.
pub fn values<'a>(query: Option<&'a str>, name: &'a str) -> impl Iterator<Item = Cow<'a, [u8]>> {
    pairs(query.unwrap_or_default()).filter_map(move |pair| {
        let (written, value) = pair.split_once('=').unwrap_or((pair, ""));
        is_called(written, name).then(|| Cow::from(percent_decode_str(value)))
    })
}

/// The query, as it came, without the parameters called `name`.
pub fn without(query: &str, name: &str) -> String {
    let kept = pairs(query).filter(|pair| {
        let (written, _) = pair.split_once('=').unwrap_or((pair, ""));
        !is_called(written, name)
    });
    kept.collect::<Vec<_>>().join("&")
}

/// The parameters called one of `names`, as they came.
pub fn only(query: &str, names: &[String]) -> String {
    let kept = pairs(query).filter(|pair| {
        let (written, _) = pair.split_once('=').unwrap_or((pair, ""));
        names.iter().any(|name| is_called(written, name))
    });
    kept.collect::<Vec<_>>().join("&")
}

/// The names of the parameters that have a value, without the values; what is no pair
/// may be a value itself, and is left out.
pub fn names(query: &str) -> String {
    let names = pairs(query).filter_map(|pair| pair.split_once('=').map(|(name, _)| name));
    names.collect::<Vec<_>>().join("&")
}

fn pairs(query: &str) -> impl Iterator<Item = &str> {
    query.split('&').filter(|pair| !pair.is_empty())
}

fn is_called(written: &str, name: &str) -> bool {
    written == name || percent_decode_str(written).eq(name.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_found_however_it_is_written() {
        let query = Some("a=1&ke%79=x%2Fy&b&key=p+q&&key");
        let found: Vec<_> = values(query, "key").collect();
        assert_eq!(found, [b"x/y".as_slice(), b"p+q", b""]);
        assert_eq!(values(query, "b").count(), 1);
        assert_eq!(values(query, "c").count(), 0);
        assert_eq!(values(None, "c").count(), 0);
    }

    #[test]
    fn parameters_are_picked_by_name_and_stay_as_they_came() {
        let names = ["token".to_owned(), "k".to_owned()];
        for (query, kept) in
            [("a=1&to%6ben=x%2Fy&k", "to%6ben=x%2Fy&k"), ("tokens=1", ""), ("", "")]
        {
            assert_eq!(only(query, &names), kept, "{query}");
        }
    }

    #[test]
    fn names_are_told_without_values() {
        for (query, told) in
            [("a=1&b=&c", "a&b"), ("token", ""), ("sig=x%26y=z&&q=1", "sig&q"), ("", "")]
        {
            assert_eq!(names(query), told, "{query}");
        }
    }

    #[test]
    fn a_query_loses_one_name_and_keeps_the_rest_as_it_came() {
        for (query, kept) in
            [("a=%31&key=1&b=2", "a=%31&b=2"), ("k%65y=1", ""), ("a&keys=1", "a&keys=1"), ("", "")]
        {
            assert_eq!(without(query, "key"), kept, "{query}");
        }
    }
}

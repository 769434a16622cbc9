//! Named ids of a request and its answer, as a row holds them: a JSON object of texts.

use serde_json::Value;

/// The ids that a row holds, as pairs.
pub fn captured(text: &str) -> Vec<(String, String)> {
    let Ok(Value::Object(members)) = serde_json::from_str(text) else { return Vec::new() };
    let pair = |(name, value): (String, Value)| Some((name, value.as_str()?.to_owned()));
    members.into_iter().filter_map(pair).collect()
}

/// The ids as they stand in a row; none where there are none.
pub fn captured_text(captured: &[(String, String)]) -> Option<String> {
    let pairs = captured.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
    (!captured.is_empty()).then(|| Value::Object(pairs.collect()).to_string())
}

/// What stands in the text of every row that holds this id, and in no other.
///
/// Names and values are written in one way, and a quote inside one has a backslash
/// before it: so the four quotes here are those of a member, or there is none.
pub(super) fn needle(name: &str, value: &str) -> String {
    format!("{}:{}", Value::from(name), Value::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
        all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn ids_read_back_as_written() {
        for all in [&[][..], &[("job", "j-1")], &[("a", "\"\\\n\u{1F600}"), ("b", "")]] {
            let text = captured_text(&pairs(all));
            assert_eq!(text.is_none(), all.is_empty());
            assert_eq!(captured(&text.unwrap_or_default()), pairs(all));
        }
        assert_eq!(captured("[1]"), []);
    }

    #[test]
    fn a_needle_is_in_the_rows_with_that_id_alone() {
        let row =
            pairs(&[("job", "j-1"), ("x", r#"","job":"j-2"#), ("a.job", "j-3"), ("n", "a\"")]);
        let text = captured_text(&row).expect("there are ids");
        for (name, value, is_there) in [
            ("job", "j-1", true),
            ("n", "a\"", true),
            ("job", "j-", false),
            ("job", "j-2", false),
            ("job", "j-3", false),
            ("ob", "j-1", false),
            ("x", "j-1", false),
            ("n", "a", false),
            ("job", "%", false),
        ] {
            assert_eq!(text.contains(&needle(name, value)), is_there, "{name} {value}");
        }
    }
}

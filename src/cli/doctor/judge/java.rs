//! Java's options as a JVM reads them from a variable.

/// What of the options that are wanted does not count, in words: none where all do.
///
/// Exceptions are told by what they hide, as `NO_PROXY` is.
pub(super) fn amiss(wanted: &str, found: &str) -> Option<String> {
    let found = options(found);
    let decides = |option: &String| !option.starts_with("-Dhttp.nonProxyHosts=");
    options(wanted).into_iter().filter(decides).find_map(|wanted| {
        let name = name(&wanted);
        let counts = found.iter().rev().find(|option| self::name(option) == name);
        match counts {
            None => Some(format!("lacks {name}")),
            Some(last) if *last == wanted => None,
            Some(_) if found.contains(&wanted) => {
                Some(format!("has another {name} behind ours: the last one counts"))
            }
            Some(_) => Some(format!("has another {name}")),
        }
    })
}

fn name(option: &str) -> &str {
    option.split('=').next().unwrap_or_default()
}

/// Words between blanks; quotes of either kind keep blanks and fall away, and nothing is
/// escaped (JVM TI, `JAVA_TOOL_OPTIONS`).
fn options(text: &str) -> Vec<String> {
    let (mut all, mut word, mut quote) = (Vec::new(), String::new(), None);
    for sign in text.chars() {
        match quote {
            Some(open) if sign == open => quote = None,
            None if sign == '"' || sign == '\'' => quote = Some(sign),
            None if sign.is_ascii_whitespace() => all.extend(ended(&mut word)),
            Some(_) | None => word.push(sign),
        }
    }
    all.extend(ended(&mut word));
    all
}

fn ended(word: &mut String) -> Option<String> {
    (!word.is_empty()).then(|| std::mem::take(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_two_options_counts() {
        let ours = "-Dhttps.proxyHost=h -Dhttps.proxyPort=1 -Dhttp.nonProxyHosts=\"a|b\" \
                    -Djavax.net.ssl.trustStore=\"/a b/it's/t.p12\"";
        let lacks = |name: &str| Some(format!("lacks {name}"));
        let behind =
            |name: &str| Some(format!("has another {name} behind ours: the last one counts"));
        for (before, after, wanted) in [
            ("", "", None),
            ("-Da=b", "-Da=c", None),
            ("-Dhttps.proxyPort=3128 -Djavax.net.ssl.trustStore=/own.jks", "", None),
            ("", "-Dhttps.proxyPort=3128", behind("-Dhttps.proxyPort")),
            ("", "-Djavax.net.ssl.trustStore='/own.jks'", behind("-Djavax.net.ssl.trustStore")),
            ("", "'-Dhttps.proxyPort=1'", None),
            ("", "-Dhttp.nonProxyHosts=c", None),
        ] {
            let found = format!("{before} {ours}\t{after}");
            assert_eq!(amiss(ours, &found), wanted, "{found}");
        }
        for (found, wanted) in [
            ("", lacks("-Dhttps.proxyHost")),
            ("-Dhttps.proxyHost=h", lacks("-Dhttps.proxyPort")),
            ("-Dhttps.proxyHost=x", Some("has another -Dhttps.proxyHost".to_owned())),
            (
                "-Dhttps.proxyHost=h -Dhttps.proxyPort=1 -Djavax.net.ssl.trustStore=\"/a b",
                Some("has another -Djavax.net.ssl.trustStore".to_owned()),
            ),
        ] {
            assert_eq!(amiss(ours, found), wanted, "{found}");
        }
    }
}

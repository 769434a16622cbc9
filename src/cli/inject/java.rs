//! Options of a JVM: those of samekey come behind an application's own.
//!
//! The JVM takes the last of two that say the same, so what the application says of a proxy or a
//! truststore has to be seen first.

/// What a JVM is to be told, and what its own options ask of the reader.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// All of them.
    pub(super) written: String,
    /// Whether the application names a proxy of its own.
    pub(super) another_proxy: bool,
    /// Whether it names a truststore of its own, which stays.
    pub(super) own_truststore: bool,
}

impl Options {
    /// Ours behind those that are there; an earlier run's ours are replaced.
    pub(super) fn behind(own: &str, ours: &str) -> Self {
        let theirs = without_ours(own, ours);
        let has = |is_it: fn(&str) -> bool| {
            theirs.split_whitespace().any(|option| is_it(&bare(option)) && !says(ours, option))
        };
        let own_truststore = has(is_truststore);
        let behind = if own_truststore { without_truststore(ours) } else { ours.to_owned() };
        let written = match theirs {
            _ if own.ends_with(&behind) => own.to_owned(),
            "" => behind,
            theirs => format!("{theirs} {behind}"),
        };
        Self { written, another_proxy: has(is_proxy), own_truststore }
    }
}

/// What is there without what an earlier run put behind it.
fn without_ours<'a>(own: &'a str, ours: &str) -> &'a str {
    for tail in [ours, &without_truststore(ours)] {
        if let Some(theirs) = own.strip_suffix(tail) {
            return theirs.trim_end();
        }
    }
    let first = ours.split(' ').next().unwrap_or(ours);
    let theirs = match own.split_once(first) {
        Some((theirs, rest)) if are_ours(rest, ours) => theirs,
        _ => own,
    };
    theirs.trim_end()
}

/// Whether a text holds such options alone as samekey writes; which hosts are exceptions varies.
fn are_ours(options: &str, ours: &str) -> bool {
    options.split_whitespace().all(|it| says(ours, it) || it.starts_with("-Dhttp.nonProxyHosts="))
}

fn says(options: &str, option: &str) -> bool {
    options.split_whitespace().any(|own| bare(own) == bare(option))
}

fn without_truststore(options: &str) -> String {
    let kept = options.split(' ').filter(|option| !is_truststore(option));
    kept.collect::<Vec<_>>().join(" ")
}

fn is_proxy(option: &str) -> bool {
    const STARTS: [&str; 4] =
        ["-Dhttp.proxyHost=", "-Dhttp.proxyPort=", "-Dhttps.proxyHost=", "-Dhttps.proxyPort="];
    STARTS.iter().any(|start| option.starts_with(start))
}

fn is_truststore(option: &str) -> bool {
    option.starts_with("-Djavax.net.ssl.trustStore")
}

/// An option as the JVM sees it: it takes quotes away wherever they stand.
fn bare(option: &str) -> String {
    option.replace(['"', '\''], "")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: &str = "-Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=17080";
    const OURS: &str = "-Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=17080 -Dhttp.nonProxyHosts=\"a|b\" -Djavax.net.ssl.trustStore=\"/ours.p12\" -Djavax.net.ssl.trustStoreType=PKCS12";

    fn behind(own: &str) -> Options {
        let once = Options::behind(own, OURS);
        assert_eq!(Options::behind(&once.written, OURS).written, once.written, "{own}");
        once
    }

    #[test]
    fn options_of_an_earlier_run_give_way_and_strangers_stay() {
        let old = format!("-Xmx1g {PROXY} -Dhttp.nonProxyHosts=\"a\"");
        assert_eq!(behind(&old).written, format!("-Xmx1g {OURS}"));
        let mixed = format!("{old} -Down=1");
        assert_eq!(behind(&mixed).written, format!("{mixed} {OURS}"));
        assert_eq!(behind("").written, OURS);
        assert_eq!(behind(OURS).written, OURS);
    }

    #[test]
    fn a_proxy_of_its_own_is_seen_wherever_it_stands() {
        for (own, another) in [
            ("-Dhttps.proxyHost=corp", true),
            ("-Xmx1g -Dhttp.proxyPort=3128 -Da=b", true),
            ("\"-Dhttp.proxyHost=corp\"", true),
            ("-Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=3128", true),
            (PROXY, false),
            ("-Dhttp.proxyHost='127.0.0.1' -Da=b", false),
            ("-Dhttp.proxyHosts=x", false),
        ] {
            assert_eq!(behind(own).another_proxy, another, "{own}");
            assert_eq!(behind(&format!("{own} {OURS}")).another_proxy, another, "{own}");
        }
    }

    #[test]
    fn a_truststore_of_its_own_stays_the_last() {
        let wanted = |own: &str| format!("{own} {PROXY} -Dhttp.nonProxyHosts=\"a|b\"");
        for own in [
            "-Djavax.net.ssl.trustStore=/own.jks",
            "-Xmx1g -Djavax.net.ssl.trustStoreType=JKS",
            "'-Djavax.net.ssl.trustStore=/own dir/own.jks'",
        ] {
            for before in [own.to_owned(), format!("{own} {OURS}")] {
                let options = behind(&before);
                assert_eq!(options.written, wanted(own));
                assert!(options.own_truststore && !options.another_proxy, "{options:?}");
            }
        }
        let behind_ours = format!("{PROXY} -Djavax.net.ssl.trustStore=/own.jks");
        assert!(behind(&behind_ours).written.starts_with(&behind_ours));
        assert!(!behind("-Djavax.net.ssl.trustStore=/ours.p12").own_truststore);
    }
}

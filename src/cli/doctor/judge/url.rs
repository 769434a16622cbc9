//! Proxies as variables name them: where, for whom, and what hides a host from them.

/// Whether a variable of this name holds a proxy's URL.
pub(in crate::cli::doctor) fn is_proxy(name: &str) -> bool {
    ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"].iter().any(|one| name.eq_ignore_ascii_case(one))
}

/// `host:port` of a URL, or of what is written as curl takes it; the port is 80 where none is.
pub(in crate::cli::doctor) fn authority(value: &str) -> Option<String> {
    let whole = between(value);
    let host = whole.rsplit_once('@').map_or(whole, |(_, host)| host);
    let uri: http::uri::Authority = host.parse().ok()?;
    Some(format!("{}:{}", uri.host(), uri.port_u16().unwrap_or(80)))
}

/// The name and password of a URL, as they are written there.
pub(in crate::cli::doctor) fn user(value: &str) -> Option<&str> {
    between(value).rsplit_once('@').map(|(user, _)| user).filter(|user| !user.is_empty())
}

/// What stands between scheme and path: `user:password@host:port`.
fn between(value: &str) -> &str {
    let rest = value.split_once("://").map_or(value, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or(rest)
}

/// A value as it may be shown: where it points, without names and passwords, paths and
/// queries. Where an `@` stands behind that, a password may hold what ends an authority
/// (RFC 3986, section 3.2), and nothing is certain enough to be shown.
pub(in crate::cli::doctor) fn masked(value: &str) -> String {
    let is_scheme = |text: &str| text.chars().all(|sign| sign.is_ascii_alphanumeric());
    let (scheme, rest) = match value.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => (format!("{scheme}://"), rest),
        _ => (String::new(), value),
    };
    let (authority, behind) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        _ if behind.contains('@') => format!("{scheme}***"),
        Some((_, host)) => format!("{scheme}***@{host}"),
        None => format!("{scheme}{authority}"),
    }
}

/// Whether two addresses are one: this machine goes by several names.
pub(in crate::cli::doctor) fn same(one: &str, other: &str) -> bool {
    let split = |address: &str| {
        let (host, port) = address.rsplit_once(':')?;
        let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
        let here = ["localhost", "127.0.0.1", "::1", "0.0.0.0", "::"].contains(&host.as_str());
        Some((if here { "localhost".to_owned() } else { host }, port.to_owned()))
    };
    matches!((split(one), split(other)), (Some(one), Some(other)) if one == other)
}

/// A variable that names `proxy`, naming `relay` in its place; none where it does not.
pub(in crate::cli::doctor) fn redirected(
    name: &str,
    value: &str,
    proxy: &str,
    relay: &str,
) -> Option<String> {
    if name == "JAVA_TOOL_OPTIONS" || name == "MAVEN_OPTS" || name == "GRADLE_OPTS" {
        return java(value, proxy, relay);
    }
    let named = authority(value).filter(|_| is_proxy(name))?;
    if !same(&named, proxy) {
        return None;
    }
    let scheme = value.split_once("://").map(|(scheme, _)| format!("{scheme}://"));
    let user = user(value).map(|user| format!("{user}@")).unwrap_or_default();
    Some(format!("{}{user}{relay}", scheme.unwrap_or_default()))
}

/// The same for Java's options.
fn java(options: &str, proxy: &str, relay: &str) -> Option<String> {
    let (relay_host, relay_port) = relay.rsplit_once(':')?;
    let mut changed = false;
    let mut words: Vec<String> = options.split(' ').map(str::to_owned).collect();
    for scheme in ["http", "https"] {
        let [host, port] = ["Host", "Port"].map(|part| format!("-D{scheme}.proxy{part}="));
        // The last one counts.
        let of = |key: &str| {
            words.iter().rev().find_map(|word| word.strip_prefix(key)).map(str::to_owned)
        };
        let named = format!("{}:{}", of(&host).unwrap_or_default(), of(&port).unwrap_or_default());
        if !same(&named, proxy) {
            continue;
        }
        changed = true;
        for word in &mut words {
            if word.starts_with(&host) {
                *word = format!("{host}{relay_host}");
            } else if word.starts_with(&port) {
                *word = format!("{port}{relay_port}");
            }
        }
    }
    changed.then(|| words.join(" "))
}

/// The entry of `NO_PROXY` that hides a host, as most clients read it: `*`, a name and all
/// names under it, a network.
pub(in crate::cli::doctor) fn hiding<'a>(no_proxy: &'a str, host: &str) -> Option<&'a str> {
    let host = host.to_ascii_lowercase();
    no_proxy.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty()).find(|entry| {
        let name = entry.to_ascii_lowercase();
        let name = name.strip_prefix('*').unwrap_or(&name);
        let bare = name.trim_start_matches('.').split(':').next().unwrap_or_default();
        if *entry == "*" {
            return true;
        }
        if let (Ok(net), Ok(ip)) = (name.parse::<ipnet::IpNet>(), host.parse::<std::net::IpAddr>())
        {
            return net.contains(&ip);
        }
        let under =
            host.strip_suffix(bare).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        !bare.is_empty() && under
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_says_where_and_for_whom() {
        for (value, wanted, named) in [
            ("http://127.0.0.1:8080", Some("127.0.0.1:8080"), None),
            ("http://u:p%40@127.0.0.1:8080/", Some("127.0.0.1:8080"), Some("u:p%40")),
            ("127.0.0.1:8080", Some("127.0.0.1:8080"), None),
            ("proxy.corp", Some("proxy.corp:80"), None),
            ("http://[::1]:9", Some("[::1]:9"), None),
            ("", None, None),
        ] {
            assert_eq!((authority(value).as_deref(), user(value)), (wanted, named), "{value}");
        }
    }

    #[test]
    fn no_password_is_shown() {
        for (value, wanted) in [
            ("http://u:hush@h:1", "http://***@h:1"),
            ("http://u:hu@sh@h:1/x", "http://***@h:1"),
            ("http://u:p@h:1/?x=hush", "http://***@h:1"),
            ("http://h:1?x=hush", "http://h:1"),
            ("http://h:1/hush#hush", "http://h:1"),
            ("http://h:1/?x=a@hush", "http://***"),
            ("u:hush@h:1", "***@h:1"),
            ("u:hush@h://x", "***@h:"),
            ("http://u:hu/sh@h:1", "http://***"),
            ("http://u:hu@sh/hush@h:1", "http://***"),
            ("socks5://h:1", "socks5://h:1"),
            ("http://h:1", "http://h:1"),
            ("", ""),
        ] {
            assert_eq!(masked(value), wanted);
        }
    }

    #[test]
    fn only_what_names_the_proxy_is_redirected() {
        let java = "-Da=b -Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=8080";
        for (name, value, wanted) in [
            ("HTTPS_PROXY", "http://127.0.0.1:8080", Some("http://127.0.0.1:1")),
            ("https_proxy", "http://localhost:8080/", Some("http://127.0.0.1:1")),
            ("http_proxy", "u:p@127.0.0.1:8080", Some("u:p@127.0.0.1:1")),
            ("HTTPS_PROXY", "http://127.0.0.1:8081", None),
            ("HTTPS_PROXY", "http://proxy.corp:8080", None),
            ("NO_PROXY", "127.0.0.1:8080", None),
            ("PATH", "http://127.0.0.1:8080", None),
            (
                "JAVA_TOOL_OPTIONS",
                java,
                Some("-Da=b -Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=1"),
            ),
            ("JAVA_TOOL_OPTIONS", "-Dhttp.proxyHost=h -Dhttp.proxyPort=8080", None),
            ("JAVA_TOOL_OPTIONS", &format!("{java} -Dhttp.proxyPort=3128"), None),
        ] {
            let got = redirected(name, value, "127.0.0.1:8080", "127.0.0.1:1");
            assert_eq!(got.as_deref(), wanted, "{name}={value}");
        }
    }

    #[test]
    fn an_entry_hides_a_name_and_all_under_it() {
        for (no_proxy, host, wanted) in [
            ("*", "a.test", Some("*")),
            ("localhost,a.test", "a.test", Some("a.test")),
            ("a.test", "x.a.test", Some("a.test")),
            (".a.test", "x.a.test", Some(".a.test")),
            ("*.a.test", "x.a.test", Some("*.a.test")),
            ("a.test:443", "a.test", Some("a.test:443")),
            ("A.test b.test", "b.test", Some("b.test")),
            ("10.0.0.0/8", "10.1.2.3", Some("10.0.0.0/8")),
            ("10.0.0.0/8", "a.test", None),
            ("a.test", "xa.test", None),
            ("", "a.test", None),
            (",", "a.test", None),
        ] {
            assert_eq!(hiding(no_proxy, host), wanted, "{no_proxy} {host}");
        }
    }
}

//! The variables of a shell: there, pointing here, hiding nothing.

use super::*;

#[test]
fn each_variable_is_there() {
    let unset = |names: &'static [&'static str]| {
        move |facts: &mut Facts| {
            for name in names {
                set(facts, name, None);
            }
        }
    };
    let both = unset(&["HTTPS_PROXY", "https_proxy"]);
    check(
        "missing",
        both,
        (
            Wrong,
            "HTTPS_PROXY, https_proxy are not set",
            "export HTTPS_PROXY='http://127.0.0.1:8080'",
        ),
    );
    check("one case", unset(&["https_proxy"]), (Fine, "the variables of this shell point", ""));
    check(
        "lower case",
        unset(&["http_proxy"]),
        (Wrong, "http_proxy is not set", "export http_proxy="),
    );
    check(
        "exceptions",
        unset(&["NO_PROXY", "no_proxy"]),
        (Fine, "the variables of this shell", ""),
    );
    check(
        "one tool's",
        unset(&["PIP_CERT"]),
        (Note, "PIP_CERT is not set", "export PIP_CERT='/public/bundle.pem'"),
    );
    let many = unset(&["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT"]);
    check("many", many, (Wrong, "are not set", ". '/public/env.sh'"));
}

#[test]
fn each_variable_points_here() {
    let point =
        |name: &'static str, to: &'static str| move |facts: &mut Facts| set(facts, name, Some(to));
    check(
        "https",
        point("http_proxy", "https://127.0.0.1:8080"),
        (Wrong, "http_proxy says https", "export http_proxy='http://127.0.0.1:8080'"),
    );
    check(
        "no URL",
        point("http_proxy", "http://a b"),
        (Wrong, "http_proxy is no URL", "export http_proxy"),
    );
    let named = |facts: &mut Facts| {
        for name in ["HTTPS_PROXY", "https_proxy"] {
            set(facts, name, Some("http://u:p@localhost:8080/"));
        }
    };
    check("by name", named, (Fine, "the variables of this shell point at it", ""));
    let elsewhere = |facts: &mut Facts| {
        for name in ["HTTPS_PROXY", "https_proxy"] {
            set(facts, name, Some("http://u:hush@127.0.0.1:9"));
        }
        facts.elsewhere = Some(("127.0.0.1:9".to_owned(), Reached::Nobody("refused".to_owned())));
    };
    let wanted = "HTTPS_PROXY points at http://***@127.0.0.1:9, where nothing answers (refused), and the proxy is at 127.0.0.1:8080";
    check("elsewhere", elsewhere, (Wrong, wanted, "export HTTPS_PROXY='http://127.0.0.1:8080'"));
    check(
        "differ",
        point("no_proxy", "a.test"),
        (Wrong, "NO_PROXY and no_proxy differ", "export no_proxy=\"$NO_PROXY\""),
    );
    check(
        "node's",
        point("NODE_USE_ENV_PROXY", "0"),
        (Wrong, "NODE_USE_ENV_PROXY is `0`", "export NODE_USE_ENV_PROXY='1'"),
    );
    check(
        "java's",
        point("JAVA_TOOL_OPTIONS", "-Da=hush"),
        (
            Wrong,
            "JAVA_TOOL_OPTIONS lacks -Dhttp.proxyHost",
            "export JAVA_TOOL_OPTIONS=\"$JAVA_TOOL_OPTIONS \"'-Dhttp.proxyHost=127.0.0.1 ",
        ),
    );
    check(
        "php's",
        point("PHP_INI_SCAN_DIR", "/etc/php"),
        (
            Wrong,
            "PHP_INI_SCAN_DIR lacks /public",
            "export PHP_INI_SCAN_DIR=\"$PHP_INI_SCAN_DIR\"':/public'",
        ),
    );
    check(
        "php's own too",
        point("PHP_INI_SCAN_DIR", "/etc/php:/public"),
        (Fine, "the variables", ""),
    );
    check(
        "wget's",
        point("SYSTEM_WGETRC", "/etc/wgetrc"),
        (Wrong, "SYSTEM_WGETRC is `/etc/wgetrc`", "export SYSTEM_WGETRC='/public/wgetrc'"),
    );
    let user = |facts: &mut Facts| facts.wants_user = true;
    check(
        "no user",
        user,
        (Wrong, "HTTPS_PROXY has no name and password", "NAME:PASSWORD@127.0.0.1:8080"),
    );
}

#[test]
fn a_file_that_a_variable_names_holds_the_ca() {
    let name =
        |pem: Pem| move |facts: &mut Facts| name_file(facts, "SSL_CERT_FILE", "/other.pem", pem);
    let mends = "export SSL_CERT_FILE='/public/bundle.pem'";
    let gone = name(Pem::Unreadable("No such file".to_owned()));
    check(
        "gone",
        gone,
        (Wrong, "SSL_CERT_FILE names /other.pem, which cannot be read: No such", mends),
    );
    let others = name(Pem::Holds(vec![certificate("root"), certificate("theirs")]));
    check("others", others, (Wrong, "/other.pem, which does not hold samekey's CA", mends));
    let alone = name(Pem::Holds(vec![certificate("ours")]));
    check("alone", alone, (Note, "holds our CA alone: hosts that are not opened fail", mends));
    let more = name(Pem::Holds(vec![certificate("root"), certificate("ours")]));
    check("a bundle of one's own", more, (Fine, "the variables of this shell point at it", ""));
    let all = |facts: &mut Facts| {
        for name in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT"] {
            name_file(facts, name, "/etc/ssl/certs", Pem::Holds(vec![certificate("root")]));
        }
    };
    let wanted = "SSL_CERT_FILE, REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, PIP_CERT name files, each of which does not hold";
    check("all of them", all, (Wrong, wanted, ". '/public/env.sh'"));
}

#[test]
fn an_exception_that_hides_a_host_of_the_config_is_told() {
    let hide = |by: &'static str| {
        move |facts: &mut Facts| {
            for name in ["NO_PROXY", "no_proxy"] {
                set(facts, name, Some(by));
            }
        }
    };
    check(
        "by name",
        hide("x.test,api.test"),
        (
            Wrong,
            "NO_PROXY hides api.test from the proxy, by `api.test`",
            "export NO_PROXY='x.test'",
        ),
    );
    check(
        "by suffix",
        hide(".test,localhost"),
        (Wrong, "hides api.test from the proxy, by `.test`", "export NO_PROXY='localhost'"),
    );
    check(
        "all",
        hide("*"),
        (Wrong, "NO_PROXY hides every host from the proxy, by `*`", "export NO_PROXY=''"),
    );
    check(
        "others",
        hide("x.test,y.api.test"),
        (Fine, "the variables of this shell point at it", ""),
    );
    let next_door = |facts: &mut Facts| facts.hosts = vec!["127.0.0.1".to_owned()];
    check(
        "next door",
        next_door,
        (Note, "NO_PROXY hides 127.0.0.1", "export NO_PROXY='localhost,::1,"),
    );
}

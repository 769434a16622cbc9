//! The variables that point a program at the sidecar and let it trust the CA.

use std::net::Ipv6Addr;
use std::path::{Path, absolute};

use http::Uri;

use super::truststore::PASSWORD;

/// What the variables are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lines that a POSIX shell can source.
    Shell,
    /// A `.env` file.
    Dotenv,
    /// The `env` list of a Kubernetes container.
    Kubernetes,
    /// A file of options: `java @FILE`.
    Java,
}

/// The variables, in the order in which they are written.
#[derive(Clone, Debug)]
pub struct Environment {
    proxy_url: String,
    no_proxy: String,
    ca: String,
    bundle: String,
    /// Java's options, each an option of its own, quoted where it must be.
    java: Vec<String>,
    /// The same for `JAVA_TOOL_OPTIONS`, behind what the reader's own environment says.
    java_tool: String,
    wgetrc: String,
    /// Where PHP looks for settings, behind where the reader's own environment says.
    php: String,
    /// The variables that have what the reader's own environment says.
    merged: Vec<&'static str>,
}

/// What a program's environment says already, and what stays in force.
#[derive(Clone, Copy, Debug, Default)]
pub struct Own<'a> {
    /// `NO_PROXY`.
    pub no_proxy: Option<&'a str>,
    /// `JAVA_TOOL_OPTIONS`.
    pub java: Option<&'a str>,
    /// `PHP_INI_SCAN_DIR`.
    pub php: Option<&'a str>,
}

impl Own<'_> {
    /// The variables that it speaks of.
    fn names(&self) -> Vec<&'static str> {
        let said = [
            (NO_PROXY, self.no_proxy),
            (NO_PROXY_LOWER, self.no_proxy),
            (JAVA, self.java),
            (PHP, self.php),
        ];
        said.into_iter().filter_map(|(name, value)| value.map(|_| name)).collect()
    }
}

impl Environment {
    /// Points at `proxy_url`, and at the CA files in `public`.
    ///
    /// With an empty `proxy_url` at the CA files alone: who is redirected knows of no proxy.
    pub fn new(proxy_url: &str, public: &Path, own: Own<'_>) -> Self {
        // A program may well run in another folder than we do.
        let public = absolute(public).unwrap_or_else(|_| public.to_owned());
        let file = |name| public.join(name).to_string_lossy().into_owned();
        let no_proxy = merged(own.no_proxy.unwrap_or_default());
        let java = java(proxy_url, &no_proxy, &file("truststore.p12"));
        let java_tool = own.java.map(str::to_owned).into_iter().chain(java.iter().cloned());
        Self {
            proxy_url: proxy_url.to_owned(),
            no_proxy,
            ca: file("ca.pem"),
            bundle: file("bundle.pem"),
            java_tool: java_tool.collect::<Vec<_>>().join(" "),
            java,
            wgetrc: file("wgetrc"),
            php: format!("{}:{}", own.php.unwrap_or_default(), public.display()),
            merged: own.names(),
        }
    }

    /// Each variable's name and value.
    pub fn variables(&self) -> Vec<(&'static str, &str)> {
        let proxies = PROXIES.iter().map(|name| (*name, self.proxy_url.as_str()));
        let no_proxies = [NO_PROXY, NO_PROXY_LOWER].map(|name| (name, self.no_proxy.as_str()));
        let bundles = BUNDLES.iter().map(|name| (*name, self.bundle.as_str()));
        let node = [("NODE_USE_ENV_PROXY", "1"), ("NODE_EXTRA_CA_CERTS", self.ca.as_str())];
        let others = [
            (JAVA, self.java_tool.as_str()),
            ("PERL_LWP_ENV_PROXY", "1"),
            (PHP, self.php.as_str()),
            ("SYSTEM_WGETRC", self.wgetrc.as_str()),
        ];
        let all = proxies.chain(no_proxies).chain(node).chain(bundles).chain(others);
        all.filter(|(name, _)| !self.proxy_url.is_empty() || !points_at_a_proxy(name)).collect()
    }

    /// What PHP reads, whose curl knows no variable for roots.
    pub(super) fn php_ini(&self) -> String {
        let bundle = quoted(&self.bundle);
        format!("curl.cainfo = {bundle}\nopenssl.cafile = {bundle}\n")
    }

    /// What wget reads in place of `system`, the settings of the whole machine.
    pub(super) fn wgetrc(&self, system: &str) -> String {
        let end = if system.is_empty() || system.ends_with('\n') { "" } else { "\n" };
        format!("{system}{end}ca_certificate = {}\n", self.bundle)
    }

    /// All variables as text.
    pub fn written(&self, format: Format) -> String {
        match format {
            Format::Shell => self.lines(|name, value| self.shell_line(name, value)),
            Format::Dotenv => self.lines(|name, value| format!("{name}={}\n", dotenv(value))),
            Format::Kubernetes => self.kubernetes(),
            Format::Java => self.java.join("\n") + "\n",
        }
    }

    fn lines(&self, line: impl Fn(&str, &str) -> String) -> String {
        self.variables().into_iter().map(|(name, value)| line(name, value)).collect()
    }

    /// Whoever sources this later may have values of their own, which stay in force; sourced
    /// twice, it changes nothing more.
    fn shell_line(&self, name: &str, value: &str) -> String {
        let ours = in_a_shell(value);
        match name {
            _ if self.merged.contains(&name) => format!("export {name}={ours}\n"),
            NO_PROXY => {
                let hosts: Vec<String> = value.split(',').map(in_a_shell).collect();
                let hosts = hosts.join(" ");
                // Of both names, each host once: programs differ in which they read. In a shell
                // of its own, so that no variable is left behind and `*` names no files.
                format!(
                    "export {name}=\"$(set -f; IFS=' ,'; all=; \
                     for host in ${{NO_PROXY-}} ${{no_proxy-}} {hosts}; do \
                     case \",,$all,\" in (*\",$host,\"*) ;; (*) all=\"$all${{all:+,}}$host\" ;; \
                     esac; done; printf %s \"$all\")\"\n"
                )
            }
            NO_PROXY_LOWER => format!("export {name}=\"${NO_PROXY}\"\n"),
            // The last of two options counts.
            JAVA => format!(
                "case \" ${{{name}-}}\" in (*' '{ours}) ;; \
                 (*) {name}=\"${{{name}:+${name} }}\"{ours} ;; esac; export {name}\n"
            ),
            PHP => format!(
                "case \":${{{name}-}}:\" in (*{ours}:*) ;; \
                 (*) {name}=\"${{{name}-}}\"{ours} ;; esac; export {name}\n"
            ),
            _ => format!("export {name}={ours}\n"),
        }
    }

    /// Each variable's name and value, as the `env` of a Kubernetes container takes them.
    pub fn of_a_container(&self) -> Vec<(&'static str, String)> {
        let variables = self.variables().into_iter();
        variables.map(|(name, value)| (name, container_value(name, value))).collect()
    }

    fn kubernetes(&self) -> String {
        let line = |(name, value): (&str, String)| {
            format!("- name: {name}\n  value: {}\n", quoted(&value))
        };
        let list: String = self.of_a_container().into_iter().map(line).collect();
        format!(
            "# {} must be mounted at the same path in the application's container.\n{list}",
            self.ca
        )
    }
}

/// Kubernetes reads `$(NAME)` as a reference, and `$$(` as two plain signs.
///
/// Programs that talk to the cluster's API find its address in one that is always set.
fn container_value(name: &str, value: &str) -> String {
    let escaped = value.replace("$(", "$$(");
    if [NO_PROXY, NO_PROXY_LOWER].contains(&name) {
        format!("{escaped},{CLUSTER_API}")
    } else {
        escaped
    }
}

/// A word that a POSIX shell reads back as this value.
fn in_a_shell(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

fn points_at_a_proxy(name: &str) -> bool {
    let others = [NO_PROXY, NO_PROXY_LOWER, "NODE_USE_ENV_PROXY", "PERL_LWP_ENV_PROXY"];
    PROXIES.contains(&name) || others.contains(&name)
}

/// Java reads neither these variables nor PEM: it has options of its own.
fn java(proxy_url: &str, no_proxy: &str, truststore: &str) -> Vec<String> {
    let uri = proxy_url.parse::<Uri>().unwrap_or_default();
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(80);
    let direct: Vec<_> = no_proxy.split(',').filter_map(java_host).collect();
    let proxies = ["http", "https"].into_iter().flat_map(|scheme| {
        [format!("-D{scheme}.proxyHost={host}"), format!("-D{scheme}.proxyPort={port}")]
    });
    // One list serves both schemes.
    let direct = format!("-Dhttp.nonProxyHosts={}", quoted(&direct.join("|")));
    let proxies = proxies.chain([direct]).filter(|_| !proxy_url.is_empty());
    let rest = [
        format!("-Djavax.net.ssl.trustStore={}", quoted(truststore)),
        format!("-Djavax.net.ssl.trustStorePassword={PASSWORD}"),
        "-Djavax.net.ssl.trustStoreType=PKCS12".to_owned(),
    ];
    // No option sets a password; with one, an Authenticator has to be let through.
    let user = (without_user(proxy_url) != proxy_url)
        .then(|| "-Djdk.http.auth.tunneling.disabledSchemes=".to_owned());
    proxies.chain(rest).chain(user).collect()
}

/// A URL without `user:password@`.
pub(super) fn without_user(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let colon = if scheme.is_empty() { "" } else { "://" };
    format!("{scheme}{colon}{host}{path}")
}

/// What was there, then what is missing of ours.
fn merged(existing: &str) -> String {
    let mut hosts: Vec<&str> = Vec::new();
    for host in existing.split(',').chain(DIRECT.iter().copied()).map(str::trim) {
        if !host.is_empty() && !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts.join(",")
}

/// Quoted only where it must be: `docker --env-file` takes quotes as part of the value.
fn dotenv(value: &str) -> String {
    let plain = |sign: char| sign.is_ascii_alphanumeric() || "_-./:,@%+=[]*~".contains(sign);
    match value {
        value if value.chars().all(plain) => value.to_owned(),
        value if !value.contains('\'') => format!("'{value}'"),
        value => quoted(value),
    }
}

/// In double quotes, as JSON, YAML, `.env` and Java option files all read them.
fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', r"\\").replace('"', "\\\""))
}

/// An exception as Java writes it; networks and ports it does not know.
fn java_host(host: &str) -> Option<String> {
    match host {
        host if host.contains('/') => None,
        host if host.parse::<Ipv6Addr>().is_ok() => Some(format!("[{host}]")),
        host if host.starts_with('.') => Some(format!("*{}", without_port(host))),
        host => Some(without_port(host).to_owned()),
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        _ => host,
    }
}

/// Both cases of both: curl and Go read `http_proxy` in lower case alone, Java tools upper.
///
/// Not `ALL_PROXY`: it adds nothing for http and https, and sends what is neither to us.
const PROXIES: &[&str] = &["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"];

const NO_PROXY: &str = "NO_PROXY";
const NO_PROXY_LOWER: &str = "no_proxy";

/// What is next door, the cluster's own services, and the clouds' metadata hosts, which
/// tell by the caller's address whom they answer.
const DIRECT: &[&str] = &[
    "localhost",
    "127.0.0.1",
    "::1",
    ".svc",
    ".cluster.local",
    "kubernetes.default.svc",
    "169.254.169.254",
    "169.254.170.2",
    "169.254.170.23",
    "fd00:ec2::254",
    "metadata.google.internal",
];

/// EnvVar.value, Kubernetes API reference: service variables can be referred to.
const CLUSTER_API: &str = "$(KUBERNETES_SERVICE_HOST)";

const JAVA: &str = "JAVA_TOOL_OPTIONS";

/// Folders of settings; an empty name among them is the one that PHP was built with.
const PHP: &str = "PHP_INI_SCAN_DIR";

/// Each replaces a program's store, so each points at the system's roots and the CA together.
const BUNDLES: &[&str] = &[
    // OpenSSL, and with it Python, Ruby, PHP; Go; rustls
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "AWS_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "DENO_CERT",
    "HTTPLIB2_CA_CERTS",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "PERL_LWP_SSL_CA_FILE",
    "NIX_SSL_CERT_FILE",
    "npm_config_cafile",
    "BUNDLE_SSL_CA_CERT",
    "COMPOSER_CAFILE",
    "HEX_CACERTS_PATH",
    "WEBSOCKET_CLIENT_CA_BUNDLE",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn at(url: &str, no_proxy: Option<&str>) -> Environment {
        Environment::new(url, Path::new("/a b/it's"), Own { no_proxy, ..Own::default() })
    }

    #[test]
    fn every_name_comes_once_and_every_file_is_absolute() {
        let environment =
            Environment::new("http://127.0.0.1:8080", Path::new("public"), Own::default());
        let variables = environment.variables();
        let mut names: Vec<_> = variables.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), variables.len());
        for (name, value) in variables.into_iter().filter(|(name, _)| *name != PHP) {
            if name.contains("CA") || name.contains("CERT") || name.contains("cafile") {
                assert!(
                    value.starts_with('/') && Path::new(value).extension().is_some(),
                    "{name}={value}"
                );
            }
        }
    }

    #[test]
    fn exceptions_of_the_users_own_stay() {
        let ours = DIRECT.join(",");
        for (existing, wanted) in [
            ("", ours.clone()),
            ("corp.example, localhost", format!("corp.example,{ours}")),
            (" ,,a.b", format!("a.b,{ours}")),
            (ours.as_str(), ours.clone()),
        ] {
            assert_eq!(merged(existing), wanted);
        }
    }

    #[test]
    fn a_shell_reads_back_what_was_written() {
        let environment = at("http://u:p$a'\"`\\@127.0.0.1:8080", Some("own.example"));
        let script = format!("{}env -0", environment.written(Format::Shell));
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<_> = output.split('\0').collect();
        for (name, value) in environment.variables() {
            assert!(lines.contains(&format!("{name}={value}").as_str()), "{name}");
        }
    }

    /// What a shell has of `names`, one a line, when it has sourced the file once, and twice.
    fn sourced(own: &[(&str, &str)], names: &str) -> String {
        let written = at("http://h:1", None).written(Format::Shell);
        let read = format!("{written}env | grep -E '^({names})=' | sort\n");
        let script = format!("set -eu; cd /; all=mine; IFS=:\n{read}{read}echo $all\"$IFS\"\n");
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &script]);
        for name in [NO_PROXY, NO_PROXY_LOWER, JAVA, PHP] {
            shell.env_remove(name);
        }
        let output = shell.envs(own.iter().copied()).output().unwrap();
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        let told = String::from_utf8(output.stdout).unwrap();
        let told = told.strip_suffix("mine:\n").unwrap();
        let (once, twice) = told.split_at(told.len() / 2);
        assert_eq!(once, twice, "it changes nothing when it is sourced again");
        once.to_owned()
    }

    #[test]
    fn a_sourced_file_keeps_the_readers_exceptions_of_either_name() {
        let ours = DIRECT.join(",");
        let [upper, lower] = [NO_PROXY, NO_PROXY_LOWER];
        for (own, wanted) in [
            (&[(upper, "own.example")][..], "own.example,"),
            (&[(lower, "own.example")], "own.example,"),
            (&[(upper, "a.b"), (lower, "c.d,a.b")], "a.b,c.d,"),
            (&[(upper, " a.b, ,c.d e.f,,*")], "a.b,c.d,e.f,*,"),
            (&[(upper, "")], ""),
            (&[], ""),
        ] {
            let wanted = format!("NO_PROXY={wanted}{ours}\nno_proxy={wanted}{ours}\n");
            assert_eq!(sourced(own, "NO_PROXY|no_proxy"), wanted, "{own:?}");
        }
        let all = format!("NO_PROXY=::1,{}\n", ours.replacen("::1,", "", 1));
        assert_eq!(sourced(&[(upper, "::1")], upper), all, "each host once");
    }

    #[test]
    fn a_sourced_file_has_javas_options_behind_the_readers_own() {
        let environment = at("http://h:1", None);
        let ours = &environment.java_tool;
        for (own, wanted) in [
            ("", ours.clone()),
            ("-Da=b", format!("-Da=b {ours}")),
            (ours, ours.clone()),
            // A later one would be the one that counts.
            (&format!("{ours} -Da=b"), format!("{ours} -Da=b {ours}")),
        ] {
            assert_eq!(sourced(&[(JAVA, own)], JAVA), format!("{JAVA}={wanted}\n"), "{own}");
        }
    }

    #[test]
    fn a_sourced_file_keeps_the_readers_folders_of_php() {
        for (own, wanted) in [
            (&[(PHP, "/own")][..], "/own:/a b/it's"),
            (&[(PHP, "/own:/a b/it's:/last")], "/own:/a b/it's:/last"),
            (&[], ":/a b/it's"),
        ] {
            assert_eq!(sourced(own, PHP), format!("{PHP}={wanted}\n"), "{own:?}");
        }
        let own = Own { php: Some("/own"), ..Own::default() };
        let environment = Environment::new("http://h:1", Path::new("/a"), own);
        assert!(environment.variables().contains(&(PHP, "/own:/a")));
    }

    #[test]
    fn wget_keeps_the_machines_settings_and_trusts_the_bundle() {
        let ours = "ca_certificate = /a b/it's/bundle.pem\n";
        for (system, kept) in [("", ""), ("quiet = on", "quiet = on\n"), ("a = b\n", "a = b\n")] {
            assert_eq!(at("http://h:1", None).wgetrc(system), format!("{kept}{ours}"));
        }
    }

    #[test]
    fn php_reads_the_bundle_for_curl_and_for_streams() {
        let wanted = "curl.cainfo = \"/a b/it's/bundle.pem\"\n\
                      openssl.cafile = \"/a b/it's/bundle.pem\"\n";
        assert_eq!(at("http://h:1", None).php_ini(), wanted);
    }

    #[test]
    fn dotenv_quotes_what_must_be_quoted() {
        for (value, wanted) in [
            ("http://u:p@h:1", "http://u:p@h:1"),
            ("localhost,::1,.svc", "localhost,::1,.svc"),
            ("/a b/ca.pem", "'/a b/ca.pem'"),
            ("a#b", "'a#b'"),
            ("/it's", "\"/it's\""),
            ("it's \"x\" \\", "\"it's \\\"x\\\" \\\\\""),
        ] {
            assert_eq!(dotenv(value), wanted);
        }
    }

    #[test]
    fn kubernetes_gets_a_list_of_names_and_values() {
        let written = at("http://u:$(X)@h:1", None).written(Format::Kubernetes);
        assert!(written.contains("- name: HTTPS_PROXY\n  value: \"http://u:$$(X)@h:1\"\n"));
        assert!(written.contains("- name: SSL_CERT_FILE\n  value: \"/a b/it's/bundle.pem\"\n"));
    }

    #[test]
    fn java_gets_host_port_and_exceptions() {
        for (url, host, port) in [
            ("http://127.0.0.1:8080", "127.0.0.1", 8080),
            ("http://u:p@[::1]:9", "::1", 9),
            ("http://proxy.local", "proxy.local", 80),
        ] {
            let written = at(url, Some("10.0.0.0/8")).written(Format::Java);
            assert!(
                written.contains(&format!("-Dhttps.proxyHost={host}\n-Dhttps.proxyPort={port}\n"))
            );
            assert!(written.contains(
                "\"localhost|127.0.0.1|[::1]|*.svc|*.cluster.local|kubernetes.default.svc|169.254."
            ));
            assert_eq!(written.contains("disabledSchemes"), url.contains('@'));
            assert!(written.contains("-Djavax.net.ssl.trustStore=\"/a b/it's/truststore.p12\"\n"));
        }
    }

    #[test]
    fn java_knows_an_exception_without_its_port() {
        for (host, wanted) in [
            ("corp.example:8080", Some("corp.example")),
            (".corp.example:8080", Some("*.corp.example")),
            ("*.corp.example", Some("*.corp.example")),
            ("10.1.2.3:80", Some("10.1.2.3")),
            ("::1", Some("[::1]")),
            ("fd00:ec2::254", Some("[fd00:ec2::254]")),
            ("[::1]", Some("[::1]")),
            ("[::1]:8080", Some("[::1]")),
            ("10.0.0.0/8", None),
            ("fd00::/8", None),
        ] {
            assert_eq!(java_host(host).as_deref(), wanted, "{host}");
        }
    }

    #[test]
    fn a_url_without_its_user() {
        for (url, wanted) in [
            ("http://h:1", "http://h:1"),
            ("http://u:p@h:1/", "http://h:1/"),
            ("http://u:p@x@[::1]:1", "http://[::1]:1"),
            ("http://h/a@b", "http://h/a@b"),
            ("u:p@h:1", "h:1"),
        ] {
            assert_eq!(without_user(url), wanted);
        }
    }
}

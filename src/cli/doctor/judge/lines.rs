//! The lines that mend what is wrong, by language.

use crate::cli::doctor::facts::{Facts, Other};
use crate::cli::doctor::judge::{environment, export, quoted};
use crate::cli::doctor::program::{Kind, Language};

/// ` --config FILE` where a file was read.
pub(super) fn config(source: &str) -> String {
    if source == "built in" { String::new() } else { format!(" --config {}", word(source)) }
}

/// What starts the sidecar.
pub(super) fn run(source: &str) -> String {
    format!("samekey run{}", config(source))
}

/// Quoted where a shell would take it apart.
fn word(text: &str) -> String {
    let plain = |sign: char| sign.is_ascii_alphanumeric() || "_-./:".contains(sign);
    if text.chars().all(plain) { text.to_owned() } else { quoted(text) }
}

/// Whether a program of this language reads a variable; where no program is given, some does.
pub(super) fn reads(reader: Option<Language>, name: &str) -> bool {
    const NODE: &[&str] = &["NODE_USE_ENV_PROXY", "NODE_EXTRA_CA_CERTS"];
    const PERL: &[&str] = &["PERL_LWP_ENV_PROXY", "PERL_LWP_SSL_CA_FILE"];
    let proxies = leads_here(name) && !NODE.contains(&name) && !PERL.contains(&name);
    match reader {
        None => true,
        Some(Language::Python) => {
            proxies || ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"].contains(&name)
        }
        Some(Language::Node) => proxies || NODE.contains(&name),
        Some(Language::Java) => name == "JAVA_TOOL_OPTIONS",
        Some(Language::Go | Language::Ruby | Language::Docker | Language::Unknown) => {
            proxies || name == "SSL_CERT_FILE"
        }
        Some(Language::Curl) => proxies || ["CURL_CA_BUNDLE", "SSL_CERT_FILE"].contains(&name),
        Some(Language::Php) => proxies || ["SSL_CERT_FILE", "PHP_INI_SCAN_DIR"].contains(&name),
        Some(Language::Perl) => proxies || PERL.contains(&name),
        Some(Language::Wget) => proxies || name == "SYSTEM_WGETRC",
        Some(Language::Git) => proxies || name == "GIT_SSL_CAINFO",
    }
}

/// Says that nothing came, and why that may be.
pub(super) fn absence(kind: &Kind) -> String {
    let why = match (kind.language, kind.version) {
        (Language::Node, Some((major, minor))) if !reads_proxy((major, minor)) => {
            format!("Node {major}.{minor} reads no proxy variable")
        }
        (Language::Node, Some((24, 0..5))) => {
            "before 24.5 Node goes by the variables in fetch alone, not in http and https"
                .to_owned()
        }
        (Language::Go, _) => "Go never takes a proxy for localhost".to_owned(),
        (Language::Docker, _) => {
            "a container has an environment, and a localhost, of its own".to_owned()
        }
        (Language::Python, _) => "aiohttp reads no variable unless it is told to".to_owned(),
        _ => "it asked nobody, or it does not go by these variables".to_owned(),
    };
    format!("no connection of the program came to the proxy: {why}")
}

/// Node's `NODE_USE_ENV_PROXY` came with 24.0, and to 22 with 22.21.
fn reads_proxy(version: (u32, u32)) -> bool {
    version >= (24, 0) || (version.0 == 22 && version.1 >= 21)
}

/// What brings a program to the proxy.
pub(super) fn to_come(facts: &Facts, kind: &Kind) -> Vec<String> {
    let proxy = facts.proxy.as_deref().unwrap_or_default();
    let own: Vec<String> = kind.sdks.iter().flat_map(|sdk| sdk.proxy.clone()).collect();
    let mut fix = amiss(facts, |name| {
        reads(Some(kind.language), name) && (leads_here(name) || name == "JAVA_TOOL_OPTIONS")
    });
    if !own.is_empty() {
        fix.extend(own);
        fix.extend(reverse(facts, kind));
        return fix;
    }
    let more: Vec<String> = match kind.language {
        Language::Python => vec![
            "aiohttp.ClientSession(trust_env=True)".to_owned(),
            "requests, httpx, urllib3.ProxyManager: no trust_env=False, no proxies of their own".to_owned(),
        ],
        Language::Node if kind.version.is_some_and(|version| !reads_proxy(version)) => vec![
            "Node 24, or 22.21 and later, with NODE_USE_ENV_PROXY=1".to_owned(),
            "import { EnvHttpProxyAgent, setGlobalDispatcher } from \"undici\"; \
             setGlobalDispatcher(new EnvHttpProxyAgent());   // for fetch: npm install undici@6"
                .to_owned(),
        ],
        Language::Node => vec!["no agent or dispatcher of the program's own, which goes by no variable".to_owned()],
        Language::Java => vec![
            "HttpClients.createSystem()   // Apache's client; java.net.http and HttpURLConnection need nothing".to_owned(),
        ],
        Language::Go => {
            vec!["&http.Transport{Proxy: http.ProxyFromEnvironment}   // as http.DefaultTransport has it".to_owned()]
        }
        Language::Ruby => vec!["Net::HTTP.new(host, port)   # no nil as the third argument".to_owned()],
        Language::Php => vec!["curl_setopt($ch, CURLOPT_PROXY, getenv('HTTPS_PROXY'));".to_owned()],
        Language::Curl => vec![format!("curl --proxy {proxy} --noproxy '' ...")],
        Language::Wget => vec![format!("wget -e use_proxy=yes -e https_proxy={proxy} ...")],
        Language::Git => vec![format!("git config --global http.proxy {proxy}")],
        Language::Docker => docker(facts),
        Language::Perl => vec!["LWP::UserAgent->new(env_proxy => 1)".to_owned()],
        Language::Unknown => Vec::new(),
    };
    fix.extend(more);
    fix.extend(reverse(facts, kind));
    fix
}

/// What lets a program trust the CA.
pub(super) fn to_trust(facts: &Facts, kind: &Kind) -> Vec<String> {
    let file = |name: &str| facts.public.join(name).to_string_lossy().into_owned();
    let bundle = file("bundle.pem");
    let own: Vec<String> = kind.sdks.iter().flat_map(|sdk| sdk.trust.clone()).collect();
    let mut fix = amiss(facts, |name| reads(Some(kind.language), name) && !leads_here(name));
    if !own.is_empty() {
        fix.extend(own);
        return fix;
    }
    fix.extend(match kind.language {
        Language::Python => vec![
            "verify=os.environ[\"SSL_CERT_FILE\"]   # where the code gives another, as certifi.where()"
                .to_owned(),
        ],
        Language::Node => {
            vec!["no `ca` of the program's own: it takes the place of NODE_EXTRA_CA_CERTS".to_owned()]
        }
        Language::Go => vec!["&tls.Config{RootCAs: nil}   // as it is where none is given".to_owned()],
        Language::Ruby => vec!["http.ca_file = ENV[\"SSL_CERT_FILE\"]".to_owned()],
        Language::Php => {
            vec![format!("php -d curl.cainfo={0} -d openssl.cafile={0} ...", quoted(&bundle))]
        }
        Language::Curl => vec![format!("curl --cacert {} ...", quoted(&bundle))],
        Language::Wget => vec![format!("wget --ca-certificate={} ...", quoted(&bundle))],
        Language::Git => vec![format!("git config --global http.sslCAInfo {}", quoted(&bundle))],
        Language::Docker => docker(facts),
        Language::Java | Language::Perl | Language::Unknown => Vec::new(),
    });
    fix
}

/// A base URL, for what no variable reaches.
pub(super) fn reverse(facts: &Facts, kind: &Kind) -> Vec<String> {
    let of_sdks: Vec<&String> = kind.sdks.iter().flat_map(|sdk| &sdk.base).collect();
    let brings_its_own = of_sdks.iter().any(|line| line.contains("mode: reverse"));
    let address = match facts.reverse.as_deref() {
        Some(REVERSE) if brings_its_own => REVERSE_NEXT,
        Some(there) if !brings_its_own => there,
        Some(_) | None => REVERSE,
    };
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "80"));
    let named = |line: &str| {
        line.replace("{reverse}", address).replace("{host}", host).replace("{port}", port)
    };
    let mut lines: Vec<String> = of_sdks.into_iter().map(|line| named(line)).collect();
    if lines.is_empty() {
        lines.push(named(
            "base URL: http://{reverse}/api.example.com in the place of https://api.example.com",
        ));
    }
    if facts.reverse.is_none() && !brings_its_own {
        let listener = format!("{{address: \"{REVERSE}\", mode: reverse}}");
        lines.insert(0, format!("samekey.yaml: listeners: [..., {listener}]"));
    }
    lines
}

/// What stands in the place of an upstream's URL, or of any.
pub(super) fn base_url(address: &str, upstream: Option<&str>) -> String {
    match upstream {
        Some(upstream) => format!("http://{address} in the place of {upstream}"),
        None => format!("http://{address}/api.example.com in the place of https://api.example.com"),
    }
}

/// What redirects connections, to be looked at and to be set.
pub(super) fn rules() -> Vec<String> {
    vec![
        "nft list table inet samekey   # as root; with iptables: iptables -t nat -S SAMEKEY_OUTPUT"
            .to_owned(),
        "samekey capture apply   # as root: sets them; in Kubernetes an init container does"
            .to_owned(),
    ]
}

/// What brings a program to a sidecar that has no proxy.
pub(super) fn to_come_by_no_variable(facts: &Facts, kind: &Kind) -> Vec<String> {
    let mut fix = if facts.is_transparent() { rules() } else { Vec::new() };
    for other in &facts.others {
        match other {
            Other::Redirected(_) => {}
            Other::BaseUrl(_, None) => fix.extend(reverse(facts, kind)),
            Other::BaseUrl(address, upstream) => {
                fix.push(format!("base URL: {}", base_url(address, upstream.as_deref())));
            }
        }
    }
    fix
}

/// Variables that a program of this kind reads and that are not set as they have to be.
fn amiss(facts: &Facts, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let all = facts.variables.iter().filter(|variable| wanted(variable.name));
    let amiss = all.filter(|variable| environment::is_amiss(facts, variable));
    amiss.map(|variable| export(variable.name, &variable.wanted)).collect()
}

/// Whether a variable says something of proxies: which, for whom, or that Node and Perl go by them.
fn leads_here(name: &str) -> bool {
    name.to_ascii_uppercase().ends_with("_PROXY")
}

fn docker(facts: &Facts) -> Vec<String> {
    let public = facts.public.to_string_lossy().into_owned();
    vec![format!(
        "docker run --network host --env-file <(samekey env --format dotenv{}) -v {public}:{public}:ro ...",
        config(&facts.config)
    )]
}

/// Where a listener for base URLs may stand.
const REVERSE: &str = "127.0.0.1:8081";
const REVERSE_NEXT: &str = "127.0.0.1:8082";

//! Two network namespaces and a wire between them: in one the sidecar and programs that
//! know nothing of it, in the other a provider. Dropped, all of it goes.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Who the sidecar runs as, and who the application.
pub(crate) const SIDECAR: u32 = 65532;
pub(crate) const APPLICATION: u32 = 1000;

/// Where the provider is.
pub(crate) const PROVIDER: [&str; 2] = ["10.77.0.2", "fd77::2"];
/// Another server of the same names, whose CA nobody trusts.
pub(crate) const IMPOSTOR: &str = "10.77.0.3";
/// Nobody; one of the addresses of `two.provider.test`.
pub(crate) const NOBODY: &str = "10.77.0.9";
/// Where a cloud keeps its metadata.
pub(crate) const METADATA: &str = "169.254.169.254";

/// Where the sidecar takes redirected connections: that of `config/kubernetes/transparent`.
pub(crate) const LISTENER: u16 = 17081;

const CONTROL: &str = "http://10.77.0.2:9000";
const ADMIN: &str = "http://127.0.0.1:9090";

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) struct World {
    /// Of the sidecar and the application, and of the provider.
    names: [String; 2],
    pub(crate) folder: TempDir,
    running: Vec<Child>,
}

impl World {
    /// Makes the namespaces, and starts the provider and the impostor.
    pub(crate) fn new() -> Self {
        assert!(
            rustix::process::getuid().is_root(),
            "the netns tests make network namespaces, which takes root: run `make netns-test` as root"
        );
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let made = MADE.fetch_add(1, Ordering::Relaxed);
        let name = |side| format!("samekey-{}-{made}-{side}", std::process::id());
        let folder = tempfile::tempdir().expect("a folder");
        // The sidecar and the application are not root.
        open_to_all(folder.path());
        let mut world =
            Self { names: [name("app"), name("provider")], folder, running: Vec::new() };
        world.wire();
        world.provide(PROVIDER[0], "provider");
        world.provide(IMPOSTOR, "impostor");
        world
    }

    fn wire(&self) {
        let [app, provider] = &self.names;
        let hosts = "127.0.0.1 localhost\n::1 localhost\n\
                     10.77.0.2 provider.test raw.provider.test\n\
                     fd77::2 provider.test raw.provider.test\n\
                     10.77.0.9 two.provider.test\n10.77.0.2 two.provider.test\n";
        for name in &self.names {
            ip(&["netns", "add", name]);
            let etc = Path::new("/etc/netns").join(name);
            fs::create_dir_all(&etc).expect("/etc/netns can be written");
            fs::write(etc.join("hosts"), hosts).expect("written");
            ip(&["-n", name, "link", "set", "lo", "up"]);
        }
        let peer = ["type", "veth", "peer", "name", "wire", "netns", provider];
        ip(&[&["link", "add", "wire", "netns", app], &peer[..]].concat());
        for (name, addresses) in [
            (app, &["10.77.0.1/24", "fd77::1/64"][..]),
            (provider, &["10.77.0.2/24", "10.77.0.3/24", "fd77::2/64"]),
        ] {
            for address in addresses {
                let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
                ip(&[&["-n", name, "address", "add", address, "dev", "wire"], nodad].concat());
            }
            ip(&["-n", name, "link", "set", "wire", "up"]);
        }
        ip(&["-n", app, "route", "add", "default", "via", PROVIDER[0]]);
        ip(&["-n", app, "-6", "route", "add", "default", "via", PROVIDER[1]]);
        ip(&["-n", provider, "address", "add", &format!("{METADATA}/32"), "dev", "lo"]);
    }

    /// A provider on the usual ports of an address, and of all other addresses of its side
    /// where it is the first.
    fn provide(&mut self, address: &str, name: &str) {
        let first = address == PROVIDER[0];
        let ca = self.folder.path().join(format!("{name}-ca.pem"));
        let provider = Path::new(env!("CARGO_BIN_EXE_samekey")).with_file_name("examples/provider");
        let mut command = self.on(1, None);
        command.arg(provider).arg("--ca-out").arg(&ca).args(["--ignore-keys"]);
        command.args(["--http", &format!("{address}:80"), "--https", &format!("{address}:443")]);
        command.args(["--control", &format!("{address}:9000")]);
        self.start(command);
        self.until("a provider listens", || ca.exists());
        if first {
            // The other addresses lead to the same books.
            for (from, to) in [("[fd77::2]", address), (METADATA, address)] {
                for port in [80, 443] {
                    self.relay(&format!("{from}:{port}"), &format!("{to}:{port}"));
                }
            }
        }
    }

    /// Copies between connections to `from` and connections to `to`, on the provider's side.
    fn relay(&mut self, from: &str, to: &str) {
        let mut command = self.on(1, None);
        command.args(["python3", "-c", RELAY, from, to]);
        self.start(command);
        self.listens(1, from);
    }

    /// Runs a server in Python on the provider's side: `act` is given a connection, `c`.
    pub(crate) fn server(&mut self, address: &str, act: &str) {
        self.serve(1, address, act);
    }

    /// Runs a server beside the application that answers every request with `local`.
    pub(crate) fn local_server(&mut self, address: &str) {
        self.serve(0, address, LOCAL);
    }

    fn serve(&mut self, side: usize, address: &str, act: &str) {
        let mut command = self.on(side, None);
        command.args(["python3", "-c", &SERVER.replace("ACT", act), address]);
        self.start(command);
        self.listens(side, address);
    }

    /// Starts the sidecar beside the application; `rest` is the rest of its config.
    pub(crate) fn sidecar(&mut self, rest: &str) {
        self.configure(rest);
        let mut command = self.on(0, Some(SIDECAR));
        let log = fs::File::create(self.folder.path().join("log")).expect("a log");
        command.arg(binary()).arg("run").stderr(log);
        self.start(command);
        self.listens(0, &format!("127.0.0.1:{LISTENER}"));
    }

    /// Writes the sidecar's config, with one transparent listener in each family.
    pub(crate) fn configure(&self, rest: &str) {
        let listener = |ip| format!("  - {{address: '{ip}:{LISTENER}', mode: transparent}}\n");
        let config = format!(
            "listeners:\n{}{}admin: {{address: '127.0.0.1:9090'}}\nstate: {{dir: state}}\n\
             upstream: {{roots: provider-ca.pem}}\n{rest}",
            listener("127.0.0.1"),
            listener("[::1]"),
        );
        fs::write(self.folder.path().join("samekey.yaml"), config).expect("written");
    }

    /// Runs `samekey capture` where the application is, as root.
    pub(crate) fn capture(&self, arguments: &[&str]) -> Ran {
        let mut command = self.on(0, None);
        command.arg(binary()).arg("capture").args(arguments);
        ran(command)
    }

    /// Runs a program that knows nothing of samekey but its CA.
    pub(crate) fn app(&self, words: &[&str]) -> Ran {
        self.run_as(APPLICATION, words)
    }

    pub(crate) fn run_as(&self, uid: u32, words: &[&str]) -> Ran {
        let mut command = self.on(0, Some(uid));
        let bundle = self.folder.path().join("state/public/bundle.pem");
        command.env("CURL_CA_BUNDLE", &bundle).env("SSL_CERT_FILE", &bundle);
        command.args(words);
        ran(command)
    }

    pub(crate) fn as_root(&self, words: &[&str]) -> Ran {
        let mut command = self.on(0, None);
        command.args(words);
        ran(command)
    }

    /// The packet filter's rules, without counters.
    pub(crate) fn rules(&self) -> String {
        let mut all = String::new();
        for words in [
            &["nft", "-s", "list", "ruleset"][..],
            &["iptables-legacy-save"],
            &["ip6tables-legacy-save"],
        ] {
            let mut command = self.on(0, None);
            command.args(words);
            let lines = ran(command).out;
            let lines = lines.lines().filter(|line| !line.starts_with('#'));
            all.extend(
                lines.map(|line| line.split(" [").next().unwrap_or_default().to_owned() + "\n"),
            );
        }
        all
    }

    /// Plays a script in a scenario of the provider's.
    pub(crate) fn script(&self, scenario: &str, steps: &str) {
        let body = serde_json::json!({"name": scenario, "steps": steps}).to_string();
        let url = format!("{CONTROL}/_sim/scenarios");
        let told = self.ask(&["-d", &body, &url]);
        assert!(told.contains("done"), "{told}");
    }

    /// What the provider's books say of a scenario.
    pub(crate) fn report(&self, scenario: &str) -> Value {
        self.books(CONTROL, scenario)
    }

    /// What the impostor's say.
    pub(crate) fn impostors(&self, scenario: &str) -> Value {
        self.books(&format!("http://{IMPOSTOR}:9000"), scenario)
    }

    fn books(&self, control: &str, scenario: &str) -> Value {
        let report = self.ask(&[&format!("{control}/_sim/report?scenario={scenario}")]);
        serde_json::from_str(&report).expect("JSON")
    }

    fn ask(&self, words: &[&str]) -> String {
        let mut command = self.on(1, None);
        command.args(["curl", "-sS", "--max-time", "10"]).args(words);
        ran(command).out
    }

    /// The sum of the series of one of the sidecar's metrics.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let mut command = self.on(0, None);
        command.args(["curl", "-sS", &format!("{ADMIN}/metrics")]);
        let text = ran(command).out;
        let series = text.lines().filter_map(|line| line.strip_prefix(name));
        let series = series.filter(|rest| rest.starts_with(['{', ' ']));
        series.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// What the sidecar logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Ends the sidecar, which was started last.
    pub(crate) fn stop_sidecar(&mut self) {
        let mut sidecar = self.running.pop().expect("it was started");
        sidecar.kill().expect("it runs");
        sidecar.wait().expect("it ends");
    }

    /// A command on one side, in the world's folder; as another user where one is named.
    fn on(&self, side: usize, uid: Option<u32>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[side]]);
        if let Some(uid) = uid {
            let uid = uid.to_string();
            command.args(["setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups"]);
        }
        // The system's own programs: others may be where only root can read them.
        command.env("PATH", "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin");
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        command
    }

    fn start(&mut self, mut command: Command) {
        self.running.push(command.spawn().expect("it can be started"));
    }

    fn listens(&self, side: usize, address: &str) {
        let port = address.rsplit(':').next().unwrap_or_default();
        let host = address.trim_end_matches(port).trim_end_matches(':').trim_matches(['[', ']']);
        host.parse::<IpAddr>().expect("an address");
        self.until(&format!("{address} listens"), || {
            let mut command = self.on(side, None);
            command.args([
                "ss",
                "-Hltn",
                &format!("src {}", address.trim_end_matches(&format!(":{port}"))),
                "and",
                &format!("sport = :{port}"),
            ]);
            !ran(command).out.is_empty()
        });
    }

    fn until(&self, what: &str, reached: impl Fn() -> bool) {
        let limit = Instant::now() + Duration::from_secs(20);
        while !reached() {
            assert!(Instant::now() < limit, "not in time: {what}; the log: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for child in &mut self.running {
            drop(child.kill());
            drop(child.wait());
        }
        for name in &self.names {
            drop(Command::new("ip").args(["netns", "del", name]).status());
            drop(fs::remove_dir_all(Path::new("/etc/netns").join(name)));
        }
    }
}

/// Runs a command to its end.
pub(crate) fn ran(mut command: Command) -> Ran {
    let output = command.output().expect("it can be run");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

fn ip(words: &[&str]) {
    let mut command = Command::new("ip");
    command.args(words);
    let ran = ran(command);
    assert_eq!(ran.code, Some(0), "ip {}: {}", words.join(" "), ran.err);
}

/// The binary, where users who may not read the source tree can run it.
pub(crate) fn binary() -> &'static str {
    static COPIED: OnceLock<(TempDir, String)> = OnceLock::new();
    let (_, binary) = COPIED.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        open_to_all(folder.path());
        let binary = folder.path().join("samekey");
        fs::copy(env!("CARGO_BIN_EXE_samekey"), &binary).expect("the binary was built");
        (folder, binary.to_str().expect("text").to_owned())
    });
    binary
}

fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).expect("it is ours");
}

const SERVER: &str = "
import socket, sys, threading
host, port = sys.argv[1].rsplit(':', 1)
host = host.strip('[]')
s = socket.create_server((host, int(port)), family=socket.AF_INET6 if ':' in host else socket.AF_INET)
def serve(c):
    ACT
    c.close()
while True:
    threading.Thread(target=serve, args=s.accept()[:1], daemon=True).start()
";

const LOCAL: &str = "
    c.recv(1000)
    c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nlocal')
";

const RELAY: &str = "
import socket, sys, threading
def split(text):
    host, port = text.rsplit(':', 1)
    return host.strip('[]'), int(port)
near, far = split(sys.argv[1]), split(sys.argv[2])
s = socket.create_server(near, family=socket.AF_INET6 if ':' in near[0] else socket.AF_INET)
def copy(a, b):
    try:
        while data := a.recv(65536):
            b.sendall(data)
        b.shutdown(socket.SHUT_WR)
    except OSError:
        pass
while True:
    c = s.accept()[0]
    try:
        u = socket.create_connection(far)
    except OSError:
        c.close()
        continue
    for ends in ((c, u), (u, c)):
        threading.Thread(target=copy, args=ends, daemon=True).start()
";

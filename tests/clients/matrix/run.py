"""Every client: real programs over TLS that samekey opens, and what each has to be told.

Arguments: the `samekey` binary, the `provider` binary, and, after `--readme`, the file that the
table goes into. Each row of `rows.json` sends one order that fails at first. It runs by the
variables, in `samekey exec` and beside a sidecar whose `env.sh` it reads, or, where no variable
reaches it, by a base URL. It has to see one good answer; the provider has to see two attempts under
one key, and one effect. By the variables it runs a third time without those of the CA, and has to
refuse: a client that checks no certificate proves nothing. What goes by a base URL runs a second
time by the variables, and has to fail: the day it does not, its row is wrong.

The provider goes by a name that only samekey can resolve, so what does not reach it through
samekey does not reach it at all.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
NAME = "api.provider.test"
# What a program may take; a JVM that compiles its source first, on a busy machine.
LIMIT_S = 120
SYSTEM_ROOTS = "/etc/ssl/certs/ca-certificates.crt"
BEGIN, END = "<!-- clients:begin -->", "<!-- clients:end -->"


class Wrong(Exception):
    """A row that is not as promised."""


def main():
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("samekey", type=pathlib.Path)
    words.add_argument("provider", type=pathlib.Path)
    words.add_argument("--readme", type=pathlib.Path)
    words.add_argument("--only", default="", help="rows whose name holds this")
    asked = words.parse_args()
    rows = json.loads((HERE / "rows.json").read_text())
    rows = [row for row in rows if asked.only in row["name"]]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        stage = Stage(asked, pathlib.Path(folder), stack)
        failed = [row["name"] for row in rows if not told(stage, row)]
    if failed:
        sys.exit(f"clients: {len(failed)} of {len(rows)} rows are red: {', '.join(failed)}")
    print(f"clients: {len(rows)} rows, all green")
    if asked.readme and not asked.only:
        write(asked.readme, table(rows))


def told(stage, row):
    """Runs a row, and says on one line how it went."""
    began = time.monotonic()
    try:
        row["was"] = version(stage, row)
        for way in ways(row):
            {"control": refuses, "unreached": fails}.get(way, answers)(stage, row, way)
        verdict = "ok: " + ", ".join(ways(row))
    except (Wrong, OSError, ValueError, subprocess.SubprocessError) as wrong:
        verdict = f"WRONG: {wrong}"
    print(f"{row['name']:<28} {row.get('was', '?'):<12} {time.monotonic() - began:5.1f} s  {verdict}", flush=True)
    return verdict.startswith("ok")


def ways(row):
    return ["reverse", "unreached"] if row.get("way") == "reverse" else ["exec", "env.sh", "control"]


# What is asked of a row.


def answers(stage, row, way):
    """One good answer after two attempts, for one effect."""
    scenario = stage.scripted(row, way)
    ended = stage.run(row, way)
    if ended.returncode:
        raise Wrong(f"{way}: exit {ended.returncode}\n{indented(ended)}")
    saw = json.loads(ended.stdout)
    report = stage.report(scenario)
    seen = [each for each in report["seen"] if each["path"].endswith(row.get("orders", ""))]
    keys = {each["key"] for each in seen}
    shown = {"attempts": "2", "key": next(iter(keys)) or ""} if len(keys) == 1 else {}
    for name in row.get("hides", []):
        shown.pop(name, None)
    expect(way, "the answer's status", saw["status"] in (200, 201), True)
    expect(way, "effects", report["effects"], 1)
    expect(way, "attempts at the provider", len(seen), 2)
    expect(way, "keys at the provider", len(keys), 1)
    expect(way, "what the program was told", {name: saw[name] for name in shown}, shown)
    expect(way, "whether there is a key", keys != {None}, not row.get("signed"))
    # The provider has checked the signature of the second; the first was the same to the byte.
    for name in ("method", "path", "headers", "body_digest"):
        expect(way, f"kinds of {name}", len({str(each[name]) for each in seen}), 1)


def refuses(stage, row, way):
    """Without the CA the program has to begin with TLS, say what it minds, and ask for nothing."""
    before = stage.handshakes()
    ended = fails(stage, row, way)
    expect(way, "whether there was a handshake", stage.handshakes() > before, True)
    if not re.search("certificate|x509", ended.stdout + ended.stderr, re.IGNORECASE):
        raise Wrong(f"{way}: it does not say that it minds the certificate\n{indented(ended)}")


def fails(stage, row, way):
    """It ends with an exit code that says so, and the provider hears nothing of it."""
    scenario = stage.scripted(row, way)
    ended = stage.run(row, way)
    expect(way, "requests at the provider", stage.report(scenario)["requests"], 0)
    expect(way, "whether the program failed", ended.returncode != 0, True)
    return ended


def expect(way, what, got, wanted):
    if got != wanted:
        raise Wrong(f"{way}: {what}: {got}, not {wanted}")


def indented(ended):
    lines = (ended.stdout + ended.stderr).strip().splitlines()
    return "\n".join(f"    {line}" for line in lines[-12:])


# Where it is asked.


class Stage:
    """The provider, a sidecar, and what programs are started with."""

    def __init__(self, asked, folder, stack):
        self.samekey, self.folder, self.stack = asked.samekey.resolve(), folder, stack
        self.hosts = folder / "hosts"
        self.hosts.write_text(pathlib.Path("/etc/hosts").read_text() + f"127.0.0.1 {NAME}\n")
        (folder / "home").mkdir()
        ca = folder / "provider-ca.pem"
        apis = ["--apis", "storage,repository"]
        provider = [asked.provider.resolve(), "--print-ports", "--ca-out", ca, *apis]
        self.ports = json.loads(self.started("provider", provider).stdout.readline())
        self.forward, self.named, self.fixed, self.admin = free_ports(4)
        self.config = folder / "samekey.yaml"
        self.config.write_text(CONFIG.format(
            forward=self.forward, named=self.named, fixed=self.fixed, admin=self.admin,
            ca=ca, state=folder / "state", upstream=f"https://{NAME}:{self.ports['https']}",
        ))
        self.started("samekey", self.knowing_the_name([self.samekey, "run", "--config", self.config]))
        self.await_ready()
        self.programs = {
            "python": str(ROOT / ".tools/venv/bin/python"),
            "node24": one(HERE.parent, "node_modules/node-linux-*/bin/node"),
            "node20": one(HERE, "node_modules/node20-linux-*/bin/node"),
            "go": str(folder / "net_http_post"),
        }
        build = ["go", "build", "-o", self.programs["go"], "net_http_post.go"]
        subprocess.run(build, cwd=HERE, env=self.plain() | {"GOTOOLCHAIN": "local", "GOPROXY": "off"}, check=True)

    def started(self, name, command):
        log = self.stack.enter_context(open(self.folder / f"{name}.log", "w"))
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=self.plain())
        self.stack.callback(process.wait, timeout=30)
        self.stack.callback(process.send_signal, signal.SIGINT)
        return process

    def await_ready(self):
        for _ in range(100):
            with contextlib.suppress(OSError):
                return fetched(self.admin, "/readyz")
            time.sleep(0.1)
        raise Wrong("samekey was not ready within 10 s: " + (self.folder / "samekey.log").read_text())

    def plain(self):
        """Nothing of this process's own settings but where programs are."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder / "home"), "LANG": "C.UTF-8"}

    def knowing_the_name(self, command):
        """In a namespace of its own, whose hosts file has the provider's name."""
        own = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
        return [*own, "sh", "-euc", 'mount --bind "$0" /etc/hosts; exec "$@"', self.hosts, *command]

    def run(self, row, way):
        url, env = self.url(row, way), self.plain()
        command = [word.format(**self.programs) for word in shlex.split(row["run"])] + [url]
        if way == "exec":
            env["SAMEKEY_STATE_DIR"] = str(self.folder / "state-of-exec")
            program = ["unshare", "--mount", "sh", "-euc", 'umount /etc/hosts; exec "$0" "$@"', *command]
            command = self.knowing_the_name([self.samekey, "exec", "--config", self.config, "--", *program])
        elif way in ("env.sh", "unreached"):
            command = ["sh", "-euc", '. "$0"; exec "$@"', self.public() / "env.sh", *command]
        elif way == "control":
            env = self.without_ca()
        return subprocess.run(command, cwd=HERE, env=env, capture_output=True, text=True, timeout=LIMIT_S)

    def url(self, row, way):
        port = self.ports["apis"].get(row.get("api"), self.ports["https"])
        at = f"https://{NAME}:{port}"
        if way == "reverse":
            at = f"http://127.0.0.1:{self.named}/{NAME}:{port}"
        if row.get("scenario"):
            return at if way != "reverse" else f"http://127.0.0.1:{self.fixed}"
        return f"{at}/s/{scenario(row, way)}{row.get('path', '/v1/jobs')}"

    def public(self):
        return self.folder / "state/public"

    def without_ca(self):
        """The variables of `env.sh` but those of the CA; OpenSSL's names the system's roots instead."""
        read = ["sh", "-euc", '. "$0"; env -0', self.public() / "env.sh"]
        text = subprocess.run(read, env=self.plain(), capture_output=True, text=True, check=True).stdout
        pairs = dict(pair.split("=", 1) for pair in text.split("\0") if "=" in pair)
        java = [word for word in pairs["JAVA_TOOL_OPTIONS"].split() if "trustStore" not in word]
        kept = {name: value for name, value in pairs.items() if str(self.public()) not in value}
        return kept | {"SSL_CERT_FILE": SYSTEM_ROOTS, "JAVA_TOOL_OPTIONS": " ".join(java)}

    def scripted(self, row, way):
        body = json.dumps({"name": scenario(row, way), "steps": row.get("steps", "503")}).encode()
        fetched(self.ports["control"], "/_sim/scenarios", body)
        return scenario(row, way)

    def report(self, name):
        return json.loads(fetched(self.ports["control"], f"/_sim/report?scenario={name}"))

    def handshakes(self):
        """Handshakes with clients. Some look at a certificate only once theirs has ended well."""
        count = r'^samekey_tls_handshakes_total\{.*side="client"\} (\d+)'
        return sum(map(int, re.findall(count, fetched(self.admin, "/metrics"), re.MULTILINE)))


def scenario(row, way):
    words = re.sub(r"[^a-z0-9]+", "-", row["name"].lower()).strip("-")
    return row.get("scenario") or f"{words}-{way.replace('.', '-')}"


CONFIG = """\
listeners:
  - {{address: "127.0.0.1:{forward}"}}
  - {{address: "127.0.0.1:{named}", mode: reverse}}
  - {{address: "127.0.0.1:{fixed}", mode: reverse, upstream: "{upstream}"}}
admin: {{address: "127.0.0.1:{admin}"}}
state: {{dir: {state}}}
upstream: {{roots: {ca}}}
routes:
  - name: jobs
    match: {{hosts: ["*.provider.test"]}}
    idempotency: {{upstream_dedupes: true}}
    retry: {{backoff: {{initial: 5ms, max: 20ms}}}}
"""


def free_ports(count):
    import socket

    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in held]


def fetched(port, path, body=None):
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(f"http://127.0.0.1:{port}{path}", body, timeout=10) as answer:
        return answer.read().decode()


def one(folder, pattern):
    found = sorted(folder.glob(pattern))
    if not found:
        sys.exit(f"clients: {folder / pattern} is missing: run make clients")
    return str(found[0])


# What is written down.


def version(stage, row):
    """As the program itself says it."""
    kind, _, name = row["version"].partition(" ")
    if kind == "pypi":
        command = ["{python}", "-c", f"import importlib.metadata as m; print(m.version('{name}'))"]
    elif kind == "npm":
        folder, _, package = name.rpartition("/")
        read = f"require('./{folder or '.'}/node_modules/{package}/package.json').version"
        command = ["{node24}", "-p", read]
    else:
        command = shlex.split(row["version"])
    command = [word.format(**stage.programs) if word.startswith("{") else word for word in command]
    said = subprocess.run(command, cwd=HERE, env=stage.plain(), capture_output=True, text=True, check=True)
    found = re.search(r"\d+(\.\d+)+", said.stdout)
    if not found:
        raise Wrong(f"no version in what `{shlex.join(command)}` says")
    return found.group()


def table(rows):
    lines = ["| program | version | reached by | what its user adds |", "| --- | --- | --- | --- |"]
    for row in rows:
        by = "base URL" if row.get("way") == "reverse" else "`exec`, `env.sh`"
        lines.append(f"| {row['name']} | {row['was']} | {by} | {row.get('adds', '')} |".replace("|  |", "| |"))
    return "\n".join(lines) + "\n"


def write(readme, lines):
    text = readme.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"clients: {readme} lacks {BEGIN} or {END}")
    readme.write_text(f"{before}{BEGIN}\n{lines}{END}{after}")
    print(f"clients: the table in {readme} is that of this run")


if __name__ == "__main__":
    main()

#!/usr/bin/env bash
# One POST with wget, as scripts write it; the answer's head is what `--server-response` shows.
set -euo pipefail

said=$(mktemp -d)
trap 'rm -rf "$said"' EXIT
wget --no-verbose --server-response --timeout=60 --header='Content-Type: application/json' \
    --post-data='{"video": "intro.mp4"}' --output-document="$said/body" "$1" 2>"$said/head" || {
    cat "$said/head" >&2
    exit 1
}

field() { # NAME
    sed -n "s/^  $1: *//Ip" "$said/head" | tail -n 1
}

printf '{"client": "wget", "status": %s, "attempts": "%s", "stop": "%s", "key": "%s", "id": "%s"}\n' \
    "$(sed -n 's/^  HTTP[^ ]* \([0-9]*\).*/\1/p' "$said/head" | tail -n 1)" \
    "$(field samekey-attempts)" "$(field samekey-stop)" "$(field idempotency-key)" \
    "$(sed -n 's/.*"id": *"\([^"]*\)".*/\1/p' "$said/body" | head -n 1)"

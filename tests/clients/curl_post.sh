#!/usr/bin/env bash
# One POST, or one GET (--get), with curl.
set -euo pipefail

method=POST url=
for arg in "$@"; do
    case $arg in
        --get) method=GET ;;
        *) url=$arg ;;
    esac
done

body=$(mktemp)
trap 'rm -f "$body"' EXIT
send=(-H 'Content-Type: application/json' --data '{"video": "intro.mp4"}')
if [ "$method" = GET ]; then send=(); fi

# Single quotes: the placeholders are curl's.
head=$(curl --silent --show-error --max-time 60 "${send[@]}" --output "$body" --write-out \
    '"status": %{http_code}, "attempts": "%header{samekey-attempts}", "stop": "%header{samekey-stop}", "key": "%header{idempotency-key}"' \
    "$url")
id=$(sed -n 's/.*"id": *"\([^"]*\)".*/\1/p' "$body" | head -n 1)
printf '{"client": "curl", %s, "id": "%s"}\n' "$head" "$id"

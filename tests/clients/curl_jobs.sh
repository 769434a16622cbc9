#!/usr/bin/env bash
# Makes a job at a background-removal API, starts it, polls it and fetches its output, with curl.
# Arguments: the API's URL.
set -euo pipefail

url=$1
out=$(mktemp)
trap 'rm -f "$out"' EXIT

ask() { # PATH [ARGUMENTS...]
    local path=$1
    shift
    curl --silent --show-error --fail --max-time 60 -H "X-Api-Key: $API_KEY" "$@" "$url$path"
}

value() { # NAME: the first text of that name in the JSON that comes in
    sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" | head -n 1
}

json=(-H 'Content-Type: application/json')
id=$(ask /v1/jobs "${json[@]}" \
    --data '{"video_url":"https://a.test/in.mp4","external_job_id":"asset-7","start":false}' | value id)
ask "/v1/jobs/$id/start" "${json[@]}" --data '{}' >"$out"
polls=0 status=
while [ "$status" != completed ]; do
    sleep 0.02
    status=$(ask "/v1/jobs/$id" | value status)
    polls=$((polls + 1))
done
ask "/api/download/$id" --output "$out"
printf '{"id": "%s", "polls": %d, "bytes": %d}\n' "$id" "$polls" "$(wc -c <"$out")"

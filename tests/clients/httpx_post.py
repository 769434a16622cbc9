"""One POST, or one GET, with `httpx`, over HTTP/2 where it is offered (`--http1`: not)."""

import json
import sys

import httpx

url = next(arg for arg in sys.argv[1:] if not arg.startswith("-"))
with httpx.Client(http2="--http1" not in sys.argv, timeout=60) as client:
    if "--get" in sys.argv:
        answer = client.get(url)
    else:
        answer = client.post(url, json={"video": "intro.mp4"})

try:
    body = answer.json()
except ValueError:
    body = {}
print(json.dumps({
    "client": "httpx",
    "status": answer.status_code,
    "attempts": answer.headers.get("Samekey-Attempts", ""),
    "stop": answer.headers.get("Samekey-Stop", ""),
    "id": body.get("id", "") if isinstance(body, dict) else "",
    "key": answer.headers.get("Idempotency-Key", ""),
}))

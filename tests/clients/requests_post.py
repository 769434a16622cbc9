"""One POST, or one GET, with `requests`, as any program would send it."""

import json
import sys

import requests

url = next(arg for arg in sys.argv[1:] if not arg.startswith("-"))
if "--get" in sys.argv:
    answer = requests.get(url, timeout=60)
else:
    answer = requests.post(url, json={"video": "intro.mp4"}, timeout=60)

try:
    body = answer.json()
except ValueError:
    body = {}
print(json.dumps({
    "client": "requests",
    "status": answer.status_code,
    "attempts": answer.headers.get("Samekey-Attempts", ""),
    "stop": answer.headers.get("Samekey-Stop", ""),
    "id": body.get("id", "") if isinstance(body, dict) else "",
    "key": answer.headers.get("Idempotency-Key", ""),
}))

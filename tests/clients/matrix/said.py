"""What a program of this folder saw, as one line of JSON."""

import json


def say(client, status, headers, body):
    """`headers` is what the client gave, or a mapping of it; `body` is its JSON, as bytes or text."""
    try:
        made = json.loads(body)
    except ValueError:
        made = {}
    print(json.dumps({
        "client": client,
        "status": status,
        "attempts": headers.get("Samekey-Attempts", ""),
        "stop": headers.get("Samekey-Stop", ""),
        "id": made.get("id", "") if isinstance(made, dict) else "",
        "key": headers.get("Idempotency-Key", ""),
    }))

"""One chat completion with OpenAI's own SDK; the URL is that of `/v1`."""

import json
import sys

import openai

url = next(arg for arg in sys.argv[1:] if not arg.startswith("-"))
client = openai.OpenAI(base_url=url, api_key="sk-test", timeout=60)
messages = [{"role": "user", "content": "A title for intro.mp4"}]
answer = client.chat.completions.with_raw_response.create(model="test", messages=messages)

print(json.dumps({
    "client": "openai",
    "status": answer.status_code,
    "attempts": answer.headers.get("Samekey-Attempts", ""),
    "stop": answer.headers.get("Samekey-Stop", ""),
    "id": answer.parse().id,
    "key": answer.headers.get("Idempotency-Key", ""),
}))

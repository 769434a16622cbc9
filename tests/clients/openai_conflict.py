"""One chat completion with OpenAI's own SDK under a key, and the error that it sees, if any.

The URL is that of `/v1`; behind it stand the key and the prompt.
"""

import json
import sys

import openai

url, key, prompt = sys.argv[-3:]
client = openai.OpenAI(base_url=url, api_key="sk-test", timeout=60, max_retries=0)
messages = [{"role": "user", "content": prompt}]
seen = {"error": "", "status": 0, "type": "", "code": "", "message": "", "attempts": ""}
try:
    client.chat.completions.create(
        model="test", messages=messages, extra_headers={"Idempotency-Key": key}
    )
except openai.APIStatusError as error:
    seen = {
        "error": type(error).__name__,
        "status": error.status_code,
        "type": error.type,
        "code": error.code,
        "message": error.body["message"],
        "attempts": error.response.headers.get("Samekey-Attempts", ""),
    }

print(json.dumps(seen))

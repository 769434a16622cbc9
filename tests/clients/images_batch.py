"""A batch of images through a background-removal API, as the article about it writes it.

Arguments: the API's URL, and the images. The mounted `Retry` leaves POST out, as
urllib3 does unless it is told otherwise.
"""

import hashlib
import io
import json
import os
import sys

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

url, images = sys.argv[1], sys.argv[2:]
session = requests.Session()
retries = Retry(total=5, backoff_factor=1, status_forcelist=[429, 500, 502, 503, 504])
session.mount("https://", HTTPAdapter(max_retries=retries))
session.headers["X-Api-Key"] = os.environ["API_KEY"]

balance = session.get(f"{url}/account", timeout=(10, 60)).json()["credits"]
done = []
for name in images:
    image = io.BytesIO(f"JPEG of {name}".encode())
    answer = session.post(
        f"{url}/v1/remove-background",
        files={"image_file": (name, image, "image/jpeg")},
        data={"size": "auto"},
        timeout=(10, 60),
    )
    answer.raise_for_status()
    done.append({
        "image": name,
        "type": answer.headers["Content-Type"],
        "png": answer.content.startswith(b"\x89PNG"),
        "digest": hashlib.sha256(answer.content).hexdigest(),
    })

left = session.get(f"{url}/account", timeout=(10, 60)).json()["credits"]
print(json.dumps({"spent": balance - left, "done": done}))

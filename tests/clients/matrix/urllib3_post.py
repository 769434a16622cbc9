"""One POST with `urllib3` alone; `--proxy` is what a program has to add to follow HTTPS_PROXY."""

import os
import sys

import urllib3
from said import say

pool = urllib3.PoolManager()
if "--proxy" in sys.argv:
    pool = urllib3.ProxyManager(os.environ["HTTPS_PROXY"])
answer = pool.request("POST", sys.argv[-1], json={"video": "intro.mp4"}, timeout=60)
say("urllib3", answer.status, answer.headers, answer.data)

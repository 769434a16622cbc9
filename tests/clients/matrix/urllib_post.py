"""One POST with what Python brings along."""

import sys
import urllib.request

from said import say

fields = {"Content-Type": "application/json"}
order = urllib.request.Request(sys.argv[-1], b'{"video": "intro.mp4"}', fields)
with urllib.request.urlopen(order, timeout=60) as answer:
    say("urllib", answer.status, answer.headers, answer.read())

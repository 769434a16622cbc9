"""One POST with `aiohttp`; `--trust-env` is what a program has to add to follow HTTPS_PROXY."""

import asyncio
import sys

import aiohttp
from said import say


async def main():
    trust_env = "--trust-env" in sys.argv
    async with aiohttp.ClientSession(trust_env=trust_env) as session:
        async with session.post(sys.argv[-1], json={"video": "intro.mp4"}) as answer:
            say("aiohttp", answer.status, answer.headers, await answer.text())


asyncio.run(main())

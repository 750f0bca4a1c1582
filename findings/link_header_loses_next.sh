#!/usr/bin/env bash
# An equals sign in a link's title hides the next page from requests, httpx and httpx2.
#
# Behaviour: requests splits each parameter of a Link header at every "=" and stops reading the link
#   when that gives other than two parts. So title="genre=Drama" and a parameter without a value
#   (crossorigin) lose all parameters after them, rel among them, and the link is filed under its URL
#   instead of under "next". httpx and httpx2 have the same parser. A client that follows
#   response.links["next"] until there is none takes the first page for the last. aiohttp, with a
#   parser of another kind, finds rel in both.
# Expected: rel is found wherever it stands. RFC 8288 (3) allows any characters in a quoted value,
#   parameters without a value, and any order.
# Versions: requests 2.34.2, httpx 0.28.1, httpx2 2.16.2, aiohttp 3.14.5.
# Documentation: shows links that start with rel. Reported for requests in June 2026 (psf/requests
#   7520), open when this was written.
# Output (key under which the link to the next page is found):
#   rel="next"; title="genre=Drama"  requests next, httpx next, httpx2 next, aiohttp next
#   title="genre=Drama"; rel="next"  requests /p2, httpx /p2, httpx2 /p2, aiohttp next
#   crossorigin; rel="next"          requests /p2, httpx /p2, httpx2 /p2, aiohttp next
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
uv venv -q --python 3.11 "$folder/venv"
uv pip install -q --python "$folder/venv" requests==2.34.2 httpx==0.28.1 httpx2==2.16.2 aiohttp==3.14.5

"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import aiohttp
import httpx
import httpx2
import requests

PARAMETERS = {
    "/1": 'rel="next"; title="genre=Drama"',
    "/2": 'title="genre=Drama"; rel="next"',
    "/3": 'crossorigin; rel="next"',
}


class Movies(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Link", f"</p2>; {PARAMETERS[self.path]}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


async def ask_aiohttp(url: str) -> list[str]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return list(response.links)


server = ThreadingHTTPServer(("127.0.0.1", 0), Movies)
threading.Thread(target=server.serve_forever, daemon=True).start()
seen = []
for path, parameters in PARAMETERS.items():
    url = f"http://127.0.0.1:{server.server_port}{path}"
    keys = {client.__name__: list(client.get(url).links) for client in (requests, httpx, httpx2)}
    keys["aiohttp"] = asyncio.run(ask_aiohttp(url))
    print(f"{parameters:32}", ", ".join(f"{name} {key}" for name, (key,) in keys.items()))
    seen.append([key for (key,) in keys.values()])
if seen != [["next"] * 4, ["/p2"] * 3 + ["next"], ["/p2"] * 3 + ["next"]]:
    sys.exit("the behaviour has changed")
PYTHON

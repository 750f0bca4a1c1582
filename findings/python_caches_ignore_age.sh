#!/usr/bin/env bash
# Three Python HTTP caches take a response for fresh that was already stale when it arrived.
#
# Behaviour: the server answers with Cache-Control: max-age=60 and Age: 100, as a proxy does that has
#   held the response for 100 seconds. hishel with its RFC 9111 mode switched on, requests-cache with
#   cache_control=True and CacheControl store it and answer the second request themselves for another
#   60 seconds. None of them reads Age. Behind a proxy they can double a response's lifetime.
# Expected: a second request to the server, because the age that a cache has to compute (RFC 9111,
#   4.2.3) includes the Age field: 100 is more than 60.
# Versions: hishel 2.0.0, httpx 0.28.1, requests-cache 1.3.3, CacheControl 0.14.4, requests 2.34.2.
# Documentation: hishel describes its mode as following RFC 9111; only a comment in its source says
#   that the age is simplified to now - Date. requests-cache lists the headers that it supports, and
#   Age is not among them.
# Output (requests that reached the server, of two):
#   without Age: hishel 1, requests-cache 1, CacheControl 1
#   Age: 100     hishel 1, requests-cache 1, CacheControl 1
#   max-age=0    hishel 2, requests-cache 2, CacheControl 2
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
uv venv -q --python 3.11 "$folder/venv"
uv pip install -q --python "$folder/venv" 'hishel[httpx]==2.0.0' httpx==0.28.1 \
    requests-cache==1.3.3 cachecontrol==0.14.4 requests==2.34.2

cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cachecontrol
import hishel
import hishel.httpx
import requests
import requests_cache

HEADERS = {
    "/plain": {"Cache-Control": "max-age=60"},
    "/aged": {"Cache-Control": "max-age=60", "Age": "100"},
    "/stale": {"Cache-Control": "max-age=0"},
}
reached = []


class Movies(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        reached.append(self.path)
        self.send_response(200)
        for name, value in HEADERS[self.path].items():
            self.send_header(name, value)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, *_: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Movies)
threading.Thread(target=server.serve_forever, daemon=True).start()
storage = hishel.SqliteStorage(database_path="hishel.db")
clients = {
    "hishel": hishel.httpx.CacheClient(storage=storage, rfc={"shared": False}),
    "requests-cache": requests_cache.CachedSession(backend="memory", cache_control=True),
    "CacheControl": cachecontrol.CacheControl(requests.Session()),
}
seen = {}
for label, path in (("without Age:", "/plain"), ("Age: 100", "/aged"), ("max-age=0", "/stale")):
    for name, client in clients.items():
        reached.clear()
        for _ in range(2):
            client.get(f"http://127.0.0.1:{server.server_port}{path}")
        seen[path, name] = len(reached)
    print(f"{label:12}", ", ".join(f"{name} {seen[path, name]}" for name in clients))
if [seen[path, name] for path in HEADERS for name in clients] != [1, 1, 1, 1, 1, 1, 2, 2, 2]:
    sys.exit("the behaviour has changed")
PYTHON

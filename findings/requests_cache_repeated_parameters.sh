#!/usr/bin/env bash
# requests-cache answers ?sort=year&sort=title with the response to ?sort=title&sort=year.
#
# Behaviour: the cache key is made from the sorted (name, value) pairs of the query. Sorting names
#   is mostly harmless, but the values of one repeated name are sorted too, and their order often
#   has a meaning, such as the first and the second column to sort by. The second request gets the
#   list in the wrong order, without a warning. No response header prevents it.
# Expected: two different URLs are two entries, as in hishel and CacheControl. RFC 3986 (6.2) has no
#   reordering of the query among the ways in which URLs may be normalized.
# Versions: requests-cache 1.3.3, CacheControl 0.14.4, requests 2.34.2.
# Documentation: says otherwise: normalization is meant for variations that do not modify the content.
# Output:
#   requests-cache  ['title', 'year'] -> title,year  ['year', 'title'] -> title,year
#   CacheControl    ['title', 'year'] -> title,year  ['year', 'title'] -> year,title
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
uv venv -q --python 3.11 "$folder/venv"
uv pip install -q --python "$folder/venv" requests-cache==1.3.3 cachecontrol==0.14.4 requests==2.34.2

"$folder/venv/bin/python" - <<'PYTHON'
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import cachecontrol
import requests
import requests_cache


class Movies(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = ",".join(parse_qs(urlsplit(self.path).query)["sort"]).encode()
        self.send_response(200)
        self.send_header("Cache-Control", "max-age=60")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Movies)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/movies"
clients = {
    "requests-cache": requests_cache.CachedSession(backend="memory", cache_control=True),
    "CacheControl": cachecontrol.CacheControl(requests.Session()),
}
seen = {}
for name, client in clients.items():
    orders = (["title", "year"], ["year", "title"])
    seen[name] = [client.get(url, params={"sort": order}).text for order in orders]
    print(f"{name:15}", "  ".join(f"{o} -> {text}" for o, text in zip(orders, seen[name])))
if seen != {
    "requests-cache": ["title,year", "title,year"],
    "CacheControl": ["title,year", "year,title"],
}:
    sys.exit("the behaviour has changed")
PYTHON

#!/usr/bin/env bash
# undici's cache downloads an unchanged response again after each 304.
#
# Behaviour: the response has Cache-Control: no-cache and an ETag, the usual pair for an API whose
#   clients are to ask before they use a copy. undici's cache interceptor stores it and sends
#   If-None-Match with the second request. When the 304 itself has Cache-Control, undici removes the
#   entry, so the third request is a full download again, and so on alternately. A 304 without
#   Cache-Control keeps the entry, although such a 304 breaks RFC 9110.
# Expected: one download, then a 304 for each request. RFC 9110 (15.4.5) requires a 304 to repeat
#   Cache-Control, and RFC 9111 (4.3.4) has a 304 update the stored response, not remove it.
# Versions: undici 7.30.2, Node.js 20.20.
# Documentation: says that the interceptor follows RFC 9111. An open report (nodejs/undici 5505)
#   describes the loss for a 304 that grants a new lifetime.
# Output (status of six responses from the server):
#   304 with Cache-Control:    200 304 200 304 200 304
#   304 without Cache-Control: 200 304 304 304 304 304
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --silent --no-audit --no-fund --prefix "$folder" undici@7.30.2

cat > "$folder/movies.mjs" <<'JAVASCRIPT'
import http from "node:http";
import { Agent, interceptors, request } from "undici";

const statuses = [];
const server = http.createServer((incoming, response) => {
  const fresh = incoming.headers["if-none-match"] === '"v1"';
  const headers = { ETag: '"v1"' };
  if (!fresh || incoming.url === "/with") headers["Cache-Control"] = "no-cache";
  statuses.push(fresh ? 304 : 200);
  response.writeHead(fresh ? 304 : 200, headers).end(fresh ? undefined : "[]");
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));

async function sixRequests(path) {
  const dispatcher = new Agent().compose(interceptors.cache());
  statuses.length = 0;
  for (let time = 0; time < 6; time++) {
    const url = `http://127.0.0.1:${server.address().port}${path}`;
    const { body } = await request(url, { dispatcher });
    if ((await body.text()) !== "[]") throw new Error("unexpected body");
  }
  return statuses.join(" ");
}

const turns = await sixRequests("/with");
const kept = await sixRequests("/without");
console.log("304 with Cache-Control:   ", turns);
console.log("304 without Cache-Control:", kept);
const same = turns === "200 304 200 304 200 304" && kept === "200 304 304 304 304 304";
if (!same) console.error("the behaviour has changed");
process.exit(same ? 0 : 1);
JAVASCRIPT
node "$folder/movies.mjs"

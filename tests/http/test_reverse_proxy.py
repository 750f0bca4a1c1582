"""The service behind nginx, with the configuration that docs/hosting.md shows."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.documentation import code, text_of
from tests.server import (
    DEADLINE_SECONDS,
    Server,
    ServerProcess,
    free_port,
    is_listening,
    running_server,
    wait_until,
)

MAIN = """
daemon off;
{user}
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {shown}
}}
"""
# Debian installs it outside the PATH of ordinary users.
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
WRITES_AT_ONCE = 40


@contextmanager
def nginx_before(server: ServerProcess, folder: Path) -> Iterator[Server]:
    """Run nginx with the documented configuration and short timeouts, and yield it when ready."""
    [shown] = code("nginx", text_of("docs/hosting.md"))
    port = free_port()
    for documented, value in {
        "listen 80;": f"listen 127.0.0.1:{port};",
        "127.0.0.1:8000": urlsplit(server.url).netloc,
        "client_header_timeout 10s;": "client_header_timeout 1s;",
        "client_body_timeout 10s;": "client_body_timeout 1s;",
    }.items():
        assert shown.count(documented) == 1
        shown = shown.replace(documented, value)
    user = "user root;" if os.geteuid() == 0 else ""
    configuration = folder / "nginx.conf"
    configuration.write_text(MAIN.format(folder=folder, user=user, shown=shown))
    process = subprocess.Popen([str(NGINX), "-c", str(configuration)])  # noqa: S603 - as above
    try:
        wait_until(lambda: is_listening(port), lambda: "nginx is not up")
        yield Server(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(DEADLINE_SECONDS)


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.skipif(NGINX is None, reason="needs nginx: apt install nginx")
def test_documented_proxy_forwards_complete_requests_and_throttles_clients(
    sqlite_url: str, tmp_path: Path
) -> None:
    options = ["--root-path", "/api", "--limit-concurrency", "200"]
    unfinished = (
        b"",
        b"GET /api/movies HTTP/1.1\r\nHost: movies.ex",
        b"POST /api/movies HTTP/1.1\r\nHost: movies.example\r\nContent-Length: 50\r\n\r\n{",
    )
    with (
        running_server(
            tmp_path,
            *options,
            database_url=sqlite_url,
            allowed_hosts="movies.example",
            api_key="right",
        ) as server,
        nginx_before(server, tmp_path) as proxy,
        httpx.Client(
            base_url=proxy.url, headers={"Host": "movies.example"}, trust_env=False
        ) as client,
    ):
        found = client.get("/api/movies?limit=1")
        redirect = client.get("/api/movies/")
        foreign = client.get("/api/movies", headers={"Host": "evil.example"})
        with ExitStack() as stack:
            connections = [stack.enter_context(proxy.connect()) for _ in unfinished]
            for connection, part in zip(connections, unfinished, strict=True):
                connection.sendall(part)
            closed = [connection.recv(1) for connection in connections]
        writes = [
            client.post("/api/movies", json={}, headers={"X-API-Key": "wrong"}).status_code
            for _ in range(3 * WRITES_AT_ONCE)
        ]
        reads = [client.get("/api/movies/1").status_code for _ in range(3 * WRITES_AT_ONCE)]
        logged = "\n".join(server.lines())

    assert found.headers["Link"].startswith("</api/movies?limit=1&offset=0>")
    assert (redirect.status_code, redirect.headers["Location"]) == (307, "/api/movies")
    assert foreign.status_code == 400
    assert closed == [b""] * len(unfinished)
    assert f"trace_id={found.headers['X-Trace-Id']}" in logged
    assert re.fullmatch(r"[0-9a-f]{32}", found.headers["X-Trace-Id"])
    assert set(writes) == {401, 429}
    assert writes.count(401) >= WRITES_AT_ONCE
    assert set(reads) == {200}
    assert "status=408" not in logged

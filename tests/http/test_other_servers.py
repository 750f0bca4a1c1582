"""A server that bypasses the limits on connections is reported once."""

import asyncio

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from uvicorn.config import HTTPProtocolType

from app.config import Settings
from app.main import create_app
from tests.logs import parse_text
from tests.server import serving

WARNING = {
    "level": "WARNING",
    "event": "connections.unlimited",
    "reason": "this server, or its option --http, bypasses the limits of docs/hosting.md",
}


@pytest.mark.parametrize(("http", "count"), [("h11", 1), ("auto", 0), ("httptools", 0)])
def test_server_without_the_limits_is_reported_at_the_first_request(
    sqlite_url: str, capsys: pytest.CaptureFixture[str], http: HTTPProtocolType, count: int
) -> None:
    app = create_app(Settings(database_url=sqlite_url))
    with serving(app, http=http) as server, server.client() as client:
        for _ in range(3):
            client.get("/health")

    lines = [line for line in capsys.readouterr().err.splitlines() if ".unlimited" in line]
    assert [parse_text(line) for line in lines] == [WARNING] * count


async def send(app: FastAPI) -> None:
    """Send a request to an application in this process."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get("/health")).status_code == 200


def test_clients_in_the_same_process_are_no_server(
    sqlite_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(database_url=sqlite_url)
    with TestClient(create_app(settings)) as client:
        client.get("/health")
    asyncio.run(send(create_app(settings)))

    assert ".unlimited" not in capsys.readouterr().err

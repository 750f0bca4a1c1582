"""The service behind PgBouncer in transaction mode, where no two transactions share a session."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import NullPool, create_engine, make_url
from sqlmodel import Session

from app.checks import data_problems
from app.config import Settings
from app.db import create_db_engine, migrate
from app.main import create_app
from tests.databases import POSTGRES_URL, SET_POSTGRES_URL, locked
from tests.server import DEADLINE_SECONDS, free_port, is_listening, wait_until

# Debian installs PgBouncer in a folder that only root's PATH includes.
PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
# PgBouncer refuses to run as root.
USER = "postgres" if os.geteuid() == 0 else None
# The minimum. In particular no ignore_startup_parameters.
CONFIGURATION = """
[databases]
{database} = host={host} port={port}{credentials}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
"""
BUSY = {"detail": "The database is busy, try again in a moment"}

pytestmark = [
    pytest.mark.ci,
    pytest.mark.slow,
    pytest.mark.skipif(
        POSTGRES_URL is None or PGBOUNCER is None,
        reason=f"needs PgBouncer and PostgreSQL: {SET_POSTGRES_URL}",
    ),
]


@pytest.fixture
def pooled_url(postgres_url: str) -> Iterator[str]:
    """Yield the URL of PgBouncer in front of a migrated, empty database."""
    url, port = make_url(postgres_url), free_port()
    credentials = f" user={url.username}" if url.username else ""
    credentials += f" password='{url.password}'" if url.password else ""
    # Not in pytest's folder: only root may enter it.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        configuration = Path(folder) / "pgbouncer.ini"
        configuration.write_text(
            CONFIGURATION.format(
                database=url.database,
                host=url.host,
                port=url.port or 5432,
                credentials=credentials,
                listen_port=port,
            )
        )
        process = subprocess.Popen(  # noqa: S603 - as above
            [str(PGBOUNCER), "--quiet", str(configuration)], user=USER
        )
        try:
            wait_until(
                lambda: process.poll() is not None or is_listening(port),
                lambda: "PgBouncer does not listen",
            )
            assert process.poll() is None, "PgBouncer has ended"
            pooled = url.set(host="127.0.0.1", port=port)
            yield pooled.render_as_string(hide_password=False)
        finally:
            process.terminate()
            process.wait(DEADLINE_SECONDS)


def test_service_starts_migrates_and_serves_concurrent_clients(pooled_url: str) -> None:
    migrate(pooled_url)
    with TestClient(create_app(Settings(database_url=pooled_url))) as client:

        def rate_and_read(user_id: int) -> set[int]:
            rating = {"movie_id": user_id % 5 + 1, "user_id": user_id, "score": 4}
            paths = ("/movies", "/movies/1", "/movies/top", "/ratings", "/ready")
            # Often enough that the driver would prepare the statements.
            statuses = {client.get(path).status_code for path in paths * 3}
            return statuses | {client.post("/ratings", json=rating).status_code}

        with ThreadPoolExecutor(12) as pool:
            statuses = set[int]().union(*pool.map(rate_and_read, range(1, 61)))
        total = client.get("/ratings").headers["X-Total-Count"]

    assert statuses == {200, 204}
    assert total == "60"
    engine = create_db_engine(pooled_url)
    with Session(engine) as session:
        assert [*data_problems(session)] == []
    engine.dispose()


def test_lock_timeout_affects_no_other_client_of_the_pooler(
    postgres_url: str, pooled_url: str
) -> None:
    settings = Settings(database_url=pooled_url, busy_timeout=0.2)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        with locked(postgres_url):
            refused = client.post("/ratings", json={"movie_id": 1, "score": 5})
        stored = client.post("/ratings", json={"movie_id": 1, "score": 5})
    stranger = create_engine(pooled_url, poolclass=NullPool)
    limits = set()
    for _ in range(8):
        with stranger.connect() as connection:
            limits.add(connection.exec_driver_sql("SHOW lock_timeout").scalar_one())

    assert (refused.status_code, refused.json()) == (503, BUSY)
    assert stored.status_code == 204
    assert limits == {"0"}

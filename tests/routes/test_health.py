"""The probes: /health and /ready."""

from collections.abc import Callable, Iterator

import pytest
from alembic.script import ScriptDirectory
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text

from app.config import PROJECT_ROOT

OK = '{"status":"ok"}'
SetRevision = Callable[[str | None], None]


def head() -> str:
    """Return the newest revision."""
    revision = ScriptDirectory(PROJECT_ROOT / "migrations").get_current_head()
    assert revision is not None
    return revision


@pytest.fixture
def set_revision(engine: Engine) -> Iterator[SetRevision]:
    """Return a function that changes the schema's revision; the fixture restores it."""

    def write(revision: str | None) -> None:
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM alembic_version"))
            if revision is not None:
                insert = text("INSERT INTO alembic_version VALUES (:revision)")
                connection.execute(insert, {"revision": revision})

    yield write
    write(head())


def test_healthy_service_responds_with_ok_alone(client: TestClient) -> None:
    for path in ("/health", "/ready"):
        response = client.get(path)

        assert (response.status_code, response.text) == (200, OK)
        assert response.headers["Content-Type"] == "application/json"


def test_service_is_not_ready_while_the_schema_does_not_fit(
    client: TestClient, set_revision: SetRevision
) -> None:
    expected = {
        "a1f0c2d4e6b8": "The database's schema is at a1f0c2d4e6b8, the service needs ",
        None: "The database's schema is at no revision, the service needs ",
        "f" * 12: "The database's schema is at revision ffffffffffff, which this version",
        head(): None,
    }

    for revision, reason in expected.items():
        set_revision(revision)
        response = client.get("/ready")

        assert client.get("/health").text == OK
        if reason is None:
            assert (response.status_code, response.text) == (200, OK)
        else:
            assert response.status_code == 503
            assert response.json()["detail"].startswith(reason)
            assert response.headers["Retry-After"].isdigit()

"""Whether the process is up, and whether it can serve."""

from collections.abc import Callable, Iterator

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text

SetRevision = Callable[[str | None], None]


@pytest.fixture
def set_revision(engine: Engine) -> Iterator[SetRevision]:
    """Make the database say that its schema is at another revision, until the test's end."""
    with engine.connect() as connection:
        head = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()

    def write(revision: str | None) -> None:
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM alembic_version"))
            if revision is not None:
                insert = text("INSERT INTO alembic_version VALUES (:revision)")
                connection.execute(insert, {"revision": revision})

    yield write
    write(head)


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_service_that_is_well_says_ok_and_no_more(client: TestClient, path: str) -> None:
    response = client.get(path)

    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    assert response.text == '{"status":"ok"}'


@pytest.mark.parametrize(
    ("revision", "reason"),
    [
        ("a1f0c2d4e6b8", "The database's schema is at a1f0c2d4e6b8, the service needs "),
        (None, "The database's schema is at no revision, the service needs "),
        ("ffffffffffff", "The database's schema is at revision ffffffffffff, which this version"),
    ],
)
def test_service_is_not_ready_while_the_schema_does_not_fit(
    client: TestClient, set_revision: SetRevision, revision: str | None, reason: str
) -> None:
    set_revision(revision)

    response = client.get("/ready")

    assert response.status_code == 503
    assert response.json()["detail"].startswith(reason)
    assert response.headers["Retry-After"].isdigit()
    assert client.get("/health").text == '{"status":"ok"}'


def test_service_is_ready_again_once_the_schema_fits(
    client: TestClient, set_revision: SetRevision, engine: Engine
) -> None:
    with engine.connect() as connection:
        head = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
    set_revision(None)
    assert client.get("/ready").status_code == 503

    set_revision(head)

    assert client.get("/ready").text == '{"status":"ok"}'

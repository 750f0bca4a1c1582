"""Ids stop at PostgreSQL's largest INTEGER, also on SQLite, which allows larger ones."""

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text

from app.errors import IdsExhausted
from app.models import INTEGER_MAX
from app.read_models import NewMovie
from app.repository import MovieRepository
from tests.helpers import HEAT, movie_row, movie_rows, rating_rows, store

ALL_IDS_USED = {"detail": "All ids are used, nothing was stored"}


@pytest.fixture(autouse=True)
def _all_ids_used(engine: Engine) -> None:
    """Store a movie, and set the id counters to the largest id."""
    store(engine, HEAT)
    with engine.begin() as connection:
        for table in ("movie", "rating"):
            values = {"table": table, "sequence": f"{table}_id_seq", "last": INTEGER_MAX}
            if engine.dialect.name == "postgresql":
                connection.execute(text("SELECT setval(:sequence, :last)"), values)
            else:
                connection.execute(text("DELETE FROM sqlite_sequence WHERE name = :table"), values)
                connection.execute(
                    text("INSERT INTO sqlite_sequence VALUES (:table, :last)"), values
                )


def test_write_that_needs_a_new_id_is_507_and_stores_nothing(
    client: TestClient, engine: Engine
) -> None:
    rating = {"movie_id": 1, "user_id": 1, "score": 5}

    refused = [
        client.post("/movies", json={"title": "Alien", "year": 1979}),
        client.post("/ratings", json=rating),
        client.post("/ratings/batch", json=[rating, rating | {"user_id": 2}]),
    ]

    assert [(response.status_code, response.json()) for response in refused] == [
        (507, ALL_IDS_USED)
    ] * 3
    assert movie_rows(engine) == [movie_row(1, HEAT)]
    assert rating_rows(engine) == []


def test_verb_that_needs_a_new_id_raises_and_stores_nothing(
    repository: MovieRepository, engine: Engine
) -> None:
    if engine.dialect.name == "postgresql":
        pytest.skip("PostgreSQL's driver raises its own error")

    with pytest.raises(IdsExhausted):
        repository.create_missing([NewMovie("Alien", 1979, "Sci-Fi")])
    with pytest.raises(IdsExhausted):
        repository.add_rating(1, 5)

    assert movie_rows(engine) == [movie_row(1, HEAT)]
    assert rating_rows(engine) == []

"""A movie's ids at IMDb and TMDB."""

from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from app.errors import DuplicateExternalId
from app.models import USER_ID_MAX
from app.read_models import NewMovie
from app.repository import MovieRepository
from tests.helpers import listed, movie_rows, rating_rows

TOY_STORY = {"title": "Toy Story", "year": 1995, "imdb_id": "tt0114709", "tmdb_id": 862}
HEAT = {"title": "Heat", "year": 1995, "imdb_id": "tt0113277", "tmdb_id": 949}


def ids(engine: Engine) -> list[tuple[str | None, int | None]]:
    """Return the stored external ids by movie."""
    return [(row["imdb_id"], row["tmdb_id"]) for row in movie_rows(engine)]


def test_imdb_id_is_stored_in_its_canonical_form(client: TestClient, engine: Engine) -> None:
    client.post("/movies", json=TOY_STORY)
    expected = {
        "tt0114709": "tt0114709",
        "tt114709": "tt0114709",
        " tt00114709 ": "tt0114709",
        "tt1": "tt0000001",
        "tt12345678": "tt12345678",
        "tt9999999999": "tt9999999999",
    }

    for sent, stored in expected.items():
        for method in ("PUT", "PATCH"):
            response = client.request(method, "/movies/1", json=TOY_STORY | {"imdb_id": sent})
            assert (response.status_code, response.json()["imdb_id"]) == (200, stored)
        assert ids(engine) == [(stored, 862)]
        assert [movie["id"] for movie in client.get(f"/movies?imdb_id={sent}").json()] == [1]


def test_external_ids_change_as_sent(client: TestClient, engine: Engine) -> None:
    client.post("/movies", json=TOY_STORY)
    table: list[tuple[str, dict[str, Any], tuple[str | None, int | None]]] = [
        ("PATCH", {"imdb_id": "tt1"}, ("tt0000001", 862)),
        ("PATCH", {"imdb_id": None}, (None, 862)),
        ("PATCH", {"tmdb_id": None}, ("tt0114709", None)),
        ("PATCH", {"tmdb_id": 5, "year": 1996}, ("tt0114709", 5)),
        ("PATCH", {"title": "Toys"}, ("tt0114709", 862)),
        ("PUT", TOY_STORY, ("tt0114709", 862)),
        ("PUT", {"title": "Toy Story", "year": 1995, "tmdb_id": 5}, (None, 5)),
    ]
    failures = []
    for method, sent, expected in table:
        client.put("/movies/1", json=TOY_STORY)
        answer = client.request(method, "/movies/1", json=sent).json()
        if (answer["imdb_id"], answer["tmdb_id"]) != expected or ids(engine) != [expected]:
            failures.append((method, sent, answer, ids(engine)))

    assert not failures, listed(failures)


def test_movies_without_ids_do_not_clash(repository: MovieRepository, engine: Engine) -> None:
    repository.create(title="Heat", year=1995)
    repository.create(title="Ronin", year=1998)

    assert ids(engine) == [(None, None), (None, None)]


def test_movie_is_found_by_its_ids(repository: MovieRepository) -> None:
    repository.create(title="Toy Story", year=1995, imdb_id="tt0114709", tmdb_id=862)
    repository.create(title="Heat", year=1995, imdb_id="tt0113277", tmdb_id=949)
    filters: list[dict[str, Any]] = [
        {"imdb_id": "tt0113277"},
        {"tmdb_id": 862},
        {"imdb_id": "tt0113277", "tmdb_id": 862},
        {"imdb_id": "tt0000009"},
    ]

    found = [[movie.title for movie in repository.list(**each)] for each in filters]

    assert found == [["Heat"], ["Toy Story"], [], []]


def test_create_missing_skips_movies_whose_title_or_id_exists(
    repository: MovieRepository, engine: Engine
) -> None:
    repository.create(title="Matrix, The (1999)", year=1999, imdb_id="tt0133093", tmdb_id=603)

    created = repository.create_missing(
        [
            NewMovie("The Matrix", 1999, imdb_id="tt0133093"),
            NewMovie("Matrix", 1999, tmdb_id=603),
            NewMovie("Matrix, The (1999)", 1999, imdb_id="tt0000001"),
            NewMovie("Heat", 1995, genres=["Crime", "Drama"], imdb_id="tt0113277"),
        ]
    )

    assert created == 1
    assert [row["title"] for row in movie_rows(engine)] == ["Matrix, The (1999)", "Heat"]


def test_duplicate_id_is_named_in_the_error(repository: MovieRepository) -> None:
    repository.create(title="Toy Story", year=1995, tmdb_id=862)

    with pytest.raises(DuplicateExternalId, match="tmdb_id already exists: 862"):
        repository.create(title="Heat", year=1995, tmdb_id=862)


def test_user_id_has_up_to_53_bits(client: TestClient, engine: Engine) -> None:
    client.post("/movies", json=TOY_STORY)
    client.post("/movies", json=HEAT)
    user = USER_ID_MAX
    one = {"movie_id": 1, "user_id": user, "score": 4}

    sent = [
        client.post("/ratings", json=one),
        client.post("/ratings/batch", json=[one | {"movie_id": 2}, one | {"score": 5}]),
    ]

    assert [response.status_code for response in sent] == [204, 204]
    assert [rating["user_id"] for rating in client.get(f"/ratings?user_id={user}").json()] == [
        user,
        user,
    ]
    assert client.get(f"/movies/1/ratings/{user}").json()["score"] == 5
    assert client.delete(f"/movies/1/ratings/{user}").status_code == 204
    assert [(row["movie_id"], row["user_id"]) for row in rating_rows(engine)] == [(2, user)]

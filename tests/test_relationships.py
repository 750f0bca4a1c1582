"""Movie.ratings and Rating.movie work in a plain session and cost requests no statement."""

from collections import Counter

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, event
from sqlmodel import Session

from app.config import Settings
from app.main import create_app
from app.models import Movie, Rating
from app.read_models import GenreRead
from app.repository import MovieRepository
from tests.helpers import HEAT, RONIN, movie_rows, rating_rows, store

RATED = HEAT._replace(scores=(5, 3))
# The number of statements of each request, by their first word.
STATEMENTS = {
    "GET /movies": {"SELECT": 2},
    "GET /movies/1": {"SELECT": 1},
    "GET /movies/top?limit=1": {"SELECT": 1},
    "GET /genres": {"SELECT": 1},
    "GET /ratings": {"SELECT": 2},
    "POST /movies": {"INSERT": 3},
    "PATCH /movies/1": {"SELECT": 1, "UPDATE": 1},
    "DELETE /movies/1": {"SELECT": 1, "DELETE": 6},
}


@pytest.fixture
def engine(any_engine: Engine) -> Engine:
    """Return an engine that enforces foreign keys and, on SQLite, one that does not."""
    return any_engine


def test_ratings_of_a_movie_and_movie_of_a_rating_are_loaded(
    session: Session, engine: Engine
) -> None:
    store(engine, RONIN, RATED)

    movie = session.get_one(Movie, 2)

    assert [rating.score for rating in movie.ratings] == [5, 3]
    assert session.get_one(Rating, 2).movie is movie


def test_rating_appended_to_a_movie_is_stored(session: Session, engine: Engine) -> None:
    store(engine, RATED)
    movie = session.get_one(Movie, 1)

    movie.ratings.append(Rating(user_id=7, score=4))
    session.add(Rating(movie=movie, user_id=8, score=1))
    session.commit()

    assert [(row["movie_id"], row["user_id"], row["score"]) for row in rating_rows(engine)] == [
        (1, None, 5),
        (1, None, 3),
        (1, 7, 4),
        (1, 8, 1),
    ]


def test_deleting_a_movie_deletes_its_ratings_and_genres(session: Session, engine: Engine) -> None:
    store(engine, RATED, RONIN._replace(scores=(4,)))

    session.delete(session.get_one(Movie, 1))
    session.commit()

    assert [row["title"] for row in movie_rows(engine)] == ["Ronin"]
    assert [row["movie_id"] for row in rating_rows(engine)] == [2]
    assert MovieRepository(session).genres() == [GenreRead(RONIN.genre, 1)]


def test_rating_removed_from_a_movie_is_deleted(session: Session, engine: Engine) -> None:
    store(engine, RATED)
    movie = session.get_one(Movie, 1)

    movie.ratings.remove(movie.ratings[0])
    session.commit()

    assert [row["score"] for row in rating_rows(engine)] == [3]


def test_relationships_cost_a_request_no_statement(database_url: str) -> None:
    app = create_app(Settings(database_url=database_url, auto_setup=False))
    store(app.state.service.database.engine, RATED)
    found: dict[str, Counter[str]] = {}

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        word = statement.split(maxsplit=1)[0]
        if word not in {"BEGIN", "COMMIT"}:
            found[request_line][word] += 1

    with TestClient(app) as client:
        event.listen(app.state.service.database.engine, "before_cursor_execute", note)
        for request_line in STATEMENTS:
            found[request_line] = Counter()
            method, path = request_line.split()
            body = {"title": "Ronin", "year": 1998} if method == "POST" else {"year": 1996}
            content = body if method in {"POST", "PATCH"} else None
            assert client.request(method, path, json=content).is_success, request_line

    assert found == STATEMENTS

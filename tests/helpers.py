"""Sample movies, and functions that store and read them."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields
from threading import Barrier
from typing import Any, NamedTuple

import pytest
from sqlalchemy import Engine, Select, delete, select, text
from sqlmodel import Session

from app.checks import data_problems
from app.models import Movie, Rating
from app.read_models import MovieRead
from app.search import title_columns
from app.tables import MOVIE, MOVIE_GENRE, RATING

THREADS = 4


with_and_without_cache = pytest.mark.parametrize("read_cache", [True, False])


class Interrupted(Exception):  # noqa: N818 - not an error of the code under test
    """Simulates an error during a write."""


class Sample(NamedTuple):
    """A movie to store, with the scores of anonymous users."""

    title: str
    year: int
    genre: str
    scores: tuple[int, ...] = ()


HEAT = Sample("Heat", 1995, "Crime")
RONIN = Sample("Ronin", 1998, "Action")
# Every sort except by title has ties here, and some movies have no average.
SAMPLES = (
    Sample("Zodiac", 2007, "Crime", (4, 4)),
    Sample("Amélie", 2001, "Comedy", (5,)),
    Sample("alien", 1979, "Sci-Fi", (5, 5, 5)),
    Sample("Alien", 1979, "Sci-Fi"),
    Sample("Éternité", 2016, "Drama"),
    Sample("100% Wolf", 2020, "Animation", (3,)),
    Sample("1001 Wolves", 2020, "Animation"),
    Sample("Solaris", 1972, "Sci-Fi", (4, 4)),
    Sample("Heat", 1995, "Crime", (5, 3)),
    Sample("Дом", 2007, "Drama", (4,)),
    Sample("Æon Flux", 2005, "Sci-Fi", (1, 1)),
    Sample("Spirited Away", 2001, "Animation", (5,)),
    Sample("東京物語", 1953, "Drama", (5, 5, 5)),
)


def words(text: str) -> tuple[str, ...]:
    """Return the words of a text: a table of short values takes few lines."""
    return tuple(text.split())


def listed(failures: Iterable[object]) -> str:
    """Return the failed rows of a table, one per line: pytest would show only the first."""
    return "\n".join(map(str, failures))


def empty(engine: Engine) -> None:
    """Delete all rows of a PostgreSQL database and restart its ids at 1."""
    with engine.begin() as connection:
        # Eight times as fast as TRUNCATE, which makes a new file for each table and index.
        connection.execute(delete(RATING))
        connection.execute(delete(MOVIE_GENRE))
        connection.execute(delete(MOVIE))
        connection.execute(text("ALTER SEQUENCE movie_id_seq RESTART"))
        connection.execute(text("ALTER SEQUENCE rating_id_seq RESTART"))


def store(engine: Engine, *samples: Sample) -> list[int]:
    """Store movies with their scores in one transaction, and return their ids."""
    with Session(engine) as session:
        movies = [Movie(**movie_row(None, sample)) for sample in samples]
        session.add_all(movies)
        session.flush()
        ids = [movie.id for movie in movies if movie.id is not None]
        for movie_id, sample in zip(ids, samples, strict=True):
            session.add_all(Rating(movie_id=movie_id, score=score) for score in sample.scores)
        session.commit()
    return ids


# The three functions below describe whole movies for all tests. They expect NULL or null in
# nullable columns and fields that no test names.


def movie_row(movie_id: int | None, sample: Sample) -> dict[str, Any]:
    """Return every column of a stored movie."""
    count, total = len(sample.scores), sum(sample.scores)
    return dict.fromkeys(MOVIE.c.keys()) | {
        "id": movie_id,
        "title": sample.title,
        **title_columns(sample.title),
        "year": sample.year,
        "genre": sample.genre,
        "other_genres": "",
        "rating_count": count,
        "rating_sum": total,
        "average_rating": total / count if count else None,
        # The weighted ranking starts each movie with ten ratings of 3.
        "weighted_rating": (30 + total) / (10 + count) if count else None,
    }


def movie_read(movie_id: int, sample: Sample) -> MovieRead:
    """Return a movie as the repository does."""
    row = movie_row(movie_id, sample) | {"genres": [sample.genre]}
    return MovieRead(**{field.name: row[field.name] for field in fields(MovieRead)})


def movie_json(movie_id: int, sample: Sample) -> dict[str, Any]:
    """Return a movie as in the API's JSON."""
    return asdict(movie_read(movie_id, sample))


def movie_rows(engine: Engine) -> list[dict[str, Any]]:
    """Return the stored movies by id, read in a new session."""
    return _rows(engine, select(MOVIE).order_by(MOVIE.c.id))


def rating_rows(engine: Engine) -> list[dict[str, Any]]:
    """Return the stored ratings by id, without their time, read in a new session."""
    columns = RATING.c["id", "movie_id", "user_id", "score"]
    return _rows(engine, select(*columns).order_by(RATING.c.id))


def everything(engine: Engine) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return all stored movies and ratings."""
    return movie_rows(engine), _rows(engine, select(RATING).order_by(RATING.c.id))


def problems_of(engine: Engine) -> list[str]:
    """Return the problems that the service and SQLite find in a database."""
    with Session(engine) as session:
        problems = list(data_problems(session))
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            found = connection.exec_driver_sql("PRAGMA integrity_check").scalars()
            problems += [problem for problem in found if problem != "ok"]
    return problems


def _rows(engine: Engine, statement: Select[Any]) -> list[dict[str, Any]]:
    with Session(engine) as session:
        return [dict(row) for row in session.execute(statement).mappings()]


def in_threads(engine: Engine, work: Callable[[Session, int], None]) -> None:
    """Do the work in several threads at once, each with its own session and a number."""
    together = Barrier(THREADS)

    def run(number: int) -> None:
        with Session(engine) as session:
            together.wait(timeout=30)
            work(session, number)

    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(run, number) for number in range(1, THREADS + 1)]:
            done.result()

"""The checks behind ``scripts/db.py check``: the schema, and data that no constraint covers."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from sqlalchemy import Connection, Integer, Select, cast, func, or_, select
from sqlalchemy.orm import Session

from app.db import damage, reading, schema_problems, value_problems
from app.search.index import all_outdated
from app.statements import GENRES_COLUMN, rating_aggregates
from app.tables import MOVIE, RATING
from app.text import normalize_genres, normalize_imdb_id, normalize_title
from app.upgrade import wrong_genres

T = TypeVar("T")

_MOVIE_TEXTS: Select[Any] = select(*MOVIE.c["id", "title", "imdb_id"], GENRES_COLUMN).order_by(
    MOVIE.c.id
)
_counted = (
    select(RATING.c.movie_id, func.count().label("count"), func.sum(RATING.c.score).label("total"))
    .group_by(RATING.c.movie_id)
    .subquery()
)
_true_aggregates = rating_aggregates(
    func.coalesce(_counted.c.count, 0), cast(func.coalesce(_counted.c.total, 0), Integer)
)
_WRONG_AGGREGATES = (
    select(MOVIE.c.id, MOVIE.c.title)
    .outerjoin(_counted, _counted.c.movie_id == MOVIE.c.id)
    .where(or_(*(MOVIE.c[name].is_distinct_from(true) for name, true in _true_aggregates.items())))
)


def problems(session: Session) -> Iterator[str]:
    """Yield a line for each problem of a database's schema and data."""
    # A damaged file can make all other checks fail, a missing column those of the data.
    if found := damage(session):
        yield from found
        return
    yield from schema_problems(session)
    yield from data_problems(session)


def data_problems(session: Session) -> Iterator[str]:
    """Yield a line for each problem of the data."""
    with reading(session) as connection:
        invalid = [*value_problems(connection)]
        yield from invalid
        for movie_id, title in connection.execute(_WRONG_AGGREGATES):
            yield f"movie {movie_id} ({title}): the rating aggregates differ from its ratings"
        # Text that is none cannot be compared with its normal form.
        if not any("invalid" in line for line in invalid):
            yield from _problems_of_movies(connection)


def _problems_of_movies(connection: Connection) -> Iterator[str]:
    not_indexed = all_outdated(connection)
    with_other_genres = wrong_genres(connection)
    for movie_id, title, imdb_id, genres in connection.execute(_MOVIE_TEXTS):
        movie = f"movie {movie_id} ({title})"
        if movie_id in not_indexed:
            yield f"{movie}: search key is out of date"
        if movie_id in with_other_genres:
            yield f"{movie}: movie_genre rows differ from the movie's genres"
        normal = {
            "title": _is_normal(title, normalize_title),
            "list of genres": _is_normal(genres, normalize_genres),
            "imdb_id": imdb_id is None or _is_normal(imdb_id, normalize_imdb_id),
        }
        yield from (f"{movie}: the {n} is not in its normal form" for n in normal if not normal[n])


def _is_normal(stored: T, normalize: Callable[[T], T]) -> bool:
    try:
        return normalize(stored) == stored
    except ValueError:
        return False

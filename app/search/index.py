"""The search index: what is stored of each movie so that searches find it, and titles sort.

The repository keeps it up to date. The functions below bring it up to date afterwards: of a
catalogue from before the index, and of movies that the version before has written.
"""

from collections.abc import Sequence
from time import sleep
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.db import reading, writing
from app.search import index_words, names_key, title_columns
from app.tables import MOVIE, MOVIE_WORD

# Movies indexed in one transaction, and seconds between two: a write of another process waits for
# one transaction, and finds SQLite's lock free.
BATCH = 500
PAUSE = 0.02

_is_new = MOVIE.c.sort_title == ""
_ANY_NEW = sa.select(sa.exists().where(_is_new))
_columns = MOVIE.c[("id", "title", *title_columns(""))]
# In id order: otherwise this and a batch of ratings could deadlock.
_movies = sa.select(*_columns).order_by(MOVIE.c.id).limit(sa.bindparam("row_limit"))
_NEW_MOVIES = _movies.where(_is_new).with_for_update(key_share=True, skip_locked=True)
_next_movies = _movies.where(MOVIE.c.id > sa.bindparam("last_id"))
_NEXT_MOVIES = _next_movies.with_for_update(key_share=True)
_UPDATE = (
    sa.update(MOVIE)
    .where(MOVIE.c.id == sa.bindparam("this_movie"))
    .values({name: sa.bindparam(f"new_{name}") for name in title_columns("")})
)
_WORDS = sa.select(MOVIE_WORD.c.movie_id, MOVIE_WORD.c.word).where(
    MOVIE_WORD.c.movie_id.in_(sa.bindparam("movie_ids", expanding=True))
)
_INSERT_WORDS = sa.insert(MOVIE_WORD)
_DELETE_WORDS = sa.delete(MOVIE_WORD).where(MOVIE_WORD.c.movie_id == sa.bindparam("this_movie"))


def insert_words(connection: sa.Connection, titles: dict[int, str]) -> None:
    """Store the words by which new movies are looked up, given their titles by id."""
    rows = [
        {"movie_id": movie_id, "word": word}
        for movie_id, title in titles.items()
        for word in sorted(index_words(names_key(title)))
    ]
    if rows:
        connection.execute(_INSERT_WORDS, rows)


def replace_words(connection: sa.Connection, titles: dict[int, str]) -> None:
    """Store the words by which movies are looked up instead of those that are stored."""
    connection.execute(_DELETE_WORDS, [{"this_movie": movie_id} for movie_id in titles])
    insert_words(connection, titles)


def index_new_movies(session: Session) -> int:
    """Index the movies that never were, in batches, and return their number.

    It may be interrupted and repeated, and run in several processes at once.
    """
    done = 0
    while True:
        with reading(session) as connection:
            if not connection.execute(_ANY_NEW).scalar_one():
                return done
        with writing(session) as connection:
            movies = connection.execute(_NEW_MOVIES, {"row_limit": BATCH}).all()
            done += _index(connection, movies)
        sleep(PAUSE)


def index_again(session: Session) -> int:
    """Index the movies whose index is out of date, and return their number."""
    done = last_id = 0
    while True:
        with writing(session) as connection:
            bounds = {"row_limit": BATCH, "last_id": last_id}
            movies = connection.execute(_NEXT_MOVIES, bounds).all()
            if not movies:
                return done
            done += _index(connection, movies)
            last_id = movies[-1].id
        sleep(PAUSE)


def all_outdated(connection: sa.Connection) -> set[int]:
    """Return the ids of all movies whose index is out of date."""
    found: set[int] = set()
    last_id = 0
    while movies := connection.execute(
        _next_movies, {"last_id": last_id, "row_limit": BATCH}
    ).all():
        found |= _outdated(connection, movies)
        last_id = movies[-1].id
    return found


def _outdated(connection: sa.Connection, movies: Sequence[sa.Row[Any]]) -> set[int]:
    stored: dict[int, set[str]] = {movie.id: set() for movie in movies}
    for movie_id, word in connection.execute(_WORDS, {"movie_ids": [*stored]}):
        stored[movie_id].add(word)
    return {
        movie.id
        for movie in movies
        if tuple(title_columns(movie.title).values()) != movie[2:]
        or stored[movie.id] != index_words(movie.search_names)
    }


def _index(connection: sa.Connection, movies: Sequence[sa.Row[Any]]) -> int:
    ids = _outdated(connection, movies)
    titles = {movie.id: movie.title for movie in movies if movie.id in ids}
    if titles:
        rows = [
            {"this_movie": movie_id, **{f"new_{k}": v for k, v in title_columns(title).items()}}
            for movie_id, title in titles.items()
        ]
        connection.execute(_UPDATE, rows)
        replace_words(connection, titles)
    return len(titles)

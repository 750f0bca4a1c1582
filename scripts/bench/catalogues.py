"""Generates catalogues of any size, identical on every run, in constant memory."""

import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import accumulate
from pathlib import Path
from typing import TypedDict
from uuid import uuid4

from sqlalchemy import create_engine, insert, make_url, select
from sqlmodel import Session

from app import statements, tables
from app.db import migrate
from app.search import search_key
from app.search.index import index_new_movies

SEED = 20_000
# The percentage of movies with each genre, roughly as in MovieLens.
COMMON_GENRE, RARE_GENRE = "Drama", "Film-Noir"
GENRES = {
    COMMON_GENRE: 29, "Comedy": 19, "Documentary": 11, "Thriller": 10, "Romance": 9, "Action": 9,
    "Horror": 7, "Crime": 6, "Adventure": 5, "Animation": 4, "Sci-Fi": 4, "Fantasy": 3, "War": 2,
    "Western": 2, RARE_GENRE: 0.4,
}  # fmt: skip
SCALE = range(1, 6)
RATINGS_A_USER = 160
BATCH = 10_000
RATED_AT = "2026-01-31 12:00:00.000000"

INSERT_MOVIE = """
    INSERT INTO movie (id, title, search_title, year, genre, other_genres)
    VALUES (?, ?, ?, ?, ?, ?)
"""
SPLIT_GENRES = """
    INSERT INTO movie_genre (movie_id, genre)
    SELECT movie.id, value
    FROM movie, json_each('["' || replace(genre || other_genres, '|', '","') || '"]')
"""
INDEXES_WITHIN_A_GENRE = """
    CREATE INDEX within_mean ON movie (genre, average_rating DESC, rating_count DESC, title);
    CREATE INDEX within_weighted ON movie (genre, weighted_rating DESC, rating_count DESC, title);
"""
INSERT_RATING = "INSERT INTO rating (movie_id, user_id, score, created_at) VALUES (?, ?, ?, ?)"
COPY_MOVIES = """
    INSERT INTO baseline_movie (id, title, year, genre)
    SELECT id, title, year, genre FROM catalogue.movie
"""
COPY_RATINGS = """
    INSERT INTO baseline_rating (id, movie_id, user_id, score, created_at)
    SELECT id, movie_id, user_id, score, created_at FROM catalogue.rating
"""


class Aggregates(TypedDict):
    """The parameters of ADJUST_AGGREGATES."""

    this_movie: int
    count_change: int
    sum_change: int


def make_catalogue(path: Path, *, movies: int, ratings: int) -> None:
    """Create a database of the service with this many movies and ratings."""
    rng = random.Random(SEED)  # noqa: S311 - nothing is secret here
    aggregates = [Aggregates(this_movie=n + 1, count_change=0, sum_change=0) for n in range(movies)]
    url = f"sqlite:///{path}"
    migrate(url)
    with closing(sqlite3.connect(path)) as database:
        # Durability is not needed: an interrupted run discards the file.
        database.execute("PRAGMA journal_mode=OFF")
        database.execute("PRAGMA synchronous=OFF")
        # In KiB. A larger cache is hardly faster.
        database.execute(f"PRAGMA cache_size=-{64 * 1024}")
        indexes = database.execute(
            "SELECT name, sql FROM sqlite_master WHERE tbl_name='rating' AND type='index' AND sql"
            " IS NOT NULL"
        ).fetchall()
        # Building the indexes at the end is faster than updating them row by row.
        for name, _ in indexes:
            database.execute(f"DROP INDEX {name}")
        database.executemany(INSERT_MOVIE, _movies(rng, movies))
        database.execute(SPLIT_GENRES)
        database.executemany(INSERT_RATING, _ratings(rng, movies, ratings, aggregates))
        for _, statement in indexes:
            database.execute(statement)
        database.commit()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(statements.ADJUST_AGGREGATES, aggregates)
    with Session(engine) as session:
        index_new_movies(session)
    engine.dispose()


def add_indexes_within_a_genre(catalogue: Path, path: Path) -> None:
    """Copy a catalogue and add indexes for rankings within a genre."""
    shutil.copy(catalogue, path)
    with closing(sqlite3.connect(path)) as database:
        database.executescript(INDEXES_WITHIN_A_GENRE)


def fill_baseline(path: Path, catalogue: Path) -> None:
    """Copy a catalogue into the empty tables of the baseline's database."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("ATTACH ? AS catalogue", (str(catalogue),))
        database.execute(COPY_MOVIES)
        database.execute(COPY_RATINGS)
        database.commit()


@contextmanager
def postgresql_copy(server: str, catalogue: Path) -> Iterator[str]:
    """Yield the URL of a new PostgreSQL database with a catalogue in the service's tables.

    Args:
        server: the URL of a database on the server, whose user may create databases.
        catalogue: the SQLite database to copy.
    """
    name = f"movie_bench_{uuid4().hex}"
    url = make_url(server).set(drivername="postgresql+psycopg")
    administrator = create_engine(url, isolation_level="AUTOCOMMIT")
    with administrator.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    try:
        copy = url.set(database=name).render_as_string(hide_password=False)
        migrate(copy)
        source, target = create_engine(f"sqlite:///{catalogue}"), create_engine(copy)
        with source.connect() as reader, target.begin() as writer:
            for table in (tables.MOVIE, tables.MOVIE_GENRE, tables.RATING):
                rows = reader.execution_options(yield_per=BATCH).execute(select(table))
                for batch in rows.mappings().partitions():
                    writer.execute(insert(table), [dict(row) for row in batch])
                if "id" not in table.c:
                    continue
                sequence = f"pg_get_serial_sequence('{table.name}', 'id')"
                last = f"(SELECT max(id) FROM {table.name})"  # noqa: S608 - names of this project
                writer.exec_driver_sql(f"SELECT setval({sequence}, {last})")
        with target.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")
        source.dispose()
        target.dispose()
        yield copy
    finally:
        with administrator.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
        administrator.dispose()


def fill_baseline_on_postgresql(url: str) -> None:
    """Copy a catalogue into the baseline's empty tables in the same database."""
    engine = create_engine(url)
    with engine.begin() as connection:
        for copy in (COPY_MOVIES, COPY_RATINGS):
            connection.exec_driver_sql(copy.replace("catalogue.", ""))
        for table in ("baseline_movie", "baseline_rating"):
            sequence = f"pg_get_serial_sequence('{table}', 'id')"
            last = f"(SELECT max(id) FROM {table})"  # noqa: S608 - names of this project
            connection.exec_driver_sql(f"SELECT setval({sequence}, {last})")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
    engine.dispose()


def _movies(rng: random.Random, movies: int) -> Iterator[tuple[int, str, str, int, str, str]]:
    for movie_id in range(1, movies + 1):
        year = rng.randint(1930, 2025)
        genres = [genre for genre, share in GENRES.items() if rng.random() < share / 100]
        rng.shuffle(genres)
        first, *others = genres or ["Unknown"]
        title = f"{first} {rng.randrange(10**6)}-{movie_id} ({year})"
        yield movie_id, title, search_key(title), year, first, "".join(f"|{it}" for it in others)


def _ratings(
    rng: random.Random, movies: int, ratings: int, aggregates: list[Aggregates]
) -> Iterator[tuple[int, int, int, str]]:
    """Yield ratings user by user, as in MovieLens, and add them to the aggregates.

    A few movies have many ratings and many have few. No user rates a movie twice.
    """
    popularity = list(accumulate(1 / (rank + 20) for rank in range(movies)))
    movie_ids = rng.sample(range(1, movies + 1), movies)
    a_user = min(RATINGS_A_USER, max(1, movies // 2))
    for user_id, done in enumerate(range(0, ratings, a_user), start=1):
        wanted = min(a_user, ratings - done)
        rated: set[int] = set()
        while len(rated) < wanted:
            missing = wanted - len(rated)
            rated.update(rng.choices(movie_ids, cum_weights=popularity, k=missing))
        scores = rng.choices(SCALE, weights=(1, 2, 5, 6, 3), k=wanted)
        for movie_id, score in zip(rated, scores, strict=True):
            aggregates[movie_id - 1]["count_change"] += 1
            aggregates[movie_id - 1]["sum_change"] += score
            yield movie_id, user_id, score, RATED_AT

"""CatalogueRepository: imports and exports whole catalogues."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC
from functools import partial
from itertools import chain, islice
from typing import Any, TypeVar

from sqlalchemy import Connection, Select
from sqlalchemy.orm import Session

from app.logs import log_event
from app.models import search_key
from app.movielens import statements
from app.movielens.files import MovieRow, RatingRow
from app.transactions import after_commit, reading, writing

T = TypeVar("T")

# How many rows a bulk method holds at a time.
BATCH_SIZE = 1000
# Before a statement changes a page, SQLite keeps a copy of it until the statement's end: the more
# rows share that, the better. Their 4 parameters each have to stay below its limit of 32,766.
RATINGS_A_STATEMENT = 4000


@dataclass
class MergeCounts:
    """What became of the movies and ratings that were merged into the catalogue."""

    movies_new: int = 0
    movies_updated: int = 0
    movies_unchanged: int = 0
    # Those with the title of an earlier one.
    movies_merged: int = 0
    ratings_new: int = 0
    # Those that took the place of the same user's older one.
    ratings_replacing: int = 0
    # Those that left one in its place which is as new or newer.
    ratings_ignored: int = 0


class CatalogueRepository:
    """Merges and streams whole catalogues.

    Memory grows with the movies at most, and not with their ratings.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def merge(self, movies: Iterable[MovieRow], ratings: Iterable[RatingRow]) -> MergeCounts:
        """Store movies and ratings beside what is there, and return what became of them.

        A movie is its title. One that is there keeps its id and gets the given year and genre; of
        several that are given with one title the first counts. A user's latest rating of a movie
        stays, and among those of one time the first. Anonymous ratings are the same if movie,
        score and time are; as many of them stay as are on the side that has more. So nothing
        changes if it is done again.

        Everything is stored while it is read: memory grows with the movies and not with the
        ratings, and others that write wait until the end.

        Args:
            movies: read first, to the end. Their ids are only for the ratings to refer to.
            ratings: of these movies.
        """
        counts = MergeCounts()
        with writing(self._session) as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(statements.LOCK_CATALOGUE_ON_POSTGRESQL)
            else:
                connection.execute(statements.ENLARGE_CACHE)
            ids = _merge_movies(connection, movies, counts)
            _merge_ratings(connection, ratings, ids, counts)
            for movie_ids in _batches(sorted(set(ids.values()))):
                connection.execute(statements.RECOUNT_AGGREGATES, {"movie_ids": movie_ids})
            event = partial(log_event, "catalogue.merged", **vars(counts))
            after_commit(self._session, event)
        return counts

    def every_movie(self) -> Iterator[MovieRow]:
        """Yield all movies by id, without holding them in memory."""
        return self._stream(statements.EVERY_MOVIE, MovieRow)

    def every_rating(self) -> Iterator[RatingRow]:
        """Yield all ratings by id, without holding them in memory."""
        return self._stream(statements.EVERY_RATING, RatingRow)

    def _stream(self, statement: Select[Any], row_type: Callable[..., T]) -> Iterator[T]:
        with reading(self._session) as connection:
            options = {"yield_per": BATCH_SIZE}
            # Closed also if the caller stops half-way.
            with connection.execute(statement, execution_options=options) as rows:
                for row in rows:
                    yield row_type(*row)


def _merge_movies(
    connection: Connection, movies: Iterable[MovieRow], counts: MergeCounts
) -> dict[int, int]:
    """Store movies, and return the id in the database for each of the given ids."""
    ids: dict[int, int] = {}
    done: set[int] = set()
    for batch in _batches(movies):
        first: dict[str, MovieRow] = {}
        for movie in batch:
            first.setdefault(movie.title, movie)
        rows = connection.execute(statements.MOVIES_BY_TITLE, {"titles": [*first]})
        stored = {row.title: row for row in rows}
        known = [row for row in stored.values() if row.id not in done]
        changed = [
            {"this_movie": row.id, "new_year": movie.year, "new_genre": movie.genre}
            for row in known
            if (movie := first[row.title]).year != row.year or movie.genre != row.genre
        ]
        new = [
            {
                "title": title,
                "search_title": search_key(title),
                "year": movie.year,
                "genre": movie.genre,
            }
            for title, movie in first.items()
            if title not in stored
        ]
        if changed:
            connection.execute(statements.DESCRIBE_MOVIE, changed)
        if new:
            rows = connection.execute(statements.INSERT_MOVIES, new)
            stored |= {row.title: row for row in rows}
        ids |= {movie.id: stored[movie.title].id for movie in batch}
        done |= {row.id for row in stored.values()}
        counts.movies_new += len(new)
        counts.movies_updated += len(changed)
        counts.movies_unchanged += len(known) - len(changed)
        counts.movies_merged += len(batch) - len(known) - len(new)
    return ids


def _merge_ratings(
    connection: Connection,
    ratings: Iterable[RatingRow],
    ids: dict[int, int],
    counts: MergeCounts,
) -> None:
    """Store ratings, given the id in the database for each id of theirs."""
    last_id = {"last_id": connection.execute(statements.LAST_RATING_ID).scalar_one()}
    given = stored = 0
    for batch in _batches(ratings, RATINGS_A_STATEMENT):
        given += len(batch)
        stored += _merge_batch(connection, batch, ids)
    stored -= connection.execute(statements.DELETE_REPEATED_RATINGS, last_id).rowcount
    counts.ratings_new = connection.execute(statements.COUNT_LATER_RATINGS, last_id).scalar_one()
    counts.ratings_replacing = stored - counts.ratings_new
    counts.ratings_ignored = given - stored


def _merge_batch(connection: Connection, ratings: list[RatingRow], ids: dict[int, int]) -> int:
    """Store ratings, and return how many of them were not older than what is there."""
    if connection.dialect.name == "sqlite":
        values = [
            (
                ids[row.movie_id],
                row.user_id,
                row.score,
                # 2026-01-31 12:00:00.000000, as SQLAlchemy stores it.
                row.created_at.astimezone(UTC).isoformat(" ", "microseconds")[:26],
            )
            for row in ratings
        ]
        sql = statements.merge_ratings_on_sqlite(len(ratings))
        return connection.exec_driver_sql(sql, (*chain.from_iterable(values),)).rowcount
    rows = [
        {
            "given_movie_id": ids[row.movie_id],
            "given_user_id": row.user_id,
            "given_score": row.score,
            "given_created_at": row.created_at,
        }
        for row in ratings
    ]
    options = {"preserve_rowcount": True}
    return connection.execute(statements.MERGE_RATING, rows, execution_options=options).rowcount


def _batches(items: Iterable[T], size: int = BATCH_SIZE) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch

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
from app.models import normalize_genre, normalize_title
from app.movielens import statements
from app.movielens.files import MovieRow, RatingRow
from app.repository import movie_filters, rating_filters
from app.search import search_key
from app.statements import DELETE_GENRES, INSERT_GENRES
from app.transactions import after_commit, reading, writing

T = TypeVar("T")

# Rows held in memory at a time.
BATCH_SIZE = 1000
# SQLite copies each page that a statement changes, so large statements copy fewer. With four
# parameters a row, this stays below its limit of 32,766.
RATINGS_A_STATEMENT = 4000


@dataclass
class MergeCounts:
    """What an import did with the movies and ratings of the files."""

    movies_new: int = 0
    movies_updated: int = 0
    movies_unchanged: int = 0
    # Rows with the title of an earlier row.
    movies_merged: int = 0
    ratings_new: int = 0
    # Replaced an older rating by the same user.
    ratings_replacing: int = 0
    # Skipped: the stored rating is at least as recent.
    ratings_ignored: int = 0


class CatalogueRepository:
    """Merges and streams whole catalogues.

    Memory grows with the number of movies, never with the number of ratings.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def merge(self, movies: Iterable[MovieRow], ratings: Iterable[RatingRow]) -> MergeCounts:
        """Merge movies and ratings into the catalogue, and return what was done with them.

        Titles and genres are normalized, and movies are identified by title. A stored movie keeps
        its id and takes the given year and genre; of several rows with one title the first wins.
        Of a user's ratings of a movie the latest wins, and of equally recent ones the first.
        Anonymous ratings of one movie, score and second are interchangeable: the larger of the two
        counts is kept. Importing the same files again therefore changes nothing.

        Rows are stored as they are read. Other writers wait until the end.

        Args:
            movies: consumed first. Their ids only link the ratings to them.
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
        """Stream all movies by id."""
        return self._stream(statements.EVERY_MOVIE, MovieRow)

    def every_rating(self) -> Iterator[RatingRow]:
        """Stream the users' ratings by id."""
        return self._stream(statements.EVERY_RATING, RatingRow)

    def every_anonymous_rating(self) -> Iterator[RatingRow]:
        """Stream the ratings without a user by id."""
        return self._stream(statements.EVERY_ANONYMOUS_RATING, RatingRow)

    def movies_by_page(
        self,
        *,
        genre: str | None = None,
        q: str | None = None,
        year_min: int | None = None,
        year_max: int | None = None,
        imdb_id: str | None = None,
        tmdb_id: int | None = None,
    ) -> Iterator[MovieRow]:
        """Stream the movies that pass every filter by id, for a reader who may be slow.

        Each page is a transaction of its own. Between two of them the stream holds no connection
        and no snapshot, so it keeps no writer waiting and a reader that vanishes leaves nothing
        behind. What is changed meanwhile may be seen or not.
        """
        filters = movie_filters(
            genre=genre,
            q=q,
            year_min=year_min,
            year_max=year_max,
            imdb_id=imdb_id,
            tmdb_id=tmdb_id,
        )
        return self._pages(statements.page_of_movie_rows(*filters), filters, MovieRow)

    def ratings_by_page(
        self, *, movie_id: int | None = None, user_id: int | None = None
    ) -> Iterator[RatingRow]:
        """Stream the users' ratings that pass every filter by id, as movies_by_page() does."""
        filters = rating_filters(movie_id=movie_id, user_id=user_id)
        return self._pages(statements.page_of_rating_rows(*filters), filters, RatingRow)

    def _pages(
        self, statement: Select[Any], filters: dict[str, Any], row_type: Callable[..., T]
    ) -> Iterator[T]:
        parameters = filters | {"last_id": 0, "row_limit": BATCH_SIZE}
        while True:
            with reading(self._session) as connection:
                rows = connection.execute(statement, parameters).all()
            for row in rows:
                yield row_type(*row[1:])
            if len(rows) < BATCH_SIZE:
                return
            parameters["last_id"] = rows[-1].row_id

    def _stream(self, statement: Select[Any], row_type: Callable[..., T]) -> Iterator[T]:
        with reading(self._session) as connection:
            options = {"yield_per": BATCH_SIZE}
            # Closes the cursor even if the caller stops half-way.
            with connection.execute(statement, execution_options=options) as rows:
                for row in rows:
                    yield row_type(*row)


def _merge_movies(
    connection: Connection, movies: Iterable[MovieRow], counts: MergeCounts
) -> dict[int, int]:
    """Store movies and return a map from the given ids to the stored ones."""
    ids: dict[int, int] = {}
    done: set[int] = set()
    for batch in _batches(map(_normalized, movies)):
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
        ids_of_genres = [
            *(row["this_movie"] for row in changed),
            *(stored[row["title"]].id for row in new),
        ]
        for movie_id in ids_of_genres:
            connection.execute(DELETE_GENRES, {"this_movie": movie_id})
        genres = [
            {"movie_id": row.id, "genre": first[title].genre}
            for title, row in stored.items()
            if row.id in ids_of_genres
        ]
        if genres:
            connection.execute(INSERT_GENRES, genres)
        ids |= {movie.id: stored[movie.title].id for movie in batch}
        done |= {row.id for row in stored.values()}
        counts.movies_new += len(new)
        counts.movies_updated += len(changed)
        counts.movies_unchanged += len(known) - len(changed)
        counts.movies_merged += len(batch) - len(known) - len(new)
    return ids


def _normalized(movie: MovieRow) -> MovieRow:
    return MovieRow(
        movie.id, normalize_title(movie.title), movie.year, normalize_genre(movie.genre)
    )


def _merge_ratings(
    connection: Connection,
    ratings: Iterable[RatingRow],
    ids: dict[int, int],
    counts: MergeCounts,
) -> None:
    """Store ratings, given the map from their movie ids to the stored ones."""
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
    """Upsert ratings and return how many were inserted or replaced an older one."""
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

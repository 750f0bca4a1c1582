"""CatalogueRepository: imports and exports whole catalogues."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC
from functools import lru_cache, partial
from itertools import chain, islice
from typing import Any, TypeVar, Unpack

from sqlalchemy import Connection, Row, Select
from sqlalchemy.orm import Session

from app.db import after_commit, reading, writing
from app.filters import Filters, find_movies
from app.logs import log_event
from app.movielens import statements
from app.movielens.files import MovieRow, RatingRow
from app.read_models import MovieSelection
from app.search import title_columns
from app.search.index import insert_words
from app.statements import DELETE_GENRES, INSERT_GENRES
from app.text import (
    GENRE_SEPARATOR,
    genre_columns,
    normalize_genres,
    normalize_imdb_id,
    normalize_title,
)

T = TypeVar("T")

# Rows held in memory at a time.
BATCH_SIZE = 1000
# Rows of a page of a download: few, so that a write beside it waits for milliseconds only.
PAGE_SIZE = 250
# Large statements are faster, because SQLite copies a changed page once per statement. With four
# parameters per row, this stays below SQLite's limit of 32,766.
RATINGS_PER_STATEMENT = 4000


@dataclass
class MergeCounts:
    """Numbers of movies and ratings that an import added, changed or skipped."""

    movies_new: int = 0
    movies_updated: int = 0
    movies_unchanged: int = 0
    # Rows with the same title as an earlier row.
    movies_merged: int = 0
    # Merged rows whose IMDb id differs from the earlier row's.
    different_movies_merged: int = 0
    # External ids skipped because another movie has them.
    external_ids_left_out: int = 0
    ratings_new: int = 0
    # Ratings that replaced an older one by the same user.
    ratings_replacing: int = 0
    # Ratings skipped because the stored one is at least as recent.
    ratings_ignored: int = 0


class CatalogueRepository:
    """Merges and streams whole catalogues.

    Streaming takes constant memory. The memory of a merge grows with the number of movies, never
    with the number of ratings.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def every_movie(self) -> Iterator[MovieRow]:
        """Stream all movies by id."""
        return self._stream(statements.EVERY_MOVIE, MovieRow)

    def every_rating(self) -> Iterator[RatingRow]:
        """Stream the users' ratings by id."""
        return self._stream(statements.EVERY_RATING, RatingRow)

    def every_anonymous_rating(self) -> Iterator[RatingRow]:
        """Stream the ratings without a user by id."""
        return self._stream(statements.EVERY_ANONYMOUS_RATING, RatingRow)

    def find_movies(self, **selection: Unpack[MovieSelection]) -> tuple[Filters, str | None]:
        """Return the filters that select movies, and the text searched instead of ``q``, if any."""
        with reading(self._session) as connection:
            return find_movies(connection, **selection)

    def movies_by_page(self, filters: Filters) -> Iterator[MovieRow]:
        """Stream the movies that match every filter by id, for a client that may be slow.

        Each page is a separate transaction. Between two pages the stream holds no connection and no
        snapshot, so it blocks no writer, and a client that disconnects leaves nothing open. Changes
        made meanwhile may be included or not.

        Args:
            filters: the result of ``find_movies()``.
        """
        return self._pages(statements.page_of_movie_rows(*filters), filters, MovieRow)

    def ratings_by_page(self, filters: Filters) -> Iterator[RatingRow]:
        """Stream the users' ratings that match every filter by id, like ``movies_by_page()``.

        Args:
            filters: the result of ``rating_filters()``.
        """
        return self._pages(statements.page_of_rating_rows(*filters), filters, RatingRow)

    def _pages(
        self, statement: Select[Any], filters: Filters, row_type: Callable[..., T]
    ) -> Iterator[T]:
        parameters = {**filters, "last_id": 0, "row_limit": PAGE_SIZE}
        while True:
            with reading(self._session) as connection:
                rows = connection.execute(statement, parameters).all()
            for row in rows:
                yield row_type(*row[1:])
            if len(rows) < PAGE_SIZE:
                return
            parameters["last_id"] = rows[-1].row_id

    def _stream(self, statement: Select[Any], row_type: Callable[..., T]) -> Iterator[T]:
        with reading(self._session) as connection:
            options = {"yield_per": BATCH_SIZE}
            # Closes the cursor even if the caller stops early.
            with connection.execute(statement, execution_options=options) as rows:
                for row in rows:
                    yield row_type(*row)

    def merge(self, movies: Iterable[MovieRow], ratings: Iterable[RatingRow]) -> MergeCounts:
        """Merge movies and ratings into the catalogue, and return the counts.

        Titles, genres and IMDb ids are normalized, and movies are identified by title. A stored
        movie keeps its id and takes the given year, genres and external ids; external ids that are
        not given are kept. If rows share a title, the first wins. If another movie has an external
        id, the movie keeps its old one.
        If a user rated a movie several times, the latest rating wins, or the first of equally
        recent ones. Anonymous ratings with the same movie, score and second are interchangeable:
        the larger of the stored and the given number is kept. Importing the same files again
        therefore changes nothing.

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


def _merge_movies(
    connection: Connection, movies: Iterable[MovieRow], counts: MergeCounts
) -> dict[int, int]:
    """Store movies and return a map from the given ids to the stored ones."""
    ids: dict[int, int] = {}
    # By stored id: the first given row of each movie, and its stored row before the merge.
    given: dict[int, MovieRow] = {}
    before: dict[int, Row[Any]] = {}
    inserted: set[int] = set()
    changed: set[int] = set()
    for batch in _batches(map(_normalized, movies)):
        first: dict[str, MovieRow] = {}
        for movie in batch:
            first.setdefault(movie.title, movie)
        rows = connection.execute(statements.MOVIES_BY_TITLE, {"titles": [*first]})
        stored = {row.title: row for row in rows}
        described = {
            row.id: movie
            for row in stored.values()
            if row.id not in given
            and ((movie := first[row.title]).year != row.year or movie.genres != row.genres)
        }
        _describe(connection, described)
        new = _insert(connection, [movie for title, movie in first.items() if title not in stored])
        stored |= new
        for movie in batch:
            row = stored[movie.title]
            ids[movie.id] = row.id
            kept = given.setdefault(row.id, movie)
            if kept is movie:
                before[row.id] = row
            else:
                counts.movies_merged += 1
                counts.different_movies_merged += _differ(kept.imdb_id, movie.imdb_id)
        inserted |= {row.id for row in new.values()}
        changed |= described.keys()
    for name in statements.SET_EXTERNAL_ID:
        changed |= _merge_external_ids(connection, name, given, before, counts)
    counts.movies_new = len(inserted)
    counts.movies_updated = len(changed - inserted)
    counts.movies_unchanged = len(given.keys() - inserted - changed)
    return ids


def _describe(connection: Connection, movies: dict[int, MovieRow]) -> None:
    """Update the year and the genres of stored movies."""
    if movies:
        rows = [
            {"this_movie": movie_id, "new_year": movie.year, **_genre_columns(movie, "new_")}
            for movie_id, movie in movies.items()
        ]
        connection.execute(statements.DESCRIBE_MOVIE, rows)
        connection.execute(DELETE_GENRES, [{"this_movie": movie_id} for movie_id in movies])
        _insert_genres(connection, movies)


def _insert(connection: Connection, movies: Sequence[MovieRow]) -> dict[str, Row[Any]]:
    """Insert movies, without external ids that other movies have, and return them by title."""
    if not movies:
        return {}
    taken = {name: _taken(connection, name, movies) for name in statements.SET_EXTERNAL_ID}
    values = [
        {
            "title": movie.title,
            **title_columns(movie.title),
            "year": movie.year,
            **_genre_columns(movie),
            **{name: _claim(getattr(movie, name), taken[name]) for name in taken},
        }
        for movie in movies
    ]
    stored = {row.title: row for row in connection.execute(statements.INSERT_MOVIES, values)}
    _insert_genres(connection, {stored[movie.title].id: movie for movie in movies})
    insert_words(connection, {row.id: title for title, row in stored.items()})
    return stored


def _genre_columns(movie: MovieRow, prefix: str = "") -> dict[str, str]:
    columns = genre_columns(movie.genres.split(GENRE_SEPARATOR))
    return {f"{prefix}{name}": value for name, value in columns.items()}


def _insert_genres(connection: Connection, movies: dict[int, MovieRow]) -> None:
    rows = [
        {"movie_id": movie_id, "genre": genre}
        for movie_id, movie in movies.items()
        for genre in movie.genres.split(GENRE_SEPARATOR)
    ]
    connection.execute(INSERT_GENRES, rows)


def _merge_external_ids(
    connection: Connection,
    name: str,
    movies: dict[int, MovieRow],
    before: dict[int, Row[Any]],
    counts: MergeCounts,
) -> set[int]:
    """Update one kind of external id, and return the ids of the movies that changed."""
    wanted = {
        movie_id: movie
        for movie_id, movie in movies.items()
        if getattr(movie, name) not in {None, getattr(before[movie_id], name)}
    }
    # Clear the ids first: movies may swap theirs.
    _set_external_ids(connection, name, dict.fromkeys(wanted))
    taken = _taken(connection, name, wanted.values())
    assigned = {}
    for movie_id, movie in wanted.items():
        external_id = _claim(getattr(movie, name), taken)
        if external_id is None:
            counts.external_ids_left_out += 1
            external_id = _claim(getattr(before[movie_id], name), taken)
        assigned[movie_id] = external_id
    _set_external_ids(connection, name, assigned)
    return {key for key, value in assigned.items() if value != getattr(before[key], name)}


def _taken(connection: Connection, name: str, movies: Iterable[MovieRow]) -> set[Any]:
    """Return the external ids of these movies that stored movies have."""
    external_ids = {getattr(movie, name) for movie in movies} - {None}
    taken: set[Any] = set()
    for batch in _batches(external_ids):
        rows = connection.execute(statements.TAKEN_IDS[name], {"external_ids": batch})
        taken |= set(rows.scalars())
    return taken


def _claim(external_id: Any, taken: set[Any]) -> Any:  # noqa: ANN401 - a text or a number
    """Return an external id and add it to ``taken``, or return None if it is there already."""
    if external_id in taken:
        return None
    taken.add(external_id)
    return external_id


def _set_external_ids(connection: Connection, name: str, ids: dict[int, Any]) -> None:
    if ids:
        rows = [{"this_movie": movie_id, "external_id": value} for movie_id, value in ids.items()]
        connection.execute(statements.SET_EXTERNAL_ID[name], rows)


def _differ(imdb_id: str | None, other: str | None) -> bool:
    return None not in {imdb_id, other} and imdb_id != other


def _normalized(movie: MovieRow) -> MovieRow:
    return MovieRow(
        movie.id,
        normalize_title(movie.title),
        movie.year,
        _normalized_genres(movie.genres),
        None if movie.imdb_id is None else normalize_imdb_id(movie.imdb_id),
        movie.tmdb_id,
    )


@lru_cache(maxsize=2**12)
def _normalized_genres(genres: str) -> str:
    return GENRE_SEPARATOR.join(normalize_genres(genres.split(GENRE_SEPARATOR)))


def _merge_ratings(
    connection: Connection, ratings: Iterable[RatingRow], ids: dict[int, int], counts: MergeCounts
) -> None:
    """Store ratings. ``ids`` maps the given movie ids to the stored ones."""
    last_id = {"last_id": connection.execute(statements.LAST_RATING_ID).scalar_one()}
    given = stored = 0
    for batch in _batches(ratings, RATINGS_PER_STATEMENT):
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
                # SQLAlchemy's storage format: 2026-01-31 12:00:00.000000.
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

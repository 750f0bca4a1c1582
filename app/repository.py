"""MovieRepository: every query and write as a domain verb, and nothing of HTTP."""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from math import isqrt
from typing import Any, TypeVar

from pydantic import MISSING
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app import statements
from app.db_errors import violated_constraint
from app.errors import (
    DuplicateExternalId,
    DuplicateTitle,
    IdsExhausted,
    MovieNotFound,
    MoviesNotFound,
    RatingNotFound,
)
from app.logs import log_event
from app.models import (
    DEFAULT_GENRE,
    INTEGER_MAX,
    SCORE_MAX,
    SCORE_MIN,
    genre_columns,
    normalize_genre,
    normalize_genres,
    normalize_imdb_id,
    normalize_text,
    normalize_title,
    utc_now,
)
from app.observer import OBSERVER
from app.read_models import (
    GenreRead,
    MovieRead,
    NewMovie,
    NewRating,
    Page,
    Ranking,
    RatingRead,
    ScoreCount,
    Sort,
)
from app.search import search_key, search_words
from app.statements import WALK, PageSlice, is_scarce
from app.transactions import ReadSession, after_commit, is_writing, reading, writing

T = TypeVar("T")

# Raises if a movie is not as its caller expects. It is given the movie as stored.
Precondition = Callable[[MovieRead], None]
# The parameters of a statement by the names of its filters, of those alone that are given.
Filters = dict[str, Any]
# Inside the class, `list` is the method.
Movies = list[MovieRead]
Genres = list[GenreRead]
ScoreCounts = list[ScoreCount]

SCORES = range(SCORE_MIN, SCORE_MAX + 1)
EXTERNAL_IDS = ("imdb_id", "tmdb_id")


class MovieReader:
    """The movies and ratings behind a session, to be read.

    A method leaves no transaction open that it has begun.
    """

    def __init__(self, session: Session | ReadSession) -> None:
        self._session = session

    def get(self, movie_id: int) -> MovieRead:
        """Return a movie. Inside ``writing()`` nobody else changes it until that ends.

        Raises:
            MovieNotFound: no movie has this id.
        """
        get = statements.LOCK_MOVIE if is_writing(self._session) else statements.MOVIE_BY_ID
        with reading(self._session) as connection:
            row = connection.execute(get, {"this_movie": movie_id}).one_or_none()
        if row is None:
            raise MovieNotFound(movie_id)
        return MovieRead(*row)

    def list(
        self,
        *,
        limit: int = 100,
        offset: int = 0,
        genre: str | None = None,
        q: str | None = None,
        year_min: int | None = None,
        year_max: int | None = None,
        imdb_id: str | None = None,
        tmdb_id: int | None = None,
        sort: Sort = "title",
    ) -> Page[MovieRead]:
        """Return a page of the movies that pass every filter, and how many pass.

        ``genre`` is any of a movie's genres. ``q`` is words or parts of words of the title in any
        order; case, accents and punctuation do not matter. ``sort`` names a column, with ``-`` for
        the exact reverse; the order is total, so that pages neither repeat nor skip a movie.
        """
        filters = movie_filters(
            genre=genre,
            q=q,
            year_min=year_min,
            year_max=year_max,
            imdb_id=imdb_id,
            tmdb_id=tmdb_id,
        )
        with reading(self._session) as connection:
            total = connection.execute(statements.count_movies(*filters), filters).scalar_one()
            if not total:
                return Page((), total)
            part = PageSlice.of(total, limit, offset)
            page = statements.page_of_movies(
                *filters,
                sort=sort,
                backwards=part.backwards,
                scarce=bool(filters)
                and is_scarce(total, part.offset + part.limit, searched=bool(q)),
            )
            rows = connection.execute(page, filters | part.parameters).all()
        movies = Page((MovieRead(*row) for row in part.in_order(rows)), total)
        if offset + limit < total:
            movies.next = {"offset": offset + limit}
        return movies

    def top(
        self,
        limit: int = 5,
        *,
        genre: str | None = None,
        min_ratings: int = 0,
        ranking: Ranking = "mean",
    ) -> Movies:
        """Return the best movies: by ranking, then number of ratings, then title; unrated last.

        ``mean`` is the average score, 1 to 5. ``weighted`` is the Bayesian average, which trusts
        the scores the more of them there are: (PRIOR_COUNT * PRIOR_MEAN + sum of the scores) /
        (PRIOR_COUNT + number of scores). Source: https://en.wikipedia.org/wiki/Bayesian_average
        """
        filters = _given(
            of_genre=None if genre is None else normalize_genre(genre),
            min_ratings=min_ratings or None,
        )
        with reading(self._session) as connection:
            genre_first = is_rare_genre(connection, filters.get("of_genre"), limit)
            rated = statements.top_rated(*filters, ranking=ranking, genre_first=genre_first)
            rows = [*connection.execute(rated, filters | {"row_limit": limit})]
            # A query of its own, since the engines' indexes disagree on where NULL belongs.
            if len(rows) < limit and not min_ratings:
                unrated = statements.unrated(*filters, ranking=ranking, genre_first=genre_first)
                missing = {"row_limit": limit - len(rows)}
                rows += connection.execute(unrated, filters | missing)
        return [MovieRead(*row) for row in rows]

    def genres(self) -> Genres:
        """Return the genres and how many movies have each, the most frequent first."""
        with reading(self._session) as connection:
            rows = connection.execute(statements.GENRES).all()
        return [GenreRead(*row) for row in rows]

    def list_ratings(
        self,
        *,
        limit: int = 100,
        offset: int = 0,
        after: int | None = None,
        movie_id: int | None = None,
        user_id: int | None = None,
    ) -> Page[RatingRead]:
        """Return a page of the ratings that pass every filter, by id, and how many pass.

        ``after`` starts the page after this id, at the same cost wherever that is. ``offset``
        then counts from there.
        """
        filters = rating_filters(movie_id=movie_id, user_id=user_id)
        with reading(self._session) as connection:
            total = connection.execute(statements.count_ratings(*filters), filters).scalar_one()
            part = PageSlice.of(total, limit, offset)
            if after is not None:
                filters["after_rating"] = after
                # One more than asked for tells whether there is a next page.
                part = PageSlice(backwards=False, limit=limit + 1, offset=offset)
            page = statements.page_of_ratings(*filters, backwards=part.backwards)
            rows = [*part.in_order(connection.execute(page, filters | part.parameters).all())]
        ratings = Page((RatingRead(*row) for row in rows[:limit]), total)
        goes_on = offset + limit < total if after is None else len(rows) > limit
        if ratings and goes_on:
            ratings.next = {"after": ratings[-1].id}
        return ratings

    def get_rating(self, movie_id: int, user_id: int) -> RatingRead:
        """Return a user's rating of a movie.

        Raises:
            MovieNotFound: no movie has this id.
            RatingNotFound: the user has not rated it.
        """
        key = {"this_movie": movie_id, "by_user": user_id}
        with reading(self._session) as connection:
            row = connection.execute(statements.RATING_BY_USER, key).one_or_none()
            if row is None:
                self.get(movie_id)
                raise RatingNotFound(movie_id, user_id)
        return RatingRead(*row)

    def scores(self, movie_id: int) -> ScoreCounts:
        """Return how many ratings of a movie have each score, 1 to 5.

        It counts them: of a hundred thousand ratings in less than a tenth of a second. Counts kept
        with the movie, or an index, would cost every rating something instead.

        Raises:
            MovieNotFound: no movie has this id.
        """
        counts = dict.fromkeys(SCORES, 0)
        with reading(self._session) as connection:
            for score, count in connection.execute(
                statements.COUNT_SCORES, {"this_movie": movie_id}
            ):
                counts[score] = count
            if not any(counts.values()):
                self.get(movie_id)
        return [ScoreCount(*item) for item in counts.items()]

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the data, a line each; nothing where all is well."""
        with reading(self._session) as connection:
            orphans = connection.execute(statements.COUNT_ORPHANS).scalar_one()
            if orphans:
                yield f"{orphans} rating(s) of movies that do not exist"
            for movie_id, title in connection.execute(statements.WRONG_AGGREGATES):
                yield f"movie {movie_id} ({title}): the rating aggregates differ from its ratings"
            yield from _problems_of_movies(connection)
            if connection.dialect.name == "postgresql":
                yield from _problems_of_sequences(connection)


class MovieRepository(MovieReader):
    """The movies and ratings behind a session, to be read and written.

    It works with any session on a database made by the migrations or from the models' metadata.
    A method that writes has committed when it returns and changed nothing when it raises; inside
    ``writing(session)`` it joins that transaction instead, so that several of them are stored
    together or not at all.

    Titles and genres are normalized here, whoever calls: ``create(title="  Heat ", ...)`` stores
    what ``create(title="Heat", ...)`` does. What cannot be normalized is a ValueError.
    """

    _session: Session

    def __init__(self, session: Session) -> None:
        super().__init__(session)

    def create(
        self,
        *,
        title: str,
        year: int,
        genre: str = DEFAULT_GENRE,
        genres: Sequence[str] | None = None,
        imdb_id: str | None = None,
        tmdb_id: int | None = None,
    ) -> MovieRead:
        """Store a movie and return it. Several ``genres`` take the place of ``genre``.

        Raises:
            DuplicateTitle: another movie has this title.
            DuplicateExternalId: another movie has this IMDb or TMDB id.
        """
        values = _columns(title=title, year=year, imdb_id=imdb_id, tmdb_id=tmdb_id)
        genres = normalize_genres([genre] if genres is None else genres)
        values |= genre_columns(genres)
        with writing(self._session) as connection, _unique(values):
            movie = MovieRead(*connection.execute(statements.INSERT_MOVIE, values).one())
            _require_id_in_range(movie.id)
            _insert_genres(connection, movie.id, genres)
            self._log("movie.created", movie_id=movie.id)
        return movie

    def create_missing(self, movies: Iterable[NewMovie]) -> int:
        """Store the movies whose title and ids no other movie has, and return how many."""
        created = 0
        with writing(self._session) as connection:
            insert = (sqlite if connection.dialect.name == "sqlite" else postgresql).insert
            ignore = insert(statements.MOVIE).on_conflict_do_nothing()
            for title, year, genre, given, imdb_id, tmdb_id in movies:
                genres = normalize_genres(given or [genre])
                values = _columns(title=title, year=year, imdb_id=imdb_id, tmdb_id=tmdb_id)
                values |= genre_columns(genres)
                statement = ignore.values(values).returning(statements.MOVIE.c.id)
                movie_id = connection.execute(statement).scalar_one_or_none()
                if movie_id is not None:
                    _require_id_in_range(movie_id)
                    _insert_genres(connection, movie_id, genres)
                    created += 1
            if created:
                self._log("movies.created", count=created)
        return created

    def update(
        self,
        movie_id: int,
        *,
        title: str | MISSING = MISSING,
        year: int | MISSING = MISSING,
        genre: str | MISSING = MISSING,
        genres: Sequence[str] | MISSING = MISSING,
        imdb_id: str | MISSING | None = MISSING,
        tmdb_id: int | MISSING | None = MISSING,
        precondition: Precondition | None = None,
    ) -> MovieRead:
        """Change the given fields of a movie and return it.

        Args:
            movie_id: which movie.
            title: its new title.
            year: its new year.
            genre: its new first genre; the others stay.
            genres: all of its new genres, which take the place of ``genre``.
            imdb_id: its new IMDb id, None to remove it.
            tmdb_id: its new TMDB id, None to remove it.
            precondition: called with the stored movie before it changes; raises to prevent that.

        Raises:
            MovieNotFound: no movie has this id.
            DuplicateTitle: another movie has this title.
            DuplicateExternalId: another movie has this IMDb or TMDB id.
        """
        values = _columns(title=title, year=year, imdb_id=imdb_id, tmdb_id=tmdb_id)
        with writing(self._session) as connection, _unique(values):
            movie = self._lock(connection, movie_id, precondition)
            if genres is MISSING and genre is not MISSING:
                genres = [genre, *movie.genres[1:]]
            if genres is not MISSING:
                genres = normalize_genres(genres)
                values |= genre_columns(genres)
                connection.execute(statements.DELETE_GENRES, {"this_movie": movie_id})
                _insert_genres(connection, movie_id, genres)
            if values:
                update = statements.UPDATE_MOVIE.values(values)
                movie = MovieRead(*connection.execute(update, {"this_movie": movie_id}).one())
                self._log("movie.updated", movie_id=movie_id)
        return movie

    def delete(self, movie_id: int, *, precondition: Precondition | None = None) -> None:
        """Delete a movie, its ratings and whatever else refers to it.

        Args:
            movie_id: which movie.
            precondition: called with the stored movie; raises to keep it.

        Raises:
            MovieNotFound: no movie has this id.
        """
        with writing(self._session) as connection:
            self._lock(connection, movie_id, precondition)
            # By hand, since SQLite cascades only where foreign keys are switched on.
            for delete in (*statements.DELETE_REFERENCES, statements.DELETE_MOVIE):
                connection.execute(delete, {"this_movie": movie_id})
            self._log("movie.deleted", movie_id=movie_id)

    def add_rating(self, movie_id: int, score: int, user_id: int | None = None) -> RatingRead:
        """Store a user's score, 1 to 5, for a movie and return the stored rating.

        It replaces the user's earlier rating of the movie, whose id it keeps. Without a user the
        rating is anonymous, and is added to the others.

        Raises:
            MovieNotFound: no movie has this id.
        """
        values = {"score": score, "created_at": utc_now()}
        key = {"this_movie": movie_id, "by_user": user_id}
        with writing(self._session) as connection:
            self._lock(connection, movie_id)
            old = connection.execute(statements.SCORE, key).scalar_one_or_none()
            if old is None:
                values |= {"movie_id": movie_id, "user_id": user_id}
                row = connection.execute(statements.INSERT_RATING, values).one()
                _require_id_in_range(row.id)
                _adjust_aggregates(connection, movie_id, count_change=1, sum_change=score)
            else:
                row = connection.execute(statements.REPLACE_RATING.values(values), key).one()
                _adjust_aggregates(connection, movie_id, count_change=0, sum_change=score - old)
            self._log("rating.added", movie_id=movie_id, user_id=user_id, score=score)
            self._tell_observer(1)
        return RatingRead(*row)

    def add_ratings(self, ratings: Sequence[NewRating]) -> None:
        """Store many ratings, all or none: far cheaper than one by one.

        They take effect in their order, so that of a user's ratings of one movie the last stands.

        Raises:
            MoviesNotFound: some are of movies that do not exist.
        """
        with writing(self._session) as connection:
            _require_movies(connection, ratings)
            # The place of a user's first rating of a movie, and the value of the last.
            standing: dict[tuple[int, int | None, int], NewRating] = {}
            for position, rating in enumerate(ratings):
                anonymous = 0 if rating.user_id else position
                standing[rating.movie_id, rating.user_id, anonymous] = rating
            _store(connection, [*standing.values()])
            for movie_id, score, user_id, trace_id in ratings:
                fields = {"movie_id": movie_id, "user_id": user_id, "score": score}
                self._log("rating.added", **fields, trace_id=trace_id)
            self._tell_observer(len(ratings))

    def remove_rating(self, movie_id: int, user_id: int) -> None:
        """Delete a user's rating of a movie.

        Raises:
            MovieNotFound: no movie has this id.
            RatingNotFound: the user has not rated it.
        """
        key = {"this_movie": movie_id, "by_user": user_id}
        with writing(self._session) as connection:
            self._lock(connection, movie_id)
            old = connection.execute(statements.DELETE_RATING, key).scalar_one_or_none()
            if old is None:
                raise RatingNotFound(movie_id, user_id)
            _adjust_aggregates(connection, movie_id, count_change=-1, sum_change=-old)
            self._log("rating.removed", movie_id=movie_id, user_id=user_id)

    def _tell_observer(self, ratings: int) -> None:
        if observer := self._session.info.get(OBSERVER):
            after_commit(self._session, partial(observer.ratings_committed, ratings))

    def _log(self, event: str, **fields: int | str | None) -> None:
        after_commit(self._session, partial(log_event, event, logging.INFO, **fields))

    def _lock(
        self, connection: Connection, movie_id: int, precondition: Precondition | None = None
    ) -> MovieRead:
        """Return a movie that nobody else changes or rates until the transaction ends."""
        row = connection.execute(statements.LOCK_MOVIE, {"this_movie": movie_id}).one_or_none()
        if row is None:
            raise MovieNotFound(movie_id)
        movie = MovieRead(*row)
        if precondition is not None:
            precondition(movie)
        return movie


def movie_filters(
    *,
    genre: str | None = None,
    q: str | None = None,
    year_min: int | None = None,
    year_max: int | None = None,
    imdb_id: str | None = None,
    tmdb_id: int | None = None,
) -> Filters:
    """Return the parameters of a statement that selects movies, by the names of its filters."""
    return _given(
        of_genre=None if genre is None else normalize_genre(genre),
        of_imdb_id=None if imdb_id is None else normalize_imdb_id(imdb_id),
        of_tmdb_id=tmdb_id,
        year_min=year_min,
        year_max=year_max,
        **statements.word_filters(search_words(normalize_text(q)) if q else ()),
    )


def rating_filters(*, movie_id: int | None = None, user_id: int | None = None) -> Filters:
    """Return the parameters of a statement that selects ratings, by the names of its filters."""
    return _given(of_movie=movie_id, by_user=user_id)


def _columns(
    title: str | MISSING,
    year: int | MISSING,
    imdb_id: str | MISSING | None,
    tmdb_id: int | MISSING | None,
) -> dict[str, object]:
    """Return the columns of a movie that are given, as they are stored."""
    values: dict[str, object] = {}
    if title is not MISSING:
        values["title"] = stored_title = normalize_title(title)
        values["search_title"] = search_key(stored_title)
    if year is not MISSING:
        values["year"] = year
    if imdb_id is not MISSING:
        values["imdb_id"] = None if imdb_id is None else normalize_imdb_id(imdb_id)
    if tmdb_id is not MISSING:
        values["tmdb_id"] = tmdb_id
    return values


def _insert_genres(connection: Connection, movie_id: int, genres: Sequence[str]) -> None:
    rows = [{"movie_id": movie_id, "genre": genre} for genre in genres]
    connection.execute(statements.INSERT_GENRES, rows)


def is_rare_genre(connection: Connection, genre: str | None, wanted: int) -> bool:
    """Tell whether a ranking within a genre had better begin with the genre's movies."""
    if genre is None:
        return False
    enough = isqrt(wanted * WALK) + 1
    parameters = {"of_genre": genre, "row_limit": enough}
    count = connection.execute(statements.COUNT_GENRE_UP_TO, parameters).scalar_one()
    return is_scarce(count, wanted)


def _problems_of_movies(connection: Connection) -> Iterator[str]:
    looked_up: dict[int, set[str]] = {}
    for movie_id, genre in connection.execute(statements.EVERY_GENRE):
        looked_up.setdefault(movie_id, set()).add(genre)
    for movie_id, title, search_title, imdb_id, genres in connection.execute(
        statements.MOVIE_TEXTS
    ):
        movie = f"movie {movie_id} ({title})"
        if search_title != search_key(title):
            yield f"{movie}: a search looks for another title"
        if looked_up.pop(movie_id, set()) != {*genres}:
            yield f"{movie}: the genres in movie_genre are not its own"
        for name, stored, normalize in (
            ("title", title, normalize_title),
            ("list of genres", genres, normalize_genres),
            ("imdb_id", imdb_id, normalize_imdb_id),
        ):
            if stored is not None and not _is_normal(stored, normalize):
                yield f"{movie}: the {name} is not in its normal form"
    if looked_up:
        yield f"genres of {len(looked_up)} movie(s) that do not exist"


def _problems_of_sequences(connection: Connection) -> Iterator[str]:
    for table, largest_id in statements.LARGEST_ID.items():
        sequence = connection.execute(statements.SEQUENCE, {"of_table": table.name}).scalar_one()
        largest = connection.execute(largest_id).scalar_one()
        if sequence is None or largest is None:
            continue
        value, is_called = connection.execute(statements.sequence_state(sequence)).one()
        if value + is_called <= largest:
            fix = f"SELECT setval('{sequence}', max(id)) FROM {table.name};"  # noqa: S608 - to read
            yield (
                f"{table.name}: the next id is {value + is_called}, but ids up to {largest} are "
                f"taken. Run in psql: {fix}"
            )


def _require_id_in_range(new_id: int) -> None:
    """Refuse an id that no path could name. PostgreSQL gives out none, SQLite goes on to 2^63.

    Raises:
        IdsExhausted: it is above INTEGER_MAX.
    """
    if new_id > INTEGER_MAX:
        raise IdsExhausted


def _is_normal(stored: T, normalize: Callable[[T], T]) -> bool:
    try:
        return normalize(stored) == stored
    except ValueError:
        return False


def _require_movies(connection: Connection, ratings: Sequence[NewRating]) -> None:
    """Lock the movies that are rated.

    Raises:
        MoviesNotFound: some do not exist.
    """
    dialect = connection.dialect.name
    ids = sorted({rating.movie_id for rating in ratings})
    parameters = {"movie_ids": json.dumps(ids) if dialect == "sqlite" else ids}
    known = set(connection.execute(statements.LOCK_MOVIES[dialect], parameters).scalars())
    if len(known) < len(ids):
        raise MoviesNotFound([n for n, r in enumerate(ratings) if r.movie_id not in known])


def _store(connection: Connection, ratings: Sequence[NewRating]) -> None:
    """Store ratings of which no two are by one user for one movie."""
    now = utc_now()
    scores = _stored_scores(connection, [(r.movie_id, r.user_id) for r in ratings if r.user_id])
    new, replaced = [], []
    changes: dict[int, dict[str, int]] = {}
    for movie_id, score, user_id, _ in ratings:
        old = scores.get((movie_id, user_id))
        if old is None:
            rating = {"movie_id": movie_id, "user_id": user_id, "score": score, "created_at": now}
            new.append(rating)
        else:
            key = {"this_movie": movie_id, "by_user": user_id}
            replaced.append(key | {"new_score": score, "new_created_at": now})
        change = changes.setdefault(
            movie_id, {"this_movie": movie_id, "count_change": 0, "sum_change": 0}
        )
        change["count_change"] += old is None
        change["sum_change"] += score - (old or 0)
    for statement, rows in (
        (statements.INSERT_RATINGS, new),
        (statements.REPLACE_RATINGS, replaced),
        (statements.ADJUST_AGGREGATES, [*changes.values()]),
    ):
        if rows:
            connection.execute(statement, rows)
    if new and connection.dialect.name == "sqlite":
        _require_id_in_range(
            connection.execute(statements.LARGEST_ID[statements.RATING]).scalar_one()
        )


def _stored_scores(
    connection: Connection, keys: Sequence[tuple[int, int]]
) -> dict[tuple[int, int | None], int]:
    """Return the stored scores of some movies by some users."""
    if not keys:
        return {}
    dialect = connection.dialect.name
    parameters: dict[str, object] = {"pairs": json.dumps(keys)}
    if dialect == "postgresql":
        movies, users = zip(*keys, strict=True)
        parameters = {"of_movies": [*movies], "by_users": [*users]}
    rows = connection.execute(statements.SCORES[dialect], parameters)
    return {(movie_id, user_id): score for movie_id, user_id, score in rows}


def _adjust_aggregates(
    connection: Connection, movie_id: int, *, count_change: int, sum_change: int
) -> None:
    changes = {"count_change": count_change, "sum_change": sum_change}
    connection.execute(statements.ADJUST_AGGREGATES, {"this_movie": movie_id, **changes})


def _given(**filters: object) -> dict[str, Any]:
    return {name: value for name, value in filters.items() if value is not None}


@contextmanager
def _unique(values: Mapping[str, object]) -> Iterator[None]:
    """Turn a violation of a movie's own constraints into the error that says so.

    Raises:
        DuplicateTitle: another movie has this title.
        DuplicateExternalId: another movie has this IMDb or TMDB id.
    """
    try:
        yield
    except IntegrityError as error:
        field = (violated_constraint(error) or "").removeprefix("uq_movie_")
        if field == "title":
            raise DuplicateTitle(values[field]) from error
        if field in EXTERNAL_IDS:
            raise DuplicateExternalId(
                f"A movie with this {field} already exists: {values[field]}"
            ) from error
        raise

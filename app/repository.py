"""MovieRepository: every query and write as a domain verb, and nothing of HTTP."""

import logging
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Unpack

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from app import statements
from app.db import after_commit, is_writing, reading, writing
from app.errors import MovieNotFound, RatingNotFound
from app.filters import find_movies, is_rare_genre, is_scarce, movie_filters, rating_filters
from app.logs import log_event
from app.models import INTEGER_MAX, SCORE_MAX, SCORE_MIN
from app.movie_rows import change_movie, create_movie, insert_if_missing, lock_movie
from app.observer import Observer
from app.rating_batch import delete_ratings, store_ratings
from app.read_models import (
    GenreRead,
    MovieChanges,
    MovieRead,
    MovieSelection,
    NewMovie,
    NewRating,
    Page,
    Precondition,
    Ranking,
    RatingRead,
    ScoreCount,
    Sort,
)
from app.statements import PageSlice, order_of
from app.text import DEFAULT_GENRE

# Inside the class, `list` is the method.
Movies = list[MovieRead]
Genres = list[GenreRead]
ScoreCounts = list[ScoreCount]


class MovieRepository:
    """The movies and ratings behind a session.

    It works with any session on a database made by the migrations or from the models' metadata.
    A method that writes has committed when it returns, and changed nothing if it raises; inside
    ``writing(session)`` it joins that transaction instead, so several of them are stored together
    or not at all. A method that reads leaves no transaction open.

    Titles, genres and IMDb ids are normalized: ``create(title="  Heat ", ...)`` stores the same as
    ``create(title="Heat", ...)``. A value that cannot be stored is a ValueError.
    """

    def __init__(self, session: Session, observer: Observer | None = None) -> None:
        """Use a session, which the caller closes, and notify an observer of committed ratings."""
        self.session = session
        self._observer = observer

    def get(self, movie_id: int) -> MovieRead | None:
        """Return a movie, None if no movie has this id."""
        if movie_id > INTEGER_MAX:
            return None
        with reading(self.session) as connection:
            row = connection.execute(statements.MOVIE_BY_ID, {"this_movie": movie_id}).one_or_none()
        return None if row is None else MovieRead(*row)

    def require(self, movie_id: int) -> MovieRead:
        """Return a movie. Inside ``writing()`` it stays locked until the transaction ends.

        Raises:
            MovieNotFound: no movie has this id.
        """
        if is_writing(self.session):
            with reading(self.session) as connection:
                return lock_movie(connection, movie_id)
        movie = self.get(movie_id)
        if movie is None:
            raise MovieNotFound(movie_id)
        return movie

    def list(
        self,
        *,
        limit: int = 100,
        offset: int = 0,
        sort: Sort | None = None,
        **selection: Unpack[MovieSelection],
    ) -> Page[MovieRead]:
        """Return a page of the movies that match every filter, and their total number.

        ``sort`` names an order, with ``-`` for the exact reverse: by default ``relevance`` with
        ``q``, else ``title``. The order is total, so pages neither repeat nor skip a movie.
        """
        with reading(self.session) as connection:
            filters, searched_for = find_movies(connection, **selection)
            count = statements.count_movies(*filters)
            total, not_indexed = connection.execute(count, filters).one()
            order = order_of(sort, filters, is_indexed=not not_indexed)
            if not total:
                return Page((), total, searched_for)
            part = PageSlice.of(total, limit, offset)
            page = statements.page_of_movies(
                *filters,
                sort=order,
                backwards=part.backwards,
                scarce=is_scarce(filters, total, part.offset + part.limit),
            )
            rows = connection.execute(page, filters | part.parameters).all()
        movies = Page((MovieRead(*row) for row in part.in_order(rows)), total, searched_for)
        if offset + limit < total:
            movies.next = {"offset": offset + limit}
        return movies

    def top(
        self,
        limit: int = 5,
        *,
        min_ratings: int = 0,
        ranking: Ranking = "mean",
        **selection: Unpack[MovieSelection],
    ) -> Movies:
        """Return the best movies: by ranking, then number of ratings, then title; unrated last.

        ``mean`` is the average score, 1 to 5. ``weighted`` is the Bayesian average, which gives
        more weight to the scores the more of them there are: (PRIOR_COUNT * PRIOR_MEAN + sum of the
        scores) / (PRIOR_COUNT + number of scores). Source:
        https://en.wikipedia.org/wiki/Bayesian_average
        """
        filters = movie_filters(**selection)
        if min_ratings:
            filters["min_ratings"] = min_ratings
        with reading(self.session) as connection:
            genre_first = "of_genre" in filters and is_rare_genre(connection, filters, limit)
            rated = statements.top_rated(*filters, ranking=ranking, genre_first=genre_first)
            rows = [*connection.execute(rated, filters | {"row_limit": limit})]
            # A separate query: the engines' indexes disagree on the place of NULL.
            if len(rows) < limit and not min_ratings:
                unrated = statements.unrated(*filters, ranking=ranking, genre_first=genre_first)
                missing = {"row_limit": limit - len(rows)}
                rows += connection.execute(unrated, filters | missing)
        return [MovieRead(*row) for row in rows]

    def genres(self) -> Genres:
        """Return the genres with the number of their movies, the most frequent first."""
        with reading(self.session) as connection:
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
        """Return a page of the ratings that match every filter, by id, and their total number.

        ``after`` starts the page after this id, at the same cost anywhere in the list; ``offset``
        then counts from there.
        """
        filters = rating_filters(movie_id=movie_id, user_id=user_id)
        with reading(self.session) as connection:
            total = connection.execute(statements.count_ratings(*filters), filters).scalar_one()
            part = PageSlice.of(total, limit, offset)
            if after is not None:
                filters["after_rating"] = after
                # One more than the limit shows whether there is a next page.
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
        with reading(self.session) as connection:
            row = connection.execute(statements.RATING_BY_USER, key).one_or_none()
            if row is None:
                self.require(movie_id)
                raise RatingNotFound(movie_id, user_id)
        return RatingRead(*row)

    def scores(self, movie_id: int) -> ScoreCounts:
        """Return the number of a movie's ratings with each score, 1 to 5.

        It counts them, a hundred thousand in less than a tenth of a second. Stored counts or an
        index would make every rating more expensive instead.

        Raises:
            MovieNotFound: no movie has this id.
        """
        counts = dict.fromkeys(range(SCORE_MIN, SCORE_MAX + 1), 0)
        with reading(self.session) as connection:
            rows = connection.execute(statements.COUNT_SCORES, {"this_movie": movie_id})
            counts.update((score, count) for score, count in rows)
            if not any(counts.values()):
                self.require(movie_id)
        return [ScoreCount(*item) for item in counts.items()]

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
        """Store a movie and return it. ``genres``, if given, replace ``genre``.

        Raises:
            DuplicateTitle: another movie has this title.
            DuplicateExternalId: another movie has this IMDb or TMDB id.
            ValueError: a value is out of its bounds.
        """
        return create_movie(self.session, NewMovie(title, year, genre, genres, imdb_id, tmdb_id))

    def create_missing(self, movies: Iterable[NewMovie]) -> int:
        """Store the movies whose title and ids no other movie has, and return their number."""
        with writing(self.session) as connection:
            created = sum(insert_if_missing(connection, movie) for movie in movies)
            if created:
                self._log("movies.created", count=created)
        return created

    def update(
        self,
        movie_id: int,
        *,
        precondition: Precondition | None = None,
        **changes: Unpack[MovieChanges],
    ) -> MovieRead:
        """Change the given fields of a movie and return it.

        Args:
            movie_id: the movie.
            precondition: called with the stored movie before it changes; raises to prevent that.
            changes: new values of fields; the others stay.

        Raises:
            MovieNotFound: no movie has this id.
            DuplicateTitle: another movie has this title.
            DuplicateExternalId: another movie has this IMDb or TMDB id.
            ValueError: a value is out of its bounds.
        """
        return change_movie(self.session, movie_id, precondition, **changes)

    def delete(self, movie_id: int, *, precondition: Precondition | None = None) -> None:
        """Delete a movie, its ratings and all rows that reference it.

        Args:
            movie_id: the movie.
            precondition: called with the stored movie; raises to keep it.

        Raises:
            MovieNotFound: no movie has this id.
        """
        with writing(self.session) as connection:
            lock_movie(connection, movie_id, precondition)
            # Explicitly, because SQLite cascades only if foreign keys are on.
            for delete in (*statements.DELETE_REFERENCES, statements.DELETE_MOVIE):
                connection.execute(delete, {"this_movie": movie_id})
            self._log("movie.deleted", movie_id=movie_id)

    def add_rating(self, movie_id: int, score: int, user_id: int | None = None) -> RatingRead:
        """Store a user's score, 1 to 5, for a movie and return the stored rating.

        It replaces the user's earlier rating of the movie and keeps its id. Without a user the
        rating is anonymous, and adds to the others.

        Raises:
            MovieNotFound: no movie has this id.
            ValueError: the score or user id is out of its bounds.
        """
        rating = NewRating(movie_id, score, user_id)
        with writing(self.session) as connection:
            lock_movie(connection, movie_id)
            self._store([rating], connection)
            key = {"this_movie": movie_id, "by_user": user_id}
            stored = statements.LATEST_ANONYMOUS if user_id is None else statements.RATING_BY_USER
            return RatingRead(*connection.execute(stored, key).one())

    def add_ratings(self, ratings: Sequence[NewRating]) -> None:
        """Store many ratings, all or none, at a fraction of the cost of one by one.

        If a user rated a movie several times, the latest rating wins; of equal times, the last.

        Raises:
            MoviesNotFound: some are of movies that do not exist.
            ValueError: a score or user id is out of its bounds.
        """
        with writing(self.session) as connection:
            self._store(ratings, connection)

    def remove_rating(self, movie_id: int, user_id: int) -> None:
        """Delete a user's rating of a movie.

        Raises:
            MovieNotFound: no movie has this id.
            RatingNotFound: the user has not rated it.
        """
        key = {"this_movie": movie_id, "by_user": user_id}
        with writing(self.session) as connection:
            lock_movie(connection, movie_id)
            old = connection.execute(statements.DELETE_RATING, key).scalar_one_or_none()
            if old is None:
                raise RatingNotFound(movie_id, user_id)
            change = {"this_movie": movie_id, "count_change": -1, "sum_change": -old}
            connection.execute(statements.ADJUST_AGGREGATES, change)
            self._log("rating.removed", movie_id=movie_id, user_id=user_id)

    def remove_ratings(self, user_id: int) -> int:
        """Delete all ratings of a user, and return their number."""
        with writing(self.session) as connection:
            removed = delete_ratings(connection, user_id)
            self._log("ratings.removed", user_id=user_id, count=removed)
        return removed

    def _store(self, ratings: Sequence[NewRating], connection: Connection) -> None:
        store_ratings(connection, ratings)
        after_commit(self.session, partial(self._report, ratings))

    def _log(self, event: str, **fields: int) -> None:
        after_commit(self.session, partial(log_event, event, logging.INFO, **fields))

    def _report(self, ratings: Sequence[NewRating]) -> None:
        """Log committed ratings and notify the observer."""
        for rating in ratings:
            log_event("rating.added", logging.INFO, **rating._asdict() | {"created_at": None})
        if self._observer is not None:
            self._observer.ratings_committed(len(ratings))

"""MovieRepository: every query of the service, and nothing of HTTP."""

import builtins
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypedDict, Unpack

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningInsert

from app import statements
from app.errors import DuplicateTitle, MovieNotFound, RatingNotFound
from app.models import DEFAULT_GENRE, search_key, utc_now
from app.paging import Page, Window
from app.schemas import MovieCreate, MovieRead, Ranking, RatingRead, Sort
from app.tracing import log_event


class MovieChanges(TypedDict, total=False):
    """What can be changed of a movie."""

    title: str
    year: int
    genre: str


class MovieRepository:
    """The movies and ratings behind a session.

    It works with any session on a database made by the migrations or from the models' metadata.
    A method that reads leaves open no transaction that it has begun. A method that writes is one
    transaction: it has committed when it returns, and has changed nothing when it raises.

    The first statement of every write is a write itself. On SQLite it takes the lock that way,
    waiting its turn. A transaction that has read first can fail when it comes to write, so a
    caller who has read with the session commits or rolls back before a write.

    Values are stored as they are given: the payloads in schemas.py normalise what clients send.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, movie_id: int) -> MovieRead:
        """Return a movie.

        Raises:
            MovieNotFound: no movie has this id.
        """
        with self._reading():
            parameters = {"this_movie": movie_id}
            row = self._session.execute(statements.MOVIE_BY_ID, parameters).one_or_none()
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
        sort: Sort = "title",
    ) -> Page[MovieRead]:
        """Return a page of the movies that pass every filter, and how many pass.

        ``q`` is a part of the title in any case. ``sort`` names a column, with ``-`` for the
        exact reverse; the order is total, so that pages neither repeat nor skip a movie.
        """
        pattern = None if q is None else f"%{_escape_like(search_key(q))}%"
        filters = _given(of_genre=genre, pattern=pattern, year_min=year_min, year_max=year_max)
        with self._reading():
            count = statements.count_movies(*filters)
            total = self._session.execute(count, filters).scalar_one()
            window = Window.of(total, limit, offset)
            page = statements.page_of_movies(*filters, sort=sort, backwards=window.backwards)
            rows = self._session.execute(page, filters | window.parameters).all()
        return Page((MovieRead(*row) for row in window.in_order(rows)), total)

    def top(
        self,
        limit: int = 5,
        *,
        genre: str | None = None,
        min_ratings: int = 0,
        ranking: Ranking = "mean",
    ) -> builtins.list[MovieRead]:
        """Return the best movies: by ranking, then number of ratings, then title; unrated last.

        ``mean`` is the average score, 1 to 5. ``weighted`` is the Bayesian average, which trusts
        the scores the more of them there are: (PRIOR_COUNT * PRIOR_MEAN + sum of the scores) /
        (PRIOR_COUNT + number of scores). Source: https://en.wikipedia.org/wiki/Bayesian_average
        """
        filters = _given(of_genre=genre, min_ratings=min_ratings or None)
        with self._reading():
            rated = statements.top_rated(*filters, ranking=ranking)
            rows = [*self._session.execute(rated, filters | {"row_limit": limit}).all()]
            # Asked apart, since the engines' indexes disagree on where NULL belongs.
            if len(rows) < limit and not min_ratings:
                unrated = statements.unrated(*filters, ranking=ranking)
                missing = {"row_limit": limit - len(rows)}
                rows += self._session.execute(unrated, filters | missing).all()
        return [MovieRead(*row) for row in rows]

    def list_ratings(
        self,
        *,
        limit: int = 100,
        offset: int = 0,
        movie_id: int | None = None,
        user_id: int | None = None,
    ) -> Page[RatingRead]:
        """Return a page of the ratings that pass every filter, by id, and how many pass."""
        filters = _given(of_movie=movie_id, by_user=user_id)
        with self._reading():
            count = statements.count_ratings(*filters)
            total = self._session.execute(count, filters).scalar_one()
            window = Window.of(total, limit, offset)
            page = statements.page_of_ratings(*filters, backwards=window.backwards)
            rows = self._session.execute(page, filters | window.parameters).all()
        return Page((RatingRead(*row) for row in window.in_order(rows)), total)

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the data, a line each; nothing where all is well."""
        with self._reading():
            orphans = self._session.execute(statements.COUNT_ORPHANS).scalar_one()
            if orphans:
                yield f"{orphans} rating(s) of movies that do not exist"
            for movie_id, title in self._session.execute(statements.WRONG_TALLIES):
                yield f"movie {movie_id} ({title}): the tallies differ from its ratings"
            for movie_id, title, search_title in self._session.execute(statements.SEARCH_TITLES):
                if search_title != search_key(title):
                    yield f"movie {movie_id} ({title}): a search looks for another title"

    def create(self, *, title: str, year: int, genre: str = DEFAULT_GENRE) -> MovieRead:
        """Store a movie and return it.

        Raises:
            DuplicateTitle: another movie has this title.
        """
        values = {"title": title, "year": year, "genre": genre}
        with self._writing(), _unique_title(title):
            row = self._session.execute(statements.INSERT_MOVIE, values).one()
        movie = MovieRead(*row)
        log_event("movie.created", movie_id=movie.id)
        return movie

    def create_missing(self, movies: Iterable[MovieCreate]) -> int:
        """Store the movies whose titles are new, and return how many those are."""
        with self._writing():
            created = 0
            for movie in movies:
                statement = self._insert_or_ignore(movie)
                created += self._session.execute(statement).one_or_none() is not None
        if created:
            log_event("movies.created", count=created)
        return created

    def update(self, movie_id: int, **changes: Unpack[MovieChanges]) -> MovieRead:
        """Change the given fields of a movie and return it.

        Raises:
            MovieNotFound: no movie has this id.
            DuplicateTitle: another movie has this title.
        """
        if not changes:
            return self.get(movie_id)
        values: dict[str, object] = {**changes}
        if "title" in changes:
            values["search_title"] = search_key(changes["title"])
        with self._writing(), _unique_title(changes.get("title")):
            update = statements.UPDATE_MOVIE.values(values)
            row = self._session.execute(update, {"this_movie": movie_id}).one_or_none()
            if row is None:
                raise MovieNotFound(movie_id)
        log_event("movie.updated", movie_id=movie_id)
        return MovieRead(*row)

    def delete(self, movie_id: int) -> None:
        """Remove a movie and its ratings.

        Raises:
            MovieNotFound: no movie has this id.
        """
        with self._writing():
            self._lock(movie_id)
            # By hand, since SQLite cascades only where foreign keys are switched on.
            self._session.execute(statements.DELETE_RATINGS, {"this_movie": movie_id})
            self._session.execute(statements.DELETE_MOVIE, {"this_movie": movie_id})
        log_event("movie.deleted", movie_id=movie_id)

    def add_rating(self, movie_id: int, score: int, user_id: int | None = None) -> None:
        """Store a user's score, 1 to 5, for a movie; it replaces the user's earlier one.

        Without a user the rating is anonymous and is added to the others.

        Raises:
            MovieNotFound: no movie has this id.
        """
        values = {"score": score, "created_at": utc_now()}
        key = {"this_movie": movie_id, "by_user": user_id}
        with self._writing():
            self._lock(movie_id)
            old = self._session.execute(statements.SCORE, key).scalar_one_or_none()
            if old is None:
                rating = {"movie_id": movie_id, "user_id": user_id, **values}
                self._session.execute(statements.INSERT_RATING, rating)
                self._adjust_tallies(movie_id, count_change=1, sum_change=score)
            else:
                self._session.execute(statements.REPLACE_RATING.values(values), key)
                self._adjust_tallies(movie_id, count_change=0, sum_change=score - old)
        log_event("rating.added", movie_id=movie_id, user_id=user_id, score=score)

    def remove_rating(self, movie_id: int, user_id: int) -> None:
        """Take back a user's rating of a movie.

        Raises:
            MovieNotFound: no movie has this id.
            RatingNotFound: the user has not rated it.
        """
        key = {"this_movie": movie_id, "by_user": user_id}
        with self._writing():
            self._lock(movie_id)
            old = self._session.execute(statements.DELETE_RATING, key).scalar_one_or_none()
            if old is None:
                raise RatingNotFound(movie_id, user_id)
            self._adjust_tallies(movie_id, count_change=-1, sum_change=-old)
        log_event("rating.removed", movie_id=movie_id, user_id=user_id)

    @property
    def _dialect(self) -> str:
        return self._session.get_bind().dialect.name

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Show all that is read inside as it was at one moment, whatever others write.

        It ends the transaction that reading begins, but none that the caller has begun.
        """
        begun_here = not self._session.in_transaction()
        try:
            # What SQLite does in any transaction, PostgreSQL does when it is asked to.
            if begun_here and self._dialect == "postgresql":
                self._session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            yield
        finally:
            if begun_here:
                self._session.rollback()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Commit what is done inside, or undo it if it fails."""
        try:
            yield
            self._session.commit()
        except BaseException:
            self._session.rollback()
            raise

    def _insert_or_ignore(self, movie: MovieCreate) -> ReturningInsert[int]:
        insert = (sqlite if self._dialect == "sqlite" else postgresql).insert(statements.MOVIE)
        statement: ReturningInsert[int] = (
            insert.values(movie.model_dump())
            .on_conflict_do_nothing(index_elements=["title"])
            .returning(statements.MOVIE.c.id)
        )
        return statement

    def _lock(self, movie_id: int) -> None:
        """Keep others from changing a movie and its ratings until the transaction ends."""
        parameters = {"this_movie": movie_id}
        if self._session.execute(statements.LOCK_MOVIE, parameters).one_or_none() is None:
            raise MovieNotFound(movie_id)

    def _adjust_tallies(self, movie_id: int, *, count_change: int, sum_change: int) -> None:
        changes = {"count_change": count_change, "sum_change": sum_change}
        self._session.execute(statements.ADJUST_TALLIES, {"this_movie": movie_id, **changes})


def _given(**filters: object) -> dict[str, Any]:
    return {name: value for name, value in filters.items() if value is not None}


def _escape_like(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


@contextmanager
def _unique_title(title: str | None) -> Iterator[None]:
    """Turn the violation of the title's uniqueness into a DuplicateTitle."""
    try:
        yield
    except IntegrityError as error:
        sqlite_code = getattr(error.orig, "sqlite_errorname", None)
        postgresql_code = getattr(error.orig, "sqlstate", None)
        if sqlite_code != "SQLITE_CONSTRAINT_UNIQUE" and postgresql_code != "23505":
            raise
        raise DuplicateTitle(title) from error

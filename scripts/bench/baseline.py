"""The baseline: the same API, written as in SQLModel's tutorial.

Sync routes, a session dependency that yields, entities with relationships, ``create_all``, and
averages computed on request. It is plain, not slow on purpose: it has the tutorial's indexes and
aggregates in SQL.

Source: https://sqlmodel.tiangolo.com/tutorial/fastapi/
"""

# No `from __future__ import annotations` here: it breaks SQLModel relationships.
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Query
from sqlmodel import Field, Relationship, Session, SQLModel, col, create_engine, func, select


class MovieBase(SQLModel):
    """The fields of a movie."""

    title: str = Field(index=True, unique=True)
    year: int
    genre: str = Field(default="Unknown", index=True)


class BaselineMovie(MovieBase, table=True):
    """A stored movie. Its aggregates are computed from its ratings."""

    __tablename__ = "baseline_movie"

    id: int | None = Field(default=None, primary_key=True)
    ratings: list["BaselineRating"] = Relationship(back_populates="movie")


class MoviePublic(MovieBase):
    """A movie in a response."""

    id: int
    average_rating: float | None = None
    rating_count: int = 0


class RatingCreate(SQLModel):
    """A rating in a request."""

    movie_id: int = Field(foreign_key="baseline_movie.id", index=True)
    user_id: int | None = None
    score: int = Field(ge=1, le=5)


class BaselineRating(RatingCreate, table=True):
    """A user's score for a movie."""

    __tablename__ = "baseline_rating"

    id: int | None = Field(default=None, primary_key=True)
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    movie: BaselineMovie | None = Relationship(back_populates="ratings")


url = os.environ.get("BASELINE_URL", "sqlite:///baseline.db")
engine = create_engine(
    url, connect_args={"check_same_thread": False} if url.startswith("sqlite") else {}
)


def get_session() -> Iterator[Session]:
    """Yield a session for this request."""
    with Session(engine) as session:
        yield session


SessionDep = Annotated[Session, Depends(get_session)]


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Create the tables."""
    SQLModel.metadata.create_all(engine)
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/health")
def health() -> dict[str, str]:
    """Report that the process is running."""
    return {"status": "ok"}


@app.get("/movies")
def read_movies(
    session: SessionDep, offset: int = 0, limit: Annotated[int, Query(le=1000)] = 100
) -> Sequence[MoviePublic]:
    """Return a page of movies, by title."""
    by_title = select(BaselineMovie).order_by(BaselineMovie.title)
    movies = session.exec(by_title.offset(offset).limit(limit)).all()
    aggregates = (
        select(
            BaselineRating.movie_id,
            func.avg(BaselineRating.score),
            func.count(col(BaselineRating.id)),
        )
        .where(col(BaselineRating.movie_id).in_([movie.id for movie in movies]))
        .group_by(col(BaselineRating.movie_id))
    )
    by_movie = {movie_id: (average, count) for movie_id, average, count in session.exec(aggregates)}
    return [public(movie, *by_movie.get(movie.id or 0, (None, 0))) for movie in movies]


@app.get("/movies/top")
def read_top(session: SessionDep, limit: Annotated[int, Query(le=100)] = 5) -> list[MoviePublic]:
    """Return the best movies: by average, then number of ratings, then title; unrated last."""
    average = func.avg(BaselineRating.score)
    count = func.count(col(BaselineRating.id))
    ranking = (
        select(BaselineMovie, average, count)
        .join(BaselineRating, isouter=True)
        .group_by(col(BaselineMovie.id))
        .order_by(average.desc(), count.desc(), BaselineMovie.title)
        .limit(limit)
    )
    return [public(*row) for row in session.exec(ranking)]


@app.get("/movies/{movie_id}")
def read_movie(movie_id: int, session: SessionDep) -> MoviePublic:
    """Return a movie with its average and number of ratings."""
    movie = session.get(BaselineMovie, movie_id)
    if movie is None:
        raise HTTPException(status_code=404, detail="Movie not found")
    tally = select(func.avg(BaselineRating.score), func.count(col(BaselineRating.id)))
    return public(movie, *session.exec(tally.where(BaselineRating.movie_id == movie_id)).one())


@app.post("/ratings", status_code=204)
def create_rating(rating: RatingCreate, session: SessionDep) -> None:
    """Store a rating, replacing the same user's earlier one."""
    if session.get(BaselineMovie, rating.movie_id) is None:
        raise HTTPException(status_code=404, detail="Movie not found")
    earlier = select(BaselineRating).where(
        BaselineRating.movie_id == rating.movie_id, BaselineRating.user_id == rating.user_id
    )
    stored = session.exec(earlier).first()
    if stored is None or rating.user_id is None:
        stored = BaselineRating.model_validate(rating)
    else:
        stored.sqlmodel_update(rating)
    session.add(stored)
    session.commit()


def public(movie: BaselineMovie, average: float | None, count: int) -> MoviePublic:
    """Return a movie as it appears in a response."""
    return MoviePublic.model_validate(
        movie, update={"average_rating": average, "rating_count": count}
    )

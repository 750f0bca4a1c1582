"""The models' tables, for statements that select columns."""

from sqlmodel import SQLModel

from app.models import Movie, MovieGenre, Neighbour, Rating

MOVIE, MOVIE_GENRE, RATING, NEIGHBOUR = (
    SQLModel.metadata.tables[str(model.__tablename__)]
    for model in (Movie, MovieGenre, Rating, Neighbour)
)

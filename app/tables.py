"""The models' tables, for statements that select columns."""

from sqlmodel import SQLModel

from app.models import Movie, MovieGenre, MovieWord, Neighbour, Rating

MOVIE, MOVIE_GENRE, MOVIE_WORD, RATING, NEIGHBOUR = (
    SQLModel.metadata.tables[str(model.__tablename__)]
    for model in (Movie, MovieGenre, MovieWord, Rating, Neighbour)
)

"""Upgrading a database: its schema, and then the data derived from stored rows."""

from sqlalchemy import Connection, bindparam, select
from sqlalchemy.orm import Session

from app.db import migrate, open_session, reading, writing
from app.search.index import BATCH, index_again, index_new_movies
from app.statements import DELETE_GENRES, GENRES_COLUMN, INSERT_GENRES
from app.tables import MOVIE, MOVIE_GENRE

_GENRES = select(MOVIE.c.id, GENRES_COLUMN).order_by(MOVIE.c.id)
_LOCKED_GENRES = _GENRES.where(
    MOVIE.c.id.in_(bindparam("movie_ids", expanding=True))
).with_for_update(key_share=True)
_GENRE_ROWS = select(MOVIE_GENRE.c.movie_id, MOVIE_GENRE.c.genre)


def upgrade(database_url: str) -> None:
    """Upgrade the schema to head, and index movies for searches that are not indexed.

    Raises:
        SetupError: the database cannot be used, or its revision is unknown here.
    """
    migrate(database_url)
    with open_session(database_url) as session:
        index_new_movies(session)


def repair(session: Session) -> int:
    """Bring the data derived from titles and genres up to date, and return the number of changes.

    An older version of the service leaves it out of date.
    """
    with reading(session) as connection:
        wrong = sorted(wrong_genres(connection))
    for start in range(0, len(wrong), BATCH):
        with writing(session) as connection:
            movie_ids = {"movie_ids": wrong[start : start + BATCH]}
            movies = connection.execute(_LOCKED_GENRES, movie_ids).all()
            rows = [{"movie_id": id_, "genre": genre} for id_, own in movies for genre in own]
            if rows:
                connection.execute(DELETE_GENRES, [{"this_movie": movie.id} for movie in movies])
                connection.execute(INSERT_GENRES, rows)
    return index_again(session) + len(wrong)


def wrong_genres(connection: Connection) -> set[int]:
    """Return the ids of movies whose rows in movie_genre differ from their genres."""
    stored: dict[int, set[str]] = {}
    for movie_id, genre in connection.execute(_GENRE_ROWS):
        stored.setdefault(movie_id, set()).add(genre)
    return {id_ for id_, own in connection.execute(_GENRES) if stored.get(id_) != {*own}}

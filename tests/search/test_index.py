"""The search index is filled, found out of date and repaired; searches work meanwhile."""

import threading

import pytest
from sqlalchemy import Engine, delete, text, update
from sqlmodel import Session

from app.models import Movie
from app.repository import MovieRepository
from app.search import index
from app.search.index import index_new_movies
from app.tables import MOVIE, MOVIE_WORD
from app.upgrade import repair
from tests.helpers import HEAT, RONIN, Sample, problems_of, store

MATRIX = Sample("Matrix, The (1999)", 1999, "Sci-Fi", (5,))


def forget_index(engine: Engine) -> None:
    """Bring the movies into the state in which the revision that adds the index leaves them."""
    with engine.begin() as connection:
        connection.execute(delete(MOVIE_WORD))
        connection.execute(update(MOVIE).values(search_names="", sort_title=""))


def test_movies_without_an_index_are_found_and_sorted_as_before(
    engine: Engine, repository: MovieRepository
) -> None:
    store(engine, MATRIX, HEAT, RONIN)
    forget_index(engine)

    assert [movie.title for movie in repository.list(q="the matrix")] == [MATRIX.title]
    assert [movie.title for movie in repository.list(q="matrix 1999")] == [MATRIX.title]
    assert [movie.title for movie in repository.list()] == ["Heat", MATRIX.title, "Ronin"]


def test_index_is_filled_in_batches_and_only_once(
    engine: Engine, repository: MovieRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "BATCH", 2)
    store(engine, MATRIX, HEAT, RONIN)
    forget_index(engine)
    assert len(problems_of(engine)) == 3

    assert index_new_movies(repository.session) == 3
    assert index_new_movies(repository.session) == 0
    assert problems_of(engine) == []
    assert [movie.title for movie in repository.list(q="matirx")] == [MATRIX.title]


def test_several_processes_fill_the_index_together(engine: Engine) -> None:
    store(engine, *(Sample(f"Movie {n}", 2000, "Drama") for n in range(1200)))
    forget_index(engine)
    done: list[int] = []

    def fill() -> None:
        with Session(engine) as session:
            done.append(index_new_movies(session))

    threads = [threading.Thread(target=fill) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(done) == 1200
    assert problems_of(engine) == []


def test_rename_by_an_older_version_is_reported_found_and_repaired(
    engine: Engine, repository: MovieRepository
) -> None:
    store(engine, HEAT, RONIN)
    with engine.begin() as connection:
        rename = update(MOVIE).where(MOVIE.c.id == 1)
        connection.execute(rename.values(title="Zodiac", search_title="zodiac"))

    assert problems_of(engine) == ["movie 1 (Zodiac): search key is out of date"]
    assert [movie.title for movie in repository.list(q="zodiac")] == ["Zodiac"]
    assert repair(repository.session) == 1
    assert problems_of(engine) == []
    assert repository.list(q="heat").total == 0
    assert repair(repository.session) == 0


def test_repair_restores_genre_rows_and_words(engine: Engine, repository: MovieRepository) -> None:
    store(engine, HEAT, RONIN)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM movie_genre WHERE movie_id = 1"))
        connection.execute(text("DELETE FROM movie_word WHERE movie_id = 2"))

    assert repair(repository.session) == 2
    assert problems_of(engine) == []


def test_words_that_are_out_of_date_give_no_wrong_match_and_no_error(
    engine: Engine, repository: MovieRepository
) -> None:
    store(engine, HEAT, RONIN)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO movie_word (word, movie_id) VALUES ('godfather', 2)"))

    assert repository.list(q="godfather").total == 0
    assert repository.list(q="godfahter").total == 0


def test_deleted_movie_leaves_no_words(engine: Engine, repository: MovieRepository) -> None:
    first, second = store(engine, HEAT, RONIN)
    repository.delete(first)
    with Session(engine) as session:
        session.delete(session.get(Movie, second))
        session.commit()

    with engine.connect() as connection:
        assert connection.execute(MOVIE_WORD.select()).all() == []

"""Genres of a movie: stored, returned, and matched by filters."""

from contextlib import suppress
from functools import partial
from itertools import product
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, select, text
from sqlmodel import Session

from app import statements
from app.checks import data_problems
from app.db import writing
from app.filters import movie_filters
from app.models import Movie
from app.read_models import GenreRead
from app.repository import MovieRepository
from app.tables import MOVIE_GENRE
from app.text import GENRES_MAX
from tests.helpers import SAMPLES, Interrupted, Sample, movie_json, problems_of, store

HEAT = {"title": "Heat", "year": 1995}
NUMBERED = [f"Genre {number}" for number in range(1, GENRES_MAX + 2)]


def genre_rows(engine: Engine, movie_id: int) -> list[str]:
    """Return the genres of a movie in the table that filters use."""
    statement = select(MOVIE_GENRE.c.genre).where(MOVIE_GENRE.c.movie_id == movie_id)
    with Session(engine) as session:
        return sorted(session.execute(statement).scalars())


def titles(movies: list[Any]) -> list[str]:
    """Return the titles of movies."""
    return [movie.title for movie in movies]


@pytest.fixture
def four_movies(repository: MovieRepository) -> None:
    """Store movies whose genres overlap, rated best first by id."""
    for title, genres in (
        ("Heat", ["Crime", "Drama"]),
        ("Ronin", ["Action", "Crime"]),
        ("Alien", ["Sci-Fi"]),
        ("Up", ["Drama", "Action", "Sci-Fi"]),
    ):
        repository.create(title=title, year=2000, genres=genres)
    for movie_id, score in ((1, 5), (2, 4), (3, 3)):
        repository.add_rating(movie_id, score)


def test_movie_is_stored_with_all_its_genres_in_order(client: TestClient, engine: Engine) -> None:
    table: list[tuple[dict[str, Any], list[str]]] = [
        ({}, ["Unknown"]),
        ({"genre": "crime"}, ["Crime"]),
        ({"genres": ["sci-fi", "ACTION"]}, ["Sci-Fi", "Action"]),
        ({"genre": "Sci-fi", "genres": ["sci-fi", "Drama"]}, ["Sci-Fi", "Drama"]),
        ({"genres": ["Drama", "drama ", "Crime", "Drama"]}, ["Drama", "Crime"]),
        ({"genres": NUMBERED[:-1]}, NUMBERED[:-1]),
    ]

    for movie_id, (sent, genres) in enumerate(table, start=1):
        title = f"Heat {movie_id}"
        response = client.post("/movies", json={"title": title, "year": 1995} | sent)

        expected = movie_json(movie_id, Sample(title, 1995, genres[0])) | {"genres": genres}
        assert (response.status_code, response.json()) == (201, expected)
        assert client.get(f"/movies/{movie_id}").json() == expected
        assert genre_rows(engine, movie_id) == sorted(genres)


def test_filters_find_changed_genres(client: TestClient, engine: Engine) -> None:
    table: list[tuple[str, dict[str, Any], list[str]]] = [
        # A PATCH of `genre` alone keeps the other genres.
        ("PATCH", {"genre": "thriller"}, ["Thriller", "Drama", "War"]),
        ("PATCH", {"genre": "Crime"}, ["Crime", "Drama", "War"]),
        ("PATCH", {"genre": "War"}, ["War", "Drama"]),
        ("PATCH", {"genres": ["War", "Crime"]}, ["War", "Crime"]),
        ("PATCH", {"year": 1996}, ["Crime", "Drama", "War"]),
        ("PUT", HEAT | {"genre": "Thriller"}, ["Thriller"]),
        ("PUT", HEAT | {"genres": ["War", "Crime"]}, ["War", "Crime"]),
        ("PUT", HEAT, ["Unknown"]),
    ]
    client.post("/movies", json=HEAT)

    for method, sent, genres in table:
        client.put("/movies/1", json=HEAT | {"genres": ["Crime", "Drama", "War"]})
        response = client.request(method, "/movies/1", json=sent)

        assert response.status_code == 200
        assert (response.json()["genre"], response.json()["genres"]) == (genres[0], genres)
        assert client.get("/movies/1").json()["genres"] == genres
        assert genre_rows(engine, 1) == sorted(genres)


@pytest.mark.usefixtures("four_movies")
def test_filters_and_rankings_find_movies_by_any_genre(repository: MovieRepository) -> None:
    expected = {
        "crime": ["Heat", "Ronin"],
        "DRAMA": ["Heat", "Up"],
        "Sci-Fi": ["Alien", "Up"],
        "Horror": [],
    }

    for find in (
        repository.list,
        partial(repository.top, ranking="mean"),
        partial(repository.top, ranking="weighted"),
    ):
        assert {genre: titles(find(genre=genre)) for genre in expected} == expected
    assert titles(repository.list(genre="Action")) == ["Ronin", "Up"]
    assert repository.list(genre="Drama", limit=1).total == 2
    assert titles(repository.list(genre="Drama", q="he", year_min=2000)) == ["Heat"]


@pytest.mark.usefixtures("four_movies")
def test_most_frequent_genre_is_listed_first(client: TestClient) -> None:
    client.post("/movies", json={"title": "Collateral", "year": 2004, "genres": ["Crime"]})
    client.delete("/movies/3")

    response = client.get("/genres")

    assert [(row["genre"], row["movie_count"]) for row in response.json()] == [
        ("Crime", 3),
        ("Action", 2),
        ("Drama", 2),
        ("Sci-Fi", 1),
    ]


def test_deleting_a_movie_deletes_its_genres(repository: MovieRepository, engine: Engine) -> None:
    repository.create(title="Heat", year=1995, genres=["Crime", "Drama"])
    repository.create(title="Ronin", year=1998, genre="Crime")

    repository.delete(1)

    assert genre_rows(engine, 1) == []
    assert repository.genres() == [GenreRead("Crime", 1)]


def test_genres_can_be_stored_and_changed_in_a_session(
    session: Session, repository: MovieRepository, engine: Engine
) -> None:
    movie = Movie(title="Heat", year=1995, genre="Crime", other_genres="|Drama")
    other = Movie(title="Ronin", year=1998, genres=["action", "War"])  # type: ignore[call-arg] # no column
    session.add_all([movie, other])
    session.commit()
    assert titles(repository.list(genre="Drama")) == ["Heat"]
    assert (movie.genres, genre_rows(engine, 2)) == (["Crime", "Drama"], ["Action", "War"])

    movie.genre = "Thriller"
    other.genres = ["Crime"]
    session.commit()

    assert (genre_rows(engine, 1), genre_rows(engine, 2)) == (["Drama", "Thriller"], ["Crime"])
    assert other.genre == "Crime"
    assert problems_of(engine) == []


def test_walking_and_sorting_return_the_same_page(engine: Engine, session: Session) -> None:
    store(engine, *SAMPLES)
    filters = movie_filters(genre="Sci-Fi", year_max=2005, q="i")
    parameters = filters | {"row_limit": 2, "row_offset": 1}

    for sort, backwards in product(("title", "-year", "average_rating"), (False, True)):
        walked, sorted_ = (
            session.execute(
                statements.page_of_movies(*filters, sort=sort, backwards=backwards, scarce=scarce),
                parameters,
            ).all()
            for scarce in (False, True)
        )

        assert walked == sorted_
        assert len(walked) == 2


@pytest.mark.parametrize("ranking", ["mean", "weighted"])
def test_both_indexes_return_the_same_ranking(
    engine: Engine, session: Session, ranking: str
) -> None:
    store(engine, *SAMPLES)
    parameters = {"of_genre": "Sci-Fi", "row_limit": 9}

    rated, unrated = (
        [
            session.execute(
                statement("of_genre", ranking=ranking, genre_first=first), parameters
            ).all()
            for first in (False, True)
        ]
        for statement in (statements.top_rated, statements.unrated)
    )

    assert (rated[0], unrated[0]) == (rated[1], unrated[1])
    assert (len(rated[0]), len(unrated[0])) == (3, 1)


def test_check_reports_genres_that_differ_from_the_rows_for_filters(
    repository: MovieRepository, session: Session
) -> None:
    repository.create(title="Heat", year=1995, genres=["Crime", "Drama"])

    for change in (
        "UPDATE movie_genre SET genre = 'Comedy' WHERE genre = 'Drama'",
        "DELETE FROM movie_genre WHERE genre = 'Drama'",
        "INSERT INTO movie_genre VALUES (1, 'Comedy')",
        "UPDATE movie SET genre = 'Comedy'",
        "UPDATE movie SET other_genres = ''",
    ):
        with suppress(Interrupted), writing(session):
            session.execute(text(change))
            problems = list(data_problems(repository.session))
            raise Interrupted

        assert problems == ["movie 1 (Heat): movie_genre rows differ from the movie's genres"], (
            change
        )

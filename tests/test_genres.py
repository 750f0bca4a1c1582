"""All genres of a movie: stored, answered, and found by any of them."""

from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, select, text
from sqlmodel import Session

from app import statements
from app.models import GENRES_MAX, Movie
from app.read_models import GenreRead, Ranking
from app.repository import MovieRepository
from app.statements import MOVIE_GENRE
from tests.helpers import SAMPLES, Sample, everything, movie_json, problems_of, store

HEAT = {"title": "Heat", "year": 1995}
NUMBERED = [f"Genre {number}" for number in range(1, GENRES_MAX + 2)]


def genre_rows(engine: Engine) -> list[tuple[int, str]]:
    """Return what filters look up, by movie and genre."""
    with Session(engine) as session:
        rows = session.execute(select(MOVIE_GENRE).order_by(*MOVIE_GENRE.c)).all()
    return [(movie_id, genre) for movie_id, genre in rows]


def titles(movies: list[Any]) -> list[str]:
    """Return the titles of movies."""
    return [movie.title for movie in movies]


def genres_of(engine: Engine) -> tuple[str, list[str]]:
    """Return the genre and the genres of the first movie."""
    with Session(engine) as session:
        movie = MovieRepository(session).get(1)
    return movie.genre, movie.genres


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


@pytest.mark.parametrize(
    ("sent", "genre", "genres"),
    [
        ({}, "Unknown", ["Unknown"]),
        ({"genre": "crime"}, "Crime", ["Crime"]),
        ({"genres": ["sci-fi", "ACTION"]}, "Sci-Fi", ["Sci-Fi", "Action"]),
        ({"genre": "Sci-fi", "genres": ["sci-fi", "Drama"]}, "Sci-Fi", ["Sci-Fi", "Drama"]),
        ({"genres": ["Drama", "drama ", "Crime", "Drama"]}, "Drama", ["Drama", "Crime"]),
        ({"genres": NUMBERED[:-1]}, "Genre 1", NUMBERED[:-1]),
    ],
)
def test_a_movie_is_stored_with_all_its_genres_in_their_order(
    client: TestClient, engine: Engine, sent: dict[str, Any], genre: str, genres: list[str]
) -> None:
    response = client.post("/movies", json=HEAT | sent)

    assert response.status_code == 201
    assert response.json() == movie_json(1, Sample("Heat", 1995, genre)) | {"genres": genres}
    assert client.get("/movies/1").json() == response.json()
    assert genre_rows(engine) == sorted((1, each) for each in genres)


@pytest.mark.parametrize(
    ("sent", "named"),
    [
        ({"genre": "Drama", "genres": ["Crime", "Drama"]}, ["body", "genres"]),
        ({"genres": []}, ["body", "genres"]),
        ({"genres": NUMBERED}, ["body", "genres"]),
        ({"genres": ["Crime", " "]}, ["body", "genres", 1]),
        ({"genres": ["Crime|Drama"]}, ["body", "genres", 0]),
        ({"genres": "Crime"}, ["body", "genres"]),
        ({"genres": None}, ["body", "genres"]),
    ],
)
@pytest.mark.parametrize("write", ["POST /movies", "PUT /movies/1", "PATCH /movies/1"])
def test_genres_that_cannot_be_stored_are_a_422_that_names_them(
    client: TestClient,
    engine: Engine,
    write: str,
    sent: dict[str, Any],
    named: list[str | int],
) -> None:
    store(engine, Sample("Heat", 1995, "Crime"))
    before = everything(engine), genre_rows(engine)

    body = {"title": "Ronin", "year": 1998} | sent
    response = client.request(*write.split(), json=body)

    assert response.status_code == 422
    assert [problem["loc"] for problem in response.json()["detail"]] == [named]
    assert (everything(engine), genre_rows(engine)) == before


@pytest.mark.parametrize(
    ("method", "sent", "genres"),
    [
        # A client that only knows `genre` loses none of the others by a PATCH.
        ("PATCH", {"genre": "thriller"}, ["Thriller", "Drama", "War"]),
        ("PATCH", {"genre": "Crime"}, ["Crime", "Drama", "War"]),
        ("PATCH", {"genre": "War"}, ["War", "Drama"]),
        ("PATCH", {"genres": ["War", "Crime"]}, ["War", "Crime"]),
        ("PATCH", {"year": 1996}, ["Crime", "Drama", "War"]),
        ("PUT", HEAT | {"genre": "Thriller"}, ["Thriller"]),
        ("PUT", HEAT | {"genres": ["War", "Crime"]}, ["War", "Crime"]),
        ("PUT", HEAT, ["Unknown"]),
    ],
)
def test_a_change_of_genres_is_found_by_filters(
    client: TestClient, engine: Engine, method: str, sent: dict[str, Any], genres: list[str]
) -> None:
    client.post("/movies", json=HEAT | {"genres": ["Crime", "Drama", "War"]})

    response = client.request(method, "/movies/1", json=sent)

    assert response.status_code == 200
    assert (response.json()["genre"], response.json()["genres"]) == (genres[0], genres)
    assert genres_of(engine) == (genres[0], genres)
    assert genre_rows(engine) == sorted((1, genre) for genre in genres)


@pytest.mark.usefixtures("four_movies")
def test_a_filter_finds_movies_by_any_of_their_genres(repository: MovieRepository) -> None:
    assert {
        genre: titles(repository.list(genre=genre))
        for genre in ("crime", "DRAMA", "Action", "Sci-Fi", "Horror")
    } == {
        "crime": ["Heat", "Ronin"],
        "DRAMA": ["Heat", "Up"],
        "Action": ["Ronin", "Up"],
        "Sci-Fi": ["Alien", "Up"],
        "Horror": [],
    }
    assert repository.list(genre="Drama", limit=1).total == 2
    assert titles(repository.list(genre="Drama", q="he", year_min=2000)) == ["Heat"]


@pytest.mark.usefixtures("four_movies")
@pytest.mark.parametrize("ranking", ["mean", "weighted"])
def test_a_ranking_within_a_genre_ranks_all_its_movies(
    repository: MovieRepository, ranking: Ranking
) -> None:
    ranked = {
        genre: titles(repository.top(genre=genre, ranking=ranking))
        for genre in ("crime", "drama", "sci-fi", "horror")
    }

    assert ranked == {
        "crime": ["Heat", "Ronin"],
        "drama": ["Heat", "Up"],
        "sci-fi": ["Alien", "Up"],
        "horror": [],
    }


@pytest.mark.usefixtures("four_movies")
def test_genres_are_listed_with_their_movies_the_most_frequent_first(client: TestClient) -> None:
    client.post("/movies", json={"title": "Collateral", "year": 2004, "genres": ["Crime"]})
    client.delete("/movies/3")

    response = client.get("/genres")

    assert response.json() == [
        {"genre": "Crime", "movie_count": 3},
        {"genre": "Action", "movie_count": 2},
        {"genre": "Drama", "movie_count": 2},
        {"genre": "Sci-Fi", "movie_count": 1},
    ]


def test_an_empty_catalogue_has_no_genres(repository: MovieRepository) -> None:
    assert repository.genres() == []


def test_a_movie_that_is_deleted_takes_its_genres_with_it(
    repository: MovieRepository, engine: Engine
) -> None:
    repository.create(title="Heat", year=1995, genres=["Crime", "Drama"])
    repository.create(title="Ronin", year=1998, genre="Crime")

    repository.delete(1)

    assert genre_rows(engine) == [(2, "Crime")]
    assert repository.genres() == [GenreRead("Crime", 1)]


def test_a_movie_that_a_session_stores_is_found_by_its_genres(
    session: Session, repository: MovieRepository, engine: Engine
) -> None:
    movie = Movie(title="Heat", year=1995, genre="Crime", other_genres="|Drama")
    session.add(movie)
    session.commit()
    assert titles(repository.list(genre="Drama")) == ["Heat"]
    assert movie.genres == ["Crime", "Drama"]

    movie.genre = "Thriller"
    session.commit()

    assert genre_rows(engine) == [(1, "Drama"), (1, "Thriller")]
    assert problems_of(engine) == []


def test_all_genres_of_a_movie_can_be_given_and_changed_in_a_session(
    session: Session, engine: Engine
) -> None:
    movie = Movie(title="Heat", year=1995, genres=["crime", "Drama"])  # type: ignore[call-arg] # no column
    session.add(movie)
    session.commit()
    assert genre_rows(engine) == [(1, "Crime"), (1, "Drama")]

    movie.genres = ["War"]
    session.commit()

    assert movie.genre == "War"
    assert genre_rows(engine) == [(1, "War")]
    assert problems_of(engine) == []


@pytest.mark.parametrize("sort", ["title", "-year", "average_rating"])
@pytest.mark.parametrize("direction", ["forwards", "backwards"])
def test_a_page_is_the_same_by_a_walk_and_by_sorting(
    engine: Engine, session: Session, sort: str, direction: str
) -> None:
    store(engine, *SAMPLES)
    filters = {"of_genre": "Sci-Fi", "year_max": 2005, **statements.word_filters(["i"])}
    parameters = filters | {"row_limit": 2, "row_offset": 1}

    pages = [
        session.execute(
            statements.page_of_movies(
                *filters, sort=sort, backwards=direction == "backwards", scarce=scarce
            ),
            parameters,
        ).all()
        for scarce in (False, True)
    ]

    assert pages[0] == pages[1]
    assert len(pages[0]) == 2


@pytest.mark.parametrize("ranking", ["mean", "weighted"])
def test_a_ranking_is_the_same_whichever_way_a_genre_is_looked_up(
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


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE movie_genre SET genre = 'Comedy' WHERE genre = 'Drama'",
        "DELETE FROM movie_genre WHERE genre = 'Drama'",
        "INSERT INTO movie_genre VALUES (1, 'Comedy')",
        "UPDATE movie SET genre = 'Comedy'",
        "UPDATE movie SET other_genres = ''",
    ],
)
def test_genres_that_filters_would_miss_are_a_problem(
    repository: MovieRepository, engine: Engine, change: str
) -> None:
    repository.create(title="Heat", year=1995, genres=["Crime", "Drama"])
    with engine.begin() as connection:
        connection.execute(text(change))

    problems = list(repository.problems())

    assert problems == ["movie 1 (Heat): the genres in movie_genre are not its own"]

"""Titles and genres are stored in one form and found in any form."""

import sys
from collections.abc import Callable
from itertools import product
from typing import Any
from unicodedata import category, normalize

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine
from sqlmodel import Session

from app.errors import DuplicateTitle
from app.movielens.files import MovieRow
from app.movielens.repository import CatalogueRepository
from app.read_models import NewMovie
from app.repository import MovieRepository
from app.schemas import MovieCreate, MovieFilters
from app.text import normalize_genre, normalize_text, normalize_title
from tests.helpers import HEAT, Sample, everything, movie_row, movie_rows, store, words

COMPOSED, DECOMPOSED = "Am\u00e9lie", "Ame\u0301lie"
# Empty, spaces, invisible format characters, Hangul and Braille blanks, marks without a letter.
BLANKS = (*words("\u200b \ufeff\u2060 \u3164 \u115f \u2800 \u0301\u20dd"), "", " \t")


def post(client: TestClient, title: str, genre: str) -> None:
    """Create a movie over HTTP."""
    client.post("/movies", json={"title": title, "year": 2001, "genre": genre})


def put(client: TestClient, title: str, genre: str) -> None:
    """Replace a movie over HTTP."""
    client.post("/movies", json={"title": "Heat", "year": 2001})
    client.put("/movies/1", json={"title": title, "year": 2001, "genre": genre})


def patch(client: TestClient, title: str, genre: str) -> None:
    """Change a movie over HTTP."""
    client.post("/movies", json={"title": "Heat", "year": 2001})
    client.patch("/movies/1", json={"title": title, "genre": genre})


def create(session: Session, title: str, genre: str) -> None:
    """Create a movie through the repository."""
    MovieRepository(session).create(title=title, year=2001, genre=genre)


def create_missing(session: Session, title: str, genre: str) -> None:
    """Create a movie through the repository if its title is new."""
    MovieRepository(session).create_missing([NewMovie(title, 2001, genre)])


def update(session: Session, title: str, genre: str) -> None:
    """Change a movie through the repository."""
    repository = MovieRepository(session)
    movies = list(repository.list(q="Heat")) or [repository.create(title="Heat", year=2001)]
    repository.update(movies[0].id, title=title, genre=genre)


def merge(session: Session, title: str, genre: str) -> None:
    """Import a movie, and once more when its normalized title is stored already."""
    repository = CatalogueRepository(session)
    repository.merge([MovieRow(8, title, 2001, genre)], [])
    repository.merge([MovieRow(7, normalize_title(title), 1999, "Drama")], [])
    repository.merge([MovieRow(8, title, 2001, genre)], [])


OVER_HTTP = (post, put, patch)
IN_PYTHON = (create, create_missing, update, merge)


@pytest.mark.parametrize("write", [*OVER_HTTP, *IN_PYTHON])
def test_every_write_stores_the_same_text(
    client: TestClient, session: Session, engine: Engine, write: Callable[..., None]
) -> None:
    texts = [
        (("  He\u200bat\t2 ", " film-NOIR\ufe0f "), ("Heat 2", "Film-Noir")),
        ((DECOMPOSED, "e\u0301POPE\u0301E"), (COMPOSED, "\u00c9pop\u00e9e")),
        (("\u202eHeat\u00a0\u2003\u2066 3", "children's"), ("Heat 3", "Children's")),
    ]
    for sent, (title, genre) in texts:
        write(client if write in OVER_HTTP else session, *sent)

        [row] = [row for row in movie_rows(engine) if row["title"] == title]
        assert row == movie_row(row["id"], Sample(title, 2001, genre))


def test_composed_and_decomposed_titles_are_one_movie(
    client: TestClient, repository: MovieRepository, engine: Engine
) -> None:
    store(engine, Sample(COMPOSED, 2001, "Comedy"), HEAT)
    before = everything(engine)

    responses = [
        client.post("/movies", json={"title": DECOMPOSED, "year": 2001}),
        client.put("/movies/2", json={"title": DECOMPOSED, "year": 2001}),
        client.patch("/movies/2", json={"title": f"\u200b{DECOMPOSED} "}),
    ]
    with pytest.raises(DuplicateTitle):
        repository.create(title=DECOMPOSED, year=2001)
    with pytest.raises(DuplicateTitle):
        repository.update(2, title=DECOMPOSED)
    created = repository.create_missing([NewMovie(DECOMPOSED, 2001)])

    assert [response.status_code for response in responses] == [409, 409, 409]
    assert created == 0
    assert everything(engine) == before


@pytest.mark.parametrize("write", IN_PYTHON)
def test_text_without_a_visible_character_is_a_value_error(
    session: Session, engine: Engine, write: Callable[..., None]
) -> None:
    # The movie that update() changes.
    MovieRepository(session).create(title="Heat", year=2001)
    before = everything(engine)

    for field, blank in product(("title", "genre"), BLANKS):
        texts = {"title": "Ronin", "genre": "Drama", field: blank}
        with pytest.raises(ValueError, match="must contain a visible character"):
            write(session, **texts)
        assert everything(engine) == before


def test_search_finds_text_in_any_form(
    client: TestClient, repository: MovieRepository, engine: Engine
) -> None:
    store(engine, Sample(COMPOSED, 2001, "Comedy"), HEAT)
    searches = {
        HEAT.title: ("genre", ["crime", " CRIME\u200b", "cr\u00adime"]),
        COMPOSED: ("q", [DECOMPOSED, " am\u200b\u00c9 ", "e\u0301LIE"]),
    }

    for title, (parameter, texts) in searches.items():
        for sent in texts:
            found = [
                *repository.list(**{parameter: sent}),  # type: ignore[arg-type] # a text
                *(repository.top(genre=sent) if parameter == "genre" else []),
            ]
            paths = ["/movies", *(["/movies/top"] if parameter == "genre" else [])]
            answers = [client.get(path, params={parameter: sent}).json() for path in paths]

            assert [movie.title for movie in found] == [title] * len(paths)
            assert [[movie["title"] for movie in movies] for movies in answers] == [[title]] * len(
                paths
            )


# Letters and symbols that case or composition may change, and those that are dropped.
CHANGING = [
    character
    for character in map(chr, range(1, sys.maxunicode + 1))
    if category(character) not in {"Cn", "Co", "Cs"}
    and character != "|"
    and (
        category(character) != "Lo"
        or normalize("NFC", character) != character
        or character.capitalize() != character
    )
]


@pytest.mark.parametrize("normal_form", [normalize_text, normalize_title, normalize_genre])
def test_normalizing_twice_changes_nothing(normal_form: Callable[[str], str]) -> None:
    # A few words at a time, alone and between a letter and an accent: each may become longer.
    size = 8
    texts = [
        f"x{form.join(['', *CHANGING[start : start + size], ''])}"
        for form in ("-", "\u0301-e")
        for start in range(0, len(CHANGING), size)
    ]

    # str(): text that is marked as normalized is returned as it is.
    changed = [text for text in texts if normal_form(str(normal_form(text))) != normal_form(text)]

    assert len(texts) > 4000
    assert changed == []


NORMALIZED: list[tuple[Callable[[Any], str], str]] = [
    (normalize_text, " the  matrix "),
    (normalize_title, " The  Matrix "),
    (normalize_genre, " sci-fi "),
]


@pytest.mark.parametrize(("normal_form", "text"), NORMALIZED)
def test_normalized_text_is_not_normalized_again(
    normal_form: Callable[[str], str], text: str
) -> None:
    once = normal_form(text)

    assert normal_form(once) is once
    assert normal_form(str(once)) == once


def test_text_of_a_request_is_not_normalized_again() -> None:
    movie = MovieCreate(title=" The  Matrix ", year=1999, genres=["sci-fi", "war"]).model_dump()
    filters = MovieFilters(genre="sci-fi", q=" the  matrix").model_dump()

    assert normalize_title(movie["title"]) is movie["title"]
    assert all(normalize_genre(genre) is genre for genre in movie["genres"])
    assert normalize_text(filters["q"]) is filters["q"]
    assert normalize_genre(filters["genre"]) is filters["genre"]

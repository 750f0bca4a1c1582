"""Titles and genres are stored in one form and found in any form."""

import sys
from collections.abc import Callable
from itertools import product
from unicodedata import category

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine
from sqlmodel import Session

from app.errors import DuplicateTitle
from app.models import normalize_genre, normalize_text, normalize_title
from app.movielens.files import MovieRow
from app.movielens.repository import CatalogueRepository
from app.read_models import NewMovie
from app.repository import MovieRepository
from tests.helpers import HEAT, Sample, everything, movie_row, movie_rows, store, words

COMPOSED, DECOMPOSED = "Am\u00e9lie", "Ame\u0301lie"
# Format characters, Hangul and Braille blanks, combining marks alone, empty, spaces.
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
    """Import a movie, then import it again beside its normalized form."""
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


def test_text_is_found_in_any_form(
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


@pytest.mark.parametrize("normalize", [normalize_text, normalize_title, normalize_genre])
def test_normalized_text_stays_as_it_is(normalize: Callable[[str], str]) -> None:
    excluded = {0, ord("|"), *range(0xD800, 0xE000)}
    characters = [chr(code) for code in range(sys.maxunicode + 1) if code not in excluded]
    composing = [character for character in characters if category(character)[0] in "LMN"]
    # Many words per text: each character alone, and between an accent and a letter.
    size = 512
    texts = [
        form.join(["", *words[start : start + size], ""])
        for words, form in ((characters, "-"), (composing, "\u0301-e"))
        for start in range(0, len(words), size)
    ]

    changed = [text for text in map(normalize, texts) if normalize(text) != text]

    assert changed == []

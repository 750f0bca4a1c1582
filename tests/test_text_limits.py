"""Text is refused by its raw length, before any other work on it."""

import unicodedata

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from app import text
from app.http import matches, prefers_gzip
from app.search import keys
from app.text import TooLong
from tests.helpers import everything, listed

LONG = "å" * 5000
BODIES = (
    {"title": LONG, "year": 2000},
    {"title": "A", "year": 2000, "genre": LONG},
    {"title": "A", "year": 2000, "genres": [LONG]},
    {"title": "A", "year": 2000, "genres": ["Å"] * 5000},
    {"title": "A", "year": 2000, "imdb_id": LONG},
)
URLS = (
    *(f"/movies?{name}={LONG}" for name in ("q", "genre", "imdb_id")),
    *(f"{path}?genre={LONG}" for path in ("/movies/top", "/movies.csv", "/recommendations/1")),
    "/movies?" + "&".join(f"a{number}" for number in range(5000)),
)


@pytest.fixture(autouse=True)
def lengths(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the lengths of the texts that are normalized."""
    normalized: list[int] = []

    def normalize(form: str, value: str) -> str:
        normalized.append(len(value))
        return unicodedata.normalize(form, value)  # type: ignore[arg-type] # one of its forms

    monkeypatch.setattr(text, "normalize", normalize)
    monkeypatch.setattr(keys, "normalize", normalize)
    return normalized


def test_long_text_of_a_request_is_refused_before_it_is_normalized(
    client: TestClient, engine: Engine, lengths: list[int]
) -> None:
    before = everything(engine)
    responses = [*(client.post("/movies", json=body) for body in BODIES), *map(client.get, URLS)]

    wrong = [response.text[:200] for response in responses if response.status_code != 422]
    assert wrong == [], listed(wrong)
    # One genre at a time, and no more of them than a movie may have.
    assert max(lengths, default=0) <= 1
    assert len(lengths) <= 2 * text.GENRES_MAX + 2
    assert everything(engine) == before


def test_repository_refuses_long_text_before_it_is_normalized(lengths: list[int]) -> None:
    for normalize in (text.normalize_text, text.normalize_title, text.normalize_genre):
        with pytest.raises(TooLong):
            normalize(LONG)
    with pytest.raises(TooLong):
        text.normalize_imdb_id("tt" + "0" * 5000 + "1")
    with pytest.raises(ValueError, match="1 to 20 genres"):
        text.normalize_genres(["Å"] * 5000)

    assert lengths == []


def test_search_keys_are_made_of_the_beginning_of_a_long_text(lengths: list[int]) -> None:
    assert keys.search_key(LONG) == "a" * keys.SEARCH_KEY_MAX_LENGTH
    assert keys.search_words(LONG) == ["a" * keys.MAX_FOLDED]
    assert max(lengths) <= 2 * keys.MAX_FOLDED


def test_long_header_is_not_taken_apart() -> None:
    padding = "," * 5000

    assert prefers_gzip(["gzip"])
    assert not prefers_gzip([f"gzip{padding}"])
    assert matches('"a"', ["*"])
    assert not matches('"a"', [f"*{padding}"])


def test_long_or_empty_if_match_is_refused(client: TestClient) -> None:
    for value in ("", "*" + "," * 5000):
        response = client.patch("/movies/1", json={}, headers={"If-Match": value})
        assert [problem["loc"] for problem in response.json()["detail"]] == [["header", "If-Match"]]

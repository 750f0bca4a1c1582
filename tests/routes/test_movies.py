"""The catalogue over HTTP: parameters, status codes, headers and JSON.

test_repository.py tests the queries and writes behind it.
"""

from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import Engine

from tests.helpers import (
    HEAT,
    RONIN,
    SAMPLES,
    Sample,
    movie_json,
    movie_rows,
    rating_rows,
    store,
)

# The fields of the contract, in the order of the JSON.
MOVIE_FIELDS = [
    "id",
    "title",
    "year",
    "genre",
    "genres",
    "imdb_id",
    "tmdb_id",
    "average_rating",
    "rating_count",
]
NOT_FOUND = {"detail": "Movie not found"}


def titles(response: Response) -> list[str]:
    """Return the titles in a list response."""
    assert response.status_code == 200, response.text
    return [movie["title"] for movie in response.json()]


def links(response: Response) -> dict[str, str]:
    """Return the URLs of the Link header by relation."""
    return {str(relation): link["url"] for relation, link in response.links.items()}


# Listing


def test_list_without_rows_is_empty(client: TestClient) -> None:
    responses = {
        path: client.get(path) for path in ("/movies", "/movies/top", "/ratings", "/genres")
    }

    assert {path: response.text for path, response in responses.items()} == dict.fromkeys(
        responses, "[]"
    )
    for path in ("/movies", "/ratings"):
        assert responses[path].headers["X-Total-Count"] == "0"
        url = f"{path}?limit=100&offset=0"
        assert links(responses[path]) == {"first": url, "last": url}


def test_movies_are_a_bare_list_by_title(client: TestClient, engine: Engine) -> None:
    zodiac = Sample("Zodiac", 2007, "Crime", (4, 5))
    store(engine, zodiac, HEAT)

    response = client.get("/movies")

    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    assert response.json() == [movie_json(2, HEAT), movie_json(1, zodiac)]
    assert response.headers["X-Total-Count"] == "2"


def test_page_contains_100_movies_by_default(client: TestClient, engine: Engine) -> None:
    store(engine, *(Sample(f"Movie {number:03}", 2000, "Drama") for number in range(101)))

    response = client.get("/movies")

    assert titles(response) == [f"Movie {number:03}" for number in range(100)]
    assert response.headers["X-Total-Count"] == "101"
    assert links(response) == {
        "first": "/movies?limit=100&offset=0",
        "next": "/movies?limit=100&offset=100",
        "last": "/movies?limit=100&offset=100",
    }


def test_each_parameter_shapes_the_list(client: TestClient, engine: Engine) -> None:
    store(engine, *SAMPLES)
    expected = {
        "genre=%20SCI-FI%20": ["Æon Flux", "Alien", "alien", "Solaris"],
        "q=AM%C3%89LIE": ["Amélie"],
        "q=0%25+w": ["100% Wolf", "1001 Wolves"],
        "year_min=2016": ["100% Wolf", "1001 Wolves", "Éternité"],
        "year_max=1972": ["Solaris", "東京物語"],
        "genre=drama&q=alien": [],
        "sort=-year&limit=1&offset=2": ["Éternité"],
        "genre=Crime&limit=1&offset=0&year_min=1900&year_max=2100&q=&sort=title": ["Heat"],
    }

    assert {query: titles(client.get(f"/movies?{query}")) for query in expected} == expected


def test_total_and_links_cover_the_filtered_movies(client: TestClient, engine: Engine) -> None:
    store(engine, *SAMPLES)

    response = client.get("/movies?genre=drama&year_min=2000&limit=1")

    assert titles(response) == ["Éternité"]
    assert response.headers["X-Total-Count"] == "2"
    assert links(response) == {
        "first": "/movies?genre=drama&year_min=2000&limit=1&offset=0",
        "next": "/movies?genre=drama&year_min=2000&limit=1&offset=1",
        "last": "/movies?genre=drama&year_min=2000&limit=1&offset=1",
    }


def walk(client: TestClient, address: str | None, relation: str) -> list[list[int]]:
    """Follow a relation from page to page and return the ids on each."""
    pages: list[list[int]] = []
    while address is not None:
        response = client.get(address)
        assert response.status_code == 200
        pages.append([movie["id"] for movie in response.json()])
        address = links(response).get(relation)
    return pages


def test_following_links_visits_every_movie_once_in_either_direction(
    client: TestClient, engine: Engine
) -> None:
    store(engine, *SAMPLES)
    first = "/movies?sort=-id&limit=3"
    last = links(client.get(first))["last"]

    forwards = walk(client, first, "next")
    backwards = walk(client, last, "prev")

    assert forwards == [[13, 12, 11], [10, 9, 8], [7, 6, 5], [4, 3, 2], [1]]
    assert backwards == forwards[::-1]


def test_links_point_to_the_neighbouring_pages(client: TestClient, engine: Engine) -> None:
    store(engine, *SAMPLES)
    ids = [*range(1, 14)]
    expected = {
        (5, 0): {"first": 0, "next": 5, "last": 10},
        (5, 5): {"first": 0, "prev": 0, "next": 10, "last": 10},
        (5, 10): {"first": 0, "prev": 5, "last": 10},
        (5, 3): {"first": 0, "prev": 0, "next": 8, "last": 10},
        (5, 8): {"first": 0, "prev": 3, "last": 10},
        (5, 12): {"first": 0, "prev": 7, "last": 10},
        (5, 13): {"first": 0, "prev": 8, "last": 10},
        (5, 2**31 - 1): {"first": 0, "prev": 10, "last": 10},
        (1, 12): {"first": 0, "prev": 11, "last": 12},
        (13, 0): {"first": 0, "last": 0},
        (1000, 0): {"first": 0, "last": 0},
    }

    for (limit, offset), offsets in expected.items():
        response = client.get(f"/movies?sort=id&limit={limit}&offset={offset}")
        assert [movie["id"] for movie in response.json()] == ids[offset : offset + limit]
        assert response.headers["X-Total-Count"] == "13"
        assert links(response) == {
            relation: f"/movies?sort=id&limit={limit}&offset={target}"
            for relation, target in offsets.items()
        }


def test_links_keep_the_other_parameters(client: TestClient, engine: Engine) -> None:
    store(engine, *SAMPLES)

    response = client.get("/movies", params={"q": 'é"<>&;, \r\nX: 1', "genre": "Sci-Fi"})

    assert response.headers["Link"].isascii()
    address = links(response)["first"]
    assert address == (
        "/movies?q=%C3%A9%22%3C%3E%26%3B%2C+%0D%0AX%3A+1&genre=Sci-Fi&limit=100&offset=0"
    )
    assert client.get(address).status_code == 200


# Creating


def test_post_stores_the_movie_and_returns_it_with_its_location(
    client: TestClient, engine: Engine
) -> None:
    response = client.post("/movies", json={"title": "Heat", "year": 1995, "genre": "Crime"})

    assert response.status_code == 201
    assert response.json() == movie_json(1, HEAT)
    assert response.headers["Location"] == "/movies/1"
    assert [(row["id"], row["title"]) for row in movie_rows(engine)] == [(1, "Heat")]
    assert client.get(response.headers["Location"]).json() == response.json()


# casefold() turns each of these into three characters, which a search compares.
@pytest.mark.parametrize("title", [" " + "😀" * 300 + " " * 300, "\u0390" * 300])
def test_longest_title_and_genre_are_stored_and_found(client: TestClient, title: str) -> None:
    body = {"title": title, "year": 1995, "genre": "x" * 100}

    response = client.post("/movies", json=body)

    expected = movie_json(1, Sample(title.strip(), 1995, "X" + "x" * 99))
    assert (response.status_code, response.json()) == (201, expected)
    assert client.get("/movies", params={"q": title, "genre": "X" * 100}).json() == [expected]


def test_computed_fields_are_ignored(client: TestClient, engine: Engine) -> None:
    body = {
        "id": 77,
        "title": "Heat",
        "year": 1995,
        "genre": "Crime",
        "average_rating": 5.0,
        "rating_count": 9,
    }

    response = client.post("/movies", json=body)

    assert response.status_code == 201
    assert response.json() == movie_json(1, HEAT)
    assert movie_rows(engine)[0]["search_title"] == "heat"


# Getting


def test_movie_has_its_average_and_the_fields_of_the_contract(
    client: TestClient, engine: Engine
) -> None:
    rated = Sample("Ronin", 1998, "Action", (5, 5, 4))
    store(engine, HEAT, rated)

    response = client.get("/movies/2")

    assert response.status_code == 200
    assert response.json() == movie_json(2, rated)
    assert list(response.json()) == MOVIE_FIELDS, "a new field is added to MOVIE_FIELDS here"


# Replacing


def test_put_replaces_the_whole_movie_and_keeps_its_ratings(
    client: TestClient, engine: Engine
) -> None:
    store(engine, Sample("Heat", 1995, "Crime", (4,)), RONIN)

    response = client.put("/movies/1", json={"title": " la  haine ", "year": 1996})

    assert response.status_code == 200
    assert response.json() == movie_json(1, Sample("la haine", 1996, "Unknown", (4,)))
    assert client.get("/movies/1").json() == response.json()
    assert client.get("/movies/2").json() == movie_json(2, RONIN)
    assert [row["score"] for row in rating_rows(engine)] == [4]


def test_putting_back_a_movie_as_read_changes_nothing(client: TestClient, engine: Engine) -> None:
    store(engine, Sample("Heat", 1995, "Crime", (4, 5)), RONIN)
    before = movie_rows(engine)
    read = client.get("/movies/1").json()

    response = client.put("/movies/1", json=read)

    assert response.status_code == 200
    assert response.json() == read
    assert movie_rows(engine) == before


# Changing


def test_patch_changes_only_the_fields_sent(client: TestClient, engine: Engine) -> None:
    rated = Sample("Heat", 1995, "Crime", (4, 5))
    store(engine, rated, RONIN)
    original = movie_json(1, rated)
    everything = {"title": "Hot", "year": 2100, "genres": ["Drama"], "genre": "Drama"}
    table: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"title": "  Hot "}, {"title": "Hot"}),
        ({"year": 1900}, {"year": 1900}),
        ({"genre": "film-noir"}, {"genre": "Film-Noir", "genres": ["Film-Noir"]}),
        ({"title": "Heat", "genre": "drama"}, {"genre": "Drama", "genres": ["Drama"]}),
        (everything, everything),
        ({}, {}),
        ({"id": 2, "average_rating": None, "rating_count": 0}, {}),
    ]

    for sent, expected in table:
        client.put("/movies/1", json=original)
        response = client.patch("/movies/1", json=sent)

        assert (response.status_code, response.json()) == (200, original | expected), sent
        assert client.get("/movies/1").json() == response.json()
        assert client.get("/movies/2").json() == movie_json(2, RONIN)


# Removing


def test_delete_removes_the_movie_with_its_ratings(client: TestClient, engine: Engine) -> None:
    store(engine, Sample("Heat", 1995, "Crime", (4, 5)), Sample("Ronin", 1998, "Action", (3,)))

    response = client.delete("/movies/1")

    assert response.status_code == 204
    assert response.content == b""
    assert client.get("/movies/1").json() == NOT_FOUND
    assert [row["title"] for row in movie_rows(engine)] == ["Ronin"]
    assert [(row["movie_id"], row["score"]) for row in rating_rows(engine)] == [(2, 3)]
    ratings = client.get("/ratings")
    assert (len(ratings.json()), ratings.headers["X-Total-Count"]) == (1, "1")


# Ranking


def test_top_returns_the_five_best_by_default(client: TestClient, engine: Engine) -> None:
    store(engine, *SAMPLES)

    response = client.get("/movies/top")

    assert titles(response) == ["alien", "東京物語", "Amélie", "Spirited Away", "Heat"]
    assert response.json()[0] == movie_json(3, Sample("alien", 1979, "Sci-Fi", (5, 5, 5)))


def test_each_parameter_shapes_the_ranking(client: TestClient, engine: Engine) -> None:
    store(engine, *SAMPLES, Sample("Ran", 1985, "War", (4,) * 12))
    expected = {
        "limit=1": ["alien"],
        "genre=%20sci-FI": ["alien", "Solaris", "Æon Flux", "Alien"],
        "min_ratings=3": ["alien", "東京物語", "Ran"],
        "year_min=2016": ["100% Wolf", "1001 Wolves", "Éternité"],
        "genre=sci-fi&year_min=1979&year_max=1979": ["alien", "Alien"],
        "year_max=1953&ranking=weighted&min_ratings=1": ["東京物語"],
        "limit=1&ranking=mean": ["alien"],
        "limit=1&ranking=weighted": ["Ran"],
        "genre=drama&min_ratings=0&limit=100": ["東京物語", "Дом", "Éternité"],
        "min_ratings=2147483647": [],
    }

    assert {query: titles(client.get(f"/movies/top?{query}")) for query in expected} == expected

"""The catalogue over HTTP: /movies, /movies/top and /movies/{id}."""

from itertools import chain
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

# The contract, in the order of the JSON.
MOVIE_FIELDS = ["id", "title", "year", "genre", "average_rating", "rating_count"]
NOT_FOUND = {"detail": "Movie not found"}
TITLE_EXISTS = {"detail": "A movie with this title already exists"}
SORTS = ["title", "year", "id", "rating_count", "average_rating"]


def titles(response: Response) -> list[str]:
    """Return the titles of an answered list."""
    assert response.status_code == 200, response.text
    return [movie["title"] for movie in response.json()]


def links(response: Response) -> dict[str, str]:
    """Return the addresses of the Link header by their relation."""
    return {str(relation): link["url"] for relation, link in response.links.items()}


# Listing


def test_empty_catalogue_is_an_empty_list(client: TestClient) -> None:
    response = client.get("/movies")

    assert response.status_code == 200
    assert response.json() == []
    assert response.headers["X-Total-Count"] == "0"
    assert links(response) == {
        "first": "/movies?limit=100&offset=0",
        "last": "/movies?limit=100&offset=0",
    }


def test_movies_are_a_bare_list_by_title(client: TestClient, engine: Engine) -> None:
    zodiac = Sample("Zodiac", 2007, "Crime", (4, 5))
    store(engine, zodiac, HEAT)

    response = client.get("/movies")

    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    assert response.json() == [movie_json(2, HEAT), movie_json(1, zodiac)]
    assert response.headers["X-Total-Count"] == "2"


def test_titles_sort_by_code_point(client: TestClient, engine: Engine) -> None:
    store(engine, *SAMPLES)

    response = client.get("/movies")

    assert titles(response) == sorted(sample.title for sample in SAMPLES)


def test_page_is_100_movies_unless_told_otherwise(client: TestClient, engine: Engine) -> None:
    store(engine, *(Sample(f"Movie {number:03}", 2000, "Drama") for number in range(101)))

    response = client.get("/movies")

    assert titles(response) == [f"Movie {number:03}" for number in range(100)]
    assert response.headers["X-Total-Count"] == "101"
    assert links(response) == {
        "first": "/movies?limit=100&offset=0",
        "next": "/movies?limit=100&offset=100",
        "last": "/movies?limit=100&offset=100",
    }


def test_filters_hold_alone_and_together(client: TestClient, engine: Engine) -> None:
    store(engine, *SAMPLES)
    expected = {
        "genre=Crime": ["Heat", "Zodiac"],
        "genre=sci-fi&year_max=1979": ["Alien", "Solaris", "alien"],
        "genre=%20SCI-FI%20&year_max=1972": ["Solaris"],
        "genre=Sci": [],
        "q=wolf": ["100% Wolf"],
        "q=AM%C3%89LIE": ["Amélie"],
        "q=%D0%B4%D0%9E": ["Дом"],
        "q=%25": ["100% Wolf"],
        "q=0%25+w": ["100% Wolf"],
        "q=_": [],
        "q=%5C": [],
        "q=%5C%25": [],
        "q=100": ["100% Wolf", "1001 Wolves"],
        "year_min=2016": ["100% Wolf", "1001 Wolves", "Éternité"],
        "year_max=1972": ["Solaris", "東京物語"],
        "year_min=1979&year_max=1979": ["Alien", "alien"],
        "year_min=1980&year_max=1979": [],
        "genre=sci-fi&q=ALIEN&year_min=1979&year_max=1979&sort=-rating_count": ["alien", "Alien"],
        "genre=drama&q=alien": [],
        "genre=drama&year_min=2007&limit=1&offset=1": ["Дом"],
    }

    found = {query: titles(client.get(f"/movies?{query}")) for query in expected}

    assert found == expected


def test_total_counts_what_passes_the_filters(client: TestClient, engine: Engine) -> None:
    store(engine, *SAMPLES)

    response = client.get("/movies?genre=drama&year_min=2000&limit=1")

    assert titles(response) == ["Éternité"]
    assert response.headers["X-Total-Count"] == "2"
    assert links(response) == {
        "first": "/movies?genre=drama&year_min=2000&limit=1&offset=0",
        "next": "/movies?genre=drama&year_min=2000&limit=1&offset=1",
        "last": "/movies?genre=drama&year_min=2000&limit=1&offset=1",
    }


def test_searching_finds_wildcards_as_they_are_written(client: TestClient, engine: Engine) -> None:
    store(
        engine, *(Sample(title, 2000, "Drama") for title in ("a_b", "axb", "C:\\DOS", "50%", "5"))
    )

    found = {q: titles(client.get("/movies", params={"q": q})) for q in ("A_", "\\d", "0%", "b\\")}

    assert found == {"A_": ["a_b"], "\\d": ["C:\\DOS"], "0%": ["50%"], "b\\": []}


def walk(client: TestClient, address: str | None, relation: str) -> list[list[dict[str, Any]]]:
    """Return the pages that are met by following a relation."""
    pages: list[list[dict[str, Any]]] = []
    while address is not None:
        response = client.get(address)
        assert response.status_code == 200
        pages.append(response.json())
        address = links(response).get(relation)
    return pages


@pytest.mark.parametrize("sort", SORTS)
def test_walking_the_pages_meets_every_movie_once_in_order(
    client: TestClient, engine: Engine, sort: str
) -> None:
    store(engine, *SAMPLES)
    expected = sorted(
        (row[sort] for row in movie_rows(engine)), key=lambda value: (value is not None, value)
    )

    ascending = list(chain.from_iterable(walk(client, f"/movies?sort={sort}&limit=3", "next")))
    descending = list(chain.from_iterable(walk(client, f"/movies?sort=-{sort}&limit=3", "next")))

    assert [movie[sort] for movie in ascending] == expected
    assert sorted(movie["id"] for movie in ascending) == list(range(1, len(SAMPLES) + 1))
    assert descending == ascending[::-1]


def test_walking_back_from_the_last_page_meets_the_same_pages(
    client: TestClient, engine: Engine
) -> None:
    store(engine, *SAMPLES)
    first = "/movies?sort=-average_rating&limit=3"
    last = links(client.get(first))["last"]

    forwards = walk(client, first, "next")
    backwards = walk(client, last, "prev")

    assert [len(page) for page in forwards] == [3, 3, 3, 3, 1]
    assert backwards == forwards[::-1]


def test_links_lead_to_the_neighbouring_pages(client: TestClient, engine: Engine) -> None:
    store(engine, *SAMPLES)
    expected: dict[tuple[int, int], tuple[list[int], dict[str, int]]] = {
        (5, 0): ([1, 2, 3, 4, 5], {"first": 0, "next": 5, "last": 10}),
        (5, 5): ([6, 7, 8, 9, 10], {"first": 0, "prev": 0, "next": 10, "last": 10}),
        (5, 10): ([11, 12, 13], {"first": 0, "prev": 5, "last": 10}),
        (5, 3): ([4, 5, 6, 7, 8], {"first": 0, "prev": 0, "next": 8, "last": 10}),
        (5, 8): ([9, 10, 11, 12, 13], {"first": 0, "prev": 3, "last": 10}),
        (5, 12): ([13], {"first": 0, "prev": 7, "last": 10}),
        (5, 13): ([], {"first": 0, "prev": 8, "last": 10}),
        (5, 2**31 - 1): ([], {"first": 0, "prev": 10, "last": 10}),
        (1, 12): ([13], {"first": 0, "prev": 11, "last": 12}),
        (13, 0): (list(range(1, 14)), {"first": 0, "last": 0}),
        (1000, 0): (list(range(1, 14)), {"first": 0, "last": 0}),
    }

    for (limit, offset), (ids, offsets) in expected.items():
        response = client.get(f"/movies?sort=id&limit={limit}&offset={offset}")
        assert [movie["id"] for movie in response.json()] == ids
        assert response.headers["X-Total-Count"] == "13"
        assert links(response) == {
            relation: f"/movies?sort=id&limit={limit}&offset={target}"
            for relation, target in offsets.items()
        }


def test_links_keep_the_other_parameters_as_they_were(client: TestClient, engine: Engine) -> None:
    store(engine, *SAMPLES)

    response = client.get("/movies", params={"q": 'é"<>&;, \r\nX: 1', "genre": "Sci-Fi"})

    assert response.headers["Link"].isascii()
    address = links(response)["first"]
    assert address == (
        "/movies?q=%C3%A9%22%3C%3E%26%3B%2C+%0D%0AX%3A+1&genre=Sci-Fi&limit=100&offset=0"
    )
    assert client.get(address).status_code == 200


def test_bounds_of_the_parameters_are_inside_them(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT)

    response = client.get("/movies?limit=1&offset=0&year_min=1900&year_max=2100&q=&sort=title")

    assert response.json() == [movie_json(1, HEAT)]


# Creating


def test_created_movie_is_answered_with_its_address_and_stored(
    client: TestClient, engine: Engine
) -> None:
    response = client.post("/movies", json={"title": "Heat", "year": 1995, "genre": "Crime"})

    assert response.status_code == 201
    assert response.json() == movie_json(1, HEAT)
    assert response.headers["Location"] == "/movies/1"
    assert [(row["id"], row["title"]) for row in movie_rows(engine)] == [(1, "Heat")]
    assert client.get(response.headers["Location"]).json() == response.json()


def test_title_is_stored_with_single_spaces(client: TestClient, engine: Engine) -> None:
    forms = {
        "  The \t Matrix\n": "The Matrix",
        "\u00a0No\u2003break\u3000space ": "No break space",
        "x" * 300: "x" * 300,
        " " + "😀" * 300 + " " * 300: "😀" * 300,
        # casefold() makes three characters of each of these, and a search compares those.
        "\u0390" * 300: "\u0390" * 300,
        'a"b\\c/d\u001b<script>': 'a"b\\c/d<script>',
    }
    for movie_id, (sent, stored) in enumerate(forms.items(), 1):
        response = client.post("/movies", json={"title": sent, "year": 1995})
        expected = movie_json(movie_id, Sample(stored, 1995, "Unknown"))
        assert (response.status_code, response.json()) == (201, expected)
        assert client.get("/movies", params={"q": stored}).json() == [expected]

    assert [row["title"] for row in movie_rows(engine)] == list(forms.values())


def test_genre_is_stored_in_title_case_and_found_in_any(client: TestClient, engine: Engine) -> None:
    genres = {
        "sci-fi": "Sci-Fi",
        "children's": "Children's",
        "FILM-NOIR": "Film-Noir",
        "  science   fiction ": "Science Fiction",
        "rock & roll": "Rock & Roll",
        "épopée": "Épopée",
        "IMAX": "Imax",
        "x" * 100: "X" + "x" * 99,
    }
    for movie_id, (sent, stored) in enumerate(genres.items(), 1):
        body = {"title": f"Movie {movie_id}", "year": 1995, "genre": sent}
        response = client.post("/movies", json=body)
        expected = movie_json(movie_id, Sample(f"Movie {movie_id}", 1995, stored))
        assert (response.status_code, response.json()) == (201, expected)
        for spelling in (sent, stored, stored.upper()):
            assert client.get("/movies", params={"genre": spelling}).json() == [expected]

    assert [row["genre"] for row in movie_rows(engine)] == list(genres.values())


@pytest.mark.parametrize("year", [1900, 2100])
def test_years_at_the_bounds_are_inside_them(client: TestClient, year: int) -> None:
    response = client.post("/movies", json={"title": "Heat", "year": year})

    assert response.status_code == 201
    assert response.json() == movie_json(1, Sample("Heat", year, "Unknown"))


@pytest.mark.parametrize("title", ["Heat", "  Heat  ", "\u00a0Heat\n"])
def test_creating_a_title_that_exists_is_409_and_stores_nothing(
    client: TestClient, engine: Engine, title: str
) -> None:
    store(engine, HEAT)
    before = movie_rows(engine)

    response = client.post("/movies", json={"title": title, "year": 2001})

    assert response.status_code == 409
    assert response.json() == TITLE_EXISTS
    assert "Location" not in response.headers
    assert movie_rows(engine) == before


def test_titles_that_differ_in_case_are_two_titles(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT)

    response = client.post("/movies", json={"title": "HEAT", "year": 1986})

    assert response.status_code == 201
    assert [row["title"] for row in movie_rows(engine)] == ["Heat", "HEAT"]


def test_fields_that_are_unknown_or_the_services_own_are_ignored(
    client: TestClient, engine: Engine
) -> None:
    body = {
        "id": 77,
        "title": "Heat",
        "year": 1995,
        "genre": "Crime",
        "average_rating": 5.0,
        "rating_count": 9,
        "rating_sum": 45,
        "search_title": "ronin",
        "no_such_field": {"name": None},
    }

    response = client.post("/movies", json=body)

    assert response.status_code == 201
    assert response.json() == movie_json(1, HEAT)
    assert movie_rows(engine)[0]["search_title"] == "heat"


def test_id_of_a_deleted_movie_is_not_used_again(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT)
    client.delete("/movies/1")

    response = client.post("/movies", json={"title": "Heat", "year": 1995})

    assert response.headers["Location"] == "/movies/2"
    assert client.get("/movies/1").json() == NOT_FOUND


# Getting


def test_movie_is_answered_with_its_average(client: TestClient, engine: Engine) -> None:
    rated = Sample("Ronin", 1998, "Action", (5, 5, 4))
    store(engine, HEAT, rated)

    response = client.get("/movies/2")

    assert response.status_code == 200
    assert response.json() == movie_json(2, rated)


def test_movie_has_the_fields_of_the_contract(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT)

    response = client.get("/movies/1")

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


def test_movie_that_was_read_can_be_put_back(client: TestClient, engine: Engine) -> None:
    store(engine, Sample("Heat", 1995, "Crime", (4, 5)), RONIN)
    before = movie_rows(engine)
    read = client.get("/movies/1").json()

    response = client.put("/movies/1", json=read)

    assert response.status_code == 200
    assert response.json() == read
    assert movie_rows(engine) == before


def test_title_changed_by_put_is_what_a_search_finds(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT)

    client.put("/movies/1", json={"title": "ÉTERNITÉ", "year": 2016})

    assert titles(client.get("/movies?q=éternité")) == ["ÉTERNITÉ"]
    assert titles(client.get("/movies?q=heat")) == []


# Changing


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"title": "  Hot "}, {"title": "Hot"}),
        ({"year": 1900}, {"year": 1900}),
        ({"genre": "film-noir"}, {"genre": "Film-Noir"}),
        ({"title": "Heat", "genre": "drama"}, {"genre": "Drama"}),
        ({"title": "Hot", "year": 2100, "genre": "Drama"}, None),
        ({}, {}),
        ({"id": 2, "average_rating": None, "rating_count": 0, "no_such_field": None}, {}),
    ],
)
def test_patch_changes_the_fields_that_are_sent_and_no_others(
    client: TestClient, engine: Engine, sent: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    rated = Sample("Heat", 1995, "Crime", (4, 5))
    store(engine, rated, RONIN)

    response = client.patch("/movies/1", json=sent)

    assert response.status_code == 200
    assert response.json() == movie_json(1, rated) | (sent if expected is None else expected)
    assert client.get("/movies/1").json() == response.json()
    assert client.get("/movies/2").json() == movie_json(2, RONIN)


@pytest.mark.parametrize("field", ["title", "year", "genre"])
def test_patch_with_an_explicit_null_is_422_and_changes_nothing(
    client: TestClient, engine: Engine, field: str
) -> None:
    store(engine, HEAT)
    before = movie_rows(engine)
    changes: dict[str, Any] = {"title": "Ronin", "year": 1998, "genre": "Action", field: None}

    response = client.patch("/movies/1", json=changes)

    assert response.status_code == 422
    assert [problem["loc"] for problem in response.json()["detail"]] == [["body", field]]
    assert movie_rows(engine) == before


def test_title_changed_by_patch_is_what_a_search_finds(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT)

    client.patch("/movies/1", json={"title": "ÉTERNITÉ"})

    assert titles(client.get("/movies?q=éternité")) == ["ÉTERNITÉ"]
    assert titles(client.get("/movies?q=heat")) == []


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("PUT", {"title": " Ronin ", "year": 2001, "genre": "Drama"}),
        ("PATCH", {"title": "Ronin"}),
        ("PATCH", {"title": "Ronin", "year": 2001, "genre": "Drama"}),
    ],
)
def test_changing_to_a_title_that_exists_is_409_and_changes_nothing(
    client: TestClient, engine: Engine, method: str, body: dict[str, Any]
) -> None:
    store(engine, HEAT, RONIN)
    before = movie_rows(engine)

    response = client.request(method, "/movies/1", json=body)

    assert response.status_code == 409
    assert response.json() == TITLE_EXISTS
    assert movie_rows(engine) == before


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_movie_may_keep_its_own_title(client: TestClient, engine: Engine, method: str) -> None:
    store(engine, HEAT)

    response = client.request(method, "/movies/1", json={"title": "Heat", "year": 1996})

    assert response.status_code == 200
    assert (response.json()["title"], response.json()["year"]) == ("Heat", 1996)


# Removing


def test_delete_removes_the_movie_and_its_ratings(client: TestClient, engine: Engine) -> None:
    store(engine, Sample("Heat", 1995, "Crime", (4, 5)), Sample("Ronin", 1998, "Action", (3,)))

    response = client.delete("/movies/1")

    assert response.status_code == 204
    assert response.content == b""
    assert client.get("/movies/1").json() == NOT_FOUND
    assert [row["title"] for row in movie_rows(engine)] == ["Ronin"]
    assert [(row["movie_id"], row["score"]) for row in rating_rows(engine)] == [(2, 3)]
    ratings = client.get("/ratings")
    assert (len(ratings.json()), ratings.headers["X-Total-Count"]) == (1, "1")


def test_deleting_a_movie_again_is_404(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT)
    client.delete("/movies/1")

    response = client.delete("/movies/1")

    assert response.status_code == 404
    assert response.json() == NOT_FOUND


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("GET", None),
        ("PUT", {"title": "Alien", "year": 1979}),
        ("PUT", {"title": "Heat", "year": 1995}),
        ("PATCH", {"title": "Alien"}),
        ("PATCH", {}),
        ("DELETE", None),
    ],
)
def test_unknown_movie_is_404_and_nothing_changes(
    client: TestClient, engine: Engine, method: str, body: dict[str, Any] | None
) -> None:
    store(engine, HEAT)
    before = movie_rows(engine)

    for movie_id in (2, 2**31 - 1):
        response = client.request(method, f"/movies/{movie_id}", json=body)
        assert (response.status_code, response.json()) == (404, NOT_FOUND)

    assert movie_rows(engine) == before


# Ranking


def test_top_is_the_five_best_by_mean_with_ties_broken(client: TestClient, engine: Engine) -> None:
    store(engine, *SAMPLES)

    response = client.get("/movies/top")

    assert titles(response) == ["alien", "東京物語", "Amélie", "Spirited Away", "Heat"]
    assert response.json()[0] == movie_json(3, Sample("alien", 1979, "Sci-Fi", (5, 5, 5)))


def test_top_of_an_empty_catalogue_is_an_empty_list(client: TestClient) -> None:
    response = client.get("/movies/top")

    assert response.status_code == 200
    assert response.json() == []


def test_top_ends_with_the_unrated_by_title(client: TestClient, engine: Engine) -> None:
    store(engine, *SAMPLES)

    mean = titles(client.get("/movies/top?limit=100&ranking=mean"))
    weighted = titles(client.get("/movies/top?limit=100&ranking=weighted"))

    unrated = ["1001 Wolves", "Alien", "Éternité"]
    assert (mean[-3:], weighted[-3:]) == (unrated, unrated)
    assert mean[-4] == weighted[-4] == "Æon Flux"
    assert sorted(mean) == sorted(weighted) == sorted(sample.title for sample in SAMPLES)


@pytest.mark.parametrize(
    ("ranking", "expected"),
    [
        ("mean", ["One Five", "Many Fours", "Two Fours", "One Three", "One Two"]),
        # (30 + sum) / (10 + number): 3.55, 3.18, 3.17, 3 and 2.91.
        ("weighted", ["Many Fours", "One Five", "Two Fours", "One Three", "One Two"]),
    ],
)
def test_weighted_ranking_trusts_many_ratings_more_than_one(
    client: TestClient, engine: Engine, ranking: str, expected: list[str]
) -> None:
    store(
        engine,
        Sample("One Two", 2000, "Drama", (2,)),
        Sample("One Five", 2000, "Drama", (5,)),
        Sample("Two Fours", 2000, "Drama", (4, 4)),
        Sample("Many Fours", 2000, "Drama", (4,) * 12),
        Sample("One Three", 2000, "Drama", (3,)),
    )

    response = client.get(f"/movies/top?ranking={ranking}")

    assert titles(response) == expected


def test_top_takes_limit_genre_and_least_number_of_ratings(
    client: TestClient, engine: Engine
) -> None:
    store(engine, *SAMPLES)
    expected = {
        "limit=1": ["alien"],
        "genre=%20sci-FI": ["alien", "Solaris", "Æon Flux", "Alien"],
        "genre=sci-fi&limit=3": ["alien", "Solaris", "Æon Flux"],
        "genre=Western": [],
        "genre=sci-fi&min_ratings=0": ["alien", "Solaris", "Æon Flux", "Alien"],
        "genre=sci-fi&min_ratings=1": ["alien", "Solaris", "Æon Flux"],
        "min_ratings=3": ["alien", "東京物語"],
        "min_ratings=4": [],
        "min_ratings=2147483647": [],
        "genre=drama&min_ratings=1&limit=1&ranking=weighted": ["東京物語"],
    }

    found = {query: titles(client.get(f"/movies/top?{query}")) for query in expected}

    assert found == expected


def test_mean_ranking_is_the_catalogue_by_descending_average(
    client: TestClient, engine: Engine
) -> None:
    store(engine, *SAMPLES)

    top = titles(client.get("/movies/top?limit=100&min_ratings=1"))

    assert titles(client.get(f"/movies?sort=-average_rating&limit={len(top)}")) == top


# Every response


def test_every_response_carries_the_callers_trace_id(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT)
    requests: list[tuple[str, str, dict[str, Any] | None, int]] = [
        ("GET", "/movies", None, 200),
        ("POST", "/movies", {"title": "Ronin", "year": 1998}, 201),
        ("POST", "/movies", {"title": "Heat", "year": 1998}, 409),
        ("POST", "/movies", {"title": "Ronin"}, 422),
        ("DELETE", "/movies/1", None, 204),
        ("GET", "/movies/1", None, 404),
        ("GET", "/no/such/page", None, 404),
        ("PUT", "/movies", None, 405),
    ]

    for method, path, body, status in requests:
        response = client.request(method, path, json=body, headers={"X-Trace-Id": "demo-1234"})
        assert response.status_code == status
        assert response.headers["X-Trace-Id"] == "demo-1234"

"""Whatever a client sends, it gets a 4xx that names what is wrong, and nothing is stored.

The tables hold every input that pitfalls of this stack turn into a 500, and others of their kind.
"""

import gzip
from collections.abc import Iterable
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Query
from fastapi.testclient import TestClient
from httpx2 import Response
from pydantic import BaseModel, Field
from sqlalchemy import Engine

from app.config import Settings
from app.error_handlers import EXCEPTION_HANDLERS
from app.routes.route_class import ServiceRoute
from tests.helpers import Sample, everything, store
from tests.operations import OPERATIONS, Operation, examples_of, store_what_examples_name

JSON = {"Content-Type": "application/json"}
HEAT = Sample("Heat", 1995, "Crime", (4,))

# JSON texts that are no whole number within any field's bounds.
NOT_INTEGERS = (
    "-1",
    "-0",
    "0",
    "2147483648",
    "1099511627776",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "1" + 400 * "0",
    "NaN",
    "Infinity",
    "-Infinity",
    "1e400",
    "2e3",
    "3.0",
    "2000.0",
    "3.5",
    "true",
    "false",
    '"3"',
    '"2000"',
    '""',
    '"NaN"',
    '"\\u0000"',
    '"\\ud800"',
    "[]",
    "[2000]",
    "{}",
)
# JSON texts that are neither a title nor a genre.
NOT_TEXTS = (
    '""',
    '"   "',
    '"\\t\\n\\u00a0\\u2003"',
    '"\\u0000"',
    '"a\\u0000b"',
    '"\\ud800"',
    '"a\\udfffb"',
    '"\\ude00\\ud83d"',
    '"' + 301 * "x" + '"',
    "null",
    "1",
    "1.5",
    "NaN",
    "-Infinity",
    "true",
    "[]",
    '["Heat"]',
    "{}",
    500 * "[" + 500 * "]",
)
# The first integer that is too large for a user's id.
NOT_A_USER = "9007199254740992"
NOT_USERS = (*(n for n in NOT_INTEGERS if n not in {"2147483648", "1099511627776"}), NOT_A_USER)
NOT_IMDB_IDS = ('"0114709"', '"tt"', '"tt0000000"', '"tt01147x9"', '"tt12345678901"', '"nm0000001"')
MOVIE = {
    "title": '"Ronin"',
    "year": "1998",
    "genre": '"Action"',
    "genres": '["Action", "Crime"]',
    "imdb_id": '"tt0122690"',
    "tmdb_id": "8195",
}
RATING = {"movie_id": "1", "user_id": "7", "score": "5"}
BAD_FIELDS = {
    "title": NOT_TEXTS,
    "genre": (*NOT_TEXTS, '"' + 101 * "x" + '"', '"Action|Drama"'),
    "year": (*NOT_INTEGERS, "null", "1899", "2101"),
    "movie_id": (*NOT_INTEGERS, "null"),
    "user_id": NOT_USERS,
    "genres": ("null", '"Action"', "[]", "{}", str([*map(str, range(21))]).replace("'", '"')),
    "imdb_id": (*(text for text in NOT_TEXTS if text != "null"), *NOT_IMDB_IDS),
    "tmdb_id": NOT_INTEGERS,
    "score": (*NOT_INTEGERS, "null", "6"),
}
WRITES_WITH_A_BODY = [
    ("POST", "/movies", MOVIE),
    ("PUT", "/movies/1", MOVIE),
    ("PATCH", "/movies/1", MOVIE),
    ("POST", "/ratings", RATING),
]
UNREADABLE_BODIES = (
    b"",
    b" ",
    b"{",
    b"}",
    b'{"title": "Ronin", "year": 1998',
    b'{"title": "Ronin", "year": 1998} and more',
    b"{'title': 'Ronin', 'year': 1998}",
    b'{"title": "Ronin", "year": 01998}',
    b'{"title": "line\nbreak", "year": 1998}',
    b'{"title": "Ronin", "year": ' + 5000 * b"9" + b"}",
    b"title=Ronin&year=1998",
    b"<movie/>",
    b"nul",
    b"\x00",
    b"\xff\xfe",
    b'{"title": "\xff", "year": 1998}',
    b'{"title": "\xc3", "year": 1998}',
    b'{"title": "\xed\xa0\x80", "year": 1998}',
    b"null",
    b"true",
    b"1998",
    b"NaN",
    b'"Ronin"',
    b"[]",
    b'[{"title": "Ronin", "year": 1998}]',
    20_000 * b"[",
    20_000 * b"[" + 20_000 * b"]",
    5000 * b'{"title":' + b"1" + 5000 * b"}",
    b'{"comment": ' + 20_000 * b"[" + 20_000 * b"]" + b', "title": "Ronin", "year": 1998}',
)
NOT_JSON = (
    b"",
    b"text/plain",
    b"text/json",
    b"application/x-www-form-urlencoded",
    b"multipart/form-data",
    b"multipart/form-data; boundary=x",
    b"application/octet-stream",
    b"json",
    b"\xe9",
)
BAD_IDS = (
    "0",
    "00",
    "-0",
    "-1",
    "+1",
    "1_0",
    "1.0",
    "1e0",
    "0x1",
    "%201",
    "1%20",
    "1%0A",
    "1%09",
    "1%00",
    "%00",
    "2147483648",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    5000 * "9",
    "NaN",
    "Infinity",
    "true",
    "null",
    "heat",
    "%D9%A1",
    "%EF%BC%91",
    "%C2%B2",
    "%FF",
    "%ED%A0%80",
    "1;2",
    "1,2",
    "[1]",
    "'1'",
    "%F0%9F%98%80",
)
BAD = {
    "movie_id": BAD_IDS,
    "user_id": (*(bad for bad in BAD_IDS if bad != "2147483648"), NOT_A_USER),
}
BAD_NUMBERS_IN_A_QUERY = (*BAD_IDS[2:], "+1", "1%2B")


def refusal(response: Response) -> tuple[int, list[list[str | int]]]:
    """Return a refusal's status and the places that it names, once its body is readable."""
    assert response.headers["Content-Type"] == "application/json"
    assert response.content.isascii()
    body = response.json()
    assert list(body) == ["detail"]
    if isinstance(body["detail"], str):
        assert body["detail"]
        return response.status_code, []
    for problem in body["detail"]:
        # The input itself is what no JSON can hold, at times.
        assert set(problem) == {"type", "loc", "msg"}
        assert problem["msg"]
    return response.status_code, [problem["loc"] for problem in body["detail"]]


def body_of(fields: dict[str, str]) -> str:
    """Return a JSON object of fields whose values are JSON already."""
    return "{" + ", ".join(f'"{name}": {value}' for name, value in fields.items()) + "}"


@pytest.mark.parametrize(("method", "path", "fields"), WRITES_WITH_A_BODY)
def test_bad_value_of_a_field_is_a_422_that_names_the_field(
    client: TestClient, engine: Engine, method: str, path: str, fields: dict[str, str]
) -> None:
    store(engine, HEAT)
    before = everything(engine)
    cases = [(name, value) for name in fields for value in BAD_FIELDS[name]]

    refusals = {
        (name, value): refusal(
            client.request(method, path, content=body_of({**fields, name: value}), headers=JSON)
        )
        for name, value in cases
    }

    assert refusals == {(name, value): (422, [["body", name]]) for name, value in cases}
    assert everything(engine) == before


def test_every_field_that_is_missing_or_bad_is_named_at_once(
    client: TestClient, engine: Engine
) -> None:
    store(engine, HEAT)
    before = everything(engine)
    cases: list[tuple[str, str, dict[str, Any], list[str]]] = [
        ("POST", "/movies", {}, ["title", "year"]),
        ("POST", "/movies", {"title": "Ronin"}, ["year"]),
        ("POST", "/movies", {"Title": "Ronin", "YEAR": 1998}, ["title", "year"]),
        ("POST", "/movies", {"title": "", "year": "x", "genre": 1}, ["title", "year", "genre"]),
        ("PUT", "/movies/1", {"genre": "Drama"}, ["title", "year"]),
        ("PATCH", "/movies/1", {"title": None, "year": None}, ["title", "year"]),
        ("POST", "/ratings", {}, ["movie_id", "score"]),
        ("POST", "/ratings", {"movie_id": 0, "user_id": 0, "score": 0}, [*RATING]),
    ]

    refusals = [refusal(client.request(method, path, json=body)) for method, path, body, _ in cases]

    assert refusals == [(422, [["body", name] for name in named]) for *_, named in cases]
    assert everything(engine) == before


@pytest.mark.parametrize(("method", "path", "fields"), WRITES_WITH_A_BODY)
def test_body_that_is_no_json_object_is_refused(
    client: TestClient, engine: Engine, method: str, path: str, fields: dict[str, str]
) -> None:
    store(engine, HEAT)
    before = everything(engine)

    refusals = {
        body: refusal(client.request(method, path, content=body, headers=JSON))
        for body in UNREADABLE_BODIES
    }

    assert {
        body: status for body, (status, _) in refusals.items() if status not in (400, 422)
    } == {}
    for places in (places for status, places in refusals.values() if status == 422):
        assert {place[0] for place in places} == {"body"}
    assert everything(engine) == before
    # What was refused keeps no later write waiting.
    assert client.request(method, path, content=body_of(fields), headers=JSON).is_success


@pytest.mark.parametrize(("method", "path", "fields"), WRITES_WITH_A_BODY)
def test_body_that_is_not_sent_as_json_is_refused(
    client: TestClient, engine: Engine, method: str, path: str, fields: dict[str, str]
) -> None:
    store(engine, HEAT)
    before = everything(engine)

    refusals = {
        kind: refusal(
            client.request(method, path, content=body_of(fields), headers=[(b"Content-Type", kind)])
        )
        for kind in NOT_JSON
    }

    assert refusals == dict.fromkeys(NOT_JSON, (422, [["header", "content-type"]]))
    without_a_type = client.request(method, path, content=body_of(fields))
    assert without_a_type.status_code == 422
    assert without_a_type.json() == {
        "detail": [
            {
                "type": "content_type",
                "loc": ["header", "content-type"],
                "msg": "Send the body as JSON, with the header Content-Type: application/json",
            }
        ]
    }
    assert everything(engine) == before


def test_body_without_a_type_is_named_beside_what_else_is_wrong(client: TestClient) -> None:
    response = client.put("/movies/0", content=body_of(MOVIE))

    assert refusal(response) == (422, [["path", "movie_id"], ["header", "content-type"]])


def test_body_that_is_missing_is_named_whatever_its_type(client: TestClient) -> None:
    for headers in ({}, JSON, {"Content-Type": "text/plain"}):
        assert refusal(client.post("/movies", headers=headers)) == (422, [["body"]])


@pytest.mark.parametrize(("method", "path", "fields"), WRITES_WITH_A_BODY)
def test_compressed_body_is_415_that_names_the_encoding(
    client: TestClient, engine: Engine, method: str, path: str, fields: dict[str, str]
) -> None:
    store(engine, HEAT)
    before = everything(engine)
    body = gzip.compress(body_of(fields).encode())
    sent = {
        "gzip": [b"gzip"],
        "GZip": [b"GZip"],
        "br": [b"br"],
        "identity, zstd": [b"identity, zstd"],
        "deflate, gzip": [b"deflate", b"gzip"],
        "x" * 50: [b"x" * 1000],
    }

    answers = {
        name: client.request(
            method,
            path,
            content=body,
            headers=[
                (b"Content-Type", b"application/json"),
                *((b"Content-Encoding", line) for line in lines),
            ],
        )
        for name, lines in sent.items()
    }

    assert {name: answer.json()["detail"] for name, answer in answers.items()} == {
        name: f"The body is encoded as {name}: send it as it is, without Content-Encoding"
        for name in sent
    }
    assert {answer.status_code for answer in answers.values()} == {415}
    for answer in answers.values():
        assert answer.headers["Accept-Encoding"] == "identity"
        assert answer.content.isascii()
    assert everything(engine) == before


@pytest.mark.parametrize("encoding", ["", "identity", "Identity", "identity, identity"])
def test_body_that_is_called_not_encoded_is_read(client: TestClient, encoding: str) -> None:
    headers = {**JSON, "Content-Encoding": encoding}

    response = client.post("/movies", content=body_of(MOVIE), headers=headers)

    assert response.status_code == 201


def test_encoding_of_a_body_that_nobody_reads_does_not_matter(
    client: TestClient, engine: Engine
) -> None:
    store(engine, HEAT)

    read = client.get("/movies/1", headers={"Content-Encoding": "gzip"})
    deleted = client.delete("/movies/1", headers={"Content-Encoding": "gzip"})

    assert (read.status_code, deleted.status_code) == (200, 204)


def test_every_way_to_say_json_is_understood(client: TestClient) -> None:
    for kind in ("application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.api+json"):
        body = body_of({"title": f'"{kind}"', "year": "1998"})
        response = client.post("/movies", content=body, headers={"Content-Type": kind})
        assert response.status_code == 201


def test_surrogate_pair_is_the_character_that_it_stands_for(client: TestClient) -> None:
    body = b'{"title": "\\ud83d\\ude00", "year": 2000}'

    response = client.post("/movies", content=body, headers=JSON)

    assert response.status_code == 201
    assert response.json()["title"] == "😀"


def test_bad_id_in_the_path_is_a_422_that_names_the_parameter(
    client: TestClient, engine: Engine
) -> None:
    store(engine, HEAT)
    before = everything(engine)
    movie = {"title": "Ronin", "year": 1998}
    routes: dict[tuple[str, str], tuple[str, dict[str, Any] | None]] = {
        ("GET", "/movies/{}"): ("movie_id", None),
        ("PUT", "/movies/{}"): ("movie_id", movie),
        ("PATCH", "/movies/{}"): ("movie_id", movie),
        ("DELETE", "/movies/{}"): ("movie_id", None),
        ("GET", "/movies/{}/ratings/7"): ("movie_id", None),
        ("GET", "/movies/1/ratings/{}"): ("user_id", None),
        ("DELETE", "/movies/{}/ratings/7"): ("movie_id", None),
        ("DELETE", "/movies/1/ratings/{}"): ("user_id", None),
    }

    refusals = {
        (method, path, bad): refusal(client.request(method, path.format(bad), json=body))
        for (method, path), (parameter, body) in routes.items()
        for bad in BAD[parameter]
    }

    assert refusals == {
        (method, path, bad): (422, [["path", parameter]])
        for (method, path), (parameter, _) in routes.items()
        for bad in BAD[parameter]
    }
    assert everything(engine) == before


def bad_queries(*names: str, values: Iterable[str]) -> dict[str, str]:
    """Return query strings that each hold one bad value, and the parameter that has it."""
    return {f"{name}={value}": name for name in names for value in values}


NOT_SEARCHED = ("%00", "a%00b")
NOT_A_GENRE = ("%20", "%00", "a%00b", 101 * "x")
NOT_A_LIMIT = ("0", *BAD_NUMBERS_IN_A_QUERY)
BAD_QUERIES = {
    "/movies": {
        **bad_queries("limit", values=(*NOT_A_LIMIT, "1001")),
        **bad_queries("offset", values=[bad for bad in BAD_NUMBERS_IN_A_QUERY if bad != "-0"]),
        **bad_queries("year_min", "year_max", values=(*NOT_A_LIMIT, "1899", "2101")),
        **bad_queries("q", values=(*NOT_SEARCHED, 301 * "x")),
        **bad_queries("genre", values=NOT_A_GENRE),
        **bad_queries("imdb_id", values=("0133093", "tt", "tt0", "nm1", "tt12345678901", "tt%00")),
        **bad_queries("tmdb_id", values=NOT_A_LIMIT),
        **bad_queries(
            "sort",
            values=("-", "--id", "%2Bid", "ID", "name", "search_title", "id,title", "id%00"),
        ),
    },
    "/movies/top": {
        **bad_queries("limit", values=(*NOT_A_LIMIT, "101")),
        **bad_queries("min_ratings", values=[bad for bad in BAD_NUMBERS_IN_A_QUERY if bad != "-0"]),
        **bad_queries("ranking", values=("Mean", "average", "mean%00")),
        **bad_queries("genre", values=NOT_A_GENRE),
    },
    "/ratings": {
        **bad_queries("limit", values=(*NOT_A_LIMIT, "1001")),
        **bad_queries(
            "offset", "after", values=[bad for bad in BAD_NUMBERS_IN_A_QUERY if bad != "-0"]
        ),
        **bad_queries("movie_id", values=NOT_A_LIMIT),
        **bad_queries(
            "user_id", values=(*(bad for bad in NOT_A_LIMIT if bad != "2147483648"), NOT_A_USER)
        ),
    },
}


def test_bad_query_parameter_is_a_422_that_names_it(client: TestClient) -> None:
    refusals = {
        path: {query: refusal(client.get(f"{path}?{query}")) for query in queries}
        for path, queries in BAD_QUERIES.items()
    }

    assert refusals == {
        path: {query: (422, [["query", name]]) for query, name in queries.items()}
        for path, queries in BAD_QUERIES.items()
    }


def test_number_beyond_a_bound_is_told_the_bound_whatever_its_length(client: TestClient) -> None:
    places = {
        "/movies/{}": (1, 2147483647),
        "/movies?limit={}": (1, 1000),
        "/movies?offset={}": (0, 2147483647),
        "/movies?year_min={}": (1900, 2100),
        "/movies?year_max={}": (1900, 2100),
        "/movies/top?limit={}": (1, 100),
        "/movies/top?min_ratings={}": (0, 2147483647),
        "/ratings?movie_id={}": (1, 2147483647),
        "/ratings?after={}": (0, 2147483647),
    }
    digits = ("9" * 10, "9" * 20, "1" + "0" * 19, "9" * 10_000, "0" * 30 + "9" * 10)

    told = {
        (place, sign + number): client.get(place.format(sign + number)).json()["detail"][0]["msg"]
        for place in places
        for sign in ("", "-")
        for number in digits
    }

    assert told == {
        (place, sign + number): (
            f"Input should be greater than or equal to {least}"
            if sign
            else f"Input should be less than or equal to {most}"
        )
        for place, (least, most) in places.items()
        for sign in ("", "-")
        for number in digits
    }


def test_leading_zeros_of_a_number_do_not_count(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT)

    response = client.get(f"/movies/{'0' * 10_000}1?")

    assert response.json()["title"] == "Heat"


def send(client: TestClient, operation: Operation, query: str) -> Response:
    """Send an operation's example with a query string of one's own."""
    return client.request(operation.method, f"{operation.url}?{query}", json=operation.body)


def test_unknown_query_parameter_is_a_422_that_names_it_on_every_route(
    client: TestClient, engine: Engine
) -> None:
    store_what_examples_name(engine)
    before = everything(engine)
    names = {
        "yaer_min=2000": "yaer_min",
        "gener": "gener",
        "gener=": "gener",
        "gener=a&gener=b": "gener",
        "LIMIT=1": "LIMIT",
        "limit[]=1": "limit[]",
        "q%20=heat": "q ",
        "=1": "",
        "?": "?",
        "%00=1": "\0",
        "%0D%0AX-Forged:%201": "\r\nX-Forged: 1",
        "%FF=1": "\ufffd",
        "%ED%A0%80=1": "\ufffd\ufffd\ufffd",
        "\u00e9=1": "\u00e9",
    }

    refusals = {
        (str(operation), query): refusal(send(client, operation, query))
        for operation in OPERATIONS
        for query in names
    }

    assert refusals == {
        (str(operation), query): (422, [["query", name]])
        for operation in OPERATIONS
        for query, name in names.items()
    }
    assert everything(engine) == before


LISTS = [operation for operation in OPERATIONS if operation.parameters("query")]


def value_of(parameter: dict[str, Any]) -> str:
    """Return a value that a documented parameter takes."""
    return str([*examples_of(parameter), parameter["schema"].get("default")][0])


@pytest.mark.parametrize("operation", LISTS, ids=str)
def test_repeated_query_parameter_is_a_422_that_names_it(
    client: TestClient, engine: Engine, operation: Operation
) -> None:
    store_what_examples_name(engine)
    expected = {
        f"{name}={first}&{name}={second}": (422, [["query", name]])
        for parameter in operation.parameters("query")
        for name, value in [(parameter["name"], value_of(parameter))]
        for first, second in ((value, value), ("", value), (value, ""), ("", ""))
    }

    assert {query: refusal(send(client, operation, query)) for query in expected} == expected


@pytest.mark.parametrize("operation", LISTS, ids=str)
def test_empty_query_parameter_counts_as_not_given(
    client: TestClient, engine: Engine, operation: Operation
) -> None:
    store_what_examples_name(engine)
    names = [parameter["name"] for parameter in operation.parameters("query")]
    forms = [*(f"{name}=" for name in names), names[0], "".join(f"{name}=&" for name in names)]
    plain = send(client, operation, "")

    answers = {form: send(client, operation, form) for form in forms}

    assert len(plain.content) > len("[]")
    assert {
        form: (answer.status_code, answer.content, answer.headers.get("Link"))
        for form, answer in answers.items()
    } == dict.fromkeys(forms, (200, plain.content, plain.headers.get("Link")))


def test_empty_query_parameter_leaves_the_others_as_they_are(
    client: TestClient, engine: Engine
) -> None:
    store_what_examples_name(engine)

    response = client.get("/movies?genre=&q=in%63ept&year_min=&limit=1&sort=")

    assert [movie["title"] for movie in response.json()] == ["Inception"]
    assert response.headers["X-Total-Count"] == "1"
    assert response.links["first"]["url"] == "/movies?q=incept&limit=1&offset=0"


def test_new_route_checks_its_query_without_having_to_ask() -> None:
    class NewQuery(BaseModel):
        size: int = 1
        since: int | None = Field(default=None, alias="from")

    router = APIRouter(route_class=ServiceRoute)

    @router.get("/model")
    def model(query: Annotated[NewQuery, Query()]) -> list[int | None]:
        """The parameters of a model."""
        return [query.size, query.since]

    @router.get("/plain")
    def plain(size: int = 1, since: Annotated[int | None, Query(alias="from")] = None) -> list[Any]:
        """Parameters of its own."""
        return [size, since]

    @router.get("/nested")
    def nested(values: Annotated[list[Any], Depends(plain)]) -> list[Any]:
        """The parameters of a dependency."""
        return values

    app = FastAPI(exception_handlers=EXCEPTION_HANDLERS)
    app.state.settings = Settings()
    app.state.kept = None
    app.include_router(router, prefix="/new")
    client = TestClient(app)
    expected = {
        "": [1, None],
        "size=2&from=3": [2, 3],
        "size=&from=3": [1, 3],
        "siez=2": [["query", "siez"]],
        "since=2": [["query", "since"]],
        "size=2&size=": [["query", "size"]],
    }

    for path in ("/new/model", "/new/plain", "/new/nested"):
        answers = {query: client.get(f"{path}?{query}") for query in expected}
        assert {
            query: answer.json() if answer.is_success else refusal(answer)[1]
            for query, answer in answers.items()
        } == expected


def test_page_or_method_that_does_not_exist_is_a_readable_error(client: TestClient) -> None:
    expected = {
        ("POST", "/"): 405,
        ("GET", "/movie"): 404,
        ("GET", "/movies/1/2"): 404,
        ("GET", "/movies/1%2F2"): 404,
        ("GET", "/movies/1/ratings"): 404,
        ("GET", "/%00"): 404,
        ("GET", "/%FF"): 404,
        ("PUT", "/movies"): 405,
        ("POST", "/movies/1"): 405,
        ("POST", "/movies/top"): 405,
        ("PATCH", "/movies/1/ratings/7"): 405,
        ("PATCH", "/ratings"): 405,
        ("POST", "/health"): 405,
        ("TRACE", "/movies"): 405,
        ("NONSENSE", "/movies"): 405,
    }

    refusals = {line: refusal(client.request(*line)) for line in expected}

    assert refusals == {line: (status, []) for line, status in expected.items()}

"""Invalid requests get a 4xx that names the problem, and store nothing.

The tables list inputs that this stack is known to turn into a 500, and similar ones. A test sends
one table to one service and reports all unexpected responses together.
"""

import gzip
import json
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, NamedTuple

import pytest
from fastapi import APIRouter, Depends, Query
from fastapi.testclient import TestClient
from httpx2 import Response
from pydantic import BaseModel, Field
from sqlalchemy import Engine
from sqlmodel import Session

from app.main import create_app
from app.repository import MovieRepository
from app.routes.route_class import ServiceRoute
from tests.helpers import HEAT, everything, listed, problems_of, store, words
from tests.operations import OPERATIONS, Operation, examples_of, store_what_examples_name

JSON = {"Content-Type": "application/json"}
Place = list[str | int]


class Case(NamedTuple):
    """A request that is refused, and the expected response.

    Attributes:
        request: the method and the URL.
        detail: the text of the error, or the places that it names; None for any.
        content: the body as it is sent.
        status: the status of the response.
        message: the message for each place, None for any text.
        headers: the headers that describe the body.
    """

    request: str
    detail: str | list[Place] | None
    content: str | bytes = b""
    status: int = 422
    message: str | None = None
    headers: dict[str, str] | list[tuple[bytes, bytes]] = JSON

    def send(self, client: TestClient) -> Response:
        """Send the request."""
        method, url = self.request.split(" ", 1)
        return client.request(method, url, content=self.content, headers=self.headers)

    def difference(self, response: Response) -> object:
        """Return the unexpected parts of a response, None if it is as expected."""
        assert response.headers["Content-Type"] == "application/json", response.request.url
        assert response.content.isascii()
        assert list(response.json()) == ["detail"]
        detail: str | list[Place] = response.json()["detail"]
        messages = {self.message}
        if not isinstance(detail, str):
            # Leave out the input, which JSON cannot always represent.
            assert {tuple(sorted(problem)) for problem in response.json()["detail"]} == {
                ("loc", "msg", "type")
            }
            messages = {problem["msg"] for problem in response.json()["detail"]}
            detail = [problem["loc"] for problem in response.json()["detail"]]
        as_expected = (
            response.status_code == self.status
            and (self.detail is None or detail == self.detail)
            and (self.message is None or messages == {self.message})
            and (response.headers.get("Accept-Encoding") == "identity") == (self.status == 415)
            and "Location" not in response.headers
        )
        return None if as_expected else (response.status_code, detail, messages)


def body_of(fields: dict[str, str]) -> str:
    """Return a JSON object of fields, whose values are JSON texts."""
    return "{" + ", ".join(f'"{name}": {value}' for name, value in fields.items()) + "}"


# JSON texts that are not a whole number within the bounds of any field.
NOT_INTEGERS = (
    *words(
        """-1 -0 0 2147483648 1099511627776 9223372036854775807 9223372036854775808
        -9223372036854775809 NaN Infinity -Infinity 1e400 4.0e400 3.5 true false "3" "2000"
        "" "NaN" "\\u0000" "\\ud800" [] [2000] {}"""
    ),
    "1" + 400 * "0",
)
# JSON strings without a visible character: empty, spaces, format characters, Hangul and Braille
# blanks, marks without a letter.
BLANKS = (
    '"   "',
    *words(r'"" "\t\n\u00a0\u2003" "\u200b" "\ufeff\u2060" "\u3164" "\u115f" "\u2800"'),
    r'"\u0301\u20dd"',
)
# JSON texts that are not a title or a genre.
NOT_TEXTS = (
    *words(r'"\u0000" "a\u0000b" "\ud800" "a\udfffb" "\ude00\ud83d" 1 1.5 NaN -Infinity true []'),
    *words('["Heat"] {}'),
    '"' + 301 * "x" + '"',
    500 * "[" + 500 * "]",
)
# The smallest integer that is too large for a user id.
NOT_A_USER = "9007199254740992"
NOT_USERS = (*(n for n in NOT_INTEGERS if n not in {"2147483648", "1099511627776"}), NOT_A_USER)
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
    "title": (*NOT_TEXTS, "null"),
    "genre": (*NOT_TEXTS, "null", '"' + 101 * "x" + '"', '"Action|Drama"'),
    "year": (*NOT_INTEGERS, *words("null 1899 2101")),
    "movie_id": (*NOT_INTEGERS, "null"),
    "user_id": NOT_USERS,
    # Genres that do not begin with the genre of MOVIE, and one too many.
    "genres": (
        *words('null "Action" [] {} ["Crime","Action"]'),
        json.dumps(["Action", *map(str, range(20))]),
    ),
    "imdb_id": (
        *(*NOT_TEXTS, *BLANKS),
        *words('"0114709" "tt" "tt0000000" "tt01147x9" "tt12345678901" "nm0000001"'),
    ),
    "tmdb_id": NOT_INTEGERS,
    "score": (*NOT_INTEGERS, *words("null 6")),
}
MOVIE_WRITES = ("POST /movies", "PUT /movies/1", "PATCH /movies/1")
WRITES = [*((line, MOVIE) for line in MOVIE_WRITES), ("POST /ratings", RATING)]


def bad_fields() -> Iterator[Case]:
    """Yield every bad value of every field, and requests with several bad values."""
    for line, fields in WRITES:
        for name in fields:
            for value in BAD_FIELDS[name]:
                yield Case(line, [["body", name]], body_of({**fields, name: value}))
    for line in MOVIE_WRITES:
        for name in ("title", "genre"):
            for blank in BLANKS:
                text = body_of({**MOVIE, name: blank})
                message = "Value error, must contain a visible character"
                yield Case(line, [["body", name]], text, message=message)
        for position, genres in ((1, '["Action", " "]'), (0, '["Crime|Drama"]')):
            text = body_of({"title": '"Ronin"', "year": "1998", "genres": genres})
            yield Case(line, [["body", "genres", position]], text)
    several: list[tuple[str, str, list[str]]] = [
        ("POST /movies", "{}", ["title", "year"]),
        ("POST /movies", '{"title": "Ronin"}', ["year"]),
        ("POST /movies", '{"Title": "Ronin", "YEAR": 1998}', ["title", "year", "Title", "YEAR"]),
        ("POST /movies", '{"title": "", "year": "x", "genre": 1}', ["title", "year", "genre"]),
        ("PUT /movies/1", '{"genre": "Drama"}', ["title", "year"]),
        ("PATCH /movies/1", '{"title": null, "year": null}', ["title", "year"]),
        ("POST /ratings", "{}", ["movie_id", "score"]),
        ("POST /ratings", '{"movie_id": 0, "user_id": 0, "score": 0}', [*RATING]),
    ]
    for line, text, names in several:
        yield Case(line, [["body", name] for name in names], text)
    rating = {"movie_id": 1, "score": 5}
    bad_ratings = [rating, rating | {"score": 6}, {"movie_id": 0, "user_id": "x", "score": 1}]
    places: list[Place] = [
        ["body", 1, "score"],
        ["body", 2, "movie_id"],
        ["body", 2, "user_id"],
    ]
    yield Case("POST /ratings/batch", places, json.dumps(bad_ratings))
    for length in (0, 1001):
        yield Case("POST /ratings/batch", [["body"]], json.dumps([rating] * length))


NOT_OBJECTS = (
    *(b"", b" ", b"{", b"}", b"title=Ronin&year=1998", b"<movie/>", b"nul", b"\x00", b"\xff\xfe"),
    *(b"null", b"true", b"1998", b"NaN", b'"Ronin"', b"[]"),
    b'{"title": "\xff", "year": 1998}',
    b'{"title": "\xc3", "year": 1998}',
    b'{"title": "\xed\xa0\x80", "year": 1998}',
    b'{"title": "Ronin", "year": 1998',
    b'{"title": "Ronin", "year": 1998} and more',
    b"{'title': 'Ronin', 'year': 1998}",
    b'{"title": "Ronin", "year": 01998}',
    b'{"title": "line\nbreak", "year": 1998}',
    b'{"title": "Ronin", "year": ' + 5000 * b"9" + b"}",
    b'[{"title": "Ronin", "year": 1998}]',
    20_000 * b"[",
    20_000 * b"[" + 20_000 * b"]",
    5000 * b'{"title":' + b"1" + 5000 * b"}",
    b'{"comment": ' + 20_000 * b"[" + 20_000 * b"]" + b', "title": "Ronin", "year": 1998}',
)
NOT_JSON = (
    *(b"", b"text/plain", b"text/json", b"application/x-www-form-urlencoded", b"json", b"\xe9"),
    *(b"multipart/form-data", b"multipart/form-data; boundary=x", b"application/octet-stream"),
)
ENCODINGS = {
    "gzip": [b"gzip"],
    "GZip": [b"GZip"],
    "br": [b"br"],
    "identity, zstd": [b"identity, zstd"],
    "deflate, gzip": [b"deflate", b"gzip"],
    "x" * 50: [b"x" * 1000],
}


def bad_bodies() -> Iterator[Case]:
    """Yield bodies that are not sent as JSON."""
    no_type = "Send the body as JSON, with the header Content-Type: application/json"
    place: list[Place] = [["header", "content-type"]]
    for line, fields in WRITES:
        text = body_of(fields)
        yield Case(line, place, text, message=no_type, headers={})
        for kind in NOT_JSON:
            yield Case(line, place, text, headers=[(b"Content-Type", kind)])
        for name, encodings in ENCODINGS.items():
            detail = f"The body is encoded as {name}: send it as it is, without Content-Encoding"
            content = gzip.compress(text.encode())
            lines = [(b"Content-Encoding", encoding) for encoding in encodings]
            yield Case(
                line,
                detail,
                content,
                415,
                headers=[(b"Content-Type", b"application/json"), *lines],
            )
    yield Case("PUT /movies/0", [["path", "movie_id"], *place], body_of(MOVIE), headers={})
    for headers in ({}, JSON, {"Content-Type": "text/plain"}):
        yield Case("POST /movies", [["body"]], headers=headers)


BAD_IDS = (
    *words(
        """0 00 -0 -1 +1 1_0 1.0 1e0 0x1 %201 1%20 1%0A 1%09 1%00 %00 2147483648 NaN Infinity true
        9223372036854775807 9223372036854775808 -9223372036854775809 null heat %D9%A1 %EF%BC%91
        %C2%B2 %FF %ED%A0%80 1;2 1,2 [1] '1' %F0%9F%98%80"""
    ),
    5000 * "9",
)
NOT_NUMBERS = (*BAD_IDS[2:], "1%2B")
NOT_OFFSETS = tuple(bad for bad in NOT_NUMBERS if bad != "-0")
NOT_LIMITS = ("0", *NOT_NUMBERS)
NOT_GENRES = (*words("%20 %00 a%00b"), 101 * "x")
BAD_PARAMETERS: list[tuple[str, str, Iterable[str]]] = [
    ("/movies", "limit", (*NOT_LIMITS, "1001")),
    ("/movies", "offset", NOT_OFFSETS),
    ("/movies", "year_min", (*NOT_LIMITS, *words("1899 2101"))),
    ("/movies", "year_max", (*NOT_LIMITS, *words("1899 2101"))),
    ("/movies", "q", (*words("%00 a%00b"), 301 * "x")),
    ("/movies", "genre", NOT_GENRES),
    ("/movies", "imdb_id", words("0133093 tt tt0 nm1 tt12345678901 tt%00")),
    ("/movies", "tmdb_id", NOT_LIMITS),
    ("/movies", "sort", words("- --id %2Bid ID name search_title id,title id%00")),
    ("/movies/top", "limit", (*NOT_LIMITS, "101")),
    ("/movies/top", "min_ratings", NOT_OFFSETS),
    ("/movies/top", "ranking", words("Mean average mean%00")),
    ("/movies/top", "genre", NOT_GENRES),
    ("/ratings", "limit", (*NOT_LIMITS, "1001")),
    ("/ratings", "offset", NOT_OFFSETS),
    ("/ratings", "after", NOT_OFFSETS),
    ("/ratings", "movie_id", NOT_LIMITS),
    ("/ratings", "user_id", (*(bad for bad in NOT_LIMITS if bad != "2147483648"), NOT_A_USER)),
]
UNKNOWN_PARAMETERS = {
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
# URLs with a number, and its bounds.
BOUNDS = {
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
PARAMETRIZED = [operation for operation in OPERATIONS if operation.parameters("query")]


def value_of(parameter: dict[str, Any]) -> str:
    """Return a valid value of a documented parameter."""
    return str([*examples_of(parameter), parameter["schema"].get("default")][0])


def example(operation: Operation, query: str) -> tuple[str, str]:
    """Return the line and the body of an operation's example with another query string."""
    body = "" if operation.body is None else json.dumps(operation.body)
    return f"{operation.method} {operation.url}?{query}", body


def bad_paths() -> Iterator[Case]:
    """Yield bad ids."""
    paths: list[tuple[str, str, str]] = [
        *((method, "/movies/{}", "movie_id") for method in ("GET", "PUT", "PATCH", "DELETE")),
        *((method, "/movies/{}/ratings/7", "movie_id") for method in ("GET", "DELETE")),
        *((method, "/movies/1/ratings/{}", "user_id") for method in ("GET", "DELETE")),
    ]
    for method, path, name in paths:
        body = body_of(MOVIE) if method in {"PUT", "PATCH"} else ""
        is_user = name == "user_id"
        for bad in (*(bad for bad in BAD_IDS if not is_user or bad != "2147483648"), NOT_A_USER):
            yield Case(f"{method} {path.format(bad)}", [["path", name]], body)


def bad_queries() -> Iterator[Case]:
    """Yield invalid, unknown and repeated query parameters."""
    for path, name, values in BAD_PARAMETERS:
        for value in values:
            yield Case(f"GET {path}?{name}={value}", [["query", name]])
    for operation in OPERATIONS:
        for query, name in UNKNOWN_PARAMETERS.items():
            line, body = example(operation, query)
            yield Case(line, [["query", name]], body)
    for operation in PARAMETRIZED:
        for parameter in operation.parameters("query"):
            name, value = parameter["name"], value_of(parameter)
            for first, second in ((value, value), ("", value), (value, ""), ("", "")):
                line, body = example(operation, f"{name}={first}&{name}={second}")
                yield Case(line, [["query", name]], body)
    for place, (least, most) in BOUNDS.items():
        for digits in ("9" * 10, "9" * 20, "1" + "0" * 19, "9" * 10_000, "0" * 30 + "9" * 10):
            above = f"Input should be less than or equal to {most}"
            below = f"Input should be greater than or equal to {least}"
            yield Case(f"GET {place.format(digits)}", None, message=above)
            yield Case(f"GET {place.format('-' + digits)}", None, message=below)
    message = "Value error, cannot be combined with offset"
    yield Case("GET /ratings?after=1&offset=1", [["query", "after"]], message=message)


MOVIE_NOT_FOUND, RATING_NOT_FOUND = "Movie not found", "Rating not found"
MISSING: list[tuple[str, str, str]] = [
    *(
        (f"{method} /movies/{number}", body, MOVIE_NOT_FOUND)
        for number in (99, 2**31 - 1)
        for method, body in (
            ("GET", ""),
            ("PUT", '{"title": "Alien", "year": 1979}'),
            ("PUT", '{"title": "Inception", "year": 2010}'),
            ("PATCH", '{"title": "Alien"}'),
            ("PATCH", "{}"),
            ("DELETE", ""),
        )
    ),
    ("GET /movies/99/scores", "", MOVIE_NOT_FOUND),
    ("POST /ratings", '{"movie_id": 99, "user_id": 7, "score": 5}', MOVIE_NOT_FOUND),
    ("POST /ratings", f'{{"movie_id": {2**31 - 1}, "score": 5}}', MOVIE_NOT_FOUND),
    (
        "POST /ratings/batch",
        json.dumps([{"movie_id": movie_id, "score": 5} for movie_id in (1, 99, 1, 98, 99)]),
        "Movie not found: at position 1, 3, 4 of the list, counted from zero",
    ),
    *(
        (f"{method} /movies/{movie_id}/ratings/{user_id}", "", detail)
        for method in ("GET", "DELETE")
        for movie_id, user_id, detail in (
            (1, 8, RATING_NOT_FOUND),
            (1, 9, RATING_NOT_FOUND),
            (1, 2**31 - 1, RATING_NOT_FOUND),
            (99, 42, MOVIE_NOT_FOUND),
            (2**31 - 1, 42, MOVIE_NOT_FOUND),
        )
    ),
]
NOWHERE = words("/movie /movies/1/2 /movies/1%2F2 /movies/1/ratings /%00 /%FF")
NO_METHOD = [
    *words("POST:/ PUT:/movies POST:/movies/1 POST:/movies/top PATCH:/movies/1/ratings/7"),
    *words("PATCH:/ratings POST:/health TRACE:/movies NONSENSE:/movies"),
]


def conflicts() -> Iterator[Case]:
    """Yield requests for missing rows and paths, and for values that another movie has."""
    for line, body, detail in MISSING:
        yield Case(line, detail, body, 404)
    for path in NOWHERE:
        yield Case(f"GET {path}", "Not Found", status=404)
    for line in NO_METHOD:
        yield Case(line.replace(":", " "), "Method Not Allowed", status=405)
    for line in ("POST /movies", "PUT /movies/2", "PATCH /movies/2"):
        for title in ("Inception", "  Inception  ", "\u00a0Inception\n", "Incep\u200btion"):
            body = json.dumps({"title": title, "year": 2001, "genre": "Drama"})
            yield Case(line, "A movie with this title already exists", body, 409)
        for field, value, stored in (
            ("imdb_id", "tt0114709", "tt0114709"),
            ("imdb_id", "tt114709", "tt0114709"),
            ("tmdb_id", 862, "862"),
        ):
            body = json.dumps({"title": "Other", "year": 2000, field: value})
            yield Case(line, f"A movie with this {field} already exists: {stored}", body, 409)
    yield Case(
        "PATCH /movies/2", "A movie with this title already exists", '{"title": "Inception"}', 409
    )


TABLES = {
    "fields": [*bad_fields()],
    "bodies": [*bad_bodies()],
    "paths": [*bad_paths()],
    "queries": [*bad_queries()],
    "conflicts": [*conflicts()],
}


@pytest.fixture
def before(engine: Engine) -> object:
    """Store a catalogue, and return all that is stored."""
    store_what_examples_name(engine)
    with Session(engine) as session:
        repository = MovieRepository(session)
        repository.update(1, imdb_id="tt0114709", tmdb_id=862)
        repository.add_rating(2, 4, user_id=8)
        repository.add_rating(1, 3)
    return everything(engine)


def accepts_writes(client: TestClient) -> bool:
    """Return whether writes succeed, because no refused request still has a lock."""
    responses = [
        client.patch("/movies/1", json={"year": 1999}),
        client.post("/ratings", json={"movie_id": 1, "score": 5}),
    ]
    return all(response.is_success for response in responses)


@pytest.mark.slow
@pytest.mark.parametrize("cases", TABLES.values(), ids=TABLES)
def test_bad_request_names_the_problem_and_stores_nothing(
    client: TestClient, engine: Engine, before: object, cases: list[Case]
) -> None:
    failures = [
        (case.request[:99], case.content[:250], difference)
        for case in cases
        if (difference := case.difference(case.send(client)))
    ]

    assert not failures, listed(failures)
    assert everything(engine) == before
    assert problems_of(engine) == []
    assert accepts_writes(client)


def test_body_that_is_not_a_json_object_is_refused(
    client: TestClient, engine: Engine, before: object
) -> None:
    failures = []
    for line, _ in WRITES:
        for body in NOT_OBJECTS:
            response = Case(line, None, body).send(client)
            detail = response.json()["detail"]
            # A body that cannot be parsed is a 400, any other a 422 that names places in it.
            is_named = response.status_code == 422 and {at["loc"][0] for at in detail} == {"body"}
            if not is_named and response.status_code != 400:
                failures.append((line, body[:99], response.text[:99]))

    assert not failures, listed(failures)
    assert everything(engine) == before
    assert accepts_writes(client)


@pytest.mark.parametrize(
    "headers",
    [
        *(
            {"Content-Encoding": name}
            for name in ("", "identity", "Identity", "identity, identity")
        ),
        *(
            {"Content-Type": name}
            for name in (
                "application/json; charset=utf-8",
                "APPLICATION/JSON",
                "application/vnd.api+json",
            )
        ),
    ],
    ids=str,
)
def test_json_that_is_not_encoded_is_read(client: TestClient, headers: dict[str, str]) -> None:
    # A surrogate pair encodes one character.
    body = b'{"title": "\\ud83d\\ude00", "year": 2000}'

    response = client.post("/movies", content=body, headers=JSON | headers)

    assert (response.status_code, response.json()["title"]) == (201, "😀")


def test_encoding_of_an_unread_body_is_ignored(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT)

    read = client.get("/movies/1", headers={"Content-Encoding": "gzip"})
    deleted = client.delete("/movies/1", headers={"Content-Encoding": "gzip"})

    assert (read.status_code, deleted.status_code) == (200, 204)


def test_leading_zeros_of_a_number_are_ignored(client: TestClient, engine: Engine) -> None:
    store(engine, HEAT)

    response = client.get(f"/movies/{'0' * 10_000}1?")

    assert response.json()["title"] == "Heat"


def test_empty_query_parameter_counts_as_absent(client: TestClient, engine: Engine) -> None:
    store_what_examples_name(engine)
    failures = []
    for operation in PARAMETRIZED:
        names = [parameter["name"] for parameter in operation.parameters("query")]
        forms = [*(f"{name}=" for name in names), names[0], "".join(f"{name}=&" for name in names)]
        plain, *answers = [client.get(f"{operation.url}?{form}") for form in ("", *forms)]
        assert len(plain.content) > len("[]")
        failures += [
            (operation.path, form, answer.text)
            for form, answer in zip(forms, answers, strict=True)
            if (answer.status_code, answer.content) != (200, plain.content)
            or answer.headers.get("Link") != plain.headers.get("Link")
        ]

    assert not failures, listed(failures)


def test_empty_query_parameter_leaves_the_others_as_they_are(
    client: TestClient, engine: Engine
) -> None:
    store_what_examples_name(engine)

    response = client.get("/movies?genre=&q=in%63ept&year_min=&limit=1&sort=")

    assert [movie["title"] for movie in response.json()] == ["Inception"]
    assert response.headers["X-Total-Count"] == "1"
    assert response.links["first"]["url"] == "/movies?q=incept&limit=1&offset=0"


def test_new_route_checks_its_query_automatically() -> None:
    class NewQuery(BaseModel):
        size: int = 1
        since: int | None = Field(default=None, alias="from")

    router = APIRouter(route_class=ServiceRoute)

    @router.get("/model")
    def model(query: Annotated[NewQuery, Query()]) -> list[int | None]:
        """Return the parameters of a model."""
        return [query.size, query.since]

    @router.get("/plain")
    def plain(size: int = 1, since: Annotated[int | None, Query(alias="from")] = None) -> list[Any]:
        """Return plain parameters."""
        return [size, since]

    @router.get("/nested")
    def nested(values: Annotated[list[Any], Depends(plain)]) -> list[Any]:
        """Return the parameters of a dependency."""
        return values

    app = create_app()
    app.include_router(router, prefix="/new")
    client = TestClient(app)
    expected = {
        "": [1, None],
        "size=2&from=3": [2, 3],
        "size=&from=3": [1, 3],
        "siez=2": ["siez"],
        "since=2": ["since"],
        "size=2&size=": ["size"],
    }

    for path in ("/new/model", "/new/plain", "/new/nested"):
        answers = {query: client.get(f"{path}?{query}") for query in expected}
        assert {
            query: answer.json()
            if answer.is_success
            else [problem["loc"][1] for problem in answer.json()["detail"]]
            for query, answer in answers.items()
        } == expected

"""The OpenAPI document: complete, and true of what the service does."""

import re
import tomllib
from collections.abc import Iterable, Iterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import Engine

from app.config import PROJECT_ROOT, Settings
from app.error_handlers import ERROR_RESPONSES
from app.main import create_app
from tests.operations import (
    DOCUMENT,
    HAVING_ETAG,
    LISTS,
    OPERATIONS,
    STREAMS,
    WRITING,
    Operation,
    examples_of,
    resolved,
    schemas_sent,
    store_what_examples_name,
)

# Those that HTTP itself and every response have.
STANDARD_HEADERS = {
    "content-encoding",
    "content-length",
    "content-type",
    "vary",
    "x-content-type-options",
}
INTERNALS = re.compile(
    r"\b(SQL|SQLite|PostgreSQL|Alembic|Python|FastAPI|Pydantic|HTTPException|dataclass|class|"
    r"threads?|repository|routes?|event loop|uvicorn)\b",
    re.IGNORECASE,
)

each_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=str)


def documented_detail(operation: Operation, status: str) -> dict[str, Any]:
    """Return the schema of ``detail`` in an error that an operation documents."""
    content = operation.description["responses"][status]["content"]
    schema = resolved(content["application/json"]["schema"])
    detail: dict[str, Any] = schema["properties"]["detail"]
    return detail


def expected_errors(operation: Operation) -> set[str]:
    """Return the statuses of the errors that an operation has to document.

    A status that another operation is meant to have is added here.
    """
    has_body = "requestBody" in operation.description
    names_what_may_be_missing = "{" in operation.path or operation.path.startswith("/ratings")
    conditions = {
        "400": has_body,
        "401": operation.writes,
        "404": names_what_may_be_missing
        and str(operation)
        # Nobody is unknown to the ranking.
        not in {"GET /ratings", "GET /ratings.csv", "GET /recommendations/{user_id}"},
        "408": has_body,
        "409": has_body and operation.path.startswith("/movies"),
        "412": operation.writes and operation.path == "/movies/{movie_id}",
        "413": has_body,
        "415": has_body,
        "422": True,  # a query parameter that is unknown
        "503": operation.path != "/health",
        "507": operation.writes,
    }
    return {status for status, applies in conditions.items() if applies}


def expected_headers(operation: Operation, status: str) -> set[str]:
    """Return the headers that an operation has to document for a status."""
    is_read = operation in HAVING_ETAG and status in {"200", "304"}
    conditions = {
        "X-Trace-Id": True,
        "Location": status == "201",
        "ETag": is_read,
        "Cache-Control": is_read,
        "X-Total-Count": is_read and operation in LISTS,
        "Link": is_read and operation in LISTS,
        "Content-Disposition": operation in STREAMS and status == "200",
        "WWW-Authenticate": status == "401",
        "Accept-Encoding": status == "415",
        "Retry-After": status == "503",
    }
    return {name for name, applies in conditions.items() if applies}


def difference_from_document(operation: Operation, response: httpx2.Response) -> list[str]:
    """Return what is documented of a response and not sent, or the other way round."""
    documented = operation.description["responses"].get(str(response.status_code))
    if documented is None:
        return [f"{response.status_code} is not documented"]
    headers = {name.lower() for name in documented["headers"]}
    return sorted(headers ^ (set(response.headers) - STANDARD_HEADERS))


def parts_of(node: object) -> Iterator[dict[str, Any]]:
    """Yield every dictionary within a part of the document."""
    children: Iterable[object] = ()
    if isinstance(node, dict):
        yield node
        children = node.values()
    elif isinstance(node, list):
        children = node
    for child in children:
        yield from parts_of(child)


def test_the_document_says_what_it_is_of(client: TestClient) -> None:
    pyproject = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())

    served = client.get("/openapi.json").json()

    assert served == DOCUMENT
    assert served["openapi"].startswith("3.1")
    assert served["info"] == {
        "title": "Movie Service",
        "summary": "A movie catalogue with user ratings.",
        "description": DOCUMENT["info"]["description"],
        "contact": {"name": "The Movie Service authors"},
        "license": {"name": "MIT", "identifier": "MIT"},
        "version": pyproject["project"]["version"],
    }


@each_operation
def test_an_operation_says_what_it_is(operation: Operation) -> None:
    description = operation.description

    assert description["summary"].strip()
    assert description["description"].strip()
    assert len(description["tags"]) == 1  # the place of the page where it stands
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", description["operationId"])
    for status, response in description["responses"].items():
        assert response["description"].strip()
        if status not in {"204", "304"}:
            is_file = operation in STREAMS and status == "200"
            assert response["content"]["text/csv" if is_file else "application/json"]["schema"]


def test_an_operation_has_a_name_of_its_own() -> None:
    for key in ("operationId", "summary"):
        names = [operation.description[key] for operation in OPERATIONS]
        assert len(set(names)) == len(names)


@each_operation
def test_an_operation_documents_its_errors(operation: Operation) -> None:
    documented = {status for status in operation.description["responses"] if status[0] in "45"}

    assert documented == expected_errors(operation)
    for status in documented:
        detail = documented_detail(operation, status)
        assert detail["type"] == ("array" if status == "422" else "string"), status


@each_operation
def test_an_operation_documents_the_headers_of_each_response(operation: Operation) -> None:
    responses = operation.description["responses"]

    documented = {status: set(response["headers"]) for status, response in responses.items()}

    assert documented == {status: expected_headers(operation, status) for status in responses}
    assert ("304" in documented) == (operation in HAVING_ETAG)


def test_errors_with_one_status_have_the_same_headers() -> None:
    for status in {response.status for response in ERROR_RESPONSES.values()}:
        headers = {
            tuple(response.headers)
            for response in ERROR_RESPONSES.values()
            if response.status == status
        }
        assert len(headers) == 1, status


@each_operation
def test_a_success_is_sent_as_documented(
    client: TestClient, engine: Engine, operation: Operation
) -> None:
    store_what_examples_name(engine)

    response = client.request(operation.method, operation.url, json=operation.body)

    assert response.is_success
    assert difference_from_document(operation, response) == []


@pytest.mark.parametrize("operation", HAVING_ETAG, ids=str)
def test_a_304_is_sent_as_documented(
    client: TestClient, engine: Engine, operation: Operation
) -> None:
    store_what_examples_name(engine)
    etag = client.get(operation.url).headers["ETag"]

    response = client.get(operation.url, headers={"If-None-Match": etag})

    assert response.status_code == 304
    assert difference_from_document(operation, response) == []


def test_a_422_is_sent_as_documented(client: TestClient) -> None:
    for operation in OPERATIONS:
        response = client.request(operation.method, operation.url, params={"typo": "1"})

        assert response.status_code == 422
        assert difference_from_document(operation, response) == [], str(operation)


@pytest.mark.parametrize(
    ("status", "content", "encoding"),
    [(400, b"\xff", "identity"), (413, b" " * 300_000, "identity"), (415, b"{}", "gzip")],
    ids=["not text", "too large", "compressed"],
)
def test_a_rejected_body_is_answered_as_documented(
    client: TestClient, status: int, content: bytes, encoding: str
) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    for operation in OPERATIONS:
        if not operation.bodies:
            continue
        response = client.request(operation.method, operation.url, content=content, headers=headers)

        assert response.status_code == status
        assert difference_from_document(operation, response) == [], str(operation)


def test_a_401_is_sent_as_documented() -> None:
    client = TestClient(create_app(Settings(api_key=SecretStr("key"))))
    for operation in WRITING:
        response = client.request(operation.method, operation.url, json=operation.body)

        assert response.status_code == 401
        assert difference_from_document(operation, response) == [], str(operation)


def test_a_404_is_sent_as_documented(client: TestClient) -> None:
    for operation in OPERATIONS:
        if "404" not in operation.description["responses"]:
            continue
        response = client.request(operation.method, operation.url, json=operation.body)

        assert response.status_code == 404
        assert difference_from_document(operation, response) == [], str(operation)


def test_a_503_is_sent_as_documented(new_url: str) -> None:
    # A database that nobody has migrated.
    client = TestClient(create_app(Settings(database_url=new_url, auto_setup=False)))
    for operation in OPERATIONS:
        if "503" not in operation.description["responses"]:
            continue
        response = client.request(operation.method, operation.url, json=operation.body)

        assert response.status_code == 503
        assert difference_from_document(operation, response) == [], str(operation)


@each_operation
def test_a_validation_error_is_documented_as_it_is_sent(operation: Operation) -> None:
    problem = resolved(documented_detail(operation, "422")["items"])

    assert sorted(problem["properties"]) == sorted(problem["required"]) == ["loc", "msg", "type"]


def test_a_validation_error_has_a_type_a_place_and_a_message(client: TestClient) -> None:
    response = client.get("/movies?limit=0")

    assert response.json() == {
        "detail": [
            {
                "type": "greater_than_equal",
                "loc": ["query", "limit"],
                "msg": "Input should be greater than or equal to 1",
            }
        ]
    }


@each_operation
def test_whatever_can_be_sent_is_bounded_in_the_document(operation: Operation) -> None:
    unbounded = [
        path
        for path, schema in schemas_sent(operation)
        if not path.startswith("header.")  # ETags, sent back as they came
        if (schema.get("type") == "integer" and not {"minimum", "maximum"} <= schema.keys())
        or (schema.get("type") == "string" and not schema.keys() & {"maxLength", "enum"})
    ]

    assert unbounded == []


@each_operation
def test_a_parameter_is_a_plain_value(operation: Operation) -> None:
    """Generators leave out an operation that has another one."""
    for parameter in operation.description.get("parameters", []):
        schema = resolved(parameter["schema"])
        assert schema["type"] in {"string", "integer"}, parameter
        assert "anyOf" not in schema, parameter


@pytest.mark.parametrize("name", ["MovieRead", "RatingRead", "GenreRead", "Status"])
def test_a_result_has_all_its_fields(name: str) -> None:
    schema = DOCUMENT["components"]["schemas"][name]
    nullable = {
        field
        for field, described in schema["properties"].items()
        if {"type": "null"} in described.get("anyOf", [])
    }

    assert set(schema["required"]) == set(schema["properties"])
    assert nullable <= {"average_rating", "user_id", "imdb_id", "tmdb_id"}, (
        "a new nullable field is added here"
    )


def test_a_number_has_a_format_and_an_integer_has_whole_bounds() -> None:
    for part in parts_of(DOCUMENT):
        match part:
            case {"type": "integer", "minimum": low, "maximum": high}:
                size = "int32" if high < 2**31 else "int64"
                assert (type(low), type(high), part["format"]) == (int, int, size), part
            case {"type": "number"}:
                assert part["format"] == "double"


def test_a_field_that_can_be_left_out_has_no_default() -> None:
    """openapi-typescript has clients send a field with a default."""
    for name, schema in DOCUMENT["components"]["schemas"].items():
        for field in schema.get("properties", {}).values():
            assert "default" not in field, name


def test_an_enum_is_a_component_and_its_members_have_names() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    enums = {name: schema for name, schema in schemas.items() if "enum" in schema}

    assert set(enums) == {"Sort", "Ranking"}
    assert sum("enum" in part for part in parts_of(DOCUMENT)) == len(enums)
    for schema in enums.values():
        names = schema["x-enum-varnames"]
        assert len(set(names)) == len(schema["enum"])
        assert all(re.fullmatch("[A-Z]+(_[A-Z]+)*", name) for name in names)
    sort = dict(zip(schemas["Sort"]["enum"], schemas["Sort"]["x-enum-varnames"], strict=True))
    assert (sort["title"], sort["-title"]) == ("TITLE", "TITLE_DESC")


def test_a_tag_is_described() -> None:
    used = {tag for operation in OPERATIONS for tag in operation.description["tags"]}

    assert {tag["name"] for tag in DOCUMENT["tags"]} == used, "see TAGS in app/openapi.py"
    assert all(tag["description"] for tag in DOCUMENT["tags"])


def test_a_description_tells_nothing_of_how_the_service_is_made() -> None:
    descriptions = [
        part[key]
        for part in parts_of(DOCUMENT)
        for key in ("summary", "description")
        if isinstance(part.get(key), str)
    ]

    assert len(descriptions) > len(OPERATIONS)
    assert [text for text in descriptions if INTERNALS.search(text)] == []


def test_a_route_that_is_added_later_is_completed_too(app: FastAPI) -> None:
    app.openapi()
    app.add_api_route("/later", lambda: None)

    document = app.openapi()

    assert set(document["paths"]["/later"]["get"]["responses"]["200"]["headers"]) == {"X-Trace-Id"}


@pytest.mark.parametrize("root_path", ["", "/api"])
def test_the_first_server_is_where_the_document_comes_from(root_path: str) -> None:
    client = TestClient(create_app(Settings()), root_path=root_path)

    document = client.get(f"{root_path}/openapi.json").json()

    assert document["servers"][0]["url"] == (root_path or "/")


@each_operation
def test_whatever_can_be_sent_has_an_example(operation: Operation) -> None:
    without = [
        parameter["name"]
        for parameter in [*operation.parameters("path"), *operation.parameters("query")]
        if not examples_of(parameter) and "default" not in parameter["schema"]
    ]

    assert without == []
    assert ("requestBody" in operation.description) == bool(operation.bodies)


@each_operation
def test_the_examples_work_as_sent(
    client: TestClient, engine: Engine, operation: Operation
) -> None:
    store_what_examples_name(engine)
    examples = {
        parameter["name"]: example
        for parameter in operation.parameters("query")
        for example in examples_of(parameter)[:1]
    }
    queries: list[dict[str, Any]] = [
        {},
        examples,
        *(
            {parameter["name"]: example}
            for parameter in operation.parameters("query")
            for example in [
                *examples_of(parameter),
                *resolved(parameter["schema"]).get("enum", []),
            ]
        ),
    ]
    successes = [int(code) for code in operation.description["responses"] if code[0] == "2"]

    # A write is sent once: what it names can be gone after it.
    for query in queries if queries[1:] != [{}] else queries[:1]:
        for body in operation.bodies or [None]:
            response = client.request(operation.method, operation.url, params=query, json=body)

            assert [response.status_code] == successes, (query, body, response.text)
            assert response.content != b"[]", query

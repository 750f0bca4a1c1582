"""The OpenAPI document is complete and describes what the service does."""

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
from app.http.errors import ERROR_RESPONSES
from app.main import create_app
from app.tables import MOVIE, RATING
from tests.helpers import listed
from tests.operations import (
    DOCUMENT,
    HAVING_ETAG,
    LISTS,
    OPERATIONS,
    SHARING_A_DATABASE,
    STREAMS,
    WRITING,
    Operation,
    examples_of,
    resolved,
    schemas_sent,
    store_what_examples_name,
)

# Headers that need no documentation.
SEARCHES = {"/movies", "/movies.csv"}
# Sent only if there is something to say.
OPTIONAL_HEADERS = {"x-searched-for"}
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


def documented_detail(operation: Operation, status: str) -> dict[str, Any]:
    """Return the schema of ``detail`` in an error that an operation documents."""
    content = operation.description["responses"][status]["content"]
    schema = resolved(content["application/json"]["schema"])
    detail: dict[str, Any] = schema["properties"]["detail"]
    return detail


def expected_errors(operation: Operation) -> set[str]:
    """Return the error statuses that an operation has to document.

    Add a status here if another operation is meant to have it.
    """
    has_body = "requestBody" in operation.description
    names_what_may_be_missing = "{" in operation.path or operation.path.startswith("/ratings")
    conditions = {
        "400": has_body,
        "401": operation.writes,
        "404": names_what_may_be_missing
        and str(operation)
        # A user without ratings gets the ranking.
        not in {
            "GET /ratings",
            "GET /ratings.csv",
            "GET /recommendations/{user_id}",
            "DELETE /ratings",
        },
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
        "Cache-Control": is_read or (operation in STREAMS and status == "200"),
        "X-Total-Count": is_read and operation in LISTS,
        "Link": is_read and operation in LISTS,
        "X-Searched-For": operation.path in SEARCHES and status in {"200", "304"},
        "Content-Disposition": operation in STREAMS and status == "200",
        "WWW-Authenticate": status == "401",
        "Accept-Encoding": status == "415",
        "Retry-After": status == "503",
    }
    return {name for name, applies in conditions.items() if applies}


def difference_from_document(operation: Operation, response: httpx2.Response) -> list[str]:
    """Return the headers that are either documented or sent, but not both."""
    documented = operation.description["responses"].get(str(response.status_code))
    if documented is None:
        return [f"{response.status_code} is not documented"]
    sent = set(response.headers) - STANDARD_HEADERS
    headers = {name.lower() for name in documented["headers"]}
    return sorted(headers - OPTIONAL_HEADERS - sent | sent - headers)


def differences(status: int, responses: Iterable[tuple[Operation, httpx2.Response]]) -> str:
    """Return a line for each response with another status or undocumented headers."""
    return listed(
        (operation, response.status_code, difference)
        for operation, response in responses
        if (difference := difference_from_document(operation, response))
        or response.status_code != status
    )


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


def test_document_names_the_service_and_its_version(client: TestClient) -> None:
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


def test_every_operation_is_described() -> None:
    for operation in OPERATIONS:
        description = operation.description
        assert description["summary"].strip()
        assert description["description"].strip()
        assert len(description["tags"]) == 1  # its place on the page
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", description["operationId"])
        for status, response in description["responses"].items():
            assert response["description"].strip()
            if status not in {"204", "304"}:
                is_file = operation in STREAMS and status == "200"
                assert response["content"]["text/csv" if is_file else "application/json"]["schema"]


def test_names_of_operations_are_unique() -> None:
    for key in ("operationId", "summary"):
        names = [operation.description[key] for operation in OPERATIONS]
        assert len(set(names)) == len(names)


def test_every_operation_documents_its_errors_and_headers() -> None:
    for operation in OPERATIONS:
        responses = operation.description["responses"]
        errors = {status for status in responses if status[0] in "45"}
        headers = {status: set(response["headers"]) for status, response in responses.items()}
        references = {
            header["$ref"].rpartition("/")[2]
            for response in responses.values()
            for header in response["headers"].values()
            if "$ref" in header
        }

        assert errors == expected_errors(operation), operation
        assert references <= DOCUMENT["components"]["headers"].keys(), operation
        assert headers == {status: expected_headers(operation, status) for status in responses}
        assert ("304" in responses) == (operation in HAVING_ETAG), operation
        for status in errors:
            detail = documented_detail(operation, status)
            assert detail["type"] == ("array" if status == "422" else "string"), (operation, status)
        problem = resolved(documented_detail(operation, "422")["items"])
        assert (
            sorted(problem["properties"]) == sorted(problem["required"]) == ["loc", "msg", "type"]
        )


def test_errors_with_one_status_have_the_same_headers() -> None:
    for status in {response.status for response in ERROR_RESPONSES.values()}:
        headers = {
            tuple(response.headers)
            for response in ERROR_RESPONSES.values()
            if response.status == status
        }
        assert len(headers) == 1, status


def test_responses_without_a_body_or_with_an_error_are_sent_as_documented(
    client: TestClient, engine: Engine
) -> None:
    def ask(
        operations: Iterable[Operation],
        *,
        query: str = "",
        **options: Any,  # noqa: ANN401 - httpx's
    ) -> Iterator[tuple[Operation, httpx2.Response]]:
        for operation in operations:
            arguments = {"json": operation.body, **options} if operation.body else options
            if "content" in options:
                arguments.pop("json", None)
            yield (
                operation,
                client.request(operation.method, operation.complete_url + query, **arguments),
            )

    having_404 = [each for each in OPERATIONS if "404" in each.description["responses"]]
    having_body = [operation for operation in OPERATIONS if operation.bodies]
    json = {"Content-Type": "application/json"}
    gzip = json | {"Content-Encoding": "gzip"}

    assert not differences(404, ask(having_404))
    assert not differences(422, ask(OPERATIONS, query="?typo=1"))
    assert not differences(400, ask(having_body, content=b"\xff", headers=json))
    assert not differences(413, ask(having_body, content=b" " * 300_000, headers=json))
    assert not differences(415, ask(having_body, content=b"{}", headers=gzip))
    store_what_examples_name(engine)
    assert not differences(304, ask(HAVING_ETAG, headers={"If-None-Match": "*"}))


def test_401_is_sent_as_documented() -> None:
    client = TestClient(create_app(Settings(api_key=SecretStr("key"))))

    assert not differences(
        401,
        (
            (each, client.request(each.method, each.complete_url, json=each.body))
            for each in WRITING
        ),
    )


def test_503_is_sent_as_documented(new_url: str) -> None:
    # The database has no tables.
    client = TestClient(create_app(Settings(database_url=new_url, auto_setup=False)))
    having_503 = [each for each in OPERATIONS if "503" in each.description["responses"]]

    assert not differences(
        503,
        (
            (each, client.request(each.method, each.complete_url, json=each.body))
            for each in having_503
        ),
    )


def test_validation_error_has_a_type_a_place_and_a_message(client: TestClient) -> None:
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


def test_every_parameter_and_field_is_bounded() -> None:
    unbounded = [
        (str(operation), path)
        for operation in OPERATIONS
        for path, schema in schemas_sent(operation)
        if not path.startswith("header.")  # ETags, sent back as they came
        if (schema.get("type") == "integer" and not {"minimum", "maximum"} <= schema.keys())
        or (schema.get("type") == "string" and not schema.keys() & {"maxLength", "enum"})
    ]

    assert unbounded == []


def test_every_parameter_is_a_plain_value() -> None:
    """Generators skip operations with other parameters."""
    for operation in OPERATIONS:
        for parameter in operation.description.get("parameters", []):
            schema = resolved(parameter["schema"])
            assert schema["type"] in {"string", "integer"}, parameter
            assert "anyOf" not in schema, parameter


def test_every_field_of_a_result_is_required_and_nullable_like_its_column() -> None:
    columns = {"MovieRead": [*MOVIE.c], "RatingRead": [*RATING.c], "GenreRead": [], "Status": []}
    for name, stored in columns.items():
        schema = DOCUMENT["components"]["schemas"][name]
        nullable = {
            field
            for field, described in schema["properties"].items()
            if {"type": "null"} in described.get("anyOf", [])
        }

        assert set(schema["required"]) == set(schema["properties"])
        assert nullable == schema["properties"].keys() & {
            column.name for column in stored if column.nullable
        }


def test_number_has_a_format_and_an_integer_has_integer_bounds() -> None:
    for part in parts_of(DOCUMENT):
        match part:
            case {"type": "integer", "minimum": low, "maximum": high}:
                size = "int32" if high < 2**31 else "int64"
                assert (type(low), type(high), part["format"]) == (int, int, size), part
            case {"type": "number"}:
                assert part["format"] == "double"


def test_optional_field_has_no_default() -> None:
    """openapi-typescript makes a field with a default required."""
    for name, schema in DOCUMENT["components"]["schemas"].items():
        for field in schema.get("properties", {}).values():
            assert "default" not in field, name


def test_enum_is_a_component_and_its_members_have_names() -> None:
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


def test_every_tag_is_described() -> None:
    used = {tag for operation in OPERATIONS for tag in operation.description["tags"]}

    assert {tag["name"] for tag in DOCUMENT["tags"]} == used, "see TAGS in app/http/openapi.py"
    assert all(tag["description"] for tag in DOCUMENT["tags"])


def test_descriptions_name_no_internals() -> None:
    descriptions = [
        part[key]
        for part in parts_of(DOCUMENT)
        for key in ("summary", "description")
        if isinstance(part.get(key), str)
    ]

    assert len(descriptions) > len(OPERATIONS)
    assert [text for text in descriptions if INTERNALS.search(text)] == []


def test_document_completes_routes_that_are_added_later(app: FastAPI) -> None:
    app.openapi()
    app.add_api_route("/later", lambda: None)

    document = app.openapi()

    assert set(document["paths"]["/later"]["get"]["responses"]["200"]["headers"]) == {"X-Trace-Id"}


@pytest.mark.parametrize("root_path", ["", "/api"])
def test_first_server_is_the_one_that_sent_the_document(root_path: str) -> None:
    client = TestClient(create_app(Settings()), root_path=root_path)

    document = client.get(f"{root_path}/openapi.json").json()

    assert document["servers"][0]["url"] == (root_path or "/")


def test_every_parameter_and_body_has_an_example() -> None:
    for operation in OPERATIONS:
        without = [
            parameter["name"]
            for parameter in [*operation.parameters("path"), *operation.parameters("query")]
            if not examples_of(parameter)
            and "default" not in parameter["schema"]
            and "enum" not in resolved(parameter["schema"])
        ]

        assert without == [], operation
        assert ("requestBody" in operation.description) == bool(operation.bodies)


@pytest.mark.parametrize("operations", SHARING_A_DATABASE.values(), ids=SHARING_A_DATABASE)
def test_examples_work_and_their_responses_are_as_documented(
    client: TestClient, engine: Engine, operations: list[Operation]
) -> None:
    store_what_examples_name(engine)
    for each in operations:
        parameters = each.parameters("query")
        single = [
            {parameter["name"]: example}
            for parameter in parameters
            for example in [
                *examples_of(parameter),
                *resolved(parameter["schema"]).get("enum", []),
            ]
        ]
        together = {
            parameter["name"]: example
            for parameter in parameters
            for example in examples_of(parameter)[:1]
        }
        [success] = [int(code) for code in each.description["responses"] if code[0] == "2"]

        for query in [{}, *([together] if together else []), *single]:
            if "relevance" in query.get("sort", ""):
                query |= {"q": "the matrix"}
            for body in each.bodies or [None]:
                response = client.request(
                    each.method, each.complete_url, params=query or None, json=body
                )

                assert response.status_code == success, (each, query, body, response.text)
                assert response.content != b"[]", (each, query)
                assert difference_from_document(each, response) == [], (each, query)

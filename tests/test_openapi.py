"""The OpenAPI document: complete, and true of what the service does."""

import re
import tomllib
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from app.config import PROJECT_ROOT
from tests.operations import (
    DOCUMENT,
    OPERATIONS,
    Operation,
    examples_of,
    resolved,
    schemas_sent,
    store_what_examples_name,
)

each_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=str)


def documented_detail(operation: Operation, status: str) -> dict[str, Any]:
    """Return the schema of ``detail`` in an error that an operation documents."""
    content = operation.description["responses"][status]["content"]
    schema = resolved(content["application/json"]["schema"])
    detail: dict[str, Any] = schema["properties"]["detail"]
    return detail


def expected_errors(operation: Operation) -> set[str]:
    """Return the statuses of the errors that an operation has to document."""
    has_body = "requestBody" in operation.description
    has_parameters = bool(operation.description.get("parameters"))
    names_what_may_be_missing = "{" in operation.path or operation.path == "/ratings"
    conditions = {
        "400": has_body,
        "401": operation.writes,
        "404": names_what_may_be_missing and str(operation) != "GET /ratings",
        "409": has_body and operation.path.startswith("/movies"),
        "412": operation.writes and operation.path == "/movies/{movie_id}",
        "413": has_body,
        "415": has_body,
        "422": has_body or has_parameters,
        "503": operation.path != "/health",
        "507": operation.writes,
    }
    return {status for status, applies in conditions.items() if applies}


def test_the_document_says_what_it_is_of(client: TestClient) -> None:
    pyproject = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())

    served = client.get("/openapi.json").json()

    assert served == DOCUMENT
    assert served["openapi"].startswith("3.1")
    assert served["info"] == {
        "title": "Movie Service",
        "summary": "A movie catalogue with user ratings.",
        "version": pyproject["project"]["version"],
    }


@each_operation
def test_an_operation_says_what_it_is(operation: Operation) -> None:
    description = operation.description

    assert description["summary"].strip()
    assert description["description"].strip()
    assert description["tags"]
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", description["operationId"])
    assert all(answer["description"].strip() for answer in description["responses"].values())


def test_an_operation_has_a_name_of_its_own() -> None:
    for key in ("operationId", "summary"):
        names = [operation.description[key] for operation in OPERATIONS]
        assert len(set(names)) == len(names)


@each_operation
def test_an_operation_stands_in_one_place_of_the_page(operation: Operation) -> None:
    assert len(operation.description["tags"]) == 1


@each_operation
def test_an_operation_documents_its_errors(operation: Operation) -> None:
    documented = {status for status in operation.description["responses"] if status[0] in "45"}

    assert documented == expected_errors(operation)
    for status in documented:
        detail = documented_detail(operation, status)
        assert detail["type"] == ("array" if status == "422" else "string"), status


@each_operation
def test_a_validation_error_is_documented_as_it_is_sent(operation: Operation) -> None:
    if "422" not in operation.description["responses"]:
        return

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
        if (schema.get("type") == "integer" and not {"minimum", "maximum"} <= schema.keys())
        or (schema.get("type") == "string" and not schema.keys() & {"maxLength", "enum"})
    ]

    assert unbounded == []


@each_operation
def test_whatever_can_be_sent_has_an_example(operation: Operation) -> None:
    without = [
        parameter["name"]
        for parameter in operation.description.get("parameters", [])
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
            for example in [*examples_of(parameter), *parameter["schema"].get("enum", [])]
        ),
    ]
    successes = [int(code) for code in operation.description["responses"] if code[0] == "2"]

    # A write is sent once: what it names can be gone after it.
    for query in queries if queries[1:] != [{}] else queries[:1]:
        for body in operation.bodies or [None]:
            response = client.request(operation.method, operation.url, params=query, json=body)

            assert [response.status_code] == successes, (query, body, response.text)
            assert response.content != b"[]", query

"""The operations that the OpenAPI document lists, as requests that can be sent."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine
from sqlmodel import Session

from app.main import app
from app.repository import MovieRepository
from app.startup import STARTER_MOVIES

DOCUMENT: dict[str, Any] = app.openapi()


@dataclass(frozen=True)
class Operation:
    """An operation of the OpenAPI document.

    Attributes:
        method: in capitals.
        path: as documented, with the names of its parameters in braces.
        description: the operation's part of the document.
    """

    method: str
    path: str
    description: dict[str, Any]

    def __str__(self) -> str:
        """Return the name in a test report."""
        return f"{self.method} {self.path}"

    @property
    def writes(self) -> bool:
        """Return whether it changes stored rows."""
        return self.method != "GET"

    @property
    def url(self) -> str:
        """Return the path with the documented examples of its parameters."""
        values = {
            parameter["name"]: examples_of(parameter)[0] for parameter in self.parameters("path")
        }
        return self.path.format(**values)

    @property
    def complete_url(self) -> str:
        """The URL with the documented examples of the required query parameters."""
        query = [
            f"{parameter['name']}={examples_of(parameter)[0]}"
            for parameter in self.parameters("query")
            if parameter["required"]
        ]
        return self.url + "".join(f"?{part}" for part in query)

    @property
    def body(self) -> object:
        """Return the first documented example of a body, None without a body."""
        examples = self.bodies
        return examples[0] if examples else None

    @property
    def bodies(self) -> list[object]:
        """Return the documented examples of a body."""
        if "requestBody" not in self.description:
            return []
        content = self.description["requestBody"]["content"]["application/json"]
        return examples_of(content)

    def parameters(self, place: str) -> list[dict[str, Any]]:
        """Return the documented parameters in a place, ``path`` or ``query``."""
        return [
            parameter
            for parameter in self.description.get("parameters", [])
            if parameter["in"] == place
        ]


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema, or the one that it refers to."""
    reference: str | None = schema.get("$ref")
    if reference is None:
        return schema
    found: dict[str, Any] = DOCUMENT["components"]["schemas"][reference.rpartition("/")[2]]
    return found


def examples_of(described: dict[str, Any]) -> list[Any]:
    """Return the documented examples of a parameter or a kind of content."""
    examples = [example["value"] for example in described.get("examples", {}).values()]
    if "example" in described:
        examples.append(described["example"])
    return [*examples, *resolved(described["schema"]).get("examples", [])]


def schemas_sent(operation: Operation) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the schemas of all parameters and bodies, each named like ``query.limit``."""
    for parameter in operation.description.get("parameters", []):
        yield from _schemas_within(parameter["schema"], f"{parameter['in']}.{parameter['name']}")
    if "requestBody" in operation.description:
        content = operation.description["requestBody"]["content"]["application/json"]
        yield from _schemas_within(content["schema"], "body")


def _schemas_within(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    schema = resolved(schema)
    yield path, schema
    for alternative in schema.get("anyOf", []):
        yield from _schemas_within(alternative, path)
    for name, field in schema.get("properties", {}).items():
        yield from _schemas_within(field, f"{path}.{name}")


def _operations() -> Iterator[Operation]:
    for path, item in DOCUMENT["paths"].items():
        for method, description in item.items():
            yield Operation(method.upper(), path, description)


OPERATIONS = list(_operations())
WRITING = [operation for operation in OPERATIONS if operation.writes]
READING = [operation for operation in OPERATIONS if not operation.writes]
# Operations that can share a database: all reads, and each write.
SHARING_A_DATABASE = {"reads": READING} | {str(operation): [operation] for operation in WRITING}
STREAMS = [operation for operation in READING if operation.path.endswith(".csv")]
HAVING_ETAG = [
    operation
    for operation in READING
    if operation.path not in {"/health", "/ready"} and operation not in STREAMS
]
LISTS = [operation for operation in READING if operation.path in {"/movies", "/ratings"}]


def store_what_examples_name(engine: Engine) -> None:
    """Store the starter movies and the rating of the documented examples."""
    with Session(engine) as session:
        repository = MovieRepository(session)
        repository.create_missing(STARTER_MOVIES)
        repository.add_rating(movie_id=1, user_id=42, score=4)

"""Files for spreadsheets: no cell is a formula, UTF-8 is marked, and the import takes both off."""

import csv
from io import StringIO
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from tests.helpers import HEAT, movie_rows, store
from tests.server import Command

MARK = "\ufeff"
TITLES = (
    "=HYPERLINK(1)",
    "+1",
    "-1",
    "@home",
    "'=quoted",
    "''",
    "'Round Midnight",
    "Amélie (2001)",
)


@pytest.fixture(autouse=True)
def movies(engine: Engine) -> None:
    """Store movies whose titles and genre a spreadsheet would run."""
    store(engine, *(HEAT._replace(title=title, genre="=crime") for title in TITLES))


def cells(text: str) -> list[list[str]]:
    """Return the rows of a CSV file after the header, without ids."""
    return [row[1:] for row in csv.reader(StringIO(text))][1:]


def test_download_for_a_spreadsheet_holds_no_formula(client: TestClient) -> None:
    response = client.get("/movies.csv?for=spreadsheet")

    assert response.content.startswith(MARK.encode())
    rows = cells(response.text.removeprefix(MARK))
    assert [title for title, *_ in rows] == [
        *("'=HYPERLINK(1)", "'+1", "'-1", "'@home", "''=quoted", "''", "'Round Midnight"),
        "Amélie (2001)",
    ]
    assert {genre for _, genre, _ in rows} == {"'=crime"}


def test_plain_download_stays_as_it_is(client: TestClient) -> None:
    for query in ("", "?for="):
        text = client.get(f"/movies.csv{query}").text
        assert not text.startswith(MARK)
        assert [title for title, *_ in cells(text)] == [*TITLES]


def test_other_program_is_refused(client: TestClient) -> None:
    for url in ("/movies.csv?for=excel", "/ratings.csv?for=spreadsheet"):
        response = client.get(url)
        assert [problem["loc"] for problem in response.json()["detail"]] == [["query", "for"]]


@pytest.mark.parametrize("options", [["--for", "spreadsheet"], []])
def test_import_of_an_export_restores_every_title(
    tmp_path: Path,
    database_url: str,
    engine: Engine,
    command: Command,
    options: list[str],
) -> None:
    before = [(row["title"], row["genre"]) for row in movie_rows(engine)]
    folder = tmp_path / "exported"

    exported = command(database_url, "export", str(folder), *options)
    imported = command(database_url, "import-movielens", str(folder))

    assert (exported.exit_code, imported.exit_code) == (0, 0), exported.errors + imported.errors
    for file in folder.iterdir():
        assert file.read_text(encoding="utf-8").startswith(MARK) == bool(options), file
    assert [(row["title"], row["genre"]) for row in movie_rows(engine)] == before

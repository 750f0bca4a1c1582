#!/usr/bin/env bash
# SQLModel's model_validate() checks a table model, its model_validate_json() checks nothing.
#
# Behaviour: Movie(...) of a table model does not validate, and the usual advice is to call
#   Movie.model_validate(), which does. The same data as JSON text through model_validate_json() goes
#   in unchecked: a title that is too long, a year out of range, no title at all, and a year or a date
#   that stays a string. model_validate_strings() and TypeAdapter(Movie) are like it. The model
#   without table=True, of the same fields, refuses or converts each by either method.
# Expected: the two methods differ in the form of their input and in nothing else, as in Pydantic.
# Versions: sqlmodel 0.0.50, pydantic 2.14.3, sqlalchemy 2.1.9.
# Documentation: says that table models are not validated when constructed. It does not mention
#   model_validate_json(); SQLModel overrides model_validate() alone.
# Output:
#   {"title": "Heat", "year": 3}      table: refused / Heat, 3
#   {"title": "Heat", "year": "1995"} table: Heat, 1995 / Heat, '1995'
#   {"year": 1995}                    table: refused / None, 1995
#   fields alone refuse: [True, False, True] and [True, False, True]
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
uv venv -q --python 3.11 "$folder/venv"
uv pip install -q --python "$folder/venv" sqlmodel==0.0.50 pydantic==2.14.3 sqlalchemy==2.1.9

"$folder/venv/bin/python" - <<'PYTHON'
import json
import sys

from pydantic import ValidationError
from sqlmodel import Field, SQLModel


class MovieFields(SQLModel):
    title: str = Field(max_length=100)
    year: int | None = Field(default=None, ge=1900, le=2100)


class Movie(MovieFields, table=True):
    id: int | None = Field(default=None, primary_key=True)


def attempt(validate, data) -> str:
    try:
        movie = validate(data)
    except ValidationError:
        return "refused"
    return f"{getattr(movie, 'title', None)}, {movie.year!r}"


rows = [{"title": "Heat", "year": 3}, {"title": "Heat", "year": "1995"}, {"year": 1995}]
seen = []
for row in rows:
    text = json.dumps(row)
    seen.append((attempt(Movie.model_validate, row), attempt(Movie.model_validate_json, text)))
    print(f"{text:33} table: {seen[-1][0]} / {seen[-1][1]}")
fields = [attempt(MovieFields.model_validate, row) == "refused" for row in rows]
fields_json = [
    attempt(MovieFields.model_validate_json, json.dumps(row)) == "refused" for row in rows
]
print(f"fields alone refuse: {fields} and {fields_json}")
expected = [
    ("refused", "Heat, 3"),
    ("Heat, 1995", "Heat, '1995'"),
    ("refused", "None, 1995"),
]
if seen != expected or fields != [True, False, True] or fields_json != fields:
    sys.exit("the behaviour has changed")
PYTHON

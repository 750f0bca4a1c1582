#!/usr/bin/env bash
# With SQLModel, a stored movie has no field that is set, so exclude_unset leaves an empty object.
#
# Behaviour: a row that a query returns has an empty model_fields_set, and model_dump(exclude_unset=
#   True) is {} although every column has a value. A FastAPI route that returns such rows with
#   response_model_exclude_unset=True answers {} with status 200. After an insert and a refresh only
#   the arguments of the constructor count as set: the id and every value that the database filled in
#   are missing. A response model without table=True, made from the same row, has all of them.
# Expected: values that came from the database are set. exclude_unset is for defaults.
# Versions: sqlmodel 0.0.50, fastapi 0.165.0, pydantic 2.14.3, sqlalchemy 2.1.9, httpx2 2.16.2.
# Documentation: SQLModel's pages use exclude_unset on payloads of PATCH and do not mention rows.
# Output:
#   stored row: model_fields_set set(), model_dump(exclude_unset=True) {}
#   GET, table as response model:  200 {}
#   GET, fields as response model: 200 {"title":"Heat","year":1995,"id":1}
#   POST, table as response model: 201 {"title":"Alien"}
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
uv venv -q --python 3.11 "$folder/venv"
uv pip install -q --python "$folder/venv" sqlmodel==0.0.50 fastapi==0.165.0 pydantic==2.14.3 \
    sqlalchemy==2.1.9 httpx2==2.16.2

"$folder/venv/bin/python" - "$folder/movies.db" <<'PYTHON'
import sys

from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlmodel import Field, Session, SQLModel, create_engine


class MovieFields(SQLModel):
    title: str
    year: int | None = None


class Movie(MovieFields, table=True):
    id: int | None = Field(default=None, primary_key=True)


class MovieRead(MovieFields):
    id: int


engine = create_engine(f"sqlite:///{sys.argv[1]}")
SQLModel.metadata.create_all(engine)
with Session(engine) as session:
    session.add(Movie(title="Heat", year=1995))
    session.commit()
app = FastAPI()


@app.get("/table", response_model=Movie, response_model_exclude_unset=True)
@app.get("/fields", response_model=MovieRead, response_model_exclude_unset=True)
def read_movie() -> Movie:
    with Session(engine) as session:
        return session.get_one(Movie, 1)


@app.post("/table", response_model=Movie, response_model_exclude_unset=True, status_code=201)
def create_movie() -> Movie:
    with Session(engine) as session:
        movie = Movie(title="Alien")
        session.add(movie)
        session.commit()
        session.refresh(movie)
        return movie


stored = read_movie()
dumped = stored.model_dump(exclude_unset=True)
print(f"stored row: model_fields_set {stored.model_fields_set}, model_dump(exclude_unset=True) {dumped}")
client = TestClient(app)
seen = [client.get("/table"), client.get("/fields"), client.post("/table")]
for label, response in zip(("GET, table", "GET, fields", "POST, table"), seen):
    print(f"{label + ' as response model:':30} {response.status_code} {response.text}")
expected = [{}, {"title": "Heat", "year": 1995, "id": 1}, {"title": "Alien"}]
if dumped or [response.json() for response in seen] != expected:
    sys.exit("the behaviour has changed")
PYTHON

#!/usr/bin/env bash
# Datasette shows the first 10 movies of 60 and then ends, or shows the same 10 again and again.
#
# Behaviour: CREATE TABLE top AS SELECT movie_id, avg(score) AS average ... gives `average` no type in
#   SQLite. Datasette puts the last value of a page into the link to the next page and compares the
#   column with it as text. SQLite orders every number before every text unless the column has a
#   numeric type. So average > '2.0' is false for all rows: sorted upwards, the second page is empty
#   and the last. average < '4.0' is true for all rows: sorted downwards, the second page is the
#   first again, with a link to the next one, without end. The same table with `average REAL` works.
# Expected: six pages of 10 different movies either way.
# Versions: datasette 0.65.5, httpx 0.28.1, with SQLite 3.40.1.
# Documentation: describes sorting and the links between pages, and no limit on a column's type.
#   SQLite's page on CREATE TABLE says that columns made from expressions have no type.
# Output (at most twelve pages are followed):
#   average as computed: up 2 pages, 10 rows, 10 different; down 12 pages, 120 rows, 10 different
#   average REAL:        up 6 pages, 60 rows, 60 different; down 6 pages, 60 rows, 60 different
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
uv venv -q --python 3.11 "$folder/venv"
uv pip install -q --python "$folder/venv" datasette==0.65.5 httpx==0.28.1

"$folder/venv/bin/python" -W ignore - "$folder/movies.db" <<'PYTHON'
import asyncio
import sqlite3
import sys

from datasette.app import Datasette

database = sqlite3.connect(sys.argv[1])
database.execute("CREATE TABLE rating (movie_id INTEGER, score INTEGER)")
ratings = [(number % 60 + 1, number * 7 % 5 + 1) for number in range(331)]
database.executemany("INSERT INTO rating VALUES (?, ?)", ratings)
averages = "SELECT movie_id, avg(score) AS average FROM rating GROUP BY movie_id"
database.execute(f"CREATE TABLE computed AS {averages}")
database.execute("CREATE TABLE typed (movie_id INTEGER, average REAL)")
database.execute(f"INSERT INTO typed {averages}")
database.commit()
database.close()


async def follow(client, table: str, order: str) -> tuple[int, int, int]:
    url = f"/movies/{table}.json?_size=10&_shape=objects&{order}=average"
    movies, pages = [], 0
    while url and pages < 12:
        page = (await client.get(url)).json()
        pages += 1
        movies += [row["movie_id"] for row in page["rows"]]
        url = (page["next_url"] or "").removeprefix("http://localhost")
    return pages, len(movies), len(set(movies))


async def main() -> list[tuple[int, int, int]]:
    client = Datasette([sys.argv[1]]).client
    seen = []
    for label, table in (("average as computed:", "computed"), ("average REAL:", "typed")):
        up, down = [await follow(client, table, order) for order in ("_sort", "_sort_desc")]
        text = "{} pages, {} rows, {} different"
        print(f"{label:20} up {text.format(*up)}; down {text.format(*down)}")
        seen += [up, down]
    return seen


if asyncio.run(main()) != [(2, 10, 10), (12, 120, 10), (6, 60, 60), (6, 60, 60)]:
    sys.exit("the behaviour has changed")
PYTHON

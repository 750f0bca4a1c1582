#!/usr/bin/env bash
# In DuckDB, ORDER BY changes the numbers that INSERT stores from a CSV file.
#
# Behaviour: the file has half stars and the table's column is INTEGER. A plain INSERT ... SELECT
#   hands the column's type down to the CSV reader, which turns text into integers and rounds halves
#   away from zero: 0.5, 2.5 and 4.5 become 1, 3 and 5. With an ORDER BY, LIMIT, DISTINCT or a WHERE
#   that every row meets, the type is not handed down: the reader detects DOUBLE, and the cast that
#   follows rounds halves to even: 0, 2 and 4. The mean of the five scores falls from 3.0 to 2.4.
# Expected: clauses that keep every row do not change a value. (PostgreSQL's COPY refuses 2.5.)
# Versions: duckdb 2.0.1.
# Documentation: says that COPY uses the table's types, and not that INSERT sometimes does; and that
#   a cast to an integer rounds, not how.
# Output:
#   SELECT *                       [1, 2, 3, 4, 5] mean 3.0
#   SELECT * ... WHERE score > 0   [0, 2, 2, 4, 4] mean 2.4
#   SELECT * ... ORDER BY movie_id [0, 2, 2, 4, 4] mean 2.4
#   SELECT * ... LIMIT 100         [0, 2, 2, 4, 4] mean 2.4
#   SELECT DISTINCT *              [0, 2, 2, 4, 4] mean 2.4
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
uv venv -q --python 3.11 "$folder/venv"
uv pip install -q --python "$folder/venv" duckdb==2.0.1

"$folder/venv/bin/python" - "$folder/ratings.csv" <<'PYTHON'
import sys

import duckdb

path = sys.argv[1]
with open(path, "w") as file:
    file.write("movie_id,score\n1,0.5\n2,1.5\n3,2.5\n4,3.5\n5,4.5\n")

database = duckdb.connect()


def stored(select: str, clause: str) -> list[int]:
    database.execute("CREATE OR REPLACE TABLE rating (movie_id INTEGER, score INTEGER)")
    database.execute(f"INSERT INTO rating {select} FROM '{path}' {clause}")
    rows = database.execute("SELECT score FROM rating ORDER BY movie_id").fetchall()
    scores = [score for (score,) in rows]
    label = f"{select} ... {clause}" if clause else select
    print(f"{label:30} {scores} mean {sum(scores) / len(scores)}")
    return scores


plain = stored("SELECT *", "")
others = [
    stored("SELECT *", "WHERE score > 0"),
    stored("SELECT *", "ORDER BY movie_id"),
    stored("SELECT *", "LIMIT 100"),
    stored("SELECT DISTINCT *", ""),
]
if plain != [1, 2, 3, 4, 5] or others != [[0, 2, 2, 4, 4]] * 4:
    sys.exit("the behaviour has changed")
PYTHON

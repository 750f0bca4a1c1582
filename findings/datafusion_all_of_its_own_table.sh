#!/usr/bin/env bash
# DataFusion finds that every movie is the newest, and that none is older than another.
#
# Behaviour: WHERE year >= ALL (SELECT year FROM movie) is the textbook query for the newest movie.
#   If the outer query reads the same table without an alias, the outer `year` is moved into the
#   subquery and then read as the inner one: each year is compared with itself. >= ALL is true for
#   every row and < ANY for none, without an error. An alias on either side makes it right, and so
#   does writing the same condition with max().
# Expected: the newest movie, and the three older ones, as in SQL and as DuckDB answers.
# Versions: datafusion 55.0.0, duckdb 2.0.1, pyarrow 26.0.1. Comparisons with ANY and ALL other than
#   = are new in DataFusion.
# Documentation: describes ANY and ALL without this limit. Reported in September 2026 as
#   apache/datafusion 25258, open when this was written.
# Output:
#   year >= ALL (...)              DataFusion [1, 2, 3, 4]  DuckDB [4]
#   year < ANY (...)               DataFusion []  DuckDB [1, 2, 3]
#   year >= ALL (...) with alias   DataFusion [4]  DuckDB [4]
#   year >= (SELECT max(year) ...) DataFusion [4]  DuckDB [4]
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
uv venv -q --python 3.11 "$folder/venv"
uv pip install -q --python "$folder/venv" datafusion==55.0.0 duckdb==2.0.1 pyarrow==26.0.1

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import datafusion
import duckdb
import pyarrow

movie = pyarrow.table({"id": [1, 2, 3, 4], "year": [1999, 2003, 2010, 2020]})
fusion = datafusion.SessionContext()
fusion.from_arrow(movie, "movie")
QUERIES = {
    "year >= ALL (...)": "movie WHERE year >= ALL (SELECT year FROM movie)",
    "year < ANY (...)": "movie WHERE year < ANY (SELECT year FROM movie)",
    "year >= ALL (...) with alias": "movie AS m WHERE m.year >= ALL (SELECT year FROM movie)",
    "year >= (SELECT max(year) ...)": "movie WHERE year >= (SELECT max(year) FROM movie)",
}
seen = []
for label, query in QUERIES.items():
    sql = f"SELECT id FROM {query} ORDER BY id"
    ours = [row["id"] for row in fusion.sql(sql).to_pylist()]
    theirs = [id for (id,) in duckdb.sql(sql).fetchall()]
    print(f"{label:30} DataFusion {ours}  DuckDB {theirs}")
    seen.append((ours, theirs))
if seen != [([1, 2, 3, 4], [4]), ([], [1, 2, 3]), ([4], [4]), ([4], [4])]:
    sys.exit("the behaviour has changed")
PYTHON

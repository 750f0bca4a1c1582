#!/usr/bin/env bash
# In Polars, the average of 4.5 and 3.0 is 3.75 or 3.8, depending on how it is written.
#
# Behaviour: a NUMERIC(2, 1) column of a database arrives as Decimal with scale 1. Division and
#   multiplication of decimals in expressions keep the larger scale of the two operands and round
#   halves to even: sum() / len() is 3.8 and 4.5 * 4.5 is 20.2. mean() of the same column is a float,
#   3.75. SQL on the same frame gives six digits more in a division and adds up the scales in a
#   product: 3.7500000 and 20.25. So a weighted ranking written as an expression has one digit and
#   mostly ties, and the same formula in df.sql() has not.
# Expected: one arithmetic for both, and no digits lost in a division (DuckDB and PostgreSQL: 3.75).
# Versions: polars 2.1.0.
# Documentation: the user guide does not state the scale of a result. Keeping it was decided in 2025
#   (pola-rs/polars 24542); nothing says that mean() and SQL follow other rules.
# Output:
#   mean() 3.75, sum() / len() 3.8, 4.5 * 4.5 = 20.2
#   SQL: avg 3.75, sum / count 3.7500000, 4.5 * 4.5 = 20.25
#   weighted (25 votes of 3.5): expression ['3.5', '3.5', '3.5'], SQL ['3.5185185', '3.5192308', '3.4615385']
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
uv venv -q --python 3.11 "$folder/venv"
uv pip install -q --python "$folder/venv" polars==2.1.0

"$folder/venv/bin/python" - <<'PYTHON'
import sys
from decimal import Decimal

import polars as pl

score = pl.col("score")
ratings = pl.DataFrame({"movie": [1, 1, 2, 3], "score": [Decimal(s) for s in ("4.5", "3.0", "4.0", "2.5")]})
assert ratings.schema["score"].scale == 1
first = ratings.filter(movie=1)

mean, divided = first.select(score.mean(), divided=score.sum() / pl.len()).row(0)
square = first.select(score * score).item(0, 0)
print(f"mean() {mean}, sum() / len() {divided}, 4.5 * 4.5 = {square}")
sql = first.sql("SELECT avg(score), sum(score) / count(*), max(score) * max(score) FROM self").row(0)
print("SQL: avg {}, sum / count {}, 4.5 * 4.5 = {}".format(*sql))

weighted = (score.sum() + 25 * Decimal("3.5")) / (pl.len() + 25)
expression = ratings.group_by("movie").agg(weighted).sort("movie")["score"]
query = """
    SELECT movie, (sum(score) + 25 * 3.5) / (count(*) + 25) AS score
    FROM self GROUP BY movie ORDER BY movie
"""
expression, query = [
    [str(value) for value in column] for column in (expression, ratings.sql(query)["score"])
]
print(f"weighted (25 votes of 3.5): expression {expression}, SQL {query}")
if [mean, divided, square] != [3.75, Decimal("3.8"), Decimal("20.2")] or [str(v) for v in sql] != [
    "3.75", "3.7500000", "20.25",
] or len(set(expression)) != 1 or len(set(query)) != 3:
    sys.exit("the behaviour has changed")
PYTHON

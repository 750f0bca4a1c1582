#!/usr/bin/env bash
# In pandas, diff() of the same small unsigned numbers is 254 on a column and -2 within a group.
#
# Behaviour: five-star scores fit into uint8, and a user's scores are 5, 3 and 4. Series.diff()
#   subtracts as uint8 and converts to float64 afterwards: the drop from 5 to 3 is 254.0. The same
#   call after groupby() converts first and says -2.0, also with a single group. With the nullable
#   type UInt8 both wrap. pct_change() and rolling sums of the column are right.
# Expected: grouping by a constant changes no result. And a float64 result should not have wrapped.
# Versions: pandas 3.1.1, numpy 2.4.6. (The difference of unsigned columns in Polars 2.1.0 is -2.)
# Documentation: Series.diff() is said to compute in the column's dtype and to return float64, so the
#   wrapping can be inferred. Nothing says that groupby differs, or that the two unsigned types do.
# Output:
#   uint8: column [254.0, 1.0]  grouped [-2.0, 1.0]
#   UInt8: column [254.0, 1.0]  grouped [254.0, 1.0]
#   int64: column [-2.0, 1.0]  grouped [-2.0, 1.0]
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
uv venv -q --python 3.11 "$folder/venv"
uv pip install -q --python "$folder/venv" pandas==3.1.1 numpy==2.4.6 polars==2.1.0

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import pandas
import polars

frame = pandas.DataFrame({"user": [1, 1, 1], "score": [5, 3, 4]})
seen = {}
for dtype in ("uint8", "UInt8", "int64"):
    typed = frame.astype({"score": dtype})
    column = typed["score"].diff()[1:].astype(float).tolist()
    grouped = typed.groupby("user")["score"].diff()[1:].astype(float).tolist()
    print(f"{dtype}: column {column}  grouped {grouped}")
    seen[dtype] = column, grouped

unsigned = polars.DataFrame(frame.astype({"score": "uint8"}).to_dict("list")).cast({"score": polars.UInt8})
assert unsigned["score"].diff().to_list() == [None, -2, 1]
wrapped, right = [254.0, 1.0], [-2.0, 1.0]
if seen != {"uint8": (wrapped, right), "UInt8": (wrapped, wrapped), "int64": (right, right)}:
    sys.exit("the behaviour has changed")
PYTHON

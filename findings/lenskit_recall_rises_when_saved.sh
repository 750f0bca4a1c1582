#!/usr/bin/env bash
# In LensKit, saving recommendations as a data frame and loading them triples their recall.
#
# Behaviour: a model has recommendations for one test user of three and empty lists for the others.
#   RunAnalysis averages recall over the three lists: 0.333. A data frame has no rows for an empty
#   list, so the two users are gone after to_df(), which warns that it drops them, and from_df().
#   RunAnalysis goes through the lists, not through the test users: recall and the other metrics are
#   now means over one user, 1.0, without a warning. (It does warn of the reverse, a list without
#   test data.) So the less a model answers, the better it looks in an evaluation from saved files.
# Expected: the same numbers. A test user without recommendations counts as 0, as in ir_measures.
# Also: precision of the empty lists is 0 in list_summary() and NaN in global_metrics().
# Versions: lenskit 2025.8.1, ir_measures 0.4.3. LensKit brings PyTorch: 5.6 GB for the time being.
# Documentation: to_df() and from_df() are said to exclude empty lists; what that does to a mean is
#   not said. global_metrics() is said to leave out the means of per-list metrics, and has them.
# Output:
#   in memory:     3 lists, Recall@10 0.333, Precision@10 0.167 or nan
#   from a frame:  1 lists, Recall@10 1.000, Precision@10 0.500 or 0.5
#   ir_measures, from the same frame: R@10 0.333
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
uv venv -q --python 3.11 "$folder/venv"
uv pip install -q --python "$folder/venv" lenskit==2025.8.1 ir-measures==0.4.3

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import ir_measures
from lenskit.data import ItemList, ItemListCollection
from lenskit.metrics import Precision, Recall, RunAnalysis


def collect(lists: dict[int, ItemList]) -> ItemListCollection:
    return ItemListCollection.from_dict(lists, ["user_id"])


def measure(label: str, lists: ItemListCollection) -> tuple[float, ...]:
    analysis = RunAnalysis()
    analysis.add_metric(Recall(n=10))
    analysis.add_metric(Precision(n=10))
    result = analysis.measure(lists, test)
    recall, precision = result.list_summary()["mean"]
    overall = result.global_metrics()["Precision@10"]
    print(f"{label:14} {len(lists)} lists, Recall@10 {recall:.3f}, Precision@10 {precision:.3f} or {overall}")
    return len(lists), round(recall, 3), round(precision, 3)


test = collect({1: ItemList([10]), 2: ItemList([20]), 3: ItemList([30])})
nothing = ItemList([], ordered=True)
memory = collect({1: ItemList([10, 11], ordered=True), 2: nothing, 3: nothing})
frame = memory.to_df()
seen = [
    measure("in memory:", memory),
    measure("from a frame:", ItemListCollection.from_df(frame, ["user_id"])),
]
judged = [ir_measures.Qrel(str(user), str(user * 10), 1) for user in (1, 2, 3)]
listed = [
    ir_measures.ScoredDoc(str(row.user_id), str(row.item_id), -row.rank)
    for row in frame.itertuples()
]
other = round(ir_measures.calc_aggregate([ir_measures.R @ 10], judged, listed)[ir_measures.R @ 10], 3)
print(f"ir_measures, from the same frame: R@10 {other}")
if seen != [(3, 0.333, 0.167), (1, 1.0, 0.5)] or other != 0.333:
    sys.exit("the behaviour has changed")
PYTHON

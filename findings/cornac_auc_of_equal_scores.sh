#!/usr/bin/env bash
# In Cornac, a recommender that gives every movie the same score has an AUC of 0, not 0.5.
#
# Behaviour: Cornac's AUC counts the pairs in which the liked movie scores strictly higher and gives
#   nothing for a tie. GlobalAvg, which predicts one constant, gets 0.0: the same as a model that
#   ranks every disliked movie above every liked one. Ties are common with models that count or
#   round: MostPop loses AUC for each liked and other movie with equally many ratings. MAP counts
#   ties against the model as well.
# Expected: half a point for each tied pair, as in scikit-learn, so 0.5 for a constant.
# Versions: cornac 3.0.1, scikit-learn 1.9.1, numpy 2.4.6.
# Documentation: Cornac cites the paper on BPR, whose formula compares strictly, and leaves ties out.
# Output:
#   liked first                 cornac 1.0  scikit-learn 1.0
#   all scores equal            cornac 0.0  scikit-learn 0.5
#   liked last                  cornac 0.0  scikit-learn 0.0
#   GlobalAvg on a random split AUC 0.0
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
uv venv -q --python 3.11 "$folder/venv"
uv pip install -q --python "$folder/venv" cornac==3.0.1 scikit-learn==1.9.1 numpy==2.4.6

MPLCONFIGDIR="$folder" "$folder/venv/bin/python" -W ignore - <<'PYTHON'
import sys

import numpy
from cornac.eval_methods import RatioSplit
from cornac.metrics import AUC
from cornac.models import GlobalAvg
from sklearn.metrics import roc_auc_score

LIKED = numpy.array([1, 1, 0, 0, 0])


def compare(label: str, scores: list[float]) -> tuple[float, float]:
    values = numpy.array(scores)
    cornac = AUC().compute(
        item_indices=numpy.arange(5), pd_scores=values, gt_pos=numpy.flatnonzero(LIKED)
    )
    sklearn = roc_auc_score(LIKED, values)
    print(f"{label:27} cornac {cornac:.1f}  scikit-learn {sklearn:.1f}")
    return float(cornac), float(sklearn)


seen = [
    compare("liked first", [5, 4, 3, 2, 1]),
    compare("all scores equal", [3, 3, 3, 3, 3]),
    compare("liked last", [1, 2, 3, 4, 5]),
]
random = numpy.random.default_rng(1)
ratings = [
    (f"user {user}", f"movie {movie}", float(random.integers(1, 6)))
    for user in range(30)
    for movie in range(40)
    if random.random() < 0.4
]
split = RatioSplit(ratings, test_size=0.3, seed=1, rating_threshold=4.0, verbose=False)
result, _ = split.evaluate(GlobalAvg(), [AUC()], user_based=True)
constant = result.metric_avg_results["AUC"]
print(f"GlobalAvg on a random split AUC {constant:.1f}")
if seen != [(1.0, 1.0), (0.0, 0.5), (0.0, 0.0)] or constant != 0.0:
    sys.exit("the behaviour has changed")
PYTHON

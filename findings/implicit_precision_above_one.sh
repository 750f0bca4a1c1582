#!/usr/bin/env bash
# implicit reports a precision of 13 and an NDCG of 4 when K is larger than the catalogue.
#
# Behaviour: recommend() fills a list that is longer than the catalogue: with item 0, which is a real
#   movie, after matrix factorization, and with -1 in the nearest-neighbour models. The evaluation
#   counts each filler. Item 0 is a hit again and again if it is among the user's test items: the
#   precision, MAP and NDCG exceed 1. Any other filler is one more wrong item: the AUC is negative.
#   Nothing warns.
# Expected: metrics between 0 and 1, and the same value for every K beyond the catalogue.
# Versions: implicit 0.7.3, numpy 2.4.6, scipy 1.17.1.
# Documentation: says what K is, and nothing about lists that cannot be filled.
# Output (8 movies; user 3 likes item 0 in the test set, user 0 in the second case likes item 6):
#   K=8   precision 1.000 map 1.000 ndcg 1.000 auc 1.000
#   K=20  precision 13.000 map 6.841 ndcg 4.087 auc 1.000
#   K=20, a miss  precision 0.000 map 0.000 ndcg 0.000 auc -0.929
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
uv venv -q --python 3.11 "$folder/venv"
uv pip install -q --python "$folder/venv" implicit==0.7.3 numpy==2.4.6 scipy==1.17.1

OPENBLAS_NUM_THREADS=1 "$folder/venv/bin/python" - <<'PYTHON'
import sys

from implicit.als import AlternatingLeastSquares
from implicit.evaluation import ranking_metrics_at_k
from implicit.nearest_neighbours import CosineRecommender
from scipy.sparse import csr_matrix

LIKES = {0: [7], 1: [0, 1], 2: [0, 1, 2], 3: [1, 2, 3], 4: [4, 5], 5: [4, 5, 6]}


def matrix(likes: dict[int, list[int]]) -> csr_matrix:
    pairs = [(user, item) for user, items in likes.items() for item in items]
    users, items = zip(*pairs)
    return csr_matrix(([1.0] * len(pairs), (users, items)), shape=(6, 8))


def measure(label: str, model, test: csr_matrix, k: int) -> dict[str, float]:
    metrics = ranking_metrics_at_k(model, train, test, K=k, show_progress=False)
    print(label, *(f"{name} {value:.3f}" for name, value in metrics.items()))
    return metrics


train = matrix(LIKES)
als = AlternatingLeastSquares(factors=4, random_state=1, num_threads=1)
als.fit(train, show_progress=False)
cosine = CosineRecommender(K=20, num_threads=1)
cosine.fit(train, show_progress=False)

sane = measure("K=8  ", als, matrix({3: [0]}), 8)
beyond = measure("K=20 ", als, matrix({3: [0]}), 20)
miss = measure("K=20, a miss ", cosine, matrix({0: [6]}), 20)
if not (sane["precision"] == 1 and beyond["precision"] == 13 and beyond["ndcg"] > 4 and miss["auc"] < 0):
    sys.exit("the behaviour has changed")
PYTHON

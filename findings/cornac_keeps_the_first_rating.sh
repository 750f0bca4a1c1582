#!/usr/bin/env bash
# A rating that replaces an earlier one counts in four ways in Cornac, Surprise, SciPy and pandas.
#
# Behaviour: the log has user 1 giving movie 10 one star and later five, and movie 20 three. Cornac
#   keeps the first rating and drops the later one; it warns that a duplicate was removed, not which.
#   Surprise keeps both, so it has one rating more and an average of 3.0. A SciPy matrix filled from
#   the log, which is the input of implicit, adds them up to six stars. pandas' pivot_table averages
#   them to 3.0. None refuses the input.
# Expected: the later rating replaces the earlier one, or an error. No library keeps the later one.
# Versions: cornac 3.0.1, scikit-surprise 1.1.5, scipy 1.17.1, pandas 3.1.1, numpy 2.4.6.
# Documentation: SciPy and pandas state their rule. The docstrings of Cornac and Surprise are silent.
# Output:
#   cornac    {'10': 1.0, '20': 3.0} mean 2.0
#   surprise  {'10': [1.0, 5.0], '20': [3.0]} mean 3.0
#   scipy     {'10': 6.0, '20': 3.0}
#   pandas    {'10': 3.0, '20': 3.0}
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
uv venv -q --python 3.11 "$folder/venv"
uv pip install -q --python "$folder/venv" cornac==3.0.1 scikit-surprise==1.1.5 \
    scipy==1.17.1 pandas==3.1.1 numpy==2.4.6

MPLCONFIGDIR="$folder" "$folder/venv/bin/python" - <<'PYTHON'
import sys

import pandas
from cornac.data import Dataset
from scipy.sparse import coo_matrix
from surprise import Dataset as SurpriseDataset
from surprise import Reader

LOG = [("1", "10", 1.0), ("1", "20", 3.0), ("1", "10", 5.0)]
frame = pandas.DataFrame(LOG, columns=["user", "item", "rating"])

cornac = Dataset.from_uir(LOG)
users, items, ratings = cornac.uir_tuple
names = list(cornac.item_ids)
kept = {names[item]: float(rating) for item, rating in zip(items, ratings)}
print("cornac   ", kept, "mean", cornac.global_mean)

surprise = SurpriseDataset.load_from_df(frame, Reader()).build_full_trainset()
both = {
    surprise.to_raw_iid(item): [rating for _, rating in ratings]
    for item, ratings in surprise.ir.items()
}
print("surprise ", both, "mean", surprise.global_mean)

codes, labels = pandas.factorize(frame["item"])
summed = coo_matrix((frame["rating"], ([0, 0, 0], codes))).tocsr().toarray()[0]
summed = {label: float(value) for label, value in zip(labels, summed)}
print("scipy    ", summed)

averaged = frame.pivot_table(index="user", columns="item", values="rating").iloc[0].to_dict()
print("pandas   ", averaged)

if (kept, both["10"], summed["10"], averaged["10"]) != ({"10": 1.0, "20": 3.0}, [1.0, 5.0], 6.0, 3.0):
    sys.exit("the behaviour has changed")
PYTHON

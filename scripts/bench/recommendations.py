"""Measures how good the recommendations are, next to simpler methods, to ALS and uncut EASE.

The ratings are those of a MovieLens folder. Each user's latest fifth is held out. A method learns
from the earlier ratings and ranks, for each user, the movies that the user has not rated in them.
The user's likes among the held-out ratings are the hits. ALS needs parameters: they are chosen on
the second latest fifth, from what is earlier still.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sqlalchemy import Engine, bindparam, delete, select
from sqlalchemy.orm import Session

from app.db import create_db_engine, create_migration_engine, migrate, reading, writing
from app.recommender.neighbours import read_integers, replace_neighbours
from app.recommender.repository import RecommendationRepository
from app.recommender.training import Ids, Likes, learn
from app.statements import ADJUST_AGGREGATES
from app.tables import MOVIE, RATING
from scripts.bench.load import BenchError
from scripts.bench.movielens import import_folder
from scripts.bench.scorers import (
    SEED,
    Floats,
    Ratings,
    Scorer,
    als,
    ease,
    item_cosine,
    popularity,
    weighted_ranking,
)

# If there are more users, this many are picked at random.
MAX_USERS = 2000
NDCG_AT, RECALL_AT = 10, 20
RESAMPLES = 2000
# The grid of ALS: factors, regularization, alpha.
ALS_GRID = [*product((64, 128), (1.0, 3.0, 10.0, 30.0), (1.0, 3.0))]

MOVIE_IDS = select(MOVIE.c.id).order_by(MOVIE.c.id)
RATINGS_BY_TIME = (
    select(*RATING.c["user_id", "movie_id", "score"])
    .where(RATING.c.user_id.is_not(None))
    .order_by(*RATING.c["user_id", "created_at", "id"])
)
DELETE_RATING = delete(RATING).where(
    RATING.c.movie_id == bindparam("of_movie"), RATING.c.user_id == bindparam("by_user")
)

# Returns the movies to show first, given a user. Both are indexes as in Ratings.
Ranker = Callable[[int], Ids]


class Split(NamedTuple):
    """Ratings split by time.

    Attributes:
        known: the ratings that a method learns from.
        later: all other ratings.
        hits: the held-out likes of each user to rank for.
    """

    known: Ratings
    later: Ratings
    hits: dict[int, Ids]


class Quality(NamedTuple):
    """NDCG@10 and Recall@20 of a method's rankings, one value for each user."""

    ndcg: Floats
    recall: Floats


class Comparison(NamedTuple):
    """A method, and how it compares with the recommendations as served.

    Attributes:
        method: its name.
        ndcg: mean NDCG@10.
        recall: mean Recall@20.
        lead: NDCG@10 as served minus the method's.
        interval: the 95 % interval of the lead, by a paired bootstrap over users.
    """

    method: str
    ndcg: float
    recall: float
    lead: float
    interval: tuple[float, float]


def print_comparison(folder: Path, console: Console) -> None:
    """Print the comparison for a MovieLens folder as a table.

    Raises:
        UnusableFile: the folder cannot be imported.
        BenchError: no user has a like to predict.
    """
    terminal = Console(stderr=True)
    with Progress(console=terminal, disable=not terminal.is_terminal, transient=True) as progress:
        compared = compare(folder, progress)
    table = Table("method")
    for name in ("NDCG@10", "Recall@20", "served / method", "served - method, 95 %"):
        table.add_column(name, justify="right", no_wrap=True)
    for method, ndcg, recall, lead, (low, high) in compared:
        interval = f"{lead:+.3f} ({low:+.3f} to {high:+.3f})" if lead else ""
        ratio = f"{(ndcg + lead) / ndcg:.2f}" if ndcg else ""
        table.add_row(method, f"{ndcg:.4f}", f"{recall:.4f}", ratio, interval)
    # Keep each row on one line, also when the output is piped to a file.
    console.width = max(console.width, 120)
    console.print(table)
    if not find_spec("implicit"):
        console.print("ALS is left out: it needs the group 'bench' (uv run --group bench ...)")


def compare(folder: Path, progress: Progress) -> list[Comparison]:
    """Return the comparison for a MovieLens folder, with the recommendations as served first.

    Raises:
        UnusableFile: the folder cannot be imported.
        BenchError: no user has a like to predict.
    """
    with imported(folder, progress) as engine:
        ratings = _read(engine, progress)
        split = split_off(ratings, fifth=1)
        if not split.hits:
            raise BenchError(
                "There is nothing to evaluate: no user likes a movie among the latest fifth of"
                " their ratings.\nUse a data set with users who have five ratings or more."
            )
        as_served = judge(split, served(engine, split, progress))
    methods: dict[str, Callable[[Ratings], Scorer]] = {
        "popularity": popularity,
        "weighted ranking": weighted_ranking,
        "item cosine": item_cosine,
        "EASE, all weights": partial(ease, progress=progress),
    }
    if find_spec("implicit"):
        chosen = _best_als(split_off(ratings, fifth=2), progress)
        methods["ALS, {} factors, regularization {:g}, alpha {:g}".format(*chosen)] = partial(
            als, *chosen
        )
    compared = [_compared("as served", as_served, as_served)]
    for name, method in progress.track(methods.items(), description="Comparing"):
        quality = judge(split, ranker_of(split, method(split.known)))
        compared.append(_compared(name, quality, as_served))
    return compared


@contextmanager
def imported(folder: Path, progress: Progress) -> Iterator[Engine]:
    """Import a MovieLens folder into a scratch database, and yield its engine."""
    with tempfile.TemporaryDirectory(prefix="movie-evaluation-") as place:
        url = f"sqlite:///{Path(place) / 'movies.db'}"
        migrate(url)
        engine = create_db_engine(url)
        importing = progress.add_task("Importing", total=None)
        try:
            import_folder(folder, engine)
            progress.remove_task(importing)
            yield engine
        finally:
            engine.dispose()


def split_off(ratings: Ratings, fifth: int) -> Split:
    """Hold out each user's latest fifth of ratings, or the second latest with ``fifth=2``."""
    counts = np.bincount(ratings.users, minlength=len(ratings.user_ids))
    # A user's latest rating has age 1.
    age = np.cumsum(counts)[ratings.users] - np.arange(len(ratings.users))
    size = counts[ratings.users] // 5
    is_later = age <= fifth * size
    held_out = ratings.only(is_later & (age > (fifth - 1) * size)).likes
    users = np.unique(held_out.users)
    if len(users) > MAX_USERS:
        users = np.sort(np.random.default_rng(SEED).choice(users, MAX_USERS, replace=False))
    hits = {user: held_out.of(user).movies for user in users.tolist()}
    return Split(ratings.only(~is_later), ratings.only(is_later), hits)


def judge(split: Split, ranker: Ranker) -> Quality:
    """Return NDCG@10 and Recall@20 of each user's ranking.

    A movie is relevant (1) if it is a hit, else not (0), and places count from 1:

        NDCG@10 = sum of 1 / log2(place + 1) over the hits among the first 10 places
                  / sum of 1 / log2(place + 1) over the places 1 to min(10, number of hits)

        Recall@20 = number of hits among the first 20 places / number of hits
    """
    discounts = 1 / np.log2(np.arange(NDCG_AT) + 2)
    ndcg, recall = [], []
    for user, hits in split.hits.items():
        is_hit = np.isin(ranker(user), hits)
        gains = is_hit[:NDCG_AT]
        ndcg.append(gains @ discounts[: len(gains)] / discounts[: len(hits)].sum())
        recall.append(np.count_nonzero(is_hit[:RECALL_AT]) / len(hits))
    return Quality(np.array(ndcg), np.array(recall))


def ranker_of(split: Split, scorer: Scorer) -> Ranker:
    """Return a ranker that sorts the movies new to a user by score, then by id."""

    def rank(user: int) -> Ids:
        scores = scorer(user).copy()
        scores[split.known.of(user).movies] = -np.inf
        return np.argsort(-scores, kind="stable")[:RECALL_AT]

    return rank


def served(engine: Engine, split: Split, progress: Progress) -> Ranker:
    """Forget the later ratings, train, and return a ranker that asks the service's repository."""
    _forget(engine, split.later)
    known, likes = split.known, split.known.likes
    pairs = Likes(known.movie_ids[likes.movies], known.user_ids[likes.users])
    training_engine = create_migration_engine(str(engine.url))
    replace_neighbours(training_engine, learn(pairs, progress))

    def rank(user: int) -> Ids:
        with Session(engine) as session:
            repository = RecommendationRepository(session)
            movies = repository.for_user(int(known.user_ids[user]), limit=RECALL_AT)
        return np.searchsorted(known.movie_ids, [movie.id for movie in movies])

    return rank


def _forget(engine: Engine, ratings: Ratings) -> None:
    """Delete ratings, and subtract them from the movies' aggregates."""
    columns = (ratings.movie_ids, ratings.counts, ratings.totals.astype(int))
    rows = (
        {"of_movie": movie_id, "by_user": user_id}
        for movie_id, user_id in zip(
            ratings.movie_ids[ratings.movies].tolist(),
            ratings.user_ids[ratings.users].tolist(),
            strict=True,
        )
    )
    changes = [
        {"this_movie": movie_id, "count_change": -count, "sum_change": -total}
        for movie_id, count, total in zip(*(it.tolist() for it in columns), strict=True)
        if count
    ]
    with Session(engine) as session, writing(session) as connection:
        connection.execute(DELETE_RATING, [*rows])
        connection.execute(ADJUST_AGGREGATES, changes)


def _read(engine: Engine, progress: Progress) -> Ratings:
    with Session(engine) as session, reading(session) as connection:
        [movie_ids] = read_integers(connection, MOVIE_IDS, progress)
        users, movies, scores = read_integers(connection, RATINGS_BY_TIME, progress)
    user_ids, user_indexes = np.unique(users, return_inverse=True)
    return Ratings(user_ids, movie_ids, user_indexes, np.searchsorted(movie_ids, movies), scores)


def _best_als(split: Split, progress: Progress) -> tuple[int, float, float]:
    qualities = {
        combination: judge(split, ranker_of(split, als(*combination, split.known))).ndcg.mean()
        for combination in progress.track(ALS_GRID, description="Choosing ALS's parameters")
    }
    return max(qualities, key=qualities.__getitem__)


def _compared(method: str, quality: Quality, as_served: Quality) -> Comparison:
    leads = as_served.ndcg - quality.ndcg
    resampled = np.random.default_rng(SEED).integers(len(leads), size=(RESAMPLES, len(leads)))
    low, high = np.percentile(leads[resampled].mean(axis=1), (2.5, 97.5))
    return Comparison(
        method,
        float(quality.ndcg.mean()),
        float(quality.recall.mean()),
        float(leads.mean()),
        (float(low), float(high)),
    )

"""How good the recommendations are as served, next to simpler methods, to ALS and uncut EASE.

Each user's latest fifth of ratings is held out. A method learns from the others, and ranks for the
user the movies that are not among them. Those held out that the user likes are the hits. What a
method leaves open is chosen on the fifth before, with what is earlier still.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress
from scipy import sparse
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from app.db import create_db_engine, create_migration_engine
from app.errors import SetupError
from app.migrate import MIGRATION_TIMEOUT, migrate_to_head
from app.models import utc_now
from app.recommender import statements
from app.recommender.neighbours import read_integers, replace_neighbours
from app.recommender.repository import RecommendationRepository
from app.recommender.training import Ids, Likes, learn, matrix_of, weights_of
from app.statements import ADJUST_AGGREGATES, MOVIE, PRIOR_COUNT, PRIOR_MEAN, RATING
from app.transactions import reading, writing

# So many users are ranked for, picked at random if there are more.
MAX_USERS = 2000
NDCG_AT, RECALL_AT = 10, 20
RESAMPLES = 2000
SEED = 20_000
# The grid of ALS: factors, regularization, alpha.
ALS_GRID = [*product((64, 128), (1.0, 3.0, 10.0, 30.0), (1.0, 3.0))]

Floats = NDArray[np.float64]
# Return a score of every movie for a user, and the movies to show first. All are places.
Scorer = Callable[[int], Floats]
Ranker = Callable[[int], Ids]


class Ratings(NamedTuple):
    """Ratings by user, each user's from the earliest to the latest.

    Users and movies are places in the lists of their ids.
    """

    user_ids: Ids
    movie_ids: Ids
    users: Ids
    movies: Ids
    scores: Ids

    def only(self, chosen: "slice | NDArray[np.bool_]") -> "Ratings":
        """Return some of the ratings."""
        users, movies, scores = self.users[chosen], self.movies[chosen], self.scores[chosen]
        return self._replace(users=users, movies=movies, scores=scores)

    def of(self, user: int) -> "Ratings":
        """Return a user's ratings."""
        return self.only(slice(*np.searchsorted(self.users, (user, user + 1))))

    @property
    def likes(self) -> "Ratings":
        """The ratings that are likes."""
        return self.only(self.scores >= statements.LIKE)

    @property
    def matrix(self) -> sparse.csr_array:
        """The matrix of users times movies, with 1 for each rating."""
        ones = np.ones(len(self.users), np.float32)
        shape = len(self.user_ids), len(self.movie_ids)
        return sparse.csr_array((ones, (self.users, self.movies)), shape=shape)


class Split(NamedTuple):
    """What is known to a method, and the hits of each user that it ranks for."""

    known: Ratings
    hits: dict[int, Ids]


class Quality(NamedTuple):
    """How good a method's rankings are, for each user."""

    ndcg: Floats
    recall: Floats


class Comparison(NamedTuple):
    """A method, and how it compares with the recommendations as served.

    Attributes:
        method: its name.
        ndcg: mean NDCG@10.
        recall: mean Recall@20.
        lead: how much higher NDCG@10 is as served.
        interval: of the lead, 95 %, by a paired bootstrap over users.
    """

    method: str
    ndcg: float
    recall: float
    lead: float
    interval: tuple[float, float]


def compare(session: Session, progress: Progress) -> list[Comparison]:
    """Return the recommendations as served, and then what they are compared with."""
    ratings = _read(session, progress)
    split = split_off(ratings, fifth=1)
    if not split.hits:
        raise SetupError(
            "There is nothing to evaluate: among the latest fifth of no user's ratings is a like.\n"
            "It takes users with five ratings or more."
        )
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
    with served(session, split, progress) as ranker:
        qualities = {"as served": judge(split, ranker)}
    for name, method in progress.track(methods.items(), description="Comparing"):
        qualities[name] = judge(split, ranker_of(split, method(split.known)))
    return [_compared(name, one, qualities["as served"]) for name, one in qualities.items()]


def split_off(ratings: Ratings, fifth: int) -> Split:
    """Hold out each user's latest fifth of ratings, or the fifth before with ``fifth=2``."""
    counts = np.bincount(ratings.users, minlength=len(ratings.user_ids))
    # Counted from the user's latest rating, which is 1.
    place = np.cumsum(counts)[ratings.users] - np.arange(len(ratings.users))
    size = counts[ratings.users] // 5
    held = ratings.only((place > (fifth - 1) * size) & (place <= fifth * size)).likes
    users = np.unique(held.users)
    if len(users) > MAX_USERS:
        users = np.sort(np.random.default_rng(SEED).choice(users, MAX_USERS, replace=False))
    hits = {user: held.of(user).movies for user in users.tolist()}
    return Split(ratings.only(place > fifth * size), hits)


def judge(split: Split, ranker: Ranker) -> Quality:
    """Return NDCG@10 and Recall@20 of each user's ranking."""
    discounts = 1 / np.log2(np.arange(NDCG_AT) + 2)
    ndcg, recall = [], []
    for user, hits in split.hits.items():
        is_hit = np.isin(ranker(user), hits)
        gains = is_hit[:NDCG_AT]
        ndcg.append(gains @ discounts[: len(gains)] / discounts[: len(hits)].sum())
        recall.append(np.count_nonzero(is_hit[:RECALL_AT]) / len(hits))
    return Quality(np.array(ndcg), np.array(recall))


def ranker_of(split: Split, scorer: Scorer) -> Ranker:
    """Return what ranks the movies that are new to a user by a score, and equals by id."""

    def rank(user: int) -> Ids:
        scores = scorer(user).copy()
        scores[split.known.of(user).movies] = -np.inf
        return np.argsort(-scores, kind="stable")[:RECALL_AT]

    return rank


def popularity(known: Ratings) -> Scorer:
    """Score by the number of ratings."""
    counts = np.bincount(known.movies, minlength=len(known.movie_ids)).astype(np.float64)
    return lambda _: counts


def weighted_ranking(known: Ratings) -> Scorer:
    """Score as ``/movies/top?ranking=weighted`` does."""
    counts = np.bincount(known.movies, minlength=len(known.movie_ids))
    totals = np.bincount(known.movies, known.scores, minlength=len(known.movie_ids))
    weighted = (totals + PRIOR_COUNT * PRIOR_MEAN) / (counts + PRIOR_COUNT)
    scores = np.where(counts, weighted, 0)
    return lambda _: scores


def item_cosine(known: Ratings) -> Scorer:
    """Score by the sum of the cosines between a movie's likes and those of each liked movie."""
    likes = known.likes.matrix
    norms = np.sqrt(np.maximum(likes.sum(axis=0), 1))
    normalized = (likes / norms[None, :]).tocsr()
    transposed = normalized.T.tocsr()
    return lambda user: transposed @ (normalized @ likes[[user]].toarray()[0])


def als(factors: int, regularization: float, alpha: float, known: Ratings) -> Scorer:
    """Score by the matrix factorization of Hu, Koren and Volinsky, as ``implicit`` does it.

    Source: Collaborative Filtering for Implicit Feedback Datasets, 2008.
    """
    from implicit.cpu.als import AlternatingLeastSquares  # noqa: PLC0415 - not always installed
    from threadpoolctl import threadpool_limits  # noqa: PLC0415 - comes with implicit

    # It has threads of its own, which those of BLAS would hinder.
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=factors, regularization=regularization, alpha=alpha, random_state=SEED
        )
        model.fit(sparse.csr_matrix(known.likes.matrix), show_progress=False)
    return lambda user: model.item_factors @ model.user_factors[user]


def ease(known: Ratings, progress: Progress) -> Scorer:
    """Score as it is served, but by every weight and every like."""
    likes = known.likes
    learnt, matrix = matrix_of(Likes(likes.movies, likes.users))
    weights = weights_of(matrix, progress)
    place = np.full(len(known.movie_ids), -1)
    place[learnt] = np.arange(len(learnt))
    ranking = weighted_ranking(known)

    def score(user: int) -> Floats:
        own = likes.of(user)
        latest_first = slice(None, None, -1)
        counts = np.where(own.scores == statements.LIKE, statements.WEIGHT_OF_4, 1)[latest_first]
        counts = counts / (1 + np.arange(len(counts)) / statements.HALF_LIFE)
        liked = place[own.movies[latest_first]]
        scores = ranking(user) - 1000
        if (liked >= 0).any():
            scores[learnt] = weights[:, liked[liked >= 0]] @ counts[liked >= 0]
        return scores

    return score


@contextmanager
def served(session: Session, split: Split, progress: Progress) -> Iterator[Ranker]:
    """Yield the recommendations of a service that knows what is known, on a scratch database."""
    known = split.known
    with tempfile.TemporaryDirectory(prefix="movie-evaluation-") as folder:
        url = f"sqlite:///{Path(folder) / 'movies.db'}"
        migrate_to_head(url)
        likes = known.likes
        neighbours = learn(
            Likes(known.movie_ids[likes.movies], known.user_ids[likes.users]), progress
        )
        training_engine = create_migration_engine(url, lock_timeout=MIGRATION_TIMEOUT)
        engine = create_db_engine(url)
        with Session(engine) as scratch:
            _fill(scratch, session, split)
            replace_neighbours(training_engine, neighbours)
            repository = RecommendationRepository(scratch)

            def rank(user: int) -> Ids:
                movies = repository.for_user(int(known.user_ids[user]), limit=RECALL_AT)
                return np.searchsorted(known.movie_ids, [movie.id for movie in movies])

            yield rank
        engine.dispose()


def _fill(scratch: Session, session: Session, split: Split) -> None:
    """Store all movies as they are known, and what is known of the users that are ranked for."""
    known = split.known
    counts = np.bincount(known.movies, minlength=len(known.movie_ids))
    totals = np.bincount(known.movies, known.scores, minlength=len(known.movie_ids))
    columns = (column.tolist() for column in (known.movie_ids, counts, totals.astype(int)))
    aggregates = [
        {"this_movie": movie_id, "count_change": count, "sum_change": total}
        for movie_id, count, total in zip(*columns, strict=True)
    ]
    unrated = {"rating_count": 0, "rating_sum": 0, "average_rating": None, "weighted_rating": None}
    with reading(session) as connection:
        movies = [dict(row) | unrated for row in connection.execute(select(MOVIE)).mappings()]
    started = utc_now()
    with writing(scratch) as connection:
        connection.execute(insert(MOVIE), movies)
        connection.execute(ADJUST_AGGREGATES, aggregates)
        for user in split.hits:
            own = known.of(user)
            rows = zip(known.movie_ids[own.movies].tolist(), own.scores.tolist(), strict=True)
            connection.execute(
                insert(RATING),
                [
                    {
                        "user_id": int(known.user_ids[user]),
                        "movie_id": movie_id,
                        "score": score,
                        # Of the time only the order counts.
                        "created_at": started + timedelta(seconds=place),
                    }
                    for place, (movie_id, score) in enumerate(rows)
                ],
            )


def _read(session: Session, progress: Progress) -> Ratings:
    with reading(session) as connection:
        [movie_ids] = read_integers(connection, statements.MOVIE_IDS, progress)
        users, movies, scores = read_integers(connection, statements.RATINGS_BY_TIME, progress)
    user_ids, user_places = np.unique(users, return_inverse=True)
    return Ratings(user_ids, movie_ids, user_places, np.searchsorted(movie_ids, movies), scores)


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

"""Ratings as arrays, and the methods that recommendations are compared with.

A method learns from known ratings and returns a function that scores every movie for one user.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress
from scipy import sparse

from app.recommender import statements
from app.recommender.training import Ids, Likes, matrix_of, weights_of
from app.statements import PRIOR_COUNT, PRIOR_MEAN

SEED = 20_000

Floats = NDArray[np.float64]
# Returns a score for every movie, given a user. Both are indexes into the lists of ids in Ratings.
Scorer = Callable[[int], Floats]


class Ratings(NamedTuple):
    """Ratings ordered by user, and for each user from the earliest to the latest.

    ``users`` and ``movies`` are indexes into ``user_ids`` and ``movie_ids``.
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
        """Return the ratings that are likes."""
        return self.only(self.scores >= statements.LIKE)

    @property
    def matrix(self) -> sparse.csr_array:
        """Return the matrix of users times movies, with 1 for each rating."""
        ones = np.ones(len(self.users), np.float32)
        shape = len(self.user_ids), len(self.movie_ids)
        return sparse.csr_array((ones, (self.users, self.movies)), shape=shape)

    @property
    def counts(self) -> Ids:
        """Return each movie's number of ratings."""
        return np.bincount(self.movies, minlength=len(self.movie_ids))

    @property
    def totals(self) -> Floats:
        """Return each movie's sum of scores."""
        return np.bincount(self.movies, self.scores, minlength=len(self.movie_ids)).astype(
            np.float64
        )


def popularity(known: Ratings) -> Scorer:
    """Score by the number of ratings."""
    counts = known.counts.astype(np.float64)
    return lambda _: counts


def weighted_ranking(known: Ratings) -> Scorer:
    """Score as ``/movies/top?ranking=weighted`` does."""
    counts = known.counts
    weighted = (known.totals + PRIOR_COUNT * PRIOR_MEAN) / (counts + PRIOR_COUNT)
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

    # implicit starts its own threads, and BLAS threads would compete with them.
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=factors, regularization=regularization, alpha=alpha, random_state=SEED
        )
        model.fit(sparse.csr_matrix(known.likes.matrix), show_progress=False)
    return lambda user: model.item_factors @ model.user_factors[user]


def ease(known: Ratings, progress: Progress) -> Scorer:
    """Score as the service does, but with all weights and all likes."""
    likes = known.likes
    learnt, matrix = matrix_of(Likes(likes.movies, likes.users))
    weights = weights_of(matrix, progress)
    index = np.full(len(known.movie_ids), -1)
    index[learnt] = np.arange(len(learnt))
    ranking = weighted_ranking(known)

    def score(user: int) -> Floats:
        own = likes.of(user)
        latest_first = slice(None, None, -1)
        counts = np.where(own.scores == statements.LIKE, statements.WEIGHT_OF_4, 1)[latest_first]
        counts = counts / (1 + np.arange(len(counts)) / statements.HALF_LIFE)
        liked = index[own.movies[latest_first]]
        # Movies without weights come last, in the order of the weighted ranking.
        scores = ranking(user) - 1000
        if (liked >= 0).any():
            scores[learnt] = weights[:, liked[liked >= 0]] @ counts[liked >= 0]
        return scores

    return score

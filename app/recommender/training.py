"""Training of the recommender. It needs numpy and scipy, which serving does not.

The method is EASE, a linear autoencoder with a closed-form solution. X is the users x movies matrix
with a 1 for each like, and

    P = (X'X + REGULARIZATION * I)^-1.

-P[i, j] is the evidence of a like of movie i for movie j, given all other likes. EASE divides it by
P[j, j]. This module does not: the weights stay symmetric and blockbusters crowd out fewer other
movies, which matters because only the NEIGHBOURS largest weights of each movie are kept.

Source: H. Steck, Embarrassingly Shallow Autoencoders for Sparse Data, 2019, arXiv:1905.03375.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress
from scipy import sparse
from scipy.linalg import lapack

# A movie with fewer likes gets no neighbours: they would be due to chance.
MIN_LIKES = 5
# Only the most liked movies are trained. P takes 4 * MAX_MOVIES^2 bytes, and the time of its
# inversion grows with the cube of MAX_MOVIES.
MAX_MOVIES = 16_000
NEIGHBOURS = 100
REGULARIZATION = 200.0
# Matrix columns processed at a time.
BLOCK = 256

Ids = NDArray[np.int64]
Weights = NDArray[np.float32]


class Likes(NamedTuple):
    """Distinct pairs of a movie and a user who likes it."""

    movie_ids: Ids
    user_ids: Ids


class Neighbours(NamedTuple):
    """Pairs of a movie and a neighbour with their weight, ordered by movie and neighbour."""

    movie_ids: Ids
    neighbour_ids: Ids
    weights: Weights


def learn(likes: Likes, progress: Progress) -> Neighbours:
    """Return each movie's NEIGHBOURS largest positive weights. The result is deterministic."""
    movie_ids, matrix = matrix_of(likes)
    weights = weights_of(matrix, progress)
    kept = min(NEIGHBOURS, max(0, len(movie_ids) - 1))
    parts = [np.empty((3, 0))]
    for start in progress.track(_blocks(len(movie_ids)), description="Choosing neighbours"):
        rows = weights[:, start : start + BLOCK].T
        places = np.sort(np.argpartition(rows, -kept, axis=1)[:, -kept:], axis=1)
        largest = np.take_along_axis(rows, places, axis=1)
        row, place = np.nonzero(largest > 0)
        parts.append(np.stack([start + row, places[row, place], largest[row, place]]))
    movies, neighbours, largest = np.concatenate(parts, axis=1)
    return Neighbours(
        movie_ids[movies.astype(np.intp)],
        movie_ids[neighbours.astype(np.intp)],
        largest.astype(np.float32),
    )


def matrix_of(likes: Likes) -> tuple[Ids, sparse.csr_array]:
    """Return the sorted ids of the trained movies, and their movies x users matrix of likes."""
    ids, row, counts = np.unique(likes.movie_ids, return_inverse=True, return_counts=True)
    most_liked = np.lexsort((ids, -counts))[:MAX_MOVIES]
    is_trained = np.zeros(len(ids), bool)
    is_trained[most_liked] = counts[most_liked] >= MIN_LIKES
    users, column = np.unique(likes.user_ids, return_inverse=True)
    pairs = is_trained[row]
    place = np.cumsum(is_trained) - 1
    matrix = sparse.csr_array(
        (np.ones(np.count_nonzero(pairs), np.float32), (place[row[pairs]], column[pairs])),
        shape=(np.count_nonzero(is_trained), len(users)),
    )
    return ids[is_trained], matrix


def weights_of(matrix: sparse.csr_array, progress: Progress) -> Weights:
    """Return -P with a diagonal of zeros, given the movies x users matrix of likes.

    P is computed in place and in single precision, so the memory is that of one matrix.
    """
    movies = matrix.shape[0]
    weights = np.zeros((movies, movies), np.float32, order="F")
    for start in progress.track(_blocks(movies), description="Counting likes in common"):
        block = slice(start, start + BLOCK)
        # LAPACK reads one triangle of a symmetric matrix.
        weights[start:, block] = (matrix[start:] @ matrix[block].T).toarray()
    if movies:
        np.einsum("ii->i", weights)[:] += REGULARIZATION
        _invert(weights, progress)
    for start in _blocks(movies):
        block, after = slice(start, start + BLOCK), slice(start + BLOCK, None)
        lower = np.tril(weights[block, block], -1)
        weights[block, block] = lower + lower.T
        weights[block, after] = weights[after, block].T
    return np.negative(weights, out=weights)


def _invert(matrix: Weights, progress: Progress) -> None:
    """Replace the lower triangle of a positive definite matrix with that of its inverse."""
    inverting = progress.add_task("Inverting", total=2)
    factor, failed = lapack.spotrf(matrix, lower=1, overwrite_a=1)
    progress.advance(inverting)
    if not failed:
        _, failed = lapack.spotri(factor, lower=1, overwrite_c=1)
    progress.advance(inverting)
    if failed:
        raise np.linalg.LinAlgError("X'X + REGULARIZATION * I is singular in single precision")


def _blocks(length: int) -> range:
    return range(0, length, BLOCK)

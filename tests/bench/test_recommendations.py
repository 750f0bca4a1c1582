"""The evaluation of recommendations: the held-out ratings, the metric, and the comparison."""

import math
from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from scripts.bench import recommendations
from scripts.bench.load import BenchError
from scripts.bench.recommendations import Split, compare, imported, judge, served, split_off
from scripts.bench.scorers import Ratings
from tests.helpers import movie_rows, problems_of, rating_rows

SILENT = Progress(disable=True)
NOTHING = np.array([], np.int64)
NO_RATINGS = Ratings(NOTHING, NOTHING, NOTHING, NOTHING, NOTHING)


def write_movielens(folder: Path, *ratings: tuple[int, int, int], movies: int = 24) -> Path:
    """Write a MovieLens folder. Ratings are (user, movie, score), earliest first."""
    titles = "".join(f"{n},Movie {n} (2000),Drama\n" for n in range(1, movies + 1))
    rows = "".join(
        f"{user},{movie},{score}.0,{time}\n" for time, (user, movie, score) in enumerate(ratings)
    )
    (folder / "movies.csv").write_text(f"movieId,title,genres\n{titles}")
    (folder / "ratings.csv").write_text(f"userId,movieId,rating,timestamp\n{rows}")
    return folder


def fives_for_even_or_odd_ids() -> list[tuple[int, int, int]]:
    """Return ratings by 20 users: half of them like the even ids, half the odd ones."""
    ratings = []
    for user in range(1, 21):
        own = [movie for movie in range(1, 25) if (movie + user) % 2 == 0]
        ratings += [(user, movie, 5) for movie in own[user // 2 :] + own[: user // 2]]
    return ratings


def test_each_users_latest_fifth_is_held_out_and_its_likes_are_the_hits() -> None:
    ids = np.arange(20)
    # A user with ten ratings, and one with four, of which a fifth is less than one.
    users = np.array([0] * 10 + [1] * 4)
    movies = np.array([*range(10), *range(4)])
    scores = np.array([5] * 6 + [5, 3, 4, 2] + [5] * 4)
    ratings = Ratings(ids[:2], ids, users, movies, scores)

    latest, before = split_off(ratings, fifth=1), split_off(ratings, fifth=2)

    assert {user: hits.tolist() for user, hits in latest.hits.items()} == {0: [8]}
    assert latest.known.movies.tolist() == [*range(8), *range(4)]
    assert latest.later.movies.tolist() == [8, 9]
    assert {user: hits.tolist() for user, hits in before.hits.items()} == {0: [6]}
    assert before.known.movies.tolist() == [*range(6), *range(4)]
    assert before.later.movies.tolist() == [6, 7, 8, 9]


def test_ndcg_discounts_hits_by_place_and_recall_counts_them() -> None:
    split = Split(NO_RATINGS, NO_RATINGS, {0: np.array([1, 2, 3])})

    # One hit at place 2 and one at place 12, of three.
    ranking = np.array([9, 1, *range(20, 29), 3])
    quality = judge(split, lambda _: ranking)

    assert quality.ndcg.tolist() == pytest.approx(
        [(1 / math.log2(3)) / (1 + 1 / math.log2(3) + 1 / math.log2(4))]
    )
    assert quality.recall.tolist() == pytest.approx([2 / 3])


def test_ideal_list_has_at_most_ten_places() -> None:
    hits = np.arange(15)
    split = Split(NO_RATINGS, NO_RATINGS, {0: hits})

    quality = judge(split, lambda _: hits)

    assert quality.ndcg.tolist() == pytest.approx([1])
    assert quality.recall.tolist() == pytest.approx([1])


def test_comparison_finds_that_served_recommendations_know_a_users_taste(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_movielens(tmp_path, *fives_for_even_or_odd_ids())
    # ALS searches a grid for seconds.
    monkeypatch.setattr(recommendations, "find_spec", lambda _: None)

    found = {one.method: one for one in compare(folder, SILENT)}

    others = ["popularity", "weighted ranking", "item cosine", "EASE, all weights"]
    assert [*found] == ["as served", *others]
    assert found["as served"].ndcg == found["EASE, all weights"].ndcg == 1
    assert found["popularity"].ndcg < 1
    assert found["popularity"].lead == pytest.approx(1 - found["popularity"].ndcg)


def test_served_recommendations_know_nothing_of_later_ratings(tmp_path: Path) -> None:
    ratings = [(1, movie, 5) for movie in range(1, 11)] + [(2, movie, 4) for movie in range(1, 5)]
    known = Ratings(
        np.array([1, 2]),
        np.arange(1, 25),
        np.array([0] * 8 + [1] * 4),
        np.array([*range(8), *range(4)]),
        np.array([5] * 8 + [4] * 4),
    )
    later = known._replace(users=np.array([0, 0]), movies=np.array([8, 9]), scores=np.array([5, 5]))

    with imported(write_movielens(tmp_path, *ratings), SILENT) as engine:
        ranking = served(engine, Split(known, later, {0: np.array([8])}), SILENT)(0)
        stored = {(row["user_id"], row["movie_id"]) for row in rating_rows(engine)}
        unrated = [row["id"] for row in movie_rows(engine) if row["rating_count"] == 0]
        problems = problems_of(engine)

    assert stored == {(user, movie) for user, movie, _ in ratings} - {(1, 9), (1, 10)}
    assert unrated == [*range(9, 25)]
    assert problems == []
    # Movie 9 is at index 8: the user's known ratings are left out, the later ones are not.
    assert {8, 9} < {*ranking.tolist()}
    assert not {*ranking.tolist()} & {*range(8)}


def test_comparison_of_too_few_ratings_is_an_error(tmp_path: Path) -> None:
    folder = write_movielens(tmp_path, (1, 1, 5), (1, 2, 5))

    with pytest.raises(BenchError, match="There is nothing to evaluate"):
        compare(folder, SILENT)

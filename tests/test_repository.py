"""MovieRepository: its queries and writes, on each engine.

A test with ``any_engine`` also runs on a plain engine and tables made from the models' metadata, as
in a notebook. Other tests need not: the tests of migrations prove the schemas equal, and those of
transactions run on both.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from itertools import count, product
from random import Random
from typing import Any, cast

import pytest
from sqlalchemy import Engine, event, func, select, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlmodel import Session

from app.checks import data_problems
from app.db import create_db_engine, reading, writing
from app.errors import DuplicateTitle, MovieNotFound, MoviesNotFound, RatingNotFound
from app.models import Movie, utc_now
from app.read_models import MovieRead, NewMovie, NewRating, Ranking, Sort
from app.repository import MovieRepository
from app.search import sort_title
from app.tables import MOVIE, RATING
from tests.databases import needs_postgresql
from tests.helpers import (
    HEAT,
    RONIN,
    SAMPLES,
    THREADS,
    Interrupted,
    Sample,
    everything,
    in_threads,
    movie_read,
    movie_row,
    movie_rows,
    problems_of,
    rating_rows,
    store,
)

SORTS: list[Sort] = ["title", "year", "id", "rating_count", "average_rating"]
RANKINGS: list[Ranking] = ["mean", "weighted"]


def aggregates(engine: Engine) -> list[tuple[int, int, float | None, float | None]]:
    """Return each movie's count, sum, average and weighted average, by id."""
    names = ("rating_count", "rating_sum", "average_rating", "weighted_rating")
    return [tuple(row[name] for name in names) for row in movie_rows(engine)]


def in_a_library(title: str) -> tuple[str, str]:
    """Return the key by which titles are sorted."""
    return sort_title(title), title


def titles(movies: list[MovieRead]) -> list[str]:
    """Return the titles of movies."""
    return [movie.title for movie in movies]


# Reading


def test_get_and_require_return_the_movie(repository: MovieRepository, engine: Engine) -> None:
    rated = Sample("Heat", 1995, "Crime", (5, 4))
    [movie_id] = store(engine, rated)

    assert repository.get(movie_id) == movie_read(movie_id, rated)
    assert repository.require(movie_id) == movie_read(movie_id, rated)


def test_get_returns_none_for_an_unknown_id_and_require_raises(
    repository: MovieRepository, session: Session
) -> None:
    assert repository.get(1) is None
    with pytest.raises(MovieNotFound):
        repository.require(1)
    assert not session.in_transaction()

    with writing(session):
        assert repository.get(1) is None
        with pytest.raises(MovieNotFound):
            repository.require(1)


def is_locked(engine: Engine, movie_id: int) -> bool:
    """Return whether a transaction has locked a movie, on PostgreSQL."""
    with engine.connect() as connection:
        lock = select(MOVIE.c.id).where(MOVIE.c.id == movie_id).with_for_update(nowait=True)
        try:
            connection.execute(lock)
        except OperationalError:
            return True
    return False


@needs_postgresql
def test_require_locks_the_movie_inside_writing_and_get_never_does(postgres_url: str) -> None:
    engine = create_db_engine(postgres_url)
    [movie_id] = store(engine, HEAT)
    with Session(engine) as session:
        repository = MovieRepository(session)
        found: list[tuple[str, bool]] = []
        for find in (repository.get, repository.require):
            with reading(session):
                find(movie_id)
                found.append(("reading", is_locked(engine, movie_id)))
            with writing(session):
                find(movie_id)
                found.append(("writing", is_locked(engine, movie_id)))
    engine.dispose()

    assert found == [("reading", False), ("writing", False), ("reading", False), ("writing", True)]


def test_list_sorts_titles_like_a_library_on_every_engine(
    repository: MovieRepository, engine: Engine
) -> None:
    store(engine, *SAMPLES)

    page = repository.list()

    assert titles(page) == sorted((sample.title for sample in SAMPLES), key=in_a_library)
    assert page.total == len(SAMPLES)


def test_sort_orders_by_its_column_with_null_below_every_value(
    repository: MovieRepository, engine: Engine
) -> None:
    store(engine, *SAMPLES)
    rows = movie_rows(engine)

    for sort in SORTS:
        page = repository.list(sort=sort)

        column = "sort_title" if sort == "title" else sort
        values = {row["id"]: row[column] for row in rows}
        expected = sorted(values.values(), key=lambda value: (value is not None, value))
        assert [values[movie.id] for movie in page] == expected


def test_every_page_is_a_slice_of_the_whole_list_in_both_directions(
    repository: MovieRepository, engine: Engine
) -> None:
    store(engine, *SAMPLES)
    total = len(SAMPLES)
    # Around the middle, after which pages are read backwards from the end, and around the end.
    offsets = (0, 1, 5, 6, 7, 9, total - 1, total, total + 1)

    for sort in SORTS:
        whole = list(repository.list(sort=sort))
        assert sorted(movie.id for movie in whole) == list(range(1, total + 1))
        for order, expected in ((sort, whole), (f"-{sort}", whole[::-1])):
            for limit, offset in product((1, 4, total + 1), offsets):
                page = repository.list(sort=order, limit=limit, offset=offset)  # type: ignore[arg-type] # one of SORTS or its reverse
                assert list(page) == expected[offset : offset + limit]
                assert page.total == total


def test_filters_apply_alone_and_combined(repository: MovieRepository, engine: Engine) -> None:
    store(engine, *SAMPLES)
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"genre": "Crime"}, ["Heat", "Zodiac"]),
        ({"genre": "crime"}, ["Heat", "Zodiac"]),
        ({"genre": "Western"}, []),
        ({"q": "WOLF"}, ["100% Wolf"]),
        ({"q": ""}, sorted((sample.title for sample in SAMPLES), key=in_a_library)),
        ({"year_min": 2016}, ["100% Wolf", "1001 Wolves", "Éternité"]),
        ({"year_max": 1972}, ["Solaris", "東京物語"]),
        ({"year_min": 1979, "year_max": 1979}, ["Alien", "alien"]),
        ({"year_min": 1980, "year_max": 1979}, []),
        ({"genre": "Sci-Fi", "q": "alien", "year_min": 1979, "year_max": 1979}, ["alien", "Alien"]),
        ({"genre": "Drama", "q": "alien"}, []),
        ({"genre": "Drama", "year_min": 2007}, ["Éternité", "Дом"]),
    ]

    pages = [repository.list(**filters) for filters, _ in cases]

    assert [titles(page) for page in pages] == [expected for _, expected in cases]
    assert [page.total for page in pages] == [len(expected) for _, expected in cases]


def test_search_matches_any_case_and_takes_wildcards_literally(
    repository: MovieRepository, engine: Engine
) -> None:
    expected = {
        "AMÉLIE": ["Amelie", "Amélie"],
        "élie": ["Amelie", "Amélie"],
        "amelie": ["Amelie", "Amélie"],
        "дОМ": ["Дом"],
        "STRASSE": ["Straße"],
        "ζεύΣ": ["ζεύς"],
        "京物": ["東京物語"],
        "😀": ["Smile 😀"],
        '\'s "QUOTED"; drop': ['It\'s "quoted"; DROP TABLE movie'],
        "0%": ["100% Wolf", "1000 Wolves"],
        "A_B": ["a.b", "a_b", "ab"],
        "c:\\dos": ["C:/DOS/Run", "C:\\DOS\\Run"],
        "\\": [],
        "%": [],
        "_": [],
        "a%b": ["a.b", "a_b", "ab"],
        "%%": [],
        "\\%": [],
        "*.?": [],
    }
    decoys = ("axb", "ab", "1000 Wolves", "C:/DOS/Run", "a.b")
    all_titles = sorted({*decoys, *(title for found in expected.values() for title in found)})
    store(engine, *(Sample(title, 2000, "Drama") for title in all_titles))

    found = {q: titles(repository.list(q=q)) for q in expected}

    assert found == expected


def test_top_ranks_by_the_ranking_with_unrated_last(
    repository: MovieRepository, engine: Engine
) -> None:
    samples: dict[str, tuple[int, ...]] = {
        "Unrated": (),
        "Disliked": (1, 1, 1),
        "Few Votes": (4, 4),
        # Weighted: (30 + 5) / 11 = 3.18 against (30 + 48) / 22 = 3.55 and (30 + 8) / 12 = 3.17.
        "One Vote": (5,),
        "Many Votes": (4,) * 12,
        "Also Unrated": (),
    }
    store(engine, *(Sample(title, 2000, "Drama", scores) for title, scores in samples.items()))

    mean, weighted = (titles(repository.top(100, ranking=ranking)) for ranking in RANKINGS)

    last = ["Few Votes", "Disliked", "Also Unrated", "Unrated"]
    assert mean == ["One Vote", "Many Votes", *last]
    assert weighted == ["Many Votes", "One Vote", *last]


def test_top_breaks_ties_by_number_of_ratings_then_title(
    repository: MovieRepository, engine: Engine
) -> None:
    # The middle of the scale is where an average and a weighted one tie at any number of ratings.
    for title, scores in {"c": (3,), "b": (3, 3), "D": (3, 3), "a": (3,), "É": (), "Z": ()}.items():
        store(engine, Sample(title, 2000, "Drama", scores))

    for ranking in RANKINGS:
        assert titles(repository.top(limit=6, ranking=ranking)) == ["D", "b", "a", "c", "Z", "É"]


def test_mean_ranking_reverses_the_sort_by_average(
    repository: MovieRepository, engine: Engine
) -> None:
    store(engine, *SAMPLES)

    ranked = repository.top(limit=100, min_ratings=1)

    assert ranked == repository.list(sort="-average_rating", limit=len(ranked))


def test_top_applies_limit_genre_and_minimum_number_of_ratings(
    repository: MovieRepository, engine: Engine
) -> None:
    store(engine, *SAMPLES)
    ranked = ["alien", "Solaris", "Æon Flux", "Alien"]
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"limit": 1}, ranked[:1]),
        ({}, ranked),
        ({"min_ratings": 1}, ranked[:3]),
        ({"min_ratings": 2}, ranked[:3]),
        ({"min_ratings": 3}, ranked[:1]),
        ({"min_ratings": 4}, []),
    ]

    for ranking in RANKINGS:
        found = [
            titles(repository.top(genre="Sci-Fi", ranking=ranking, **given)) for given, _ in cases
        ]
        assert found == [expected for _, expected in cases]


def test_top_fills_up_to_its_limit_with_unrated_movies(
    repository: MovieRepository, engine: Engine
) -> None:
    store(engine, *SAMPLES)
    rated = sum(bool(sample.scores) for sample in SAMPLES)

    for ranking in RANKINGS:
        movies = repository.top(limit=rated + 2, ranking=ranking)
        assert titles(movies)[rated:] == ["1001 Wolves", "Alien"]


def test_ratings_are_listed_by_id_in_pages(repository: MovieRepository, engine: Engine) -> None:
    store(engine, *SAMPLES)
    stored = [row["id"] for row in rating_rows(engine)]

    for limit, start in product((1, 4, len(stored)), range(len(stored) + 2)):
        page = repository.list_ratings(limit=limit, offset=start)
        following = repository.list_ratings(limit=limit, after=start)
        rest = stored[start:]

        assert [rating.id for rating in page] == rest[:limit]
        assert [rating.id for rating in following] == rest[:limit]
        assert page.total == following.total == len(stored)
        assert following.next == ({"after": rest[limit - 1]} if rest[limit:] else {})


def test_ratings_are_filtered_by_movie_and_user(
    repository: MovieRepository, engine: Engine
) -> None:
    store(engine, HEAT, RONIN)
    for movie_id, user_id in ((1, 7), (1, 8), (2, 7)):
        repository.add_rating(movie_id, 3, user_id)
    cases: list[tuple[dict[str, int], list[tuple[int, int]]]] = [
        ({}, [(1, 7), (1, 8), (2, 7)]),
        ({"movie_id": 1}, [(1, 7), (1, 8)]),
        ({"user_id": 7}, [(1, 7), (2, 7)]),
        ({"movie_id": 2, "user_id": 7}, [(2, 7)]),
        ({"movie_id": 2, "user_id": 8}, []),
        ({"movie_id": 3}, []),
    ]

    pages = [repository.list_ratings(**filters) for filters, _ in cases]

    found = [[(rating.movie_id, rating.user_id) for rating in page] for page in pages]
    assert found == [expected for _, expected in cases]
    assert [page.total for page in pages] == [len(expected) for _, expected in cases]


READS: dict[str, Callable[[MovieRepository], object]] = {
    "get": lambda repository: repository.get(1),
    "require": lambda repository: repository.require(1),
    "list": lambda repository: repository.list(),
    "top": lambda repository: repository.top(),
    "list_ratings": lambda repository: repository.list_ratings(),
    "problems": lambda repository: list(data_problems(repository.session)),
    "update without changes": lambda repository: repository.update(1),
}


def test_read_leaves_the_transaction_of_its_caller_open(
    repository: MovieRepository, session: Session, engine: Engine
) -> None:
    store(engine, HEAT)

    for name, read in READS.items():
        read(repository)
        assert not session.in_transaction(), name

        session.add(Movie(title=f"Not committed before {name}", year=2000))
        read(repository)
        assert session.in_transaction(), name
        session.commit()
        assert movie_rows(engine)[-1]["title"] == f"Not committed before {name}"


# Writing


def test_create_stores_the_movie_and_returns_it(
    repository: MovieRepository, engine: Engine
) -> None:
    movie = repository.create(title="Heat", year=1995, genre="Crime")

    assert movie == movie_read(1, HEAT)
    assert movie_rows(engine) == [movie_row(1, HEAT)]


def test_movie_added_as_a_table_row_is_found(any_engine: Engine) -> None:
    with Session(any_engine) as session:
        session.add(Movie(title="ÉTERNITÉ", year=2016))
        session.commit()

        page = MovieRepository(session).list(q="éternité")

    assert list(page) == [movie_read(1, Sample("ÉTERNITÉ", 2016, "Unknown"))]


def test_existing_title_raises_and_stores_nothing(
    repository: MovieRepository, engine: Engine
) -> None:
    store(engine, HEAT, RONIN)
    before = everything(engine)

    with pytest.raises(DuplicateTitle) as caught:
        repository.create(title="Heat", year=2001)
    with pytest.raises(DuplicateTitle):
        repository.update(2, title="Heat", year=2001, genre="Drama")

    assert isinstance(caught.value.__cause__, IntegrityError)
    assert everything(engine) == before
    assert repository.update(2, year=1999).year == 1999


def test_id_of_a_deleted_movie_is_never_reused(repository: MovieRepository, engine: Engine) -> None:
    [first] = store(engine, HEAT)
    repository.delete(first)

    [second] = store(engine, HEAT)

    assert second > first


def test_update_changes_only_the_given_fields(repository: MovieRepository, engine: Engine) -> None:
    zodiac = Sample("Zodiac", 2007, "Crime")
    store(engine, Sample("Heat", 1995, "Crime", (4,)), zodiac)
    cases: list[tuple[dict[str, Any], tuple[str, int, str]]] = [
        ({"title": "Ronin"}, ("Ronin", 1995, "Crime")),
        ({"year": 1998}, ("Heat", 1998, "Crime")),
        ({"genre": "Action"}, ("Heat", 1995, "Action")),
        ({"title": "Ronin", "year": 1998, "genre": "Action"}, ("Ronin", 1998, "Action")),
        ({"title": "Heat", "year": 1996}, ("Heat", 1996, "Crime")),
        ({}, ("Heat", 1995, "Crime")),
    ]

    for changes, expected in cases:
        repository.update(1, title="Heat", year=1995, genre="Crime")
        movie = repository.update(1, **changes)

        assert movie == repository.require(1) == movie_read(1, Sample(*expected, (4,)))
        assert repository.require(2) == movie_read(2, zodiac)
        assert rating_rows(engine) == [{"id": 1, "movie_id": 1, "user_id": None, "score": 4}]


def test_search_finds_the_changed_title(repository: MovieRepository, engine: Engine) -> None:
    store(engine, HEAT)

    repository.update(1, title="ÉTÉ")

    assert [titles(repository.list(q=q)) for q in ("été", "heat")] == [["ÉTÉ"], []]


def test_delete_removes_the_movie_with_its_ratings_and_no_others(any_engine: Engine) -> None:
    [first] = store(any_engine, Sample("Heat", 1995, "Crime", (5, 4)))
    [second] = store(any_engine, Sample("Ronin", 1998, "Action", (3,)))

    with Session(any_engine) as session:
        MovieRepository(session).delete(first)

    assert [row["id"] for row in movie_rows(any_engine)] == [second]
    assert [row["movie_id"] for row in rating_rows(any_engine)] == [second]
    assert problems_of(any_engine) == []


def test_rating_again_replaces_the_users_score_and_its_time(
    repository: MovieRepository, session: Session, engine: Engine
) -> None:
    store(engine, HEAT)
    repository.add_rating(1, 1, user_id=7)
    repository.add_rating(1, 3, user_id=8)
    session.execute(RATING.update().values(created_at=utc_now() - timedelta(days=1)))
    session.commit()
    first, other = repository.list_ratings()
    before = utc_now()

    replaced = repository.add_rating(1, 4, user_id=7)

    assert replaced == replace(first, score=4, created_at=replaced.created_at)
    assert before <= replaced.created_at <= utc_now()
    assert list(repository.list_ratings()) == [replaced, other]


def test_each_anonymous_rating_is_added_to_the_others(
    repository: MovieRepository, engine: Engine
) -> None:
    store(engine, HEAT)

    added = [repository.add_rating(1, 5, user_id) for user_id in (7, None, None)]

    assert list(repository.list_ratings()) == added
    assert [(rating.user_id, rating.score) for rating in added] == [(7, 5), (None, 5), (None, 5)]
    assert movie_rows(engine) == [movie_row(1, HEAT._replace(scores=(5, 5, 5)))]


def test_rating_aggregates_follow_every_write(repository: MovieRepository, engine: Engine) -> None:
    [movie_id] = store(engine, HEAT)
    steps: list[tuple[Callable[[], object], tuple[int, int, float | None, float | None]]] = [
        (lambda: repository.add_rating(movie_id, 5, 1), (1, 5, 5.0, 35 / 11)),
        (lambda: repository.add_rating(movie_id, 2, 2), (2, 7, 3.5, 37 / 12)),
        (lambda: repository.add_rating(movie_id, 1, 1), (2, 3, 1.5, 33 / 12)),
        (lambda: repository.add_rating(movie_id, 1, 1), (2, 3, 1.5, 33 / 12)),
        (lambda: repository.remove_rating(movie_id, 2), (1, 1, 1.0, 31 / 11)),
        (lambda: repository.remove_rating(movie_id, 1), (0, 0, None, None)),
        (lambda: repository.add_rating(movie_id, 3, 1), (1, 3, 3.0, 33 / 11)),
    ]

    for step, expected in steps:
        step()
        assert aggregates(engine) == [expected]
        assert list(data_problems(repository.session)) == []


def test_value_out_of_its_bounds_is_a_value_error_that_names_them_and_stores_nothing(
    any_engine: Engine,
) -> None:
    store(any_engine, HEAT)
    before = everything(any_engine)
    year, score = "year must be an integer from 1900", "score must be an integer from 1 to 5"
    user, tmdb = "user_id must be an integer from 1", "tmdb_id must be an integer from 1"
    title, genre = "must be at most 300 characters", "must be at most 100 characters"
    missing = [NewMovie("Alien", 1979), NewMovie("Too early", 1899)]
    ratings = [NewRating(1, 5, 7), NewRating(1, 6, 8)]
    writes: list[tuple[Callable[[MovieRepository], object], str]] = [
        (lambda repository: repository.create(title="Too early", year=1800), year),
        (lambda repository: repository.create(title="Too early", year=1899), year),
        (lambda repository: repository.create(title="Too late", year=2101), year),
        (lambda repository: repository.create(title="x" * 301, year=2000), title),
        (lambda repository: repository.create(title="Long", year=2000, genre="x" * 101), genre),
        (lambda repository: repository.create_missing(missing), year),
        (lambda repository: repository.update(1, title="Ronin", year=2101), year),
        (lambda repository: repository.add_rating(1, score=9), score),
        (lambda repository: repository.add_rating(1, score=0, user_id=7), score),
        (lambda repository: repository.add_ratings(ratings), score),
        (lambda repository: repository.add_rating(1, 5, 0), user),
        (lambda repository: repository.add_rating(1, 5, 2**53), user),
        (lambda repository: repository.update(1, tmdb_id=0), tmdb),
        (lambda repository: repository.update(1, tmdb_id=2**31), tmdb),
        # A value of another type, as a notebook may pass it.
        (lambda repository: repository.update(1, year=cast("int", 2000.5)), year),
        (lambda repository: repository.add_rating(1, cast("int", "5")), score),
    ]

    with Session(any_engine) as session:
        repository = MovieRepository(session)
        for write, bounds in writes:
            with pytest.raises(ValueError, match=bounds):
                write(repository)
            assert not session.in_transaction()
            assert everything(any_engine) == before


def test_write_to_an_unknown_row_raises_and_changes_nothing(
    repository: MovieRepository, session: Session, engine: Engine
) -> None:
    store(engine, Sample("Heat", 1995, "Crime", (3,)), RONIN)
    repository.add_rating(1, 4, user_id=7)
    repository.add_rating(2, 4, user_id=8)
    before = everything(engine)
    writes: list[tuple[Callable[[], object], type[Exception]]] = [
        (lambda: repository.update(3, title="Alien"), MovieNotFound),
        (lambda: repository.update(3), MovieNotFound),
        (lambda: repository.delete(3), MovieNotFound),
        (lambda: repository.add_rating(3, 5), MovieNotFound),
        (lambda: repository.add_rating(3, 5, 7), MovieNotFound),
        (lambda: repository.remove_rating(3, 7), MovieNotFound),
        (lambda: repository.remove_rating(1, 8), RatingNotFound),
        (lambda: repository.remove_rating(1, 9), RatingNotFound),
    ]

    for write, error in writes:
        with pytest.raises(error):
            write()
        assert not session.in_transaction()
        assert everything(engine) == before


def test_create_missing_adds_only_new_titles(repository: MovieRepository, engine: Engine) -> None:
    store(engine, HEAT)
    movies = [NewMovie(title=title, year=2000) for title in ("Heat", "Ronin", "Ronin")]

    created = repository.create_missing(movies)

    assert created == 1
    rows = [(row["title"], row["year"], row["search_title"]) for row in movie_rows(engine)]
    assert rows == [("Heat", 1995, "heat"), ("Ronin", 2000, "ronin")]


def test_create_missing_stores_nothing_when_its_source_fails(
    repository: MovieRepository, session: Session, engine: Engine
) -> None:
    def source() -> Iterator[NewMovie]:
        yield NewMovie(title="Heat", year=1995)
        raise Interrupted

    with pytest.raises(Interrupted):
        repository.create_missing(source())

    assert not session.in_transaction()
    assert movie_rows(engine) == []


WRITES: dict[str, Callable[[MovieRepository], object]] = {
    "create": lambda repository: repository.create(title="Ronin", year=1998),
    "create_missing": lambda repository: repository.create_missing(
        [NewMovie(title="Ronin", year=1998), NewMovie(title="Alien", year=1979)]
    ),
    "update": lambda repository: repository.update(1, title="Ronin"),
    "delete": lambda repository: repository.delete(1),
    "add_rating, first": lambda repository: repository.add_rating(1, 1, user_id=8),
    "add_rating, again": lambda repository: repository.add_rating(1, 1, user_id=7),
    "add_rating, anonymous": lambda repository: repository.add_rating(1, 1),
    "remove_rating": lambda repository: repository.remove_rating(1, user_id=7),
}


@contextmanager
def failing_at_statement(engine: Engine, number: int) -> Iterator[None]:
    """Interrupt the statement with this number, counted from 1."""
    statements = count(1)

    def interrupt(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement != "BEGIN" and next(statements) == number:
            raise Interrupted

    event.listen(engine, "before_cursor_execute", interrupt)
    yield
    event.remove(engine, "before_cursor_execute", interrupt)


@pytest.mark.parametrize("name", WRITES)
def test_write_is_committed_when_it_returns_or_leaves_nothing_behind(
    repository: MovieRepository, session: Session, engine: Engine, name: str
) -> None:
    store(engine, HEAT)
    repository.add_rating(1, 5, user_id=7)
    before = everything(engine)

    def interrupt(_connection: object) -> None:
        raise Interrupted

    event.listen(engine, "commit", interrupt)
    with pytest.raises(Interrupted):
        WRITES[name](repository)
    event.remove(engine, "commit", interrupt)
    assert not session.in_transaction()
    assert everything(engine) == before

    for number in count(1):
        try:
            with failing_at_statement(engine, number):
                WRITES[name](repository)
        except Interrupted:
            assert not session.in_transaction()
            assert everything(engine) == before
        else:
            break

    assert number > 1
    # Other sessions see it although this one is open, so it is committed.
    assert not session.in_transaction()
    assert everything(engine) != before
    assert list(data_problems(repository.session)) == []


# Many ratings at once


@pytest.mark.parametrize("seed", range(4))
def test_ratings_added_together_are_stored_like_ratings_added_one_by_one(
    repository: MovieRepository, engine: Engine, seed: int
) -> None:
    ids = store(engine, *(HEAT._replace(title=f"Heat {number}") for number in range(6)))
    alone, together = ids[:3], ids[3:]
    for movie_id in ids:
        repository.add_rating(movie_id, 2, user_id=1)
        repository.add_rating(movie_id, 4)
    random = Random(seed)  # noqa: S311 - any ratings will do
    batches = [
        [
            (random.randrange(3), random.randint(1, 5), random.choice([None, 1, 2, 3, 2**31 - 1]))
            for _ in range(random.randint(0, 12))
        ]
        for _ in range(5)
    ]

    for batch in batches:
        for place, score, user_id in batch:
            repository.add_rating(alone[place], score, user_id)
        repository.add_ratings(
            [NewRating(together[place], score, user_id) for place, score, user_id in batch]
        )

    rows = [(row["movie_id"], row["user_id"], row["score"]) for row in rating_rows(engine)]
    samples = {
        movie_id: place for place in range(3) for movie_id in (alone[place], together[place])
    }
    one_by_one, at_once = (
        [(samples[movie_id], *rest) for movie_id, *rest in rows if movie_id in group]
        for group in (alone, together)
    )
    assert sorted(at_once, key=str) == sorted(one_by_one, key=str)
    assert aggregates(engine)[3:] == aggregates(engine)[:3]
    assert [*data_problems(repository.session)] == []


def test_ratings_added_together_keep_their_order_and_replaced_ones_their_id(
    repository: MovieRepository, engine: Engine
) -> None:
    store(engine, HEAT, RONIN)
    repository.add_rating(2, 1, user_id=7)

    repository.add_ratings(
        [
            NewRating(1, 5, 8),
            NewRating(2, 4, 7),
            NewRating(1, 3),
            NewRating(1, 3),
            NewRating(1, 2, 8),
            NewRating(2, 2, 9),
        ]
    )

    assert rating_rows(engine) == [
        {"id": 1, "movie_id": 2, "user_id": 7, "score": 4},
        {"id": 2, "movie_id": 1, "user_id": 8, "score": 2},
        {"id": 3, "movie_id": 1, "user_id": None, "score": 3},
        {"id": 4, "movie_id": 1, "user_id": None, "score": 3},
        {"id": 5, "movie_id": 2, "user_id": 9, "score": 2},
    ]
    assert [found[:2] for found in aggregates(engine)] == [(3, 8), (2, 6)]


def test_ratings_of_unknown_movies_are_named_by_position_and_none_is_stored(
    repository: MovieRepository, engine: Engine
) -> None:
    store(engine, HEAT)
    repository.add_rating(1, 4, user_id=7)
    before = everything(engine)

    with pytest.raises(MoviesNotFound) as error:
        repository.add_ratings(
            [NewRating(1, 1, 7), NewRating(99, 5), NewRating(1, 5), NewRating(2**31 - 1, 5, 7)]
        )
    repository.add_ratings([])

    assert error.value.positions == [1, 3]
    assert everything(engine) == before


def test_ratings_added_together_join_an_open_transaction(
    repository: MovieRepository, session: Session, engine: Engine
) -> None:
    store(engine, HEAT)
    before = everything(engine)

    with suppress(Interrupted), writing(session):
        repository.add_ratings([NewRating(1, 5, 7)])
        with suppress(MoviesNotFound):
            repository.add_ratings([NewRating(1, 1, 7), NewRating(99, 1)])
        seen_inside = repository.list_ratings()
        raise Interrupted

    assert [(rating.user_id, rating.score) for rating in seen_inside] == [(7, 5)]
    assert everything(engine) == before


# Several writers


def test_threads_that_rate_the_same_movies_lose_no_update(
    repository: MovieRepository, engine: Engine
) -> None:
    movies = store(engine, HEAT, RONIN)
    shared_user = 99

    def rate(session: Session, number: int) -> None:
        own_repository = MovieRepository(session)
        for score in (1, 3, 5):
            for movie_id in movies:
                own_repository.add_rating(movie_id, score)
                own_repository.add_rating(movie_id, score, user_id=number)
                own_repository.add_rating(movie_id, score, user_id=shared_user)
        own_repository.remove_rating(movies[0], user_id=number)

    in_threads(engine, rate)

    assert list(data_problems(repository.session)) == []
    rows = rating_rows(engine)
    own = sorted((row["movie_id"], row["user_id"], row["score"]) for row in rows if row["user_id"])
    # The last rating of each thread is a five, regardless of the order of the threads.
    expected = [(movies[1], number, 5) for number in range(1, THREADS + 1)]
    assert own == [(movies[0], shared_user, 5), *expected, (movies[1], shared_user, 5)]
    assert sum(row["user_id"] is None for row in rows) == 3 * len(movies) * THREADS


def test_threads_that_rate_a_movie_while_it_is_deleted_leave_no_orphans(engine: Engine) -> None:
    [movie_id] = store(engine, HEAT)

    def work(session: Session, number: int) -> None:
        own_repository = MovieRepository(session)
        try:
            for score in (1, 2, 3, 4, 5):
                own_repository.add_rating(movie_id, score)
                if number == 1 and score == 3:
                    own_repository.delete(movie_id)
        except MovieNotFound:
            return

    in_threads(engine, work)

    assert everything(engine) == ([], [])


def test_threads_that_create_the_same_titles_store_each_once(engine: Engine) -> None:
    movies = [NewMovie(title=title, year=2000) for title in ("One", "Two", "Three")]
    created: list[int] = []
    refused: list[int] = []

    def create(session: Session, number: int) -> None:
        repository = MovieRepository(session)
        created.append(repository.create_missing(movies))
        try:
            repository.create(title="Heat", year=1995)
        except DuplicateTitle:
            refused.append(number)

    in_threads(engine, create)

    assert sorted(created) == [0] * (THREADS - 1) + [len(movies)]
    assert len(refused) == THREADS - 1
    assert [row["title"] for row in movie_rows(engine)] == ["One", "Two", "Three", "Heat"]


# Problems


def behind_the_repository(engine: Engine, statement: str) -> None:
    """Change data with foreign keys off."""
    if engine.dialect.name == "sqlite":
        connection = sqlite3.connect(str(engine.url.database))
        connection.execute(statement)
        connection.commit()
        connection.close()
    else:
        with engine.begin() as session:
            session.execute(text("SET LOCAL session_replication_role = replica"))
            session.execute(text(statement))


def test_sound_data_has_no_problems(repository: MovieRepository, engine: Engine) -> None:
    store(engine, *SAMPLES)

    assert list(data_problems(repository.session)) == []


def test_check_reports_aggregates_that_differ_from_the_ratings(
    repository: MovieRepository, session: Session, engine: Engine
) -> None:
    store(engine, Sample("Heat", 1995, "Crime", (4, 5)), Sample("Ronin", 1998, "Action", (3,)))

    for change in (
        "UPDATE movie SET rating_count = 3 WHERE id = 1",
        "UPDATE movie SET rating_sum = 8 WHERE id = 1",
        "UPDATE movie SET average_rating = 4 WHERE id = 1",
        "UPDATE movie SET weighted_rating = 4 WHERE id = 1",
        "UPDATE movie SET weighted_rating = NULL WHERE id = 1",
        "UPDATE movie SET rating_count = 0, rating_sum = 0, average_rating = NULL WHERE id = 1",
        "UPDATE rating SET score = 5 WHERE id = 1",
        "DELETE FROM rating WHERE id = 1",
        "DELETE FROM rating WHERE movie_id = 1",
    ):
        with suppress(Interrupted), writing(session):
            session.execute(text(change))
            problems = list(data_problems(repository.session))
            raise Interrupted

        assert problems == ["movie 1 (Heat): the rating aggregates differ from its ratings"], change


def test_check_reports_ratings_of_a_missing_movie(
    repository: MovieRepository, session: Session, engine: Engine
) -> None:
    store(engine, Sample("Heat", 1995, "Crime", (4, 5)))
    store(engine, Sample("Ronin", 1998, "Action", (3,)))
    behind_the_repository(engine, "DELETE FROM movie WHERE id = 1")

    problems = list(data_problems(repository.session))

    assert problems == [
        "movie_genre: 1 row(s) whose movie_id is of no movie, the first with movie_id 1",
        "movie_word: 1 row(s) whose movie_id is of no movie, the first with word heat",
        "rating: 2 row(s) whose movie_id is of no movie, the first with id 1",
    ]
    assert session.execute(select(func.count()).select_from(RATING)).scalar_one() == 3


ONE_MOMENT: dict[str, Callable[[MovieRepository], list[Any]]] = {
    "the last page of movies": lambda repository: repository.list(limit=2, offset=8, sort="id"),
    "the ranking": lambda repository: repository.top(100),
    "a page of ratings after an id": lambda repository: repository.list_ratings(after=2, limit=2),
    "the last page of ratings": lambda repository: repository.list_ratings(limit=2, offset=3),
}


@pytest.mark.parametrize("read", ONE_MOMENT.values(), ids=ONE_MOMENT)
def test_each_read_sees_one_snapshot(
    database_url: str, read: Callable[[MovieRepository], list[Any]]
) -> None:
    engine, of_another = create_db_engine(database_url), create_db_engine(database_url)
    store(engine, *SAMPLES[:10])

    def write(*_: object) -> None:
        with Session(of_another) as session:
            another = MovieRepository(session)
            another.add_rating(another.create(title="New", year=2000).id, 5)
            another.add_rating(4, 5)  # the first one of this movie

    with Session(engine) as session:
        repository = MovieRepository(session)
        before = read(repository)
        event.listen(engine, "after_cursor_execute", write, once=True)
        meanwhile = read(repository)
        after = repository.require(4).rating_count

    assert meanwhile == before
    assert after == 1
    engine.dispose()
    of_another.dispose()

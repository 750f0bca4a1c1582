"""Latencies on large catalogues compared with small ones, and those of whole files and training."""

import sqlite3
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from statistics import median

from scripts.bench.catalogues import (
    COMMON_GENRE,
    RARE_GENRE,
    RATINGS_A_USER,
    add_indexes_within_a_genre,
)
from scripts.bench.load import Target, get, load
from scripts.bench.movielens import (
    peak_memory,
    seconds_of_download,
    seconds_of_executemany,
    seconds_of_export,
    seconds_of_import,
)
from scripts.bench.plan import Plan, Row, load_in_turn
from scripts.bench.throughput import PAGE, some_batches

TRAINING_SECONDS = 5
BY_RATINGS = "SELECT user_id FROM rating GROUP BY user_id ORDER BY count(*), user_id"
# About as many ratings as a busy service commits together.
GROUP = 32


def reads_beside_searches(plan: Plan) -> Iterator[Row]:
    """Compare reads of one movie with and without clients that search and find nothing."""
    catalogue = plan.catalogue(movies=plan.many_movies, ratings=plan.ratings)
    searches = [get(f"/movies?q=nothing{n}") for n in range(1000)]
    name = f"GET /movies/{{id}} while {plan.clients} clients search {plan.many_movies:,} movies"
    plan.say(name)
    movie = [get("/movies/7")]
    with plan.service(catalogue) as port, ThreadPoolExecutor() as pool:
        alone = load(Target(port, movie, 1), plan.seconds, plan.folder)
        beside = Path(tempfile.mkdtemp(dir=plan.folder))
        busy = pool.submit(load, Target(port, searches, plan.clients), plan.seconds + 2, beside)
        time.sleep(1)
        among = load(Target(port, movie, 1), plan.seconds, plan.folder)
        searched = busy.result()
    note = (
        f"Beside it {searched.rate:,.0f} searches/s; "
        f"p99 {among.p99:,.1f} ms, {alone.p99:,.1f} ms without searches"
    )
    yield Row(
        name,
        f"{among.rate:,.0f}/s",
        f"{alone.rate:,.0f}/s without searches",
        among.rate / alone.rate,
        0.2,
        at_least=True,
        note=note,
    )


def top_at_two_sizes(plan: Plan) -> Iterator[Row]:
    """Compare the ranking's latency on many ratings with that on few."""
    requests = [get("/movies/top")]
    many = plan.catalogue(movies=plan.movies, ratings=plan.many_ratings)
    few = plan.catalogue(movies=plan.movies, ratings=plan.ratings)
    with plan.service(many) as on_many, plan.service(few) as on_few:
        name = f"GET /movies/top of {plan.many_ratings:,} ratings"
        plan.say(name)
        rounds = load_in_turn(plan, Target(on_many, requests, 1), Target(on_few, requests, 1))
        other = f"of {plan.ratings:,}"
        yield Row.of_latency(name, rounds, 1.3, other)


def last_page(plan: Plan) -> Iterator[Row]:
    """Compare the last page's latency with the first one's."""
    last = [get(f"/movies?limit={PAGE}&offset={plan.many_movies - PAGE}")]
    first = [get(f"/movies?limit={PAGE}")]
    with plan.service(plan.catalogue(movies=plan.many_movies, ratings=plan.ratings)) as port:
        name = f"Last page of {plan.many_movies:,} movies"
        plan.say(name)
        rounds = load_in_turn(plan, Target(port, last, 1), Target(port, first, 1))
        yield Row.of_latency(name, rounds, 3, "first page")


def within_a_genre(plan: Plan) -> Iterator[Row]:
    """Compare pages and rankings within a genre with those of the whole catalogue."""
    catalogue = plan.catalogue(movies=plan.many_movies, ratings=plan.ratings)
    reads = {
        f"/movies?limit={PAGE}": "page",
        "/movies/top?limit=10&ranking=mean": "mean ranking",
        "/movies/top?limit=10&ranking=weighted": "weighted ranking",
    }
    with plan.service(catalogue) as port:
        for path, read in reads.items():
            for genre in (COMMON_GENRE, RARE_GENRE):
                name = f"{read.capitalize()} within {genre} of {plan.many_movies:,} movies"
                plan.say(name)
                within = Target(port, [get(f"{path}&genre={genre}")], 1)
                rounds = load_in_turn(plan, within, Target(port, [get(path)], 1))
                yield Row.of_latency(name, rounds, 3, "of all genres")


def rating_without_indexes_within_a_genre(plan: Plan) -> Iterator[Row]:
    """Compare batches of ratings without and with indexes for rankings within a genre."""
    catalogue = plan.catalogue(movies=plan.movies, ratings=plan.ratings)
    with_indexes = plan.folder / "indexes-within-a-genre.db"
    add_indexes_within_a_genre(catalogue, with_indexes)
    batches = some_batches(plan, size=GROUP, count=2000)
    name = f"{GROUP} ratings in one commit, no index within a genre"
    plan.say(name)
    with plan.service(catalogue) as service, plan.service(with_indexes) as other:
        rounds = load_in_turn(plan, Target(service, batches, 1), Target(other, batches, 1))
        yield Row.of_latency(name, rounds, 0.7, "with two such indexes")


def deep_page_of_ratings(plan: Plan) -> Iterator[Row]:
    """Compare a page from the middle of the ratings with the first page, both by keyset."""
    deep = [get(f"/ratings?limit={PAGE}&after={plan.many_ratings // 2}")]
    first = [get(f"/ratings?limit={PAGE}&after=0")]
    catalogue = plan.catalogue(movies=plan.movies, ratings=plan.many_ratings)
    with plan.service(catalogue) as port:
        name = f"GET /ratings?after={plan.many_ratings // 2}"
        plan.say(name)
        rounds = load_in_turn(plan, Target(port, deep, 1), Target(port, first, 1))
        yield Row.of_latency(name, rounds, 1.3, "after=0")


def download_of_ratings(plan: Plan) -> Iterator[Row]:
    """Compare a download of all ratings with the export of the same catalogue."""
    catalogue = plan.catalogue(movies=plan.movies, ratings=plan.ratings)
    name = f"GET /ratings.csv of {plan.ratings:,} ratings"
    plan.say(name)
    with plan.service(catalogue) as port:
        turns = [
            (
                seconds_of_download(port, "/ratings.csv"),
                seconds_of_export(catalogue, plan.folder / "export"),
            )
            for _ in range(plan.rounds)
        ]
    mine, others = zip(*turns, strict=True)
    yield Row(
        name,
        f"{median(mine):.2f} s",
        f"{median(others):.2f} s export",
        median(one / another for one, another in turns),
        2,
        at_least=False,
    )


def movielens_import(plan: Plan) -> Iterator[Row]:
    """Compare the import of a MovieLens folder with storing its rows from memory."""
    source = plan.movielens
    if source is None:
        return
    name = f"Import of {source.resolve().name}"
    plan.say(name)
    imported, stored = plan.folder / "imported.db", plan.folder / "stored.db"
    turns = [
        (seconds_of_import(source, imported), seconds_of_executemany(imported, stored))
        for _ in range(plan.rounds)
    ]
    mine, others = zip(*turns, strict=True)
    peak = peak_memory("import-movielens", str(source), database=imported)
    before = peak_memory("--help", database=imported)
    yield Row(
        name,
        f"{median(mine):.2f} s",
        f"{median(others):.2f} s executemany",
        median(one / another for one, another in turns),
        2,
        at_least=False,
        note=f"The import's process needs {peak} MiB at most, {before} MiB before it starts",
    )


def recommendations(plan: Plan) -> Iterator[Row]:
    """Compare training with its aim in seconds, and recommendations with a page of ten movies."""
    if plan.movielens is None:
        return
    name = plan.movielens.resolve().name
    plan.say(f"Training on {name}")
    database = plan.folder / "recommended.db"
    peak_memory("import-movielens", str(plan.movielens), database=database)
    started = time.perf_counter()
    peak = peak_memory("train", database=database)
    seconds = time.perf_counter() - started
    yield Row(
        f"Training on {name}",
        f"{seconds:.1f} s",
        f"{TRAINING_SECONDS} s",
        seconds / TRAINING_SECONDS,
        1,
        at_least=False,
        note=f"The training's process needs {peak} MiB at most",
    )
    with closing(sqlite3.connect(database)) as connection:
        users = connection.execute(BY_RATINGS).fetchall()
        movies = connection.execute("SELECT DISTINCT movie_id FROM neighbour").fetchall()
    middle = len(users) // 2
    reads = {
        "GET /movies/{id}/similar": ([f"/movies/{movie}/similar" for (movie,) in movies], 1.5),
        "GET /recommendations/{user_id}, median user": (
            [f"/recommendations/{user}" for (user,) in users[middle - 5 : middle + 6]],
            4,
        ),
        "GET /recommendations/{user_id}, heaviest user": (
            [f"/recommendations/{user}" for (user,) in users[-1:]],
            10,
        ),
    }
    with plan.service(database) as port:
        page = Target(port, [get("/movies?limit=10")], 1)
        for read, (paths, aim) in reads.items():
            plan.say(read)
            rounds = load_in_turn(plan, Target(port, [*map(get, paths)], 1), page)
            yield Row.of_latency(read, rounds, aim, "page of ten")


def recommendations_at_two_sizes(plan: Plan) -> Iterator[Row]:
    """Compare the latency of recommendations on many ratings with that on few."""
    fewer = max(plan.ratings, plan.many_ratings // 10)
    many = plan.catalogue(movies=plan.movies, ratings=plan.many_ratings)
    few = plan.catalogue(movies=plan.movies, ratings=fewer)
    for catalogue in (many, few):
        plan.say(f"Training on {catalogue.stem}")
        peak_memory("train", database=catalogue)
    paths = {
        "GET /movies/{id}/similar": [f"/movies/{n}/similar" for n in range(1, plan.movies + 1)],
        "GET /recommendations/{user_id}": [
            f"/recommendations/{n}" for n in range(1, fewer // RATINGS_A_USER + 1)
        ],
    }
    with plan.service(many) as on_many, plan.service(few) as on_few:
        for read, requests in paths.items():
            name = f"{read} of {plan.many_ratings:,} ratings"
            plan.say(name)
            targets = (Target(port, [*map(get, requests)], 1) for port in (on_many, on_few))
            yield Row.of_latency(name, load_in_turn(plan, *targets), 1.3, f"of {fewer:,}")

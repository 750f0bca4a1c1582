"""Measures the service against the aims that it was built to, and prints a table of ratios.

Two contenders are loaded in turn, over and over, so that whatever else the machine does hits both.
A ratio is the median of its rounds' ratios.
"""

import os
import platform
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Annotated, NamedTuple

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from app.errors import UnusableFile
from scripts.bench.catalogues import (
    COMMON_GENRE,
    RARE_GENRE,
    RATINGS_A_USER,
    SEED,
    add_indexes_within_a_genre,
    fill_baseline,
    fill_baseline_on_postgresql,
    make_catalogue,
    postgresql_copy,
)
from scripts.bench.load import ANSWER_TIMEOUT, WRK, BenchError, Load, Target, get, load, post, serve
from scripts.bench.movielens import (
    peak_memory,
    seconds_of_download,
    seconds_of_executemany,
    seconds_of_export,
    seconds_of_import,
)

PACKAGES = ("fastapi", "starlette", "pydantic", "sqlmodel", "sqlalchemy", "uvicorn", "uvloop")
PAGE = 50
TRAINING_SECONDS = 5
BY_RATINGS = "SELECT user_id FROM rating GROUP BY user_id ORDER BY count(*), user_id"
BATCH = 1000
# About what a busy service commits together.
GROUP = 32
# So many different requests that few are repeated within a round.
REQUESTS = 20_000
# A round counts whole answers: of few slow ones the last, cut short, would weigh much.
ENOUGH_ANSWERS = 40


@dataclass
class Plan:
    """How large the catalogues are, and how long they are asked for what."""

    folder: Path
    console: Console
    movies: int
    ratings: int
    many_movies: int
    many_ratings: int
    clients: int
    seconds: float
    rounds: int
    movielens: Path | None
    postgres: str | None

    def say(self, text: str) -> None:
        """Tell what is being done, apart from the table."""
        self.console.print(f"{text} ...", style="dim")

    def catalogue(self, *, movies: int, ratings: int) -> Path:
        """Return a database with this many movies and ratings, which is made only once."""
        path = self.folder / f"{movies}-movies-{ratings}-ratings.db"
        if not path.exists():
            self.say(f"Making a catalogue of {movies:,} movies and {ratings:,} ratings")
            make_catalogue(path, movies=movies, ratings=ratings)
        return path

    @contextmanager
    def service(
        self, database: Path | str, *, read_cache: bool = False, workers: int = 1
    ) -> Iterator[int]:
        """Run the service on a catalogue or a URL, and yield its port."""
        environment = {
            "MOVIE_DATABASE_URL": _url(database),
            "MOVIE_READ_CACHE": str(read_cache),
        }
        log = self.folder / f"service-{workers}.log"
        with serve("app.main:app", log, environment, workers=workers) as port:
            yield port

    @contextmanager
    def baseline(self, database: Path | str) -> Iterator[int]:
        """Run the baseline on a copy of a catalogue, and yield its port."""
        copy = self.folder / "baseline.db" if isinstance(database, Path) else database
        environment = {"BASELINE_URL": _url(copy)}
        with serve("scripts.bench.baseline:app", self.folder / "baseline.log", environment) as port:
            if isinstance(copy, Path) and isinstance(database, Path):
                fill_baseline(copy, database)
            else:
                fill_baseline_on_postgresql(str(copy))
            yield port
        if isinstance(copy, Path):
            copy.unlink()


def _url(database: Path | str) -> str:
    return f"sqlite:///{database}" if isinstance(database, Path) else database


class Rounds(NamedTuple):
    """What came of loading a contender and another in turn."""

    contender: list[Load]
    other: list[Load]

    def compare(self, measure: Callable[[Load], float]) -> tuple[float, float, float]:
        """Return the median of each side, and the median of the rounds' ratios."""
        mine, others = (list(map(measure, loads)) for loads in self)
        ratios = [one / another for one, another in zip(mine, others, strict=True)]
        return median(mine), median(others), median(ratios)


class Row(NamedTuple):
    """A line of the table: a ratio and the bound that it should keep."""

    measured: str
    service: str
    compared_with: str
    ratio: float
    bound: float
    at_least: bool
    note: str = ""

    @classmethod
    def of_rate(cls, measured: str, rounds: Rounds, at_least: float, other: str) -> "Row":
        """Return the row of a rate that should be so many times another's."""
        mine, others, ratio = rounds.compare(lambda load: load.rate)
        compared_with = f"{others:,.0f}/s {other}"
        return cls(measured, f"{mine:,.0f}/s", compared_with, ratio, at_least, at_least=True)

    @classmethod
    def of_latency(
        cls, measured: str, rounds: Rounds, at_most: float, other: str, percentile: str = "median"
    ) -> "Row":
        """Return the row of a latency that should be at most so many times another's."""
        mine, others, ratio = rounds.compare(lambda load: getattr(load, percentile))
        compared_with = f"{others:,.2f} ms {other}"
        return cls(measured, f"{mine:,.2f} ms", compared_with, ratio, at_most, at_least=False)

    @property
    def is_met(self) -> bool:
        """Tell whether the ratio keeps its bound."""
        return self.ratio >= self.bound if self.at_least else self.ratio <= self.bound


def load_in_turn(plan: Plan, *targets: Target) -> Rounds:
    """Load two targets in turn, each for as long as it needs for enough answers."""
    lengths = [warm_up(plan, target) for target in targets]
    loads = [
        [load(*turn, plan.folder) for turn in zip(targets, lengths, strict=True)]
        for _ in range(plan.rounds)
    ]
    if not all(each.requests > each.errors for turn in loads for each in turn):
        raise BenchError("A server answers nothing but errors")
    return Rounds(*map(list, zip(*loads, strict=True)))


def warm_up(plan: Plan, target: Target) -> float:
    """Load a target for a moment, and return how many seconds a round of it has to last."""
    seconds = 1.0
    while not (first := load(target, seconds, plan.folder)).requests and seconds < ANSWER_TIMEOUT:
        seconds *= 2
    return max(plan.seconds, ENOUGH_ANSWERS * first.seconds / max(first.requests, 1))


def on_sqlite(plan: Plan) -> Iterator[Row]:
    """Load the service and the baseline on SQLite with each kind of request."""
    catalogue = plan.catalogue(movies=plan.movies, ratings=plan.ratings)
    aims = Aims(movie=3.5, page=4.5, top=120, ratings={1: 2, 8: 3.5, 64: 5})
    yield from against_baseline(plan, catalogue, aims)


def on_postgresql(plan: Plan) -> Iterator[Row]:
    """Load the service and the baseline on PostgreSQL with each kind of request."""
    if plan.postgres is None:
        return
    catalogue = plan.catalogue(movies=plan.movies, ratings=plan.ratings)
    aims = Aims(movie=1.5, page=2, top=1, ratings={8: 2, 64: 3})
    with postgresql_copy(plan.postgres, catalogue) as url:
        for row in against_baseline(plan, url, aims):
            yield row._replace(measured=f"PostgreSQL: {row.measured}")


class Aims(NamedTuple):
    """How many times the baseline's requests/s the service should answer."""

    movie: float
    page: float
    top: float
    # By number of clients.
    ratings: dict[int, float]


def against_baseline(plan: Plan, database: Path | str, aims: Aims) -> Iterator[Row]:
    """Load the service and the baseline, nothing cached, with each kind of request."""
    rng = random.Random(SEED)  # noqa: S311 - nothing is secret here
    any_movie = [get(f"/movies/{rng.randint(1, plan.movies)}") for _ in range(REQUESTS)]
    reads = [
        ("GET /movies/{id}", any_movie, aims.movie),
        (f"GET /movies?limit={PAGE}", [get(f"/movies?limit={PAGE}")], aims.page),
        (f"GET /movies/top of {plan.ratings:,} ratings", [get("/movies/top")], aims.top),
        ("GET /health, an empty route", [get("/health")], 0.8),
    ]
    with plan.service(database) as service, plan.baseline(database) as baseline:
        for name, requests, aim in reads:
            plan.say(name)
            targets = (Target(port, requests, plan.clients) for port in (service, baseline))
            yield Row.of_rate(name, load_in_turn(plan, *targets), aim, "baseline")
        requests = some_ratings(plan)
        for clients, aim in aims.ratings.items():
            name = f"POST /ratings, {clients} client(s)"
            plan.say(name)
            targets = (Target(port, requests, clients) for port in (service, baseline))
            rounds = load_in_turn(plan, *targets)
            failed = [
                f"{side} {sum(one.errors for one in loads)} of {sum(x.requests for x in loads)}"
                for side, loads in zip(("service", "baseline"), rounds, strict=True)
            ]
            note = f"{name} that failed: {', '.join(failed)}"
            yield Row.of_rate(name, rounds, aim, "baseline")._replace(note=note)
            yield Row.of_latency(f"{name}, p99", rounds, 1, "baseline", "p99")


def some_ratings(plan: Plan) -> list[bytes]:
    """Return ratings of any movies, each by another user."""
    rng = random.Random(SEED)  # noqa: S311 - nothing is secret here
    return [
        post(
            "/ratings",
            {"movie_id": rng.randint(1, plan.movies), "user_id": user, "score": rng.randint(1, 5)},
        )
        for user in range(1, REQUESTS + 1)
    ]


def workers_on_postgresql(plan: Plan) -> Iterator[Row]:
    """Load two workers and one on PostgreSQL, and the baseline with the mix."""
    if plan.postgres is None:
        return
    rng = random.Random(SEED)  # noqa: S311 - nothing is secret here
    any_movie = [get(f"/movies/{rng.randint(1, plan.movies)}") for _ in range(REQUESTS)]
    mix = ("Nine reads for each rating", mixed(plan), plan.clients)
    loads = (
        ("GET /movies/{id}", any_movie, plan.clients),
        ("GET /movies/top", [get("/movies/top")], plan.clients),
        ("POST /ratings, 64 client(s)", some_ratings(plan), 64),
        mix,
    )
    catalogue = plan.catalogue(movies=plan.movies, ratings=plan.ratings)
    with postgresql_copy(plan.postgres, catalogue) as url, plan.service(url) as one:
        with plan.service(url, workers=2) as two:
            for name, requests, clients in loads:
                plan.say(name)
                rounds = load_in_turn(plan, *(Target(p, requests, clients) for p in (two, one)))
                title = f"PostgreSQL: {name}, two workers"
                yield Row.of_rate(title, rounds, 1, "one worker")
        name, requests, clients = mix
        plan.say(name)
        with plan.baseline(url) as baseline:
            rounds = load_in_turn(plan, *(Target(p, requests, clients) for p in (one, baseline)))
            yield Row.of_rate(f"PostgreSQL: {name}", rounds, 2, "baseline")


def mixed(plan: Plan) -> list[bytes]:
    """Return nine reads for each rating."""
    rng = random.Random(SEED)  # noqa: S311 - nothing is secret here
    requests = []
    for rating in some_ratings(plan)[: REQUESTS // 10]:
        reads = [get(f"/movies/{rng.randint(1, plan.movies)}") for _ in range(6)]
        pages = [get(f"/movies?limit={PAGE}&offset={PAGE * rng.randrange(100)}") for _ in range(3)]
        requests += [rating, *reads, *pages]
    return requests


def some_batches(plan: Plan, *, size: int, count: int) -> list[bytes]:
    """Return batches of ratings of different movies, each batch by another user."""
    rng = random.Random(SEED)  # noqa: S311 - nothing is secret here
    return [
        post(
            "/ratings/batch",
            [
                {"movie_id": movie, "user_id": user, "score": rng.randint(1, 5)}
                for movie in rng.sample(range(1, plan.movies + 1), size)
            ],
        )
        for user in range(1, count + 1)
    ]


def nine_reads_a_rating(plan: Plan) -> Iterator[Row]:
    """Load the service, as it comes, and the baseline with nine reads for each rating."""
    catalogue = plan.catalogue(movies=plan.movies, ratings=plan.ratings)
    requests = mixed(plan)
    name = "Nine reads for each rating, default settings"
    plan.say(name)
    with plan.baseline(catalogue) as baseline:
        with plan.service(catalogue, read_cache=True) as service:
            targets = [Target(port, requests, plan.clients) for port in (service, baseline)]
            rounds = load_in_turn(plan, *targets)
            yield Row.of_rate(name, rounds, 4, "baseline")
            yield Row.of_latency(f"{name}, p99", rounds, 0.33, "baseline", "p99")
            name = f"GET /movies?limit={PAGE} from memory, against an empty route"
            plan.say(name)
            page = Target(service, [get(f"/movies?limit={PAGE}")], plan.clients)
            empty = Target(baseline, [get("/health")], plan.clients)
            yield Row.of_rate(name, load_in_turn(plan, page, empty), 1.8, "baseline's empty route")
        name = "Nine reads for each rating, two workers"
        plan.say(name)
        with (
            plan.service(catalogue, read_cache=True, workers=2) as two,
            plan.service(catalogue, read_cache=True) as one,
        ):
            targets = [Target(port, requests, plan.clients) for port in (two, one)]
            yield Row.of_rate(name, load_in_turn(plan, *targets), 1.6, "one worker")


def batches_of_ratings(plan: Plan) -> Iterator[Row]:
    """Compare ratings sent a thousand at a time with the same sent one by one, per rating."""
    catalogue = plan.catalogue(movies=plan.movies, ratings=plan.ratings)
    batches = some_batches(plan, size=BATCH, count=20)
    name = f"POST /ratings/batch of {BATCH:,}, per rating"
    plan.say(name)
    with plan.service(catalogue) as port:
        targets = Target(port, batches, 1), Target(port, some_ratings(plan), 1)
        mine, others, ratio = load_in_turn(plan, *targets).compare(lambda one: one.rate)
    compared_with = f"{others:,.0f}/s one by one"
    yield Row(name, f"{mine * BATCH:,.0f}/s", compared_with, ratio * BATCH, 20, at_least=True)


def reads_beside_searches(plan: Plan) -> Iterator[Row]:
    """Load the service and the baseline with one movie while clients search in vain."""
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
    """Compare ratings with the same on a catalogue that has an index for each genre's rankings."""
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
    """Compare a page of ratings far into a list with its first, both by keyset."""
    deep = [get(f"/ratings?limit={PAGE}&after={plan.many_ratings // 2}")]
    first = [get(f"/ratings?limit={PAGE}&after=0")]
    catalogue = plan.catalogue(movies=plan.movies, ratings=plan.many_ratings)
    with plan.service(catalogue) as port:
        name = f"GET /ratings?after={plan.many_ratings // 2:,}"
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
        note=f"The import's process holds {peak} MiB at most, {before} MiB before it starts",
    )


def recommendations(plan: Plan) -> Iterator[Row]:
    """Compare what MovieLens' users should watch next with a page of ten movies."""
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
        note=f"The training's process holds {peak} MiB at most",
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


MEASUREMENTS = (
    on_sqlite,
    nine_reads_a_rating,
    batches_of_ratings,
    reads_beside_searches,
    top_at_two_sizes,
    last_page,
    within_a_genre,
    rating_without_indexes_within_a_genre,
    deep_page_of_ratings,
    download_of_ratings,
    movielens_import,
    recommendations,
    recommendations_at_two_sizes,
    on_postgresql,
    workers_on_postgresql,
)


def report(rows: list[Row], plan: Plan) -> None:
    """Print the table and what is needed to judge it."""
    # A table that is pasted elsewhere must not be folded.
    plan.console.width = max(plan.console.width, 120)
    columns = ("measured", "service", "compared with", "ratio", "aim", "result")
    table = Table(*columns, box=box.MARKDOWN)
    for row in rows:
        aim = f"{'at least' if row.at_least else 'at most'} {row.bound:g}"
        result = "[green]met[/green]" if row.is_met else "[red]missed[/red]"
        table.add_row(row.measured, row.service, row.compared_with, f"{row.ratio:.2f}", aim, result)
    plan.console.print(table)
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    client = "wrk" if WRK else "a client in Python, which costs more than wrk"
    load_facts = f"{plan.rounds} rounds of at least {plan.seconds:g} s, {plan.clients} connections"
    for line in (
        *(row.note for row in rows if row.note),
        *([] if plan.movielens else ["The import was not measured: --movielens FOLDER"]),
        "Nothing is cached but in the rows that say so; ratings with synchronous=FULL",
        f"{load_facts} of {client}",
        f"{plan.movies:,} movies where no other number stands; {os.cpu_count()} cores, one worker",
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {versions}",
    ):
        plan.console.print(line)


def bench(
    *,
    movies: Annotated[int, typer.Option(min=1, help="Movies in most catalogues.")] = 10_000,
    ratings: Annotated[int, typer.Option(min=1, help="Ratings in most catalogues.")] = 100_000,
    many_movies: Annotated[
        int, typer.Option(min=PAGE, help="Movies where pages are far apart.")
    ] = 87_000,
    many_ratings: Annotated[
        int,
        typer.Option(min=1, help="Ratings where there are many; 10 million take 1 GB of disk."),
    ] = 10_000_000,
    clients: Annotated[int, typer.Option(min=1, help="Connections that send at once.")] = 8,
    seconds: Annotated[float, typer.Option(min=1, help="The least that a round lasts.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="How often each contender is loaded.")] = 5,
    movielens: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="A MovieLens folder, to measure its import."
        ),
    ] = None,
    postgres: Annotated[
        str | None,
        typer.Option(help="The URL of a PostgreSQL database, to measure on its server too."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Where to keep the catalogues meanwhile."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A short look: a million ratings, 2 rounds of 1 s.")
    ] = False,
) -> None:
    """Measure the service on catalogues that it makes, and print one table of ratios."""
    console = Console()
    if quick:
        many_ratings, seconds, rounds = min(many_ratings, 1_000_000), 1, 2
    with tempfile.TemporaryDirectory(dir=folder, prefix="movie-bench-") as workplace:
        plan = Plan(
            folder=Path(workplace),
            console=console,
            movies=movies,
            ratings=ratings,
            many_movies=many_movies,
            many_ratings=many_ratings,
            clients=clients,
            seconds=seconds,
            rounds=rounds,
            movielens=movielens,
            postgres=postgres,
        )
        try:
            rows = [row for measurement in MEASUREMENTS for row in measurement(plan)]
        except (BenchError, UnusableFile) as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(1) from None
        report(rows, plan)


if __name__ == "__main__":
    # Servers and catalogues go away with the bench, also where it is told to stop.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    typer.run(bench)

"""Requests per second of the service, compared with the baseline and with more workers."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from scripts.bench.catalogues import SEED, postgresql_copy
from scripts.bench.load import Target, get, post
from scripts.bench.plan import Plan, Row, load_in_turn

PAGE = 50
BATCH = 1000
# Enough different requests that few repeat within a round.
REQUESTS = 20_000


def on_sqlite(plan: Plan) -> Iterator[Row]:
    """Compare the service with the baseline on SQLite."""
    catalogue = plan.catalogue(movies=plan.movies, ratings=plan.ratings)
    aims = Aims(movie=3.5, page=4.5, top=120, ratings={1: 2, 8: 3.5, 64: 5})
    yield from against_baseline(plan, catalogue, aims)


def on_postgresql(plan: Plan) -> Iterator[Row]:
    """Compare the service with the baseline on PostgreSQL."""
    if plan.postgres is None:
        return
    catalogue = plan.catalogue(movies=plan.movies, ratings=plan.ratings)
    aims = Aims(movie=1.5, page=2, top=1, ratings={8: 2, 64: 3})
    with postgresql_copy(plan.postgres, catalogue) as url:
        for row in against_baseline(plan, url, aims):
            yield row._replace(measured=f"PostgreSQL: {row.measured}")


class Aims(NamedTuple):
    """The least ratios of the service's requests/s to the baseline's."""

    movie: float
    page: float
    top: float
    # Keys are numbers of clients.
    ratings: dict[int, float]


def against_baseline(plan: Plan, database: Path | str, aims: Aims) -> Iterator[Row]:
    """Compare the service with the baseline on each kind of request, without the read cache."""
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
    """Return ratings of random movies, each by a different user."""
    rng = random.Random(SEED)  # noqa: S311 - nothing is secret here
    return [
        post(
            "/ratings",
            {"movie_id": rng.randint(1, plan.movies), "user_id": user, "score": rng.randint(1, 5)},
        )
        for user in range(1, REQUESTS + 1)
    ]


def workers_on_postgresql(plan: Plan) -> Iterator[Row]:
    """Compare two workers with one, and one with the baseline, on PostgreSQL."""
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
    """Return batches of ratings of different movies, each batch by a different user."""
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
    """Compare the service with default settings to the baseline: nine reads for each rating."""
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
    """Compare BATCH ratings per request with one rating per request, per rating."""
    catalogue = plan.catalogue(movies=plan.movies, ratings=plan.ratings)
    batches = some_batches(plan, size=BATCH, count=20)
    name = f"POST /ratings/batch of {BATCH:,}, per rating"
    plan.say(name)
    with plan.service(catalogue) as port:
        targets = Target(port, batches, 1), Target(port, some_ratings(plan), 1)
        mine, others, ratio = load_in_turn(plan, *targets).compare(lambda one: one.rate)
    compared_with = f"{others:,.0f}/s one by one"
    yield Row(name, f"{mine * BATCH:,.0f}/s", compared_with, ratio * BATCH, 20, at_least=True)

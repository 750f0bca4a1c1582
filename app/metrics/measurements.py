"""Prometheus metrics of the service."""

import os
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector
from sqlalchemy.exc import DBAPIError

from app.errors import DatabaseError
from app.observer import Observer

# Route labels: of requests that match no route, and of routes that are no API operation, such as
# /docs. Paths are not used as labels, because clients could invent any number of them.
UNKNOWN, FILE = "(unknown)", "(file)"
OTHER = "(other)"
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
# In seconds, from a cached response to a write that waited in the queue and for the lock.
DURATIONS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
BATCHES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

# Do not export a second series, _created, for each counter and histogram.
disable_created_metrics()  # type: ignore[no-untyped-call] # untyped in the library


class Measurements(Observer):
    """Records measurements as Prometheus metrics.

    Args:
        folder: where workers share their measurements; None for a single process.
        database_bytes: returns the size of each part of the database.
    """

    def __init__(
        self, folder: Path | None, database_bytes: Callable[[], Mapping[str, int]]
    ) -> None:
        registry = CollectorRegistry()
        self._folder = folder
        self._requests = Counter(
            "movie_http_requests",
            "Requests answered.",
            ("route", "method", "status"),
            registry=registry,
        )
        self._durations = Histogram(
            "movie_http_request_duration_seconds",
            "Time from a request's head to the end of its response.",
            ("route", "method"),
            buckets=DURATIONS,
            registry=registry,
        )
        cache = Counter(
            "movie_read_cache_requests",
            "Lookups in the read cache, by hit or miss.",
            ("result",),
            registry=registry,
        )
        self._hits, self._misses = cache.labels("hit"), cache.labels("miss")
        self._interrupted = Counter(
            "movie_reads_interrupted",
            "Reads repeated in a worker thread because they took too long or met a lock.",
            registry=registry,
        )
        self._waiting = Gauge(
            "movie_writers_waiting",
            "Requests waiting to write.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._ratings = Counter(
            "movie_ratings_committed", "Ratings stored over HTTP.", registry=registry
        )
        self._batches = Histogram(
            "movie_ratings_per_commit",
            "Ratings per commit.",
            buckets=BATCHES,
            registry=registry,
        )
        # By label values: labels() takes longer than counting.
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._published = registry
        if folder is None:
            ProcessCollector(registry=registry)
        else:
            self._published = CollectorRegistry()
            MultiProcessCollector(self._published, str(folder))  # type: ignore[no-untyped-call] # untyped in the library
        self._published.register(_DatabaseSize(database_bytes))

    def request_finished(
        self, scope: MutableMapping[str, Any], status: int, seconds: float
    ) -> None:
        """Count a request and its duration."""
        path = FILE if "endpoint" in scope else UNKNOWN
        if (route := scope.get("route")) is not None:
            path = route.path_format
        method = scope["method"] if scope["method"] in METHODS else OTHER
        children = self._children.get((path, method, status))
        if children is None:
            children = (
                self._requests.labels(path, method, status),
                self._durations.labels(path, method),
            )
            self._children[path, method, status] = children
        requests, durations = children
        requests.inc()
        durations.observe(seconds)

    def cache_lookup(self, *, hit: bool) -> None:
        """Count a hit or a miss."""
        (self._hits if hit else self._misses).inc()

    def read_interrupted(self) -> None:
        """Count an interrupted read."""
        self._interrupted.inc()

    def waiting_writers_changed(self, change: int) -> None:
        """Change the number of waiting requests."""
        self._waiting.inc(change)

    def ratings_committed(self, count: int) -> None:
        """Count a commit and its ratings."""
        self._ratings.inc(count)
        self._batches.observe(count)

    def exposition(self) -> bytes:
        """Return the measurements of all workers in Prometheus' text format."""
        if self._folder is not None:
            _forget_dead_workers(self._folder)
        return generate_latest(self._published)


class _DatabaseSize(Collector):
    """Reads the database's size on demand, and omits it if the database is unavailable."""

    def __init__(self, database_bytes: Callable[[], Mapping[str, int]]) -> None:
        self._database_bytes = database_bytes

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Yield nothing: registering must not query the database."""
        yield from ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the size of each part."""
        size = GaugeMetricFamily(
            "movie_database_bytes", "Size of the database, by part.", labels=("part",)
        )
        try:
            for part, number in self._database_bytes().items():
                size.add_metric([part], number)
        except (DBAPIError, DatabaseError):
            return
        yield size


def _forget_dead_workers(folder: Path) -> None:
    """Remove the numbers of waiting writers of killed workers."""
    # The library does not document its file names: see tests/test_private_names.py.
    for file in folder.glob("gauge_live*_*.db"):
        process = int(file.stem.rpartition("_")[2])
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            mark_process_dead(process, str(folder))  # type: ignore[no-untyped-call] # untyped in the library
        except PermissionError:
            pass  # alive, as another user

"""``GET /metrics``: its counters, which add up over several workers."""

import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import event

from app.config import Settings
from app.dependencies import service_of
from app.errors import DatabaseUnavailable
from app.limits import Limits
from app.main import create_app
from tests.databases import locked
from tests.helpers import HEAT, store
from tests.server import running_server, wait_until

ALIEN = {"title": "Alien", "year": 1979}
FIVE_STARS = {"movie_id": 1, "user_id": 1, "score": 5}
Samples = dict[tuple[str, ...], float]


def measured(response: httpx.Response | httpx2.Response, name: str) -> Samples:
    """Return the values of a metric by their labels, in the order of the labels' names."""
    assert response.status_code == 200
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
        if sample.name == name
    }


def metered(
    database_url: str,
    limits: Limits = Limits(),  # noqa: B008 - immutable
    **settings: Any,  # noqa: ANN401 - settings of any type
) -> TestClient:
    """Return a client of the service with metrics, on one movie."""
    options = {"auto_setup": False, "metrics": True, **settings}
    app = create_app(Settings(database_url=database_url, **options), limits)
    store(service_of(app).database.engine, HEAT)
    return TestClient(app, raise_server_exceptions=False)


@pytest.fixture
def client(database_url: str) -> Iterator[TestClient]:
    """Yield a client of the running service with metrics."""
    with metered(database_url) as client:
        yield client


def test_requests_are_counted_by_route_template_method_and_status(client: TestClient) -> None:
    for method, path in (
        ("GET", "/movies/1"),
        ("GET", "/movies/1"),
        ("GET", "/movies/2"),
        ("HEAD", "/movies/1"),
        ("PATCH", "/movies/1"),
        ("GET", "/movies"),
        ("POST", "/movies"),
        ("GET", "/wp-login.php"),
        ("GET", "/.env"),
        ("GET", "/docs"),
        ("BREW", "/movies"),
        ("GET", "/health"),
    ):
        client.request(method, path)
    client.get("/health", headers={"Host": "evil.example"})

    response = client.get("/metrics")

    assert response.headers["Content-Type"].startswith("text/plain; version=")
    assert measured(response, "movie_http_requests_total") == {
        ("GET", "/movies/{movie_id}", "200"): 2,
        ("GET", "/movies/{movie_id}", "404"): 1,
        ("HEAD", "/movies/{movie_id}", "200"): 1,
        ("PATCH", "/movies/{movie_id}", "422"): 1,
        ("GET", "/movies", "200"): 1,
        ("POST", "/movies", "422"): 1,
        ("GET", "(unknown)", "404"): 2,
        ("GET", "(unknown)", "400"): 1,
        ("GET", "(file)", "200"): 1,
        ("(other)", "/movies", "405"): 1,
        ("GET", "/health", "200"): 1,
    }
    durations = measured(response, "movie_http_request_duration_seconds_count")
    assert durations["GET", "/movies/{movie_id}"] == 3
    assert sum(durations.values()) == 13


def test_cached_reads_are_counted_under_their_route(
    sqlite_url: str,
) -> None:
    with metered(sqlite_url) as client:
        for path in ("/movies/1", "/movies/1", "/movies", "/movies", "/movies", "/movies/2"):
            client.get(path)
        response = client.get("/metrics")

    assert measured(response, "movie_read_cache_requests_total") == {("hit",): 3, ("miss",): 3}
    assert measured(response, "movie_http_requests_total") == {
        ("GET", "/movies/{movie_id}", "200"): 2,
        ("GET", "/movies/{movie_id}", "404"): 1,
        ("GET", "/movies", "200"): 3,
    }


def test_ratings_are_counted_after_their_commit(client: TestClient) -> None:
    client.post("/ratings", json=FIVE_STARS)
    client.post("/ratings", json=FIVE_STARS | {"movie_id": 2})
    client.post("/ratings/batch", json=[FIVE_STARS, FIVE_STARS | {"user_id": 2}])
    client.post("/ratings/batch", json=[FIVE_STARS, FIVE_STARS | {"movie_id": 2}])

    response = client.get("/metrics")

    assert measured(response, "movie_ratings_committed_total") == {(): 3}
    assert measured(response, "movie_ratings_per_commit_sum") == {(): 3}
    assert measured(response, "movie_ratings_per_commit_bucket")[("1.0",)] == 1
    assert measured(response, "movie_ratings_per_commit_bucket")[("2.0",)] == 2
    assert measured(response, "movie_ratings_per_commit_count") == {(): 2}


def test_waiting_writers_are_counted(sqlite_url: str) -> None:
    def waiting() -> Samples:
        return measured(service.get("/metrics"), "movie_writers_waiting")

    with metered(sqlite_url, busy_timeout=60) as service, ThreadPoolExecutor(5) as pool:
        with locked(sqlite_url):
            movies = [ALIEN, ALIEN | {"title": "Aliens"}]
            written = [pool.submit(service.post, "/movies", json=movie) for movie in movies]
            # The first of the five writers waits for the lock. It must not be a rating: those that
            # follow would join its group instead of the queue.
            wait_until(lambda: waiting() == {(): 1}, lambda: f"{waiting()} wait")
            written += [pool.submit(service.post, "/ratings", json=FIVE_STARS) for _ in range(3)]
            wait_until(lambda: waiting() == {(): 4}, lambda: f"{waiting()} wait")
        statuses = [request.result().status_code for request in written]
        after = waiting()

    assert statuses == [201, 201, 204, 204, 204]
    assert after == {(): 0}


def test_interrupted_reads_are_counted(sqlite_url: str) -> None:
    limits = Limits(read_deadline=-1.0, read_steps=1)
    with metered(sqlite_url, limits, read_cache=False) as client:
        assert [client.get("/movies/1").status_code for _ in range(2)] == [200, 200]
        response = client.get("/metrics")

    assert measured(response, "movie_reads_interrupted_total") == {(): 2}


def test_sizes_of_the_database_and_the_process_are_measured(
    client: TestClient, database_url: str
) -> None:
    response = client.get("/metrics")

    sizes = measured(response, "movie_database_bytes")
    parts = {("main",), ("wal",)} if database_url.startswith("sqlite") else {("main",)}
    assert sizes.keys() == parts
    assert all(size > 10_000 for size in sizes.values())
    assert measured(response, "process_resident_memory_bytes")[()] > 10_000_000


def test_other_metrics_are_served_without_the_database(client: TestClient) -> None:
    def fail(*_: object) -> None:
        raise DatabaseUnavailable

    assert isinstance(client.app, FastAPI)
    client.get("/health")
    event.listen(service_of(client.app).database.engine, "before_cursor_execute", fail)

    response = client.get("/metrics")

    assert measured(response, "movie_http_requests_total") == {("GET", "/health", "200"): 1}
    assert measured(response, "movie_database_bytes") == {}


def test_metrics_need_the_api_key_if_one_is_set(sqlite_url: str) -> None:
    with metered(sqlite_url, api_key="right") as client:
        refused = client.get("/metrics")
        served = client.get("/metrics", headers={"X-API-Key": "right"})

    assert (refused.status_code, served.status_code) == (401, 200)


def test_metrics_are_off_by_default(sqlite_url: str) -> None:
    with TestClient(create_app(Settings(database_url=sqlite_url))) as client:
        assert client.get("/metrics").status_code == 404


def test_metrics_without_their_package_stop_the_start_with_one_line(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("app.metrics.routes", "app.metrics.measurements"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)

    with pytest.raises(SystemExit):
        create_app(Settings(database_url=sqlite_url, metrics=True))

    assert capsys.readouterr().err == (
        "MOVIE_METRICS needs prometheus-client. Run: uv sync --extra metrics\n"
    )


@pytest.mark.slow
@pytest.mark.ci
def test_metrics_are_summed_over_workers_after_a_kill(database_url: str, tmp_path: Path) -> None:
    def total() -> float:
        # Each request has its own connection, which any worker may accept.
        response = httpx.get(f"{server.url}/metrics", trust_env=False)
        return measured(response, "movie_http_requests_total")["GET", "/health", "200"]

    def workers() -> list[str]:
        return re.findall(r"Started server process \[(\d+)\]", server.log.read_text())

    before = folders()
    with running_server(tmp_path, workers=2, database_url=database_url, metrics="true") as server:
        for _ in range(30):
            httpx.get(f"{server.url}/health", trust_env=False)
        counted = {total() for _ in range(10)}
        os.kill(int(workers()[0]), signal.SIGKILL)
        wait_until(lambda: len(workers()) == 3, lambda: "no worker takes its place")
        ready = "Application startup complete."
        wait_until(lambda: server.log.read_text().count(ready) == 3, lambda: "it is not up")
        httpx.get(f"{server.url}/health", trust_env=False)
        counted_after_kill = {total() for _ in range(10)}
        during = folders()
    after = folders()

    # running_server() sends one request.
    assert counted == {31}
    assert counted_after_kill == {32}
    assert len(during - before) == 1
    assert after & during == before & during


def folders() -> set[Path]:
    """Return the folders in which workers of any server share their measurements."""
    return set(Path(tempfile.gettempdir()).glob("movie-service-metrics-*"))

"""The count of hops between files, on a small application whose hops are known."""

from pathlib import Path

import pytest

from scripts.bench.journeys import journeys_of
from scripts.bench.load import BenchError

MAIN = """
import asyncio
from contextlib import asynccontextmanager
from app import other

class Router:
    @asynccontextmanager
    async def lifespan_context(self, app):
        yield

class App:
    router = Router()

    async def __call__(self, scope, receive, send):
        same_file()
        if scope["method"] == "GET":
            other.twice()
        else:
            await asyncio.to_thread(other.twice)
        if scope["method"] == "PATCH":
            await other.wait()
        await send({"type": "http.response.start", "status": STATUS})
        await send({"type": "http.response.body", "body": b"why"})

def same_file():
    pass

app = App()
"""
OTHER = """
import asyncio
from app import third

def twice():
    third.work()
    sorted([1], key=third.key)

async def wait():
    await asyncio.sleep(0)
"""
THIRD = """
def work():
    pass

def key(x):
    return x
"""


def make_checkout(folder: Path, *, status: int = 200) -> Path:
    """Write an application of three files."""
    app = folder / "app"
    app.mkdir()
    (app / "__init__.py").touch()
    (app / "main.py").write_text(MAIN.replace("STATUS", str(status)))
    (app / "other.py").write_text(OTHER)
    (app / "third.py").write_text(THIRD)
    return folder


@pytest.mark.slow
def test_hops_are_calls_from_one_file_to_another_in_each_thread(tmp_path: Path) -> None:
    journeys = journeys_of(make_checkout(tmp_path))

    twice = ["other.py:twice", "third.py:work"]
    assert [(journey.request, journey.hops) for journey in journeys] == [
        ("GET /movies/top", twice),
        # The event loop's thread resumes the application in main.py, where it was.
        ("POST /ratings", twice),
        # Each await of an unfinished coroutine resumes main.py and then other.py.
        ("PATCH /movies/1", [*twice, "other.py:wait", "main.py:__call__", "other.py:wait"]),
    ]
    # A return is a hop if the event before it was in another file: other.py returns after third.py,
    # and main.py after other.py. In the worker thread there is no main.py.
    assert [journey.with_returns for journey in journeys] == [4, 2, 6]


@pytest.mark.slow
def test_refused_request_is_an_error_and_no_count(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="GET /movies/top returned 503: b'why'"):
        journeys_of(make_checkout(tmp_path, status=503))


def test_folder_without_the_application_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"has no app/main\.py"):
        journeys_of(tmp_path)

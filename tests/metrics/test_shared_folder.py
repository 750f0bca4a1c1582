"""PROMETHEUS_MULTIPROC_DIR: the user's folder, and what the service may do in it."""

import signal
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.server import Commands, running_server

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
SERVE = ["-m", "uvicorn", "app.main:app", "--port", "0"]


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files in a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the variable names; it does not exist."""
    folder = tmp_path / "of the user" / "metrics"
    monkeypatch.setenv(VARIABLE, str(folder))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_files_of_other_programs_are_neither_read_nor_removed(
    folder: Path, sqlite_url: str, tmp_path: Path, workers: int
) -> None:
    folder.mkdir(parents=True)
    (folder / "counter_1.db").write_bytes(b"of another program" * 100)
    (folder / "notes.txt").write_text("keep")
    before = contents(folder)

    with running_server(
        tmp_path, workers=workers, database_url=sqlite_url, metrics="true"
    ) as server:
        response = httpx.get(f"{server.url}/metrics", trust_env=False)
        during = contents(folder)

    assert response.status_code == 200
    assert 'route="/health"' in response.text
    assert during.keys() > before.keys()
    assert contents(folder) == before
    assert sorted(path.name for path in folder.iterdir()) == ["counter_1.db", "notes.txt"]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_missing_folder_is_made_and_can_be_used_again(
    folder: Path, sqlite_url: str, tmp_path: Path, workers: int
) -> None:
    for _ in range(2):
        with running_server(
            tmp_path, workers=workers, database_url=sqlite_url, metrics="true"
        ) as server:
            assert httpx.get(f"{server.url}/metrics", trust_env=False).status_code == 200
        assert contents(folder) == {}


@pytest.mark.slow
def test_two_servers_with_one_folder_keep_their_own_counts(
    folder: Path, sqlite_url: str, tmp_path: Path
) -> None:
    start = partial(running_server, tmp_path, database_url=sqlite_url, metrics="true")
    with start() as one:
        with start() as other:
            for _ in range(10):
                httpx.get(f"{other.url}/health", trust_env=False)
        metrics = httpx.get(f"{one.url}/metrics", trust_env=False).text

    assert 'movie_http_requests_total{method="GET",route="/health",status="200"} 1.0' in metrics
    assert contents(folder) == {}


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_unusable_folder_is_one_line(
    folder: Path, sqlite_url: str, tmp_path: Path, workers: str
) -> None:
    folder.parent.write_text("a file where a folder belongs")
    commands = Commands(tmp_path, database_url=sqlite_url, metrics="true")
    options = ["--workers", workers, "--timeout-worker-healthcheck", "1"]

    finished = commands.python(*SERVE, *(options if workers != "1" else []))

    assert finished.exit_code != -signal.SIGKILL
    assert "Traceback" not in finished.errors
    assert f"Set {VARIABLE} to a folder that this user can write to: cannot" in finished.errors

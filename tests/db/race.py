"""Run as a file: starts the service on new databases from several processes at the same moment.

Processes started one by one would not collide. These are forked after all imports, and wait for
each other.
"""

import json
import multiprocessing
import os
import runpy
import sys
import traceback
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from typing import TYPE_CHECKING

from fastapi.testclient import TestClient

from app.config import PROJECT_ROOT, load_settings
from app.main import create_app

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

DEADLINE_SECONDS = 60.0


def start() -> None:
    """Start and stop the service, as a worker does."""
    with TestClient(create_app(load_settings())):
        pass


def migrate() -> None:
    """Run ``scripts/db.py migrate``."""
    sys.argv = ["db.py", "migrate"]
    runpy.run_path(str(PROJECT_ROOT / "scripts" / "db.py"), run_name="__main__")


# Starting workers collide with each other and with an operator's command.
ACTIONS = (start, migrate, start, start)


def take_part(
    action: Callable[[], None], url: str, barrier: Barrier, outcomes: "Queue[str]"
) -> None:
    """Wait for the others, act, and report ``ok`` or an error."""
    os.environ["MOVIE_DATABASE_URL"] = url
    sys.stdout = sys.stderr
    barrier.wait(DEADLINE_SECONDS)
    try:
        action()
    except SystemExit as ending:
        outcomes.put("ok" if ending.code == 0 else f"exit code {ending.code}")
    except BaseException:  # noqa: BLE001 - reported
        outcomes.put(traceback.format_exc())
    else:
        outcomes.put("ok")


def race(url: str) -> list[str]:
    """Let several processes act on a database at once, and return their reports."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(len(ACTIONS))
    outcomes: Queue[str] = context.Queue()
    racers = [
        context.Process(target=take_part, args=(action, url, barrier, outcomes))
        for action in ACTIONS
    ]
    for racer in racers:
        racer.start()
    reports = [outcomes.get(timeout=DEADLINE_SECONDS) for _ in racers]
    for racer in racers:
        racer.join(DEADLINE_SECONDS)
    return reports


if __name__ == "__main__":
    print(json.dumps([race(url) for url in sys.argv[1:]]))  # noqa: T201 - the caller parses it

"""A pytest plugin: no test can touch a real database or depend on the developer's settings.

``pyproject.toml`` loads it (``-p tests.isolation``), so it also protects a project whose
``conftest.py`` was replaced. pytest imports it before any conftest or test, and so before
``app.main``, which reads the settings when it is imported.
"""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

# Compiling the libraries is the slowest step of a process here. If Python may write no bytecode
# beside the sources, write it to a folder that all processes of this run share; the run removes it
# at its end.
if sys.dont_write_bytecode:
    sys.pycache_prefix = tempfile.mkdtemp(prefix="movie-tests-bytecode-")
    sys.dont_write_bytecode = False
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # absent under python -B
    atexit.register(shutil.rmtree, sys.pycache_prefix, ignore_errors=True)

# The folder of all databases of this process.
FOLDER = Path(tempfile.mkdtemp(prefix="movie-tests-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
TEMPLATE = FOLDER / "template.db"
DATABASE = FOLDER / "movies.db"

for name in list(os.environ):
    if name.upper().startswith("MOVIE_") and not name.startswith("MOVIE_TEST_"):
        del os.environ[name]
os.environ["MOVIE_DATABASE_URL"] = f"sqlite:///{DATABASE}"

from app.config import Settings  # noqa: E402 - the folder of the bytecode must be set first
from app.db import migrate  # noqa: E402 - as above

Settings.model_config["env_file"] = None


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Create the database of ``app.main.app``, which a test file may use when it is imported."""
    if session.config.pluginmanager.hasplugin("dsession"):
        return  # xdist's controller, which runs no test
    migrate(f"sqlite:///{TEMPLATE}")
    shutil.copy(TEMPLATE, DATABASE)

"""The tests, by layer. Each has a database of its own.

What stands here happens before any of them, or the application, is imported.
"""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

# Compiling the libraries takes longer than anything else that a process does here. Where Python is
# told to write no bytecode beside the sources, one cache for all processes of a run, which is gone
# at its end, spares most of it.
if sys.dont_write_bytecode:
    sys.pycache_prefix = tempfile.mkdtemp(prefix="movie-tests-bytecode-")
    sys.dont_write_bytecode = False
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # absent under python -B
    atexit.register(shutil.rmtree, sys.pycache_prefix, ignore_errors=True)

# No test can touch a real database or depend on the developer's settings: app.main reads them when
# it is imported, which a test file may do on its first line.
FOLDER = Path(tempfile.mkdtemp(prefix="movie-tests-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
for name in list(os.environ):
    if name.upper().startswith("MOVIE_") and not name.startswith("MOVIE_TEST_"):
        del os.environ[name]
os.environ["MOVIE_DATABASE_URL"] = f"sqlite:///{FOLDER / 'movies.db'}"

from app.config import Settings  # noqa: E402 - the bytecode's place has to be known before

Settings.model_config["env_file"] = None

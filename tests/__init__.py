"""The tests, by layer. Each has a database of its own."""

import atexit
import os
import shutil
import sys
import tempfile

# Compiling the libraries takes longer than anything else that a process does here. Where Python is
# told to write no bytecode beside the sources, one cache for all processes of a run, which is gone
# at its end, spares most of it.
if sys.dont_write_bytecode:
    sys.pycache_prefix = tempfile.mkdtemp(prefix="movie-tests-bytecode-")
    sys.dont_write_bytecode = False
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # absent under python -B
    atexit.register(shutil.rmtree, sys.pycache_prefix, ignore_errors=True)

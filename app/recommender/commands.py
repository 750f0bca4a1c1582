"""The command that trains the recommender."""

import sys
import time
from importlib.util import find_spec
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from app.config import load_settings
from app.db import create_migration_engine
from app.db_errors import readable_database_errors
from app.errors import SetupError
from app.migrate import MIGRATION_TIMEOUT
from app.startup import open_session

NEEDED = ("numpy", "scipy")
EVALUATION = (
    "uv run --group bench --extra recommender python scripts/bench --recommendations FOLDER"
)


def add_to(cli: typer.Typer) -> None:
    """Add the command of this capability."""
    cli.command()(train)


def train(
    *,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Print the command that measures recommendations.")
    ] = False,
) -> None:
    """Learn from all likes which movies go together. The service may run meanwhile."""
    if evaluate:
        typer.echo(EVALUATION)
        return
    if not all(map(find_spec, NEEDED)):
        raise SetupError(
            "Training needs numpy and scipy. "
            "Run: uv run --extra recommender python scripts/db.py train"
        )
    terminal = Console(stderr=True)
    # It vanishes at the end, so that an error is the only thing to read.
    with Progress(console=terminal, disable=not terminal.is_terminal, transient=True) as progress:
        table = _trained(progress)
    console = Console()
    # A table that is pasted elsewhere must not be folded.
    console.width = max(console.width, 120)
    console.print(table)


def _trained(progress: Progress) -> Table:
    """Replace the stored neighbours, and return a summary."""
    from app.recommender.neighbours import read_likes, replace_neighbours  # noqa: PLC0415 - extra
    from app.recommender.training import learn  # noqa: PLC0415 - extra

    started = time.perf_counter()
    with open_session() as session:
        likes = read_likes(session, progress)
    neighbours = learn(likes, progress)
    engine = create_migration_engine(load_settings().database_url, lock_timeout=MIGRATION_TIMEOUT)
    progress.add_task("Storing", total=None)
    with readable_database_errors(engine.url):
        replace_neighbours(engine, neighbours)
    table = Table("trained", "")
    table.columns[1].justify = "right"
    for name, value in {
        "movies": f"{len(set(neighbours.movie_ids.tolist())):,}",
        "likes": f"{len(likes.movie_ids):,}",
        "neighbours": f"{len(neighbours.weights):,}",
        "seconds": f"{time.perf_counter() - started:.1f}",
        "peak memory": _peak_memory(),
    }.items():
        table.add_row(name, value)
    return table


def _peak_memory() -> str:
    """Return the most memory that this process has held."""
    if not find_spec("resource"):
        return "unknown on this system"
    import resource  # noqa: PLC0415 - not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts in bytes, the others in KiB.
    return f"{peak // (2**20 if sys.platform == 'darwin' else 2**10):,} MiB"

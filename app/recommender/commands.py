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
from app.db import create_migration_engine, explained_errors, open_session
from app.errors import SetupError

NEEDED = ("numpy", "scipy")
EVALUATION = (
    "uv run --group bench --extra recommender python scripts/bench --recommendations FOLDER"
)


def add_to(cli: typer.Typer) -> None:
    """Add the command."""
    cli.command()(train)


def train(
    *,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Print the command that measures recommendations.")
    ] = False,
) -> None:
    """Train the recommender on all likes. The service can keep running."""
    if evaluate:
        typer.echo(EVALUATION)
        return
    if not all(map(find_spec, NEEDED)):
        raise SetupError(
            "Training needs numpy and scipy. "
            "Run: uv run --extra recommender python scripts/db.py train"
        )
    terminal = Console(stderr=True)
    # Remove the finished bar: only an error stays on screen.
    with Progress(console=terminal, disable=not terminal.is_terminal, transient=True) as progress:
        table = _train(progress)
    console = Console()
    # Do not wrap the table: it is meant to be pasted elsewhere.
    console.width = max(console.width, 120)
    console.print(table)


def _train(progress: Progress) -> Table:
    """Replace the stored neighbours and return a summary."""
    from app.recommender.neighbours import read_likes, replace_neighbours  # noqa: PLC0415 - extra
    from app.recommender.training import learn  # noqa: PLC0415 - extra

    started = time.perf_counter()
    with open_session() as session:
        likes = read_likes(session, progress)
    neighbours = learn(likes, progress)
    engine = create_migration_engine(load_settings().database_url)
    progress.add_task("Storing", total=None)
    with explained_errors(engine.url):
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
    """Return the peak memory of this process."""
    if not find_spec("resource"):
        return "unknown on this system"
    import resource  # noqa: PLC0415 - not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS reports bytes, other systems KiB.
    return f"{peak // (2**20 if sys.platform == 'darwin' else 2**10):,} MiB"

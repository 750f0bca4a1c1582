"""Measures the service and prints a table of ratios, each with its aim.

The two sides of a ratio are loaded in turn, repeatedly, so that other work on the machine affects
both of them. A ratio is the median of its rounds' ratios.

Three options measure something else instead: --recommendations compares the recommendations with
other methods, --search measures how well searches find titles, and --journeys counts how often a
request changes from one file to another.
"""

import os
import platform
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from app.errors import UnusableFile
from scripts.bench import growth, throughput
from scripts.bench.journeys import journeys_of
from scripts.bench.load import WRK, BenchError
from scripts.bench.plan import Plan, Row
from scripts.bench.search import print_searches
from scripts.bench.throughput import BATCH, PAGE

PACKAGES = ("fastapi", "starlette", "pydantic", "sqlmodel", "sqlalchemy", "uvicorn", "uvloop")
PROJECT = Path(__file__).parents[2]

MEASUREMENTS = (
    throughput.on_sqlite,
    throughput.nine_reads_a_rating,
    throughput.batches_of_ratings,
    growth.reads_beside_searches,
    growth.top_at_two_sizes,
    growth.last_page,
    growth.within_a_genre,
    growth.rating_without_indexes_within_a_genre,
    growth.deep_page_of_ratings,
    growth.download_of_ratings,
    growth.movielens_import,
    growth.recommendations,
    growth.recommendations_at_two_sizes,
    throughput.on_postgresql,
    throughput.workers_on_postgresql,
)


def report(rows: list[Row], plan: Plan) -> None:
    """Print the table and the conditions under which it was measured."""
    # Keep each row on one line, so that the table can be pasted elsewhere.
    plan.console.width = max(plan.console.width, 120)
    columns = ("measured", "service", "compared with", "ratio", "aim", "result")
    table = Table(*columns, box=box.MARKDOWN)
    for row in rows:
        aim = f"{'at least' if row.at_least else 'at most'} {row.bound:g}"
        result = "[green]met[/green]" if row.is_met else "[red]missed[/red]"
        table.add_row(row.measured, row.service, row.compared_with, f"{row.ratio:.2f}", aim, result)
    plan.console.print(table)
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    client = "wrk" if WRK else "a client in Python, which costs more than wrk"
    load_facts = f"{plan.rounds} rounds of at least {plan.seconds:g} s, {plan.clients} connections"
    for line in (
        *(row.note for row in rows if row.note),
        *([] if plan.movielens else ["The import was not measured: --movielens FOLDER"]),
        "The read cache is off except in rows that say otherwise; ratings with synchronous=FULL",
        f"{load_facts} of {client}",
        f"{plan.movies:,} movies unless a row says otherwise; {os.cpu_count()} cores, one worker",
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {versions}",
    ):
        plan.console.print(line)


def print_journeys(checkout: Path, console: Console, *, verbose: bool) -> None:
    """Print how many hops each request makes in a checkout, and with ``verbose`` each of them."""
    journeys = journeys_of(checkout)
    table = Table("request", "hops", "with returns", box=box.MARKDOWN)
    for journey in journeys:
        table.add_row(journey.request, str(len(journey.hops)), str(journey.with_returns))
    console.print(table)
    if verbose:
        for journey in journeys:
            typer.echo("\n".join((f"\n{journey.request}", *journey.hops)))


@contextmanager
def readable_errors() -> Iterator[None]:
    """Turn an expected error into its message and exit code 1."""
    try:
        yield
    except (BenchError, UnusableFile) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


def bench(
    *,
    movies: Annotated[int, typer.Option(min=BATCH, help="Movies in most catalogues.")] = 10_000,
    ratings: Annotated[int, typer.Option(min=1, help="Ratings in most catalogues.")] = 100_000,
    many_movies: Annotated[
        int, typer.Option(min=PAGE, help="Movies in large catalogues.")
    ] = 87_000,
    many_ratings: Annotated[
        int, typer.Option(min=1, help="Ratings in large catalogues; 10 million take 1 GB of disk.")
    ] = 10_000_000,
    clients: Annotated[int, typer.Option(min=1, help="Concurrent connections.")] = 8,
    seconds: Annotated[float, typer.Option(min=1, help="Minimum length of a round.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds for each server.")] = 5,
    movielens: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="A MovieLens folder, to measure its import."
        ),
    ] = None,
    postgres: Annotated[
        str | None,
        typer.Option(help="The URL of a PostgreSQL database, to measure on its server too."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Where to keep the temporary catalogues."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A short look: a million ratings, 2 rounds of 1 s.")
    ] = False,
    recommendations: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Instead, compare the recommendations for a MovieLens folder with other methods.",
        ),
    ] = None,
    search: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Instead, measure searches of a MovieLens folder's titles.",
        ),
    ] = None,
    journeys: Annotated[
        bool,
        typer.Option(
            "--journeys", help="Instead, count the hops of three requests between files of app/."
        ),
    ] = False,
    checkout: Annotated[
        Path,
        typer.Option(
            exists=True, file_okay=False, show_default="this one", help="Where to count hops."
        ),
    ] = PROJECT,
    verbose: Annotated[bool, typer.Option("--verbose", help="List each hop.")] = False,
) -> None:
    """Measure the service on generated catalogues, and print one table of ratios."""
    console = Console()
    if journeys:
        with readable_errors():
            print_journeys(checkout, console, verbose=verbose)
        return
    if recommendations:
        # Needs numpy and scipy, which other measurements do not.
        from scripts.bench.recommendations import print_comparison  # noqa: PLC0415 - extra

        with readable_errors():
            print_comparison(recommendations, console)
        return
    if search:
        with readable_errors(), tempfile.TemporaryDirectory(dir=folder) as workplace:
            print_searches(search, console, Path(workplace))
        return
    if quick:
        many_ratings, seconds, rounds = min(many_ratings, 1_000_000), 1, 2
    with tempfile.TemporaryDirectory(dir=folder, prefix="movie-bench-") as workplace:
        plan = Plan(
            folder=Path(workplace),
            console=console,
            movies=movies,
            ratings=ratings,
            many_movies=many_movies,
            many_ratings=many_ratings,
            clients=clients,
            seconds=seconds,
            rounds=rounds,
            movielens=movielens,
            postgres=postgres,
        )
        with readable_errors():
            rows = [row for measurement in MEASUREMENTS for row in measurement(plan)]
        report(rows, plan)


if __name__ == "__main__":
    # Exit normally on SIGTERM, so that servers are stopped and catalogues deleted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    typer.run(bench)

"""Commands that import and export a catalogue as MovieLens' files."""

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import DownloadColumn, Progress
from rich.table import Table

from app.config import load_settings
from app.db import empty_wal, open_session, reading, value_problems
from app.errors import SetupError
from app.movielens.files import MovieLensFolder, write_folder
from app.movielens.repository import CatalogueRepository, MergeCounts
from app.upgrade import upgrade


def add_to(cli: typer.Typer) -> None:
    """Add the commands."""
    cli.command()(import_movielens)
    cli.command()(export)


def import_movielens(
    folder: Path,
    *,
    skip_unknown_movies: Annotated[
        bool,
        typer.Option(
            "--skip-unknown-movies",
            help="Skip ratings of movies that are not in movies.csv; otherwise these are an error.",
        ),
    ] = False,
) -> None:
    """Merge the CSV files of a MovieLens FOLDER into the catalogue, all or nothing.

    Upgrades the schema first. Safe to repeat: movies are matched by title, ratings by movie and
    user, and the later rating wins.
    """
    source = MovieLensFolder(folder, skip_unknown_movies=skip_unknown_movies)
    upgrade(load_settings().database_url)
    terminal = Console(stderr=True)
    bar = Progress(
        *Progress.get_default_columns(),
        DownloadColumn(),
        console=terminal,
        disable=not terminal.is_terminal,
        # Remove the finished bar: only an error stays on screen.
        transient=True,
    )
    with open_session() as session, bar:
        advance = partial(bar.advance, bar.add_task("Importing", total=source.bytes))
        counts = CatalogueRepository(session).merge(source.movies(advance), source.ratings(advance))
        empty_wal(session.get_bind().engine)
    Console().print(import_summary(source, counts))
    for count, remark in (
        (source.years_added, "got their year appended to a title that they share with other years"),
        (counts.different_movies_merged, "merged by title although their IMDb ids differ"),
        (
            counts.external_ids_left_out,
            "imported without an external id that another movie already has",
        ),
    ):
        if count:
            typer.echo(f"{count} movie(s) {remark}")


class Program(StrEnum):
    """A program for which the CSV files are written."""

    SPREADSHEET = "spreadsheet"


def export(
    folder: Path,
    program: Annotated[
        Program | None,
        typer.Option(
            "--for",
            help="spreadsheet: write a byte order mark, and an apostrophe before text that Excel "
            "or LibreOffice would run as a formula. The import removes both.",
        ),
    ] = None,
) -> None:
    """Write the catalogue to FOLDER as MovieLens CSV files."""
    with open_session() as session, reading(session) as connection:
        repository = CatalogueRepository(session)
        try:
            movies, ratings = write_folder(
                folder,
                repository.every_movie,
                repository.every_rating(),
                repository.every_anonymous_rating(),
                for_spreadsheet=program is not None,
            )
        except (AttributeError, TypeError, ValueError) as error:
            for problem in value_problems(connection):
                hint = "Run: uv run python scripts/db.py check"
                raise SetupError(f"Nothing was written. {problem}.\n{hint}") from error
            raise
    typer.echo(f"Wrote {movies} movies and {ratings} ratings to {folder}")


def import_summary(source: MovieLensFolder, counts: MergeCounts) -> Table:
    """Return a table of the rows by what happened to them. The footer is their total."""
    rows = {
        "new": (counts.movies_new, counts.ratings_new),
        "updated": (counts.movies_updated, counts.ratings_replacing),
        "unchanged": (counts.movies_unchanged, counts.ratings_ignored),
        "merged by title": (counts.movies_merged, 0),
    }
    for reason in sorted({*source.movies_left_out, *source.ratings_left_out}):
        left_out = source.movies_left_out[reason], source.ratings_left_out[reason]
        rows[f"left out: {reason}"] = left_out
    table = Table("rows", show_footer=True)
    for column, name in enumerate(("movies", "ratings")):
        total = sum(row[column] for row in rows.values())
        table.add_column(name, str(total), justify="right")
    for name, row in rows.items():
        table.add_row(name, *map(str, row))
    table.columns[0].footer = "read"
    return table

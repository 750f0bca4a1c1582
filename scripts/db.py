"""The database's command line: schema, starter movies, checks, copies, import and export."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import DownloadColumn, Progress
from rich.table import Table
from sqlalchemy import Engine
from sqlmodel import Session

from app.backup import backup
from app.catalogue import CatalogueRepository, MergeCounts
from app.config import load_settings
from app.db import create_db_engine, readable_database_errors
from app.errors import SetupError, UnusableFile
from app.migrate import migrate_to_head, require_file, require_schema
from app.movielens import MovieLensFolder, write_folder
from app.repository import MovieRepository
from app.schema_check import schema_differences
from app.seed import STARTER_MOVIES

cli = typer.Typer(
    help="Look after the movie service's database, which MOVIE_DATABASE_URL names.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@contextmanager
def open_engine() -> Iterator[Engine]:
    """Yield the engine of a database whose schema is at head."""
    engine = create_db_engine(load_settings().database_url)
    require_file(engine.url)
    try:
        with readable_database_errors(engine.url):
            with engine.connect() as connection:
                require_schema(connection)
            yield engine
    finally:
        engine.dispose()


@contextmanager
def open_repository() -> Iterator[CatalogueRepository]:
    """Yield the repository of a database whose schema is at head."""
    with open_engine() as engine, Session(engine) as session:
        yield CatalogueRepository(session)


@cli.command()
def migrate() -> None:
    """Bring the schema to head. Safe to repeat, and from several processes at once."""
    migrate_to_head(load_settings().database_url)
    typer.echo("Database ready")


@cli.command()
def seed() -> None:
    """Add the starter movies that are missing, after bringing the schema to head."""
    migrate_to_head(load_settings().database_url)
    with open_repository() as repository:
        created = repository.create_missing(STARTER_MOVIES)
    typer.echo(f"Added {created} of {len(STARTER_MOVIES)} starter movies")


@cli.command()
def check() -> None:
    """Compare the schema with the models, and check the foreign keys and the tallies."""
    sound = True
    with open_engine() as engine, engine.connect() as connection, Session(engine) as session:
        # The schema first: a column that is missing may be why the rest cannot be read.
        for problem in chain(schema_differences(connection), MovieRepository(session).problems()):
            sound = False
            typer.echo(problem, err=True)
    if not sound:
        raise typer.Exit(1)
    typer.echo("Database sound")


@cli.command("backup")
def back_up(file: Path) -> None:
    """Copy the SQLite database to a new FILE while the service runs."""
    backup(load_settings().database_url, file)
    typer.echo(f"Copied to {file}")


@cli.command()
def import_movielens(folder: Path) -> None:
    """Merge movies.csv and ratings.csv of a MovieLens FOLDER into the catalogue, all or nothing.

    It brings the schema to head first. It can be repeated: a movie is known by its title, a
    rating by its movie and user, and the later rating stands.
    """
    source = MovieLensFolder(folder)
    migrate_to_head(load_settings().database_url)
    terminal = Console(stderr=True)
    bar = Progress(
        *Progress.get_default_columns(),
        DownloadColumn(),
        console=terminal,
        disable=not terminal.is_terminal,
        # It vanishes at the end, so that an error is the only thing to read.
        transient=True,
    )
    with open_repository() as repository, bar:
        advance = partial(bar.advance, bar.add_task("Importing", total=source.bytes))
        counts = repository.merge(source.movies(advance), source.ratings(advance))
    Console().print(import_summary(source, counts))


@cli.command()
def export(folder: Path) -> None:
    """Write the catalogue to FOLDER as movies.csv and ratings.csv, as MovieLens has them."""
    with open_repository() as repository, repository.snapshot():
        movies, ratings = write_folder(folder, repository.every_movie, repository.every_rating())
    typer.echo(f"Wrote {movies} movies and {ratings} ratings to {folder}")


def import_summary(source: MovieLensFolder, counts: MergeCounts) -> Table:
    """Return a table of what became of every row that was read."""
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


def main() -> None:
    """Run a command; an error that a person can mend is a line or two and exit code 1."""
    try:
        cli()
    except (SetupError, UnusableFile) as error:
        typer.echo(str(error), err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()

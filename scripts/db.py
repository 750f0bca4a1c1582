"""The database's command line: migrate, seed, check."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from sqlmodel import Session

from app.config import load_settings
from app.db import (
    backup,
    create_db_engine,
    migration_connection,
    readable_database_errors,
    require_file,
    require_schema,
    upgrade_to_head,
)
from app.errors import SetupError
from app.repository import MovieRepository
from app.seed import STARTER_MOVIES

cli = typer.Typer(
    help="Look after the movie service's database, which MOVIE_DATABASE_URL names.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@contextmanager
def open_repository() -> Iterator[MovieRepository]:
    """Yield the repository of a database whose schema is at head."""
    engine = create_db_engine(load_settings().database_url)
    require_file(engine.url)
    with readable_database_errors(engine.url), Session(engine) as session:
        with engine.connect() as connection:
            require_schema(connection)
        yield MovieRepository(session)
    engine.dispose()


@cli.command()
def migrate() -> None:
    """Bring the schema to head. Safe to repeat, and from several processes at once."""
    with migration_connection(load_settings().database_url) as connection:
        upgrade_to_head(connection)
    typer.echo("Database ready")


@cli.command()
def seed() -> None:
    """Add the starter movies that are missing, after bringing the schema to head."""
    with migration_connection(load_settings().database_url) as connection:
        upgrade_to_head(connection)
    with open_repository() as repository:
        created = repository.create_missing(STARTER_MOVIES)
    typer.echo(f"Added {created} of {len(STARTER_MOVIES)} starter movies")


@cli.command()
def check() -> None:
    """Prove the schema at head, the foreign keys sound and the tallies equal to the ratings."""
    with open_repository() as repository:
        problems = list(repository.problems())
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(1)
    typer.echo("Database sound")


@cli.command("backup")
def back_up(file: Path) -> None:
    """Copy the SQLite database to a new FILE while the service runs."""
    backup(load_settings().database_url, file)
    typer.echo(f"Copied to {file}")


def main() -> None:
    """Run a command; an error that a person can mend is a line or two and exit code 1."""
    try:
        cli()
    except SetupError as error:
        typer.echo(str(error), err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()

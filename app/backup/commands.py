"""The commands that copy a database in use, and put a copy in its place."""

from pathlib import Path

import typer

from app.backup.copy import backup
from app.backup.restore import restore
from app.config import load_settings
from app.startup import open_session, problems_of


def add_to(cli: typer.Typer) -> None:
    """Add the commands of this capability."""
    cli.command("backup")(back_up)
    cli.command("restore")(restore_copy)


def back_up(file: Path) -> None:
    """Copy the SQLite database to a new FILE while the service runs."""
    backup(load_settings().database_url, file)
    typer.echo(f"Copied to {file}")


def restore_copy(file: Path) -> None:
    """Put a copy of FILE, checked and brought to head, in the SQLite database's place.

    Stop the service first: it refuses while any process has the database open.
    """
    older_revision = restore(load_settings().database_url, file)
    with open_session() as session:
        problems = [*problems_of(session)]
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(1)
    brought = f" and brought it from revision {older_revision} to head" if older_revision else ""
    typer.echo(f"Restored {file}{brought}. Database sound")

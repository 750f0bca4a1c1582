"""Commands that back up a SQLite database in use and restore a copy."""

from pathlib import Path

import typer

from app.backup.copy import backup
from app.backup.restore import restore
from app.checks import problems
from app.config import load_settings
from app.db import open_session


def add_to(cli: typer.Typer) -> None:
    """Add the commands."""
    cli.command("backup")(back_up)
    cli.command("restore")(restore_copy)


def back_up(file: Path) -> None:
    """Copy the SQLite database to a new FILE while the service runs."""
    backup(load_settings().database_url, file)
    typer.echo(f"Copied to {file}")


def restore_copy(file: Path) -> None:
    """Replace the SQLite database with a copy of FILE, after a check and an upgrade to head.

    Stop the service first: the command fails while any process has the database open.
    """
    older_revision = restore(load_settings().database_url, file)
    with open_session() as session:
        found = [*problems(session)]
    for problem in found:
        typer.echo(problem, err=True)
    if found:
        raise typer.Exit(1)
    upgraded = f" and upgraded it from revision {older_revision}" if older_revision else ""
    typer.echo(f"Restored {file}{upgraded}. Database sound")

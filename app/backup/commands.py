"""The command that copies a database in use."""

from pathlib import Path

import typer

from app.backup.copy import backup
from app.config import load_settings


def add_to(cli: typer.Typer) -> None:
    """Add the commands of this capability."""
    cli.command("backup")(back_up)


def back_up(file: Path) -> None:
    """Copy the SQLite database to a new FILE while the service runs."""
    backup(load_settings().database_url, file)
    typer.echo(f"Copied to {file}")

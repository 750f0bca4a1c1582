"""The database's command line: schema, starter movies, checks, copies, import and export."""

from typing import Annotated

import typer

from app.backup import commands as backup
from app.checks import problems
from app.config import load_settings
from app.db import open_session
from app.errors import SetupError, UnusableFile
from app.models import USER_ID_MAX
from app.movielens import commands as movielens
from app.recommender import commands as recommender
from app.repository import MovieRepository
from app.startup import STARTER_MOVIES
from app.upgrade import repair as repair_derived_data
from app.upgrade import upgrade

# To remove a capability, delete its folder, its name here and its import above.
CAPABILITIES = (backup, movielens, recommender)

cli = typer.Typer(
    help="Manage the movie service's database (MOVIE_DATABASE_URL).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@cli.command()
def migrate() -> None:
    """Upgrade the schema to head and index the movies. Safe to repeat, and in several processes."""
    upgrade(load_settings().database_url)
    typer.echo("Database ready")


@cli.command()
def seed() -> None:
    """Upgrade the schema to head and add the starter movies that are missing."""
    upgrade(load_settings().database_url)
    with open_session() as session:
        created = MovieRepository(session).create_missing(STARTER_MOVIES)
    typer.echo(f"Added {created} of {len(STARTER_MOVIES)} starter movies")


@cli.command()
def check() -> None:
    """Compare the schema with the models, and check foreign keys, aggregates and sequences."""
    sound = True
    with open_session() as session:
        for problem in problems(session):
            sound = False
            typer.echo(problem, err=True)
    if not sound:
        raise typer.Exit(1)
    typer.echo("Database sound")


@cli.command()
def forget(user: Annotated[int, typer.Argument(min=1, max=USER_ID_MAX)]) -> None:
    """Delete every rating of USER, who is named by id, and update the averages."""
    with open_session() as session:
        removed = MovieRepository(session).remove_ratings(user)
    typer.echo(f"Deleted {removed} rating(s)")


@cli.command()
def repair() -> None:
    """Bring up to date what an older version of the service has left out of date."""
    with open_session() as session:
        repaired = repair_derived_data(session)
    typer.echo(f"Repaired the search index or the genres of {repaired} movie(s)")


for capability in CAPABILITIES:
    capability.add_to(cli)


def main() -> None:
    """Run a command. An error that a person can fix is one or two lines and exit code 1."""
    try:
        cli()
    except (SetupError, UnusableFile) as error:
        typer.echo(str(error), err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()

"""The database's command line: schema, starter movies, checks, copies, import and export."""

from importlib import import_module

import typer

from app.config import load_settings
from app.errors import SetupError, UnusableFile
from app.migrate import migrate_to_head
from app.repository import MovieRepository
from app.startup import STARTER_MOVIES, open_session, problems_of

# Each is a capability's folder. To remove one, delete the folder and its line here.
CAPABILITIES = (
    "app.backup.commands",
    "app.movielens.commands",
    "app.recommender.commands",
)

cli = typer.Typer(
    help="Look after the movie service's database, which MOVIE_DATABASE_URL names.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@cli.command()
def migrate() -> None:
    """Bring the schema to head. Safe to repeat, and from several processes at once."""
    migrate_to_head(load_settings().database_url)
    typer.echo("Database ready")


@cli.command()
def seed() -> None:
    """Add the starter movies that are missing, after bringing the schema to head."""
    migrate_to_head(load_settings().database_url)
    with open_session() as session:
        created = MovieRepository(session).create_missing(STARTER_MOVIES)
    typer.echo(f"Added {created} of {len(STARTER_MOVIES)} starter movies")


@cli.command()
def check() -> None:
    """Compare the schema with the models, and check foreign keys, aggregates and sequences."""
    sound = True
    with open_session() as session:
        for problem in problems_of(session):
            sound = False
            typer.echo(problem, err=True)
    if not sound:
        raise typer.Exit(1)
    typer.echo("Database sound")


for capability in CAPABILITIES:
    import_module(capability).add_to(cli)


def main() -> None:
    """Run a command; an error that a person can mend is a line or two and exit code 1."""
    try:
        cli()
    except (SetupError, UnusableFile) as error:
        typer.echo(str(error), err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()

"""Migrations: they make what the models say, keep the rows, and happen whole or not at all."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, create_engine, make_url
from sqlmodel import Session, SQLModel

from app.config import PROJECT_ROOT
from app.db import create_db_engine
from app.migrate import require_schema
from app.models import YEAR_MAX, YEAR_MIN
from app.repository import MovieRepository
from tests.databases import ENGINES, new_database
from tests.schema import Rows, all_rows, describe, shared
from tests.server import Commands, copy_of_project

INI = PROJECT_ROOT / "alembic.ini"
# Every revision from the first to the newest, those to come included.
REVISIONS = [
    script.revision
    for script in reversed(list(ScriptDirectory.from_config(Config(INI)).walk_revisions()))
]

# Each statement makes a difference that a comparison of the schemas has to see.
SQLITE_DIFFERENCES = {
    "type": ("genre VARCHAR(100)", "genre VARCHAR(99)"),
    "nullability": ("year INTEGER NOT NULL", "year INTEGER"),
    "default": ("DEFAULT 'Unknown'", "DEFAULT 'unknown'"),
    "collation": ("title VARCHAR(300) NOT NULL", "title VARCHAR(300) COLLATE NOCASE NOT NULL"),
    "used ids": (" AUTOINCREMENT", ""),
    "text of a check": ("BETWEEN 1900 AND 2100", "BETWEEN 1900 AND 2101"),
    "name of a check": ("ck_movie_year_range", "ck_movie_year"),
    "name of a foreign key": ("fk_rating_movie_id_movie", "fk_rating_movie"),
    "on delete": (" ON DELETE CASCADE", ""),
    "unique": ("UNIQUE (movie_id, user_id)", "UNIQUE (movie_id, user_id, id)"),
    "order of an index's columns": ("(genre, title)", "(title, genre)"),
    "direction of an index's column": ("rating_count DESC", "rating_count"),
    "condition of an index": ("(genre, title)", "(genre, title) WHERE year > 0"),
    "name of an index": ("ix_movie_genre_title", "ix_movie_by_genre"),
}
POSTGRESQL_DIFFERENCES = {
    "type": "ALTER TABLE movie ALTER genre TYPE varchar(99)",
    "nullability": "ALTER TABLE movie ALTER year DROP NOT NULL",
    "default": "ALTER TABLE movie ALTER genre SET DEFAULT 'unknown'",
    "collation": 'ALTER TABLE movie ALTER title TYPE varchar(300) COLLATE "default"',
    "used ids": "ALTER TABLE movie ALTER id DROP DEFAULT",
    "text of a check": (
        "ALTER TABLE movie DROP CONSTRAINT ck_movie_year_range, "
        "ADD CONSTRAINT ck_movie_year_range CHECK (year BETWEEN 1900 AND 2101)"
    ),
    "name of a check": ("ALTER TABLE movie RENAME CONSTRAINT ck_movie_year_range TO ck_movie_year"),
    "on delete": (
        "ALTER TABLE rating DROP CONSTRAINT fk_rating_movie_id_movie, "
        "ADD CONSTRAINT fk_rating_movie_id_movie FOREIGN KEY (movie_id) REFERENCES movie (id)"
    ),
    "direction of an index's column": (
        "DROP INDEX ix_movie_average_rating_ranking; "
        "CREATE INDEX ix_movie_average_rating_ranking "
        "ON movie (average_rating DESC, rating_count, title)"
    ),
    "order of an index's columns": (
        "DROP INDEX ix_movie_genre_title; CREATE INDEX ix_movie_genre_title ON movie (title, genre)"
    ),
}

HALF_WAY = """
    op.create_table("award", sa.Column("id", sa.Integer(), primary_key=True))
    op.add_column("movie", sa.Column("length", sa.Integer(), nullable=True))
    op.execute("UPDATE movie SET genre = 'Lost'")
    op.execute("DELETE FROM rating")
    with op.batch_alter_table("movie", recreate="auto") as movie:
        movie.drop_constraint(op.f("ck_movie_year_range"), type_="check")
    op.drop_table("rating")
"""


@pytest.fixture
def new_url(new_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new database of each engine, which Alembic's commands are about."""
    # Alembic puts the folder of its configuration in front.
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("MOVIE_DATABASE_URL", new_url)
    return new_url


@contextmanager
def opened(url: str) -> Iterator[Connection]:
    """Yield a connection that leaves nothing open."""
    engine = create_engine(url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def contents(url: str) -> tuple[dict[str, object], Rows]:
    """Return all that a database holds."""
    with opened(url) as connection:
        return describe(connection), all_rows(connection)


def schema_of_models(connection: Connection) -> dict[str, object]:
    """Return the schema that the models' metadata makes in an empty database."""
    SQLModel.metadata.create_all(connection)
    return describe(connection)


def fill(url: str) -> None:
    """Store movies and ratings with the values that are easiest to lose."""
    engine = create_db_engine(url)
    with Session(engine) as session:
        repository = MovieRepository(session)
        ids = [
            repository.create(title=title, year=year, genre=genre).id
            for title, year, genre in (
                ("The Matrix", 1999, "Sci-Fi"),
                ('Quoted "Title", it\'s; -- 100%', YEAR_MIN, "Children's"),
                ("Æon Flux \N{CLAPPER BOARD} 東京物語", YEAR_MAX, "Unknown"),
                ("T" * 300, 2000, "G" * 100),
                ("Never rated", 2001, "Drama"),
                ("Removed", 2002, "Drama"),
            )
        ]
        for user_id in range(1, 8):
            repository.add_rating(ids[0], user_id % 5 + 1, user_id)
        repository.add_rating(ids[1], 5, 2**31 - 1)
        # 14 stars in 8 ratings: the weighted rating is another in decimal than in binary.
        for score in (1, 1, 2, 2, 2, 2, 2, 2):
            repository.add_rating(ids[2], score)
        repository.remove_rating(ids[0], 3)
        repository.add_rating(ids[5], 3, 1)
        repository.delete(ids[5])
    engine.dispose()


def to_nine_digits(rows: Rows) -> Rows:
    """Return rows without the last digits of their floats, where older revisions may differ."""
    return {
        table: [
            {
                name: round(value, 9) if isinstance(value, float) else value
                for name, value in row.items()
            }
            for row in stored
        ]
        for table, stored in rows.items()
    }


def with_revision(folder: Path, upgrade: str, parent: str = REVISIONS[-1]) -> Path:
    """Return a copy of the project that has one more revision."""
    project = copy_of_project(folder)
    (project / "migrations" / "versions" / "added.py").write_text(
        '"""A migration of a test."""\n'
        "import sqlalchemy as sa\n"
        "from alembic import op\n"
        f'revision, down_revision = "ad0000000000", "{parent}"\n'
        f"def upgrade() -> None:\n{upgrade}\n"
        "def downgrade() -> None:\n    pass\n"
    )
    return project


@pytest.mark.parametrize("engine_name", ENGINES)
def test_the_migrated_schema_and_the_models_metadata_are_the_same(
    engine_name: str, tmp_path: Path
) -> None:
    with (
        new_database(engine_name, tmp_path, migrated=True) as migrated_url,
        new_database(engine_name, tmp_path) as models_url,
        opened(migrated_url) as migrated,
        opened(models_url) as models,
    ):
        of_models = schema_of_models(models)

        assert describe(migrated) == of_models
        assert len(of_models) > 1


@pytest.mark.parametrize("difference", SQLITE_DIFFERENCES)
def test_the_comparison_sees_a_difference_on_sqlite(difference: str) -> None:
    old, new = SQLITE_DIFFERENCES[difference]
    models, changed = create_engine("sqlite://"), create_engine("sqlite://")
    with models.begin() as connection:
        of_models = schema_of_models(connection)
        statements = connection.exec_driver_sql(
            "SELECT sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
        ).scalars()
        script = [str(statement).replace(old, new) for statement in statements]

    with changed.begin() as connection:
        for statement in script:
            connection.exec_driver_sql(statement)
        described = describe(connection)

    models.dispose()
    changed.dispose()
    assert described != of_models


@pytest.mark.parametrize("difference", POSTGRESQL_DIFFERENCES)
@pytest.mark.skipif("postgresql" not in ENGINES, reason="needs MOVIE_TEST_POSTGRES_URL")
def test_the_comparison_sees_a_difference_on_postgresql(
    difference: str, request: pytest.FixtureRequest
) -> None:
    with opened(str(request.getfixturevalue("postgres_url"))) as connection:
        before = describe(connection)

        connection.exec_driver_sql(POSTGRESQL_DIFFERENCES[difference])
        after = describe(connection)

        connection.rollback()
    assert after != before


def test_alembic_finds_nothing_to_change(new_url: str) -> None:
    command.upgrade(Config(INI), "head")

    command.check(Config(INI))

    with opened(new_url) as connection:
        require_schema(connection)


def test_a_full_database_keeps_its_rows_down_and_up_through_every_revision(new_url: str) -> None:
    command.upgrade(Config(INI), "head")
    fill(new_url)
    full_schema, full_rows = contents(new_url)
    older = [(REVISIONS[-1], full_schema, full_rows)]

    for revision in reversed(REVISIONS[:-1]):
        command.downgrade(Config(INI), "-1")
        schema, rows = contents(new_url)
        assert rows.pop("alembic_version") == [{"version_num": revision}]
        assert shared(rows, full_rows) == shared(full_rows, rows)
        older.append((revision, schema, rows))
    assert {name: len(rows) for name, rows in older[-1][2].items()} == {"movie": 5, "rating": 15}

    for revision, schema, rows in reversed(older[:-1]):
        command.upgrade(Config(INI), "+1")
        assert contents(new_url)[0] == schema, revision
        found, expected = to_nine_digits(contents(new_url)[1]), to_nine_digits(rows)
        assert shared(found, expected) == shared(expected, found), revision

    # What an older schema could not hold is worked out again.
    assert contents(new_url) == (full_schema, full_rows)


def test_an_id_stays_used_down_and_up_through_every_revision(new_url: str) -> None:
    command.upgrade(Config(INI), "head")
    fill(new_url)
    command.downgrade(Config(INI), REVISIONS[0])
    command.upgrade(Config(INI), "head")

    engine = create_db_engine(new_url)
    with Session(engine) as session:
        movie = MovieRepository(session).create(title="New", year=2020)
    engine.dispose()

    assert movie.id == 7


def test_downgrading_to_base_leaves_nothing_and_the_way_up_is_open(new_url: str) -> None:
    command.upgrade(Config(INI), "head")
    schema, _ = contents(new_url)
    fill(new_url)

    command.downgrade(Config(INI), "base")

    assert contents(new_url)[1] == {"alembic_version": []}
    command.upgrade(Config(INI), "head")
    fill(new_url)
    assert contents(new_url)[0] == schema


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        ('raise RuntimeError("half-way")', "half-way"),
        ('op.execute("INSERT INTO nowhere VALUES (1)")', "nowhere"),
    ],
    ids=["error of its own", "error of the database"],
)
def test_a_migration_that_fails_half_way_leaves_the_database_as_it_was(
    failure: str, reason: str, new_url: str, tmp_path: Path
) -> None:
    command.upgrade(Config(INI), "head")
    fill(new_url)
    before = contents(new_url)
    project = with_revision(tmp_path / "copy", f"{HALF_WAY}    {failure}\n")

    with pytest.raises((RuntimeError, CommandError), match=reason):
        command.upgrade(Config(project / "alembic.ini"), "head")

    assert contents(new_url) == before
    command.check(Config(INI))


def test_a_failed_migration_of_a_new_database_leaves_it_empty(new_url: str, tmp_path: Path) -> None:
    project = with_revision(tmp_path / "copy", '    raise RuntimeError("half-way")\n')

    with pytest.raises(RuntimeError, match="half-way"):
        command.upgrade(Config(project / "alembic.ini"), "head")

    assert contents(new_url)[1] == {}
    command.upgrade(Config(INI), "head")


def test_a_migration_that_fails_in_the_command_line_leaves_the_database_as_it_was(
    new_url: str, tmp_path: Path
) -> None:
    command.upgrade(Config(INI), "head")
    fill(new_url)
    before = contents(new_url)
    project = with_revision(tmp_path / "copy", f'{HALF_WAY}    raise RuntimeError("half-way")\n')

    finished = Commands(tmp_path, project, database_url=new_url).database("migrate")

    assert finished.exit_code == 1
    assert "half-way" in finished.errors
    assert "Database ready" not in finished.output
    assert contents(new_url) == before


def test_a_migration_makes_the_same_schema_whoever_runs_it(new_url: str, tmp_path: Path) -> None:
    command.upgrade(Config(INI), "head")
    project = with_revision(
        tmp_path / "copy",
        "    op.create_table(\n"
        "        'award', sa.Column('id', sa.Integer(), primary_key=True),\n"
        "        sa.Column('year', sa.Integer(), sa.ForeignKey('movie.id'), unique=True),\n"
        "        sa.CheckConstraint('year > 1900', name='year_range')\n"
        "    )\n",
    )
    engine_name = make_url(new_url).get_backend_name()
    with new_database(engine_name, tmp_path, migrated=True) as other_url:
        Commands(tmp_path, project, database_url=other_url).database("migrate")

        command.upgrade(Config(project / "alembic.ini"), "head")

        assert contents(other_url) == contents(new_url)


def test_a_migration_that_recreates_a_table_keeps_the_rows_that_refer_to_it(
    new_url: str, tmp_path: Path
) -> None:
    command.upgrade(Config(INI), "head")
    fill(new_url)
    _, before = contents(new_url)
    project = with_revision(
        tmp_path / "copy",
        "    if op.get_bind().dialect.name == 'sqlite':\n"
        "        with op.batch_alter_table('movie', recreate='always') as movie:\n"
        "            movie.alter_column('year', existing_type=sa.Integer(), nullable=True)\n"
        "    else:\n"
        "        op.alter_column('movie', 'year', nullable=True)\n",
    )

    command.upgrade(Config(project / "alembic.ini"), "head")

    _, after = contents(new_url)
    assert after["movie"] == before["movie"]
    assert after["rating"] == before["rating"]


def test_a_migration_that_would_orphan_ratings_is_refused(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("MOVIE_DATABASE_URL", sqlite_url)
    fill(sqlite_url)
    before = contents(sqlite_url)
    project = with_revision(tmp_path / "copy", '    op.execute("DELETE FROM movie WHERE id = 1")\n')

    with pytest.raises(CommandError, match=r"would leave 6 row\(s\) that refer to nothing"):
        command.upgrade(Config(project / "alembic.ini"), "head")

    assert contents(sqlite_url) == before


def test_alembic_finds_a_check_that_is_missing(new_url: str) -> None:
    command.upgrade(Config(INI), "head")
    with opened(new_url) as connection:
        operations = Operations(MigrationContext.configure(connection))
        with operations.batch_alter_table("movie") as movie:
            movie.drop_constraint("ck_movie_year_range", type_="check")
        connection.commit()

    with pytest.raises(CommandError, match="New upgrade operations detected"):
        command.check(Config(INI))

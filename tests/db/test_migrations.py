"""Migrations create the models' schema, keep the rows, and are applied completely or not at all."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
from alembic import command
from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Engine, create_engine, make_url, text
from sqlmodel import Session, SQLModel

from app.checks import data_problems
from app.config import PROJECT_ROOT
from app.db import create_db_engine
from app.db.migrations import require_schema
from app.db.schema import schema_differences
from app.repository import MovieRepository
from app.search import search_key, title_columns
from app.upgrade import upgrade
from tests.databases import needs_postgresql, new_database
from tests.rows import Rows, contents, fill, opened, shared
from tests.server import Commands, alembic_config, copy_of_project

INI = PROJECT_ROOT / "alembic.ini"
# Every revision from the first to the newest, including later ones.
REVISIONS = [
    script.revision
    for script in reversed(list(ScriptDirectory.from_config(Config(INI)).walk_revisions()))
]


class Replaced(NamedTuple):
    """A part of the models' SQL, its replacement, and the lines that report the difference."""

    old: str
    new: str
    lines: str


class Executed(NamedTuple):
    """A change of the migrated schema, and the line that reports the difference."""

    statements: str
    line: str


SQLITE_DIFFERENCES = {
    "type": Replaced(
        "genre VARCHAR(100)",
        "genre VARCHAR(99)",
        "movie: column genre is VARCHAR(99) NOT NULL DEFAULT 'Unknown'; "
        "the models have VARCHAR(100) NOT NULL DEFAULT 'Unknown'",
    ),
    "nullability": Replaced(
        "year INTEGER NOT NULL",
        "year INTEGER",
        "movie: column year is INTEGER; the models have INTEGER NOT NULL",
    ),
    "default": Replaced(
        "DEFAULT 'Unknown'",
        "DEFAULT 'unknown'",
        "movie: column genre is VARCHAR(100) NOT NULL DEFAULT 'unknown'; "
        "the models have VARCHAR(100) NOT NULL DEFAULT 'Unknown'",
    ),
    "collation": Replaced(
        "title VARCHAR(300) NOT NULL",
        "title VARCHAR(300) COLLATE NOCASE NOT NULL",
        "movie: column title is VARCHAR(300) NOT NULL COLLATE NOCASE; "
        "the models have VARCHAR(300) NOT NULL",
    ),
    "AUTOINCREMENT": Replaced(
        "id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, \n\ttitle",
        "id INTEGER NOT NULL PRIMARY KEY, \n\ttitle",
        "movie: column id is INTEGER NOT NULL PRIMARY KEY; "
        "the models have INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT",
    ),
    "a column too many": Replaced(
        "year INTEGER NOT NULL",
        "year INTEGER NOT NULL, surplus VARCHAR",
        "movie: column surplus is not in the models; the database has VARCHAR",
    ),
    "a column too few": Replaced(
        "created_at DATETIME",
        "made_at DATETIME",
        "rating: column created_at is missing; the models have DATETIME NOT NULL\n"
        "rating: column made_at is not in the models; the database has DATETIME NOT NULL",
    ),
    "text of a check": Replaced(
        "BETWEEN 1900 AND 2100",
        "BETWEEN 1900 AND 2101",
        "movie: constraint ck_movie_year_range is CHECK (year BETWEEN 1900 AND 2101); "
        "the models have CHECK (year BETWEEN 1900 AND 2100)",
    ),
    "name of a check": Replaced(
        "ck_movie_year_range",
        "ck_movie_year",
        "movie: constraint ck_movie_year is not in the models; "
        "the database has CHECK (year BETWEEN 1900 AND 2100)\n"
        "movie: constraint ck_movie_year_range is missing; "
        "the models have CHECK (year BETWEEN 1900 AND 2100)",
    ),
    "on delete": Replaced(
        " ON DELETE CASCADE",
        "",
        "movie_genre: constraint fk_movie_genre_movie_id_movie is "
        "FOREIGN KEY(movie_id) REFERENCES movie (id); "
        "the models have FOREIGN KEY(movie_id) REFERENCES movie (id) ON DELETE CASCADE",
    ),
    "unique": Replaced(
        "UNIQUE (movie_id, user_id)",
        "UNIQUE (movie_id, user_id, id)",
        "rating: constraint uq_rating_movie_id_user_id is UNIQUE (movie_id, user_id, id); "
        "the models have UNIQUE (movie_id, user_id)",
    ),
    "order of an index's columns": Replaced(
        "(rating_count, id)",
        "(title, genre)",
        "movie: index ix_movie_rating_count_id is (title, genre); "
        "the models have (rating_count, id)",
    ),
    "direction of an index's column": Replaced(
        "(average_rating DESC, rating_count DESC",
        "(average_rating DESC, rating_count",
        "movie: index ix_movie_average_rating_ranking is (average_rating DESC, rating_count, title)"
        "; the models have (average_rating DESC, rating_count DESC, title)",
    ),
    "expression of an index": Replaced(
        "(rating_count, id)",
        "(abs(rating_count), id)",
        "movie: index ix_movie_rating_count_id is (abs(rating_count), id); "
        "the models have (rating_count, id)",
    ),
    "condition of an index": Replaced(
        "(rating_count, id)",
        "(rating_count, id) WHERE year > 0",
        "movie: index ix_movie_rating_count_id is (rating_count, id) WHERE year > 0; "
        "the models have (rating_count, id)",
    ),
    "uniqueness of an index": Replaced(
        "CREATE INDEX ix_movie_rating_count_id",
        "CREATE UNIQUE INDEX ix_movie_rating_count_id",
        "movie: index ix_movie_rating_count_id is UNIQUE (rating_count, id); "
        "the models have (rating_count, id)",
    ),
    "name of a table": Replaced(
        "CREATE TABLE movie",
        "CREATE TABLE award (id INTEGER); CREATE TABLE movie",
        "table award is not in the models",
    ),
    "a trigger": Replaced(
        "CREATE INDEX ix_movie_rating_count_id",
        "CREATE TRIGGER forget AFTER DELETE ON movie BEGIN DELETE FROM rating; END; "
        "CREATE INDEX ix_movie_rating_count_id",
        "movie: trigger forget is not in the models; the database has CREATE TRIGGER forget "
        "AFTER DELETE ON movie BEGIN DELETE FROM rating; END",
    ),
}
POSTGRESQL_DIFFERENCES = {
    "type": Executed(
        "ALTER TABLE movie ALTER year TYPE bigint",
        "movie: column year is bigint NOT NULL; the models have integer NOT NULL",
    ),
    "nullability": Executed(
        "ALTER TABLE movie ALTER year DROP NOT NULL",
        "movie: column year is integer; the models have integer NOT NULL",
    ),
    "default": Executed(
        "ALTER TABLE movie ALTER rating_sum SET DEFAULT 1",
        "movie: column rating_sum is integer NOT NULL DEFAULT 1; "
        "the models have integer NOT NULL DEFAULT 0",
    ),
    "collation": Executed(
        'ALTER TABLE movie ALTER title TYPE varchar(300) COLLATE "default"',
        "movie: column title is character varying(300) NOT NULL; "
        "the models have character varying(300) COLLATE C NOT NULL",
    ),
    "sequence": Executed(
        "ALTER TABLE movie ALTER id DROP DEFAULT",
        "movie: column id is integer NOT NULL; "
        "the models have integer NOT NULL DEFAULT nextval('movie_id_seq'::regclass)",
    ),
    "text of a check": Executed(
        "ALTER TABLE movie DROP CONSTRAINT ck_movie_year_range, "
        "ADD CONSTRAINT ck_movie_year_range CHECK (year BETWEEN 1900 AND 2101)",
        "movie: constraint ck_movie_year_range is CHECK (year >= 1900 AND year <= 2101); "
        "the models have CHECK (year >= 1900 AND year <= 2100)",
    ),
    "on delete": Executed(
        "ALTER TABLE rating DROP CONSTRAINT fk_rating_movie_id_movie, "
        "ADD CONSTRAINT fk_rating_movie_id_movie FOREIGN KEY (movie_id) REFERENCES movie (id)",
        "rating: constraint fk_rating_movie_id_movie is "
        "FOREIGN KEY (movie_id) REFERENCES movie(id); "
        "the models have FOREIGN KEY (movie_id) REFERENCES movie(id) ON DELETE CASCADE",
    ),
    "direction of an index's column": Executed(
        "DROP INDEX ix_movie_rating_count_id; "
        "CREATE INDEX ix_movie_rating_count_id ON movie (rating_count, id DESC)",
        "movie: index ix_movie_rating_count_id is (rating_count, id DESC); "
        "the models have (rating_count, id)",
    ),
    "kind of an index": Executed(
        "DROP INDEX ix_movie_year_id; CREATE INDEX ix_movie_year_id ON movie USING hash (year)",
        "movie: index ix_movie_year_id is USING hash (year); the models have (year, id)",
    ),
    "name of a table": Executed(
        "CREATE TABLE award (id integer)",
        "table award is not in the models",
    ),
    "a missing table": Executed(
        "DROP TABLE rating",
        "table rating is missing",
    ),
    "values of an enumeration": Executed(
        "CREATE TYPE kind AS ENUM ('a', 'b'); ALTER TABLE movie ADD kind kind",
        "movie: column kind is not in the models; the database has kind 'a', 'b'",
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


def comparable(rows: Rows) -> Rows:
    """Return rows without search index and last digits of floats, in which revisions differ."""
    return {
        table: [
            {
                name: round(value, 9) if isinstance(value, float) else value
                for name, value in row.items()
                if name not in title_columns("")
            }
            for row in stored
        ]
        for table, stored in rows.items()
        if table != "movie_word"
    }


def with_revision(folder: Path, upgrade: str, parent: str = REVISIONS[-1]) -> Path:
    """Return a copy of the project with another revision."""
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


def test_migrated_schema_equals_the_models(engine: Engine) -> None:
    with engine.connect() as connection:
        assert schema_differences(connection) == []


def test_every_difference_of_the_schema_is_reported_on_sqlite() -> None:
    found = {}
    for name, (old, new, _) in SQLITE_DIFFERENCES.items():
        engine = create_engine("sqlite://")
        with engine.connect() as connection:
            SQLModel.metadata.create_all(connection)
            query = "SELECT sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
            script = ";\n".join(connection.exec_driver_sql(query).scalars())
            SQLModel.metadata.drop_all(connection)
            driver: Any = connection.connection.driver_connection
            driver.executescript(script.replace(old, new, 1))
            found[name] = "\n".join(schema_differences(connection))
        engine.dispose()

    assert found == {name: lines for name, (_, _, lines) in SQLITE_DIFFERENCES.items()}


@needs_postgresql
def test_every_difference_of_the_schema_is_reported_on_postgresql(
    request: pytest.FixtureRequest,
) -> None:
    found = {}
    with opened(str(request.getfixturevalue("postgres_url"))) as connection:
        for name, (statements, _) in POSTGRESQL_DIFFERENCES.items():
            connection.exec_driver_sql(statements)
            found[name] = schema_differences(connection)
            connection.rollback()

    assert found == {name: [line] for name, (_, line) in POSTGRESQL_DIFFERENCES.items()}


def test_alembic_check_passes_at_head_and_detects_a_missing_constraint(alembic_url: str) -> None:
    command.upgrade(Config(INI), "head")
    command.check(Config(INI))
    with opened(alembic_url) as connection:
        require_schema(connection)
        operations = Operations(MigrationContext.configure(connection))
        with operations.batch_alter_table("movie") as movie:
            movie.drop_constraint("ck_movie_year_range", type_="check")
        connection.commit()

    with pytest.raises(CommandError, match="New upgrade operations detected"):
        command.check(Config(INI))


def test_rows_survive_a_downgrade_and_upgrade_through_every_revision(
    alembic_url: str,
) -> None:
    command.upgrade(Config(INI), "head")
    fill(alembic_url)
    full_schema, full_rows = contents(alembic_url)
    older = [(REVISIONS[-1], full_schema, full_rows)]

    for revision in reversed(REVISIONS[:-1]):
        command.downgrade(Config(INI), "-1")
        schema, rows = contents(alembic_url)
        assert rows.pop("alembic_version") == [{"version_num": revision}]
        assert comparable(shared(rows, full_rows)) == comparable(shared(full_rows, rows))
        older.append((revision, schema, rows))
    assert {name: len(rows) for name, rows in older[-1][2].items()} == {"movie": 5, "rating": 15}

    for revision, schema, rows in reversed(older[:-1]):
        command.upgrade(Config(INI), "+1")
        assert contents(alembic_url)[0] == schema, revision
        found, expected = comparable(contents(alembic_url)[1]), comparable(rows)
        assert shared(found, expected) == shared(expected, found), revision

    # The upgrade fills columns that an older schema lacks, and start-up the search index.
    upgrade(alembic_url)
    assert contents(alembic_url) == (full_schema, full_rows)


def test_used_ids_stay_used_after_a_downgrade_and_upgrade(alembic_url: str) -> None:
    command.upgrade(Config(INI), "head")
    fill(alembic_url)
    command.downgrade(Config(INI), REVISIONS[0])
    command.upgrade(Config(INI), "head")

    engine = create_db_engine(alembic_url)
    with Session(engine) as session:
        movie = MovieRepository(session).create(title="New", year=2020)
    engine.dispose()

    assert movie.id == 7


def test_downgrade_to_base_leaves_no_tables_and_can_be_upgraded_again(alembic_url: str) -> None:
    command.upgrade(Config(INI), "head")
    schema, _ = contents(alembic_url)
    fill(alembic_url)

    command.downgrade(Config(INI), "base")

    assert contents(alembic_url)[1] == {"alembic_version": []}
    command.upgrade(Config(INI), "head")
    fill(alembic_url)
    assert contents(alembic_url)[0] == schema


def test_upgrade_normalizes_stored_text(alembic_url: str) -> None:
    command.upgrade(Config(INI), "c4a8d1f0e7b3")
    too_long = "\u0958" * 151  # each is two characters in NFC
    stored = [
        ("Heat", "Crime"),
        ("  The\u3000Thing ", "science  fiction/horror"),
        ("Ame\u0301lie", "Come\u0301die"),
        ("Sola\u00adris\u200b", "\ufeffsci-fi"),
        # Duplicates of a stored title, and of a title that the upgrade creates.
        ("He\u200bat", "drama"),
        ("Am\u200be\u0301lie", "Drama"),
        # These have no valid normal form.
        ("\u200b", "\u2800"),
        (too_long, "Action|drama"),
        ("Café", "Documentary"),
    ]
    rows = [
        {"id": i, "title": title, "search_title": title.casefold(), "year": 2000, "genre": genre}
        for i, (title, genre) in enumerate(stored, start=1)
    ]
    with opened(alembic_url) as connection:
        connection.execute(
            text(
                "INSERT INTO movie (id, title, search_title, year, genre) "
                "VALUES (:id, :title, :search_title, :year, :genre)"
            ),
            rows,
        )
        connection.commit()

    command.upgrade(Config(INI), "head")

    _, after = contents(alembic_url)
    assert [(movie["title"], movie["genre"]) for movie in after["movie"]] == [
        ("Heat", "Crime"),
        ("The Thing", "Science Fiction/Horror"),
        ("Amélie", "Comédie"),
        ("Solaris", "Sci-Fi"),
        *stored[4:],
    ]
    assert [movie["search_title"] for movie in after["movie"]] == [
        search_key(movie["title"]) for movie in after["movie"]
    ]
    command.downgrade(Config(INI), "c4a8d1f0e7b3")
    _, older = contents(alembic_url)
    assert comparable(shared(after, older))["movie"] == comparable(older)["movie"]


def test_upgrade_fills_genre_rows_and_search_keys(
    alembic_url: str,
) -> None:
    command.upgrade(Config(INI), "d2b7e4c91f06")
    with opened(alembic_url) as connection:
        connection.execute(
            text(
                "INSERT INTO movie (title, search_title, year, genre) VALUES "
                "('Matrix, The (1999)', 'matrix, the (1999)', 1999, 'Sci-Fi'), "
                "('Misérables, Les', 'misérables, les', 1995, 'Drama')"
            )
        )
        connection.commit()

    upgrade(alembic_url)

    engine = create_db_engine(alembic_url)
    with Session(engine) as session:
        repository = MovieRepository(session)
        found = [
            [movie.title for movie in movies]
            for movies in (
                repository.list(q="the matrix"),
                repository.list(q="les miserables"),
                repository.list(genre="drama"),
            )
        ]
        problems = [*data_problems(repository.session)]
    engine.dispose()
    assert found == [["Matrix, The (1999)"], ["Misérables, Les"], ["Misérables, Les"]]
    assert problems == []


def test_downgrade_stops_at_user_ids_too_large_for_the_older_version(alembic_url: str) -> None:
    command.upgrade(Config(INI), "e5f1a7c30b92")
    with opened(alembic_url) as connection:
        connection.execute(
            text("INSERT INTO movie (title, search_title, year) VALUES ('Heat', 'heat', 1995)")
        )
        connection.execute(
            text(
                "INSERT INTO rating (movie_id, user_id, score, created_at) "
                "VALUES (1, 2147483648, 5, '2020-01-01')"
            )
        )
        connection.commit()
    before = contents(alembic_url)

    with pytest.raises(CommandError, match="holds user ids up to 2147483647, and there is 2147483"):
        command.downgrade(Config(INI), "-1")

    assert contents(alembic_url) == before


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        ('raise RuntimeError("half-way")', "half-way"),
        ('op.execute("INSERT INTO nowhere VALUES (1)")', "nowhere"),
    ],
    ids=["error of Python", "error of the database"],
)
@pytest.mark.parametrize("is_new", [False, True], ids=["full", "new"])
def test_failed_migration_leaves_the_database_unchanged(
    failure: str, reason: str, alembic_url: str, tmp_path: Path, *, is_new: bool
) -> None:
    if not is_new:
        command.upgrade(Config(INI), "head")
        fill(alembic_url)
    before = contents(alembic_url)
    project = with_revision(tmp_path / "copy", f"{HALF_WAY}    {failure}\n")

    with pytest.raises((RuntimeError, CommandError), match=reason):
        command.upgrade(alembic_config(project), "head")

    assert contents(alembic_url) == before
    command.upgrade(Config(INI), "head")
    command.check(Config(INI))


@pytest.mark.slow
@pytest.mark.ci
def test_failed_migrate_command_leaves_the_database_unchanged(
    alembic_url: str, tmp_path: Path
) -> None:
    command.upgrade(Config(INI), "head")
    fill(alembic_url)
    before = contents(alembic_url)
    project = with_revision(tmp_path / "copy", f'{HALF_WAY}    raise RuntimeError("half-way")\n')

    finished = Commands(tmp_path, project, database_url=alembic_url).database("migrate")

    assert finished.exit_code == 1
    assert "half-way" in finished.errors
    assert "Database ready" not in finished.output
    assert contents(alembic_url) == before


@pytest.mark.slow
@pytest.mark.ci
def test_both_commands_create_the_same_schema(alembic_url: str, tmp_path: Path) -> None:
    command.upgrade(Config(INI), "head")
    project = with_revision(
        tmp_path / "copy",
        "    op.create_table(\n"
        "        'award', sa.Column('id', sa.Integer(), primary_key=True),\n"
        "        sa.Column('year', sa.Integer(), sa.ForeignKey('movie.id'), unique=True),\n"
        "        sa.CheckConstraint('year > 1900', name='year_range')\n"
        "    )\n",
    )
    engine_name = make_url(alembic_url).get_backend_name()
    with new_database(engine_name, tmp_path, migrated=True) as other_url:
        Commands(tmp_path, project, database_url=other_url).database("migrate")

        command.upgrade(alembic_config(project), "head")

        assert contents(other_url) == contents(alembic_url)


def test_migration_that_recreates_a_table_keeps_rows_and_used_ids(
    alembic_url: str, tmp_path: Path
) -> None:
    command.upgrade(Config(INI), "head")
    fill(alembic_url)
    _, before = contents(alembic_url)
    project = with_revision(
        tmp_path / "copy",
        "    with op.batch_alter_table(\n"
        "        'movie', table_kwargs={'sqlite_autoincrement': True}\n"
        "    ) as movie:\n"
        "        movie.alter_column('year', existing_type=sa.Integer(), nullable=True)\n",
    )

    command.upgrade(alembic_config(project), "head")

    _, after = contents(alembic_url)
    assert after["movie"] == before["movie"]
    assert after["rating"] == before["rating"]
    with opened(alembic_url) as connection, Session(connection) as session:
        assert MovieRepository(session).create(title="New", year=2020).id == 7


@pytest.mark.parametrize(
    ("upgrade", "reason"),
    [
        (
            (
                "    with op.batch_alter_table('movie') as movie:\n"
                "        movie.alter_column('year', existing_type=sa.Integer(), nullable=True)\n"
            ),
            "movie use the ids of deleted rows again",
        ),
        (
            '    op.execute("DELETE FROM movie WHERE id = 1")\n',
            r"would leave 10 row\(s\) that refer to nothing",
        ),
    ],
    ids=["reused ids", "orphans"],
)
def test_migration_that_damages_the_data_is_refused(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, upgrade: str, reason: str
) -> None:
    monkeypatch.setenv("MOVIE_DATABASE_URL", sqlite_url)
    fill(sqlite_url)
    before = contents(sqlite_url)
    project = with_revision(tmp_path / "copy", upgrade)

    with pytest.raises(CommandError, match=reason):
        command.upgrade(alembic_config(project), "head")

    assert contents(sqlite_url) == before

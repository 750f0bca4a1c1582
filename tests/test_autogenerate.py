"""Revisions that Alembic writes for a change of the models lose nothing, up and down."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    UniqueConstraint,
    false,
    func,
    text,
)
from sqlmodel import Session, SQLModel
from sqlmodel.sql.sqltypes import AutoString, UTCDateTime

from app import migrate
from app.config import PROJECT_ROOT
from app.models import text_column
from app.repository import MovieRepository
from app.schema_check import schema_differences
from tests.rows import contents, fill, opened
from tests.server import Commands, Finished, alembic_config, copy_of_project


class Change(NamedTuple):
    """A change of the models, and the operations that make it and take it back."""

    apply: Callable[[Table], None]
    upgrade: list[str]
    downgrade: list[str]


def change_what_sqlite_alters(movie: Table) -> None:
    """Add columns; add, drop and turn indexes."""
    movie.append_column(Column("added_text", AutoString(length=100)))
    movie.append_column(Column("added_flag", Boolean, nullable=False, server_default=false()))
    movie.append_column(Column("added_number", Integer, nullable=False, server_default=text("90")))
    movie.append_column(text_column(100, name="added_sorted", server_default="it's unknown"))
    drop_index(movie, "ix_movie_average_rating_ranking")
    drop_index(movie, "ix_movie_year_id")
    Index("ix_movie_year_id", movie.c.year.desc(), movie.c.id)
    Index("ix_movie_any_case", func.lower(movie.c.title))


def change_what_sqlite_recreates(movie: Table) -> None:
    """Add a unique column, a reference to a movie and a time with a default.

    Change a type, a default, and the text of a CHECK.
    """
    movie.append_column(Column("added_unique", AutoString(length=20)))
    movie.append_constraint(UniqueConstraint("added_unique"))
    movie.append_column(Column("added_reference", ForeignKey("movie.id", ondelete="SET NULL")))
    movie.append_column(
        Column("added_time", DateTime(timezone=True), nullable=False, server_default=func.now())
    )
    movie.c.genre.type = text_column(120).type
    movie.c.genre.server_default = None
    (old,) = (check for check in movie.constraints if check.name == "ck_movie_year_range")
    movie.constraints.remove(old)
    movie.append_constraint(CheckConstraint("year BETWEEN 1900 AND 2200", name="year_range"))


def add_table(movie: Table) -> None:
    """Add a table that refers to the movies."""
    Table(
        "added_table",
        movie.metadata,
        Column("id", Integer, primary_key=True),
        Column("movie_id", ForeignKey("movie.id", ondelete="CASCADE"), nullable=False),
        Column("given_at", UTCDateTime(), nullable=False),
        CheckConstraint("id > 0", name="id_range"),
        Index("ix_added_table_newest", text("given_at DESC")),
        sqlite_autoincrement=True,
    )


def drop_index(movie: Table, name: str) -> None:
    """Remove an index."""
    (index,) = (index for index in movie.indexes if index.name == name)
    movie.indexes.remove(index)


def recreated(*operations: str) -> list[str]:
    """Return a batch's operations: a batch loses the direction of the rankings' indexes."""
    drop, create = ["op.drop_index"] * 2, ["op.create_index"] * 2
    return [*drop, "op.batch_alter_table", *operations, *create]


CHANGES = {
    "what SQLite alters": Change(
        change_what_sqlite_alters,
        [*["op.add_column"] * 4, *["op.drop_index"] * 2, *["op.create_index"] * 2],
        [*["op.drop_index"] * 2, *["op.create_index"] * 2, *["op.drop_column"] * 4],
    ),
    "what SQLite recreates a table for": Change(
        change_what_sqlite_recreates,
        recreated(
            *["batch_op.add_column"] * 3,
            "batch_op.alter_column",
            "batch_op.create_unique_constraint",
            "batch_op.create_foreign_key",
            "batch_op.drop_constraint",
            "batch_op.create_check_constraint",
        ),
        recreated(
            "batch_op.drop_constraint",
            "batch_op.create_check_constraint",
            "batch_op.drop_constraint",
            "batch_op.drop_constraint",
            "batch_op.alter_column",
            *["batch_op.drop_column"] * 3,
        ),
    ),
    "a table": Change(
        add_table,
        ["op.create_table", "op.create_index"],
        ["op.drop_index", "op.drop_table"],
    ),
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the project, whose revisions are the ones that the service knows."""
    project = copy_of_project(tmp_path / "copy")
    monkeypatch.setattr(migrate, "PROJECT_ROOT", project)
    yield project
    forget_revisions()


def forget_revisions() -> None:
    """Let the service read the revisions again."""
    migrate._migrations.cache_clear()  # noqa: SLF001 - a process reads them once


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> MetaData:
    """A copy of the models' metadata to change, which replaces it."""
    copy = MetaData(naming_convention=SQLModel.metadata.naming_convention)
    for table in SQLModel.metadata.sorted_tables:
        table.to_metadata(copy)
    monkeypatch.setattr(SQLModel, "metadata", copy)
    return copy


def write_revision(project: Path, message: str) -> str:
    """Let Alembic write a revision, and return it."""
    command.revision(alembic_config(project), message, autogenerate=True)
    forget_revisions()
    (file,) = (project / "migrations" / "versions").glob(f"*_{message}.py")
    return file.read_text()


def operations(revision: str, direction: str) -> list[str]:
    """Return the names of a direction's operations."""
    body = revision.partition(f"def {direction}() -> None:\n")[2].partition("\ndef ")[0]
    names = re.findall(r"^ +(?:with )?((?:batch_)?op\.\w+)\(", body, re.MULTILINE)
    return [name for name in names if not name.endswith(".f")]


def differences(url: str) -> list[str]:
    """Return how a database differs from the models."""
    with opened(url) as connection:
        return schema_differences(connection)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_a_revision_makes_a_change_of_the_models_and_takes_it_back(
    name: str, alembic_url: str, project: Path, models: MetaData
) -> None:
    config = alembic_config(project)
    command.upgrade(config, "head")
    fill(alembic_url)
    before = contents(alembic_url)
    CHANGES[name].apply(models.tables["movie"])

    revision = write_revision(project, "change")

    assert sorted(operations(revision, "upgrade")) == sorted(CHANGES[name].upgrade)
    assert sorted(operations(revision, "downgrade")) == sorted(CHANGES[name].downgrade)
    command.upgrade(config, "head")
    assert differences(alembic_url) == []
    command.check(config)
    command.downgrade(config, "-1")
    assert contents(alembic_url) == before
    command.upgrade(config, "head")
    assert differences(alembic_url) == []
    with opened(alembic_url) as connection, Session(connection) as session:
        assert MovieRepository(session).create(title="New", year=2020).id == 7


@pytest.mark.slow
def test_revision_drops_removed_tables_and_columns(
    alembic_url: str, project: Path, monkeypatch: pytest.MonkeyPatch, models: MetaData
) -> None:
    without = MetaData(naming_convention=models.naming_convention)
    for table in models.sorted_tables:
        table.to_metadata(without)
    models.tables["movie"].append_column(text_column(100, name="added_sorted", server_default="?"))
    Index("ix_movie_added_sorted", models.tables["movie"].c.added_sorted.desc())
    add_table(models.tables["movie"])
    config = alembic_config(project)
    command.upgrade(config, "head")
    write_revision(project, "add")
    command.upgrade(config, "head")
    schema, _ = contents(alembic_url)
    monkeypatch.setattr(SQLModel, "metadata", without)

    revision = write_revision(project, "drop")

    assert operations(revision, "upgrade") == [
        "op.drop_index",
        "op.drop_table",
        "op.drop_index",
        "op.drop_column",
    ]
    command.upgrade(config, "head")
    assert differences(alembic_url) == []
    command.downgrade(config, "-1")
    assert contents(alembic_url)[0] == schema


@pytest.mark.slow
@pytest.mark.usefixtures("alembic_url")
def test_revision_is_the_same_whichever_engine_it_was_written_on(
    project: Path, models: MetaData
) -> None:
    command.upgrade(alembic_config(project), "head")
    movie = models.tables["movie"]
    movie.c.genre.type = text_column(120).type
    movie.append_column(Column("added_flag", Boolean, server_default=false()))
    movie.append_column(Column("added_time", UTCDateTime(), server_default=func.now()))

    revision = write_revision(project, "change")

    # The text's type as it was and as it will be, up and down.
    assert revision.count('collation="C"), "postgresql"') == 4
    assert "server_default=sa.false()" in revision
    assert "server_default=sa.func.now()" in revision


@pytest.mark.usefixtures("alembic_url")
def test_revision_is_refused_without_a_change_and_for_a_column_without_a_default(
    project: Path, models: MetaData
) -> None:
    command.upgrade(alembic_config(project), "head")

    with pytest.raises(CommandError, match="Nothing was written"):
        write_revision(project, "change")
    models.tables["movie"].append_column(Column("added_text", AutoString(), nullable=False))
    with pytest.raises(
        CommandError, match=r"movie\.added_text is NOT NULL and has no server default"
    ):
        write_revision(project, "change")

    assert list((project / "migrations" / "versions").glob("*_change.py")) == []


@pytest.mark.slow
@pytest.mark.ci
def test_the_steps_of_the_readme_work_in_a_folder_with_a_percent_sign(
    tmp_path: Path,
) -> None:
    project = copy_of_project(tmp_path / "100% %(mine)s")
    models = project / "app" / "models.py"
    year = "    year: int\n"
    added_text = "    added_text: str | None = Field(default=None, max_length=100)\n"
    assert models.read_text().count(year) == 1
    models.write_text(models.read_text().replace(year, year + added_text))
    commands = Commands(project, project)
    known_head = ScriptDirectory(PROJECT_ROOT / "migrations").get_current_head()

    written = commands.alembic("revision", "--autogenerate", "-m", "a new field")
    upgraded = commands.alembic("upgrade", "head")
    checked = commands.database("check")
    upgraded_again = commands.alembic("upgrade", "head")
    taken_back = commands.alembic("downgrade", "-1")

    assert written.exit_code == 0
    (file,) = (project / "migrations" / "versions").glob("*_a_new_field.py")
    at_head = Finished(0, f"Schema at {file.name.split('_')[3]} (head)\n", "")
    assert upgraded == upgraded_again == at_head
    assert checked == Finished(0, "Database sound\n", "")
    assert taken_back == Finished(0, f"Schema at {known_head}\n", "")
    for check in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        linted = commands.run([sys.executable, "-m", "ruff", *check, str(file)])
        assert linted.exit_code == 0, linted.output

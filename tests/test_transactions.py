"""Transactions compose: verbs are stored together, and what the caller has begun stays its own."""

import logging
from collections.abc import Callable, Iterator
from weakref import WeakSet

import pytest
from sqlalchemy import Connection, Engine, create_engine, event, insert, update
from sqlalchemy.exc import InvalidRequestError
from sqlmodel import Session, col, select

from app.db import create_db_engine
from app.errors import DuplicateTitle
from app.kept_connections import KeptConnections
from app.models import Movie
from app.repository import MovieRepository
from app.statements import MOVIE
from app.transactions import KEPT, reading, writing
from tests.helpers import (
    HEAT,
    RONIN,
    SAMPLES,
    THREADS,
    Interrupted,
    everything,
    in_threads,
    movie_row,
    movie_rows,
    rating_rows,
    store,
)


@pytest.fixture
def engine(any_engine: Engine) -> Engine:
    """The engine behind ``repository`` and ``session``."""
    return any_engine


@pytest.fixture
def session(engine: Engine, request: pytest.FixtureRequest) -> Iterator[Session]:
    """A session as the service makes it for a request, or a plain one."""
    kept = None
    if request.node.callspec.params["any_engine"] == "service" and engine.dialect.name == "sqlite":
        kept = KeptConnections(engine, 5.0, WeakSet())
    with Session(engine, info={KEPT: kept}) as session:
        yield session
    if kept is not None:
        kept.close()


def titles(engine: Engine) -> list[str]:
    """Return the stored titles, as others see them."""
    return [row["title"] for row in movie_rows(engine)]


def create_and_raise(session: Session) -> None:
    """Create a movie and rate it, and fail."""
    repository = MovieRepository(session)
    repository.add_rating(repository.create(title="Alien", year=1979).id, 5)
    raise Interrupted


# What a caller does before it calls a verb


def add(session: Session) -> None:
    """Add a row that the session has not sent yet."""
    session.add(Movie(title="Alien", year=1979))


def flush(session: Session) -> None:
    """Add a row and send it."""
    add(session)
    session.flush()


def execute(session: Session) -> None:
    """Insert a row through Core, past the session's own bookkeeping."""
    session.execute(insert(MOVIE).values(title="Alien", search_title="alien", year=1979))


def change(session: Session) -> None:
    """Change a row that the session has loaded."""
    session.get_one(Movie, 1).title = "Heat 2"


def delete(session: Session) -> None:
    """Delete a row that the session has loaded."""
    session.delete(session.get_one(Movie, 1))


def begin(session: Session) -> None:
    """Begin on purpose, and change nothing yet."""
    session.begin()


def begin_savepoint(session: Session) -> None:
    """Begin a savepoint after a read, and change nothing yet."""
    session.get(Movie, 1)
    session.begin_nested()


def flush_and_release_savepoint(session: Session) -> None:
    """Send a row, and then use a savepoint that changes nothing."""
    flush(session)
    with session.begin_nested():
        session.connection()


# Verbs inside writing()


def test_verbs_inside_writing_are_stored_together(
    repository: MovieRepository, session: Session, engine: Engine
) -> None:
    with writing(session):
        movie = repository.create(title="Heat", year=1995, genre="Crime")
        repository.add_rating(movie.id, 4, user_id=7)
        seen_by_others = everything(engine)

    assert seen_by_others == ([], [])
    assert movie_rows(engine) == [movie_row(1, HEAT._replace(scores=(4,)))]
    assert rating_rows(engine) == [{"id": 1, "movie_id": 1, "user_id": 7, "score": 4}]
    assert not session.in_transaction()


def test_verbs_inside_writing_that_raises_are_rolled_back_together(
    session: Session, engine: Engine
) -> None:
    with pytest.raises(Interrupted), writing(session):
        create_and_raise(session)

    assert everything(engine) == ([], [])
    assert not session.in_transaction()


def test_error_that_is_caught_inside_writing_undoes_only_its_own_verbs(
    repository: MovieRepository, session: Session, engine: Engine
) -> None:
    store(engine, HEAT)

    with writing(session):
        repository.create(title="Ronin", year=1998)
        with pytest.raises(DuplicateTitle):
            repository.create(title="Heat", year=2001)
        with pytest.raises(Interrupted), writing(session):
            create_and_raise(session)
        repository.create(title="Zodiac", year=2007)

    assert titles(engine) == ["Heat", "Ronin", "Zodiac"]


@pytest.mark.parametrize("caller", [None, add])
def test_reading_inside_writing_sees_what_was_written(
    repository: MovieRepository, session: Session, caller: Callable[[Session], None] | None
) -> None:
    if caller is not None:
        caller(session)

    with writing(session), reading(session), writing(session):
        repository.create(title="Heat", year=1995)
        page = repository.list()

    assert [movie.title for movie in page] == ([] if caller is None else ["Alien"]) + ["Heat"]


def commit_and_create(session: Session) -> None:
    """Commit, and then call another verb."""
    session.commit()
    MovieRepository(session).create(title="Ronin", year=1998)


def test_verbs_after_a_commit_inside_writing_are_refused(
    repository: MovieRepository, session: Session, engine: Engine
) -> None:
    with writing(session):
        repository.create(title="Heat", year=1995)
        with pytest.raises(InvalidRequestError):
            commit_and_create(session)

    assert titles(engine) == ["Heat"]


def test_session_of_the_service_that_holds_no_entities_refuses_them_inside_writing(
    sqlite_url: str,
) -> None:
    engine = create_db_engine(sqlite_url)
    kept = KeptConnections(engine, 5.0, WeakSet())
    session = Session(engine, info={KEPT: kept})

    with writing(session), pytest.raises(InvalidRequestError, match="Autobegin is disabled"):
        session.add(Movie(title="Alien", year=1979))

    add(session)
    session.commit()
    assert titles(engine) == ["Alien"]
    kept.close()
    engine.dispose()


def test_threads_that_write_what_rests_on_a_read_lose_no_update(engine: Engine) -> None:
    [movie_id] = store(engine, HEAT)

    def make_newer(session: Session, _: int) -> None:
        repository = MovieRepository(session)
        for _ in range(5):
            with writing(session):
                repository.update(movie_id, year=repository.get(movie_id).year + 1)

    in_threads(engine, make_newer)

    assert movie_rows(engine) == [movie_row(movie_id, HEAT._replace(year=1995 + 5 * THREADS))]


# Inside the caller's transaction


# What the caller has done, and the titles once it has committed that.
CALLERS: dict[Callable[[Session], None], list[str]] = {
    add: ["Heat", "Ronin", "Alien"],
    flush: ["Heat", "Ronin", "Alien"],
    execute: ["Heat", "Ronin", "Alien"],
    change: ["Heat 2", "Ronin"],
    delete: ["Ronin"],
    begin: ["Heat", "Ronin"],
    begin_savepoint: ["Heat", "Ronin"],
    flush_and_release_savepoint: ["Heat", "Ronin", "Alien"],
}
for_each_caller = pytest.mark.parametrize("caller", CALLERS)


@for_each_caller
def test_verb_inside_the_callers_transaction_is_rolled_back_with_it(
    repository: MovieRepository, session: Session, engine: Engine, caller: Callable[[Session], None]
) -> None:
    store(engine, HEAT, RONIN)
    before = everything(engine)
    caller(session)

    repository.create(title="Zodiac", year=2007)

    assert everything(engine) == before
    session.rollback()
    assert everything(engine) == before


@for_each_caller
def test_verb_inside_the_callers_transaction_is_committed_with_it(
    repository: MovieRepository, session: Session, engine: Engine, caller: Callable[[Session], None]
) -> None:
    store(engine, HEAT, RONIN)
    caller(session)

    repository.create(title="Zodiac", year=2007)

    session.commit()
    assert titles(engine) == [*CALLERS[caller], "Zodiac"]


@for_each_caller
def test_verb_that_fails_leaves_the_callers_transaction_as_it_was(
    repository: MovieRepository, session: Session, engine: Engine, caller: Callable[[Session], None]
) -> None:
    store(engine, HEAT, RONIN)
    caller(session)

    with pytest.raises(DuplicateTitle):
        repository.create(title="Ronin", year=2001)

    session.commit()
    assert titles(engine) == CALLERS[caller]


def test_verbs_compose_inside_the_block_of_a_session_that_begins_only_on_purpose(
    engine: Engine,
) -> None:
    with Session(engine, autobegin=False) as session:
        repository = MovieRepository(session)
        with session.begin():
            movie = repository.create(title="Heat", year=1995, genre="Crime")
            repository.add_rating(movie.id, 4)
        with pytest.raises(Interrupted), session.begin():
            create_and_raise(session)

    assert movie_rows(engine) == [movie_row(1, HEAT._replace(scores=(4,)))]


def test_verb_that_reads_sees_the_callers_rows(
    repository: MovieRepository, session: Session
) -> None:
    add(session)

    page = repository.list()

    assert [movie.title for movie in page] == ["Alien"]


# After the caller has only read


def get(session: Session) -> None:
    """Load a row."""
    session.get_one(Movie, 1)


def read(session: Session) -> None:
    """Read through Core."""
    session.execute(MOVIE.select()).all()


def assign_the_same(session: Session) -> None:
    """Assign a value that is stored already."""
    movie = session.get_one(Movie, 1)
    movie.year = int(movie.year)


def change_no_row(session: Session) -> None:
    """Send a change that finds no row."""
    session.execute(update(MOVIE).where(MOVIE.c.id == 99).values(year=2000))


@pytest.mark.parametrize("caller", [get, read, assign_the_same, change_no_row])
def test_verb_after_reads_is_committed(
    repository: MovieRepository, session: Session, engine: Engine, caller: Callable[[Session], None]
) -> None:
    store(engine, HEAT)
    caller(session)

    repository.create(title="Ronin", year=1998)

    assert titles(engine) == ["Heat", "Ronin"]
    assert not session.in_transaction()


def test_verb_after_reads_that_others_have_outdated_is_committed(
    repository: MovieRepository, session: Session, engine: Engine
) -> None:
    store(engine, HEAT)
    session.get_one(Movie, 1)
    store(engine, RONIN)

    repository.add_rating(1, 4)

    assert movie_rows(engine) == [movie_row(1, HEAT._replace(scores=(4,))), movie_row(2, RONIN)]


def write_beside_own_row(session: Session) -> None:
    """Call a verb where a row of the caller keeps it from committing."""
    add(session)
    MovieRepository(session).create(title="Zodiac", year=2007)


@pytest.mark.parametrize("caller", [None, get, begin, write_beside_own_row])
def test_writing_inside_reading_raises(
    repository: MovieRepository,
    session: Session,
    engine: Engine,
    caller: Callable[[Session], None] | None,
) -> None:
    store(engine, HEAT)
    if caller is not None:
        caller(session)

    with reading(session):
        with reading(session), pytest.raises(RuntimeError, match="inside reading"):
            repository.delete(1)
        with pytest.raises(RuntimeError, match="inside reading"):
            repository.delete(1)

    session.rollback()
    repository.create(title="Ronin", year=1998)
    assert titles(engine) == ["Heat", "Ronin"]


def test_reading_that_ends_late_ends_no_other_transaction(engine: Engine) -> None:
    with Session(engine) as session:
        with reading(session):
            session.rollback()
            flush(session)
        session.commit()

    assert titles(engine) == ["Alien"]


# Entities of the caller


def test_entity_shows_what_a_verb_has_stored(
    repository: MovieRepository, session: Session, engine: Engine
) -> None:
    store(engine, HEAT)
    movie = session.get_one(Movie, 1)

    repository.add_rating(1, 4)
    after_the_first = movie.average_rating
    with writing(session):
        repository.add_rating(1, 5)
        inside = movie.average_rating
    movie.year = 1996
    repository.add_rating(1, 3)
    with_own_change = (movie.average_rating, movie.year)

    assert (after_the_first, inside, with_own_change) == (4.0, 4.5, (4.0, 1996))


def test_entity_that_was_read_inside_reading_shows_later_changes(engine: Engine) -> None:
    store(engine, HEAT)
    with Session(engine) as session, Session(engine) as another:
        with reading(session):
            movie = session.get_one(Movie, 1)
        MovieRepository(another).add_rating(1, 4)

        assert movie.average_rating == 4.0


def test_entity_stays_usable_in_a_session_that_is_told_to_keep_it(engine: Engine) -> None:
    store(engine, HEAT)
    with Session(engine, expire_on_commit=False) as session:
        repository = MovieRepository(session)
        movie = session.get_one(Movie, 1)
        repository.add_rating(1, 4)  # ends the caller's read, and commits
        repository.list()
        session.add(Movie(title="Ronin", year=1998))
        repository.add_rating(1, 5)
        session.commit()

    assert (movie.title, movie.average_rating) == ("Heat", None)
    assert movie_rows(engine)[0] == movie_row(1, HEAT._replace(scores=(4, 5)))


# Events


def undo_writing(session: Session) -> None:
    """Fail inside writing()."""
    with pytest.raises(Interrupted), writing(session):
        create_and_raise(session)


def undo_a_part_of_writing(session: Session) -> None:
    """Fail inside writing() that goes on."""
    with writing(session), pytest.raises(Interrupted), writing(session):
        create_and_raise(session)


def undo_a_savepoint(session: Session) -> None:
    """Fail inside a savepoint of the caller, whose transaction goes on."""
    with session.begin(), pytest.raises(Interrupted), session.begin_nested():
        create_and_raise(session)


def undo_by_closing(session: Session) -> None:
    """Close the session where a row of the caller has kept the verb from committing."""
    add(session)
    MovieRepository(session).create(title="Ronin", year=1998)
    session.close()


@pytest.mark.parametrize(
    "undone",
    [undo_writing, undo_a_part_of_writing, undo_a_savepoint, undo_by_closing],
)
def test_events_are_of_what_was_committed_only(
    session: Session,
    engine: Engine,
    caplog: pytest.LogCaptureFixture,
    undone: Callable[[Session], None],
) -> None:
    caplog.set_level(logging.INFO, logger="app")
    undone(session)

    MovieRepository(session).create(title="Heat", year=1995)

    assert titles(engine) == ["Heat"]
    assert [record.getMessage().split()[0] for record in caplog.records] == ["movie.created"]


@pytest.mark.parametrize("caller", [None, add])
def test_events_come_after_the_outermost_commit(
    repository: MovieRepository,
    session: Session,
    caplog: pytest.LogCaptureFixture,
    caller: Callable[[Session], None] | None,
) -> None:
    caplog.set_level(logging.INFO, logger="app")
    if caller is not None:
        caller(session)

    with writing(session):
        movie = repository.create(title="Heat", year=1995)
        repository.add_rating(movie.id, 4)
        before = len(caplog.records)
    if caller is not None:
        before += len(caplog.records)
        session.commit()

    assert before == 0
    events = [record.getMessage().split()[0] for record in caplog.records]
    assert events == ["movie.created", "rating.added"]


# Engines of others


def test_plain_engine_reads_as_of_one_moment_too(sqlite_url: str) -> None:
    engine = create_engine(sqlite_url)
    store(engine, *SAMPLES)

    with Session(engine) as session, Session(engine) as another, reading(session) as connection:
        before = connection.execute(MOVIE.select()).all()
        MovieRepository(another).create(title="Zodiac 2", year=2007)
        after = connection.execute(MOVIE.select()).all()

    assert before == after
    assert len(titles(engine)) == len(SAMPLES) + 1
    engine.dispose()


def test_session_on_a_connection_leaves_its_transaction_to_the_caller(database_url: str) -> None:
    # https://docs.sqlalchemy.org/en/21/orm/session_transaction.html, for test suites
    engine = create_db_engine(database_url)
    with engine.connect() as connection, connection.begin() as transaction:
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            repository = MovieRepository(session)
            repository.create(title="Heat", year=1995)
            seen_inside = len(repository.list())
        seen_by_others = titles(engine)
        transaction.rollback()

    assert (seen_inside, seen_by_others, titles(engine)) == (1, [], [])
    engine.dispose()


def test_engine_that_begins_as_the_documentation_says_composes_too(sqlite_url: str) -> None:
    # https://docs.sqlalchemy.org/en/21/dialects/sqlite.html, for Python before 3.12
    engine = create_engine(sqlite_url)

    @event.listens_for(engine, "connect")
    def leave_transactions_to_sqlalchemy(connection: object, _: object) -> None:
        connection.isolation_level = None  # type: ignore[attr-defined] # sqlite3's

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    store(engine, HEAT)
    with Session(engine) as session, Session(engine) as another:
        repository = MovieRepository(session)
        session.get(Movie, 1)
        MovieRepository(another).create(title="Ronin", year=1998)
        repository.create(title="Zodiac", year=2007)
        session.add(Movie(title="Alien", year=1979))
        repository.add_rating(1, 5)
        session.rollback()

    assert titles(engine) == ["Heat", "Ronin", "Zodiac"]
    assert rating_rows(engine) == []
    engine.dispose()


def test_notebook_composes_verbs_and_its_own_rows(engine: Engine) -> None:
    with Session(engine) as session:
        repository = MovieRepository(session)
        heat = Movie(title="Heat", year=1995, genre="Crime")
        session.add(heat)
        session.commit()
        repository.add_rating(heat.id or 0, 4, user_id=7)
        best = session.exec(select(Movie).where(col(Movie.average_rating) >= 4)).one()
        with writing(session):
            repository.create(title="Ronin", year=1998, genre="Action")
            best.year = 1996

    assert movie_rows(engine) == [
        movie_row(1, HEAT._replace(year=1996, scores=(4,))),
        movie_row(2, RONIN),
    ]

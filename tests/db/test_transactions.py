"""Transactions compose: verbs are stored together, or join the caller's transaction."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from sqlalchemy import Connection, Engine, create_engine, event, insert, update
from sqlalchemy.exc import InvalidRequestError, OperationalError
from sqlmodel import Session, col, select

from app.db import create_db_engine, reading, writing
from app.db.transactions import Deadline, KeptConnections, ServiceSession
from app.errors import DuplicateTitle
from app.models import Movie
from app.repository import MovieRepository
from app.tables import MOVIE
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


@contextmanager
def service_session(engine: Engine) -> Iterator[ServiceSession]:
    """Yield a session as the service makes it for a request on SQLite."""
    connections = KeptConnections(engine, 5.0, file=None, deadline=Deadline(), steps=2000)
    with ServiceSession(engine) as session:
        session.connections = connections
        yield session
    connections.close()


@pytest.fixture
def engine(any_engine: Engine) -> Engine:
    """Return the engine behind ``repository`` and ``session``."""
    return any_engine


@pytest.fixture
def session(engine: Engine, request: pytest.FixtureRequest) -> Iterator[Session]:
    """Yield a session as the service makes it for a request, or a plain one."""
    is_service = request.node.callspec.params["any_engine"] == "service"
    make = service_session if is_service and engine.dialect.name == "sqlite" else Session
    with make(engine) as session:
        yield session


def titles(engine: Engine) -> list[str]:
    """Return the stored titles, read on another connection."""
    return [row["title"] for row in movie_rows(engine)]


def create_and_raise(session: Session) -> None:
    """Create a movie, rate it and raise."""
    repository = MovieRepository(session)
    repository.add_rating(repository.create(title="Alien", year=1979).id, 5)
    raise Interrupted


# Actions of a caller before it calls a verb.


def add(session: Session) -> None:
    """Add a row without flushing it."""
    session.add(Movie(title="Alien", year=1979))


def flush(session: Session) -> None:
    """Add a row and flush it."""
    add(session)
    session.flush()


def execute(session: Session) -> None:
    """Insert a row through Core, which the session does not track."""
    session.execute(insert(MOVIE).values(title="Alien", search_title="alien", year=1979))


def change(session: Session) -> None:
    """Change a loaded row."""
    session.get_one(Movie, 1).title = "Heat 2"


def delete(session: Session) -> None:
    """Delete a loaded row."""
    session.delete(session.get_one(Movie, 1))


def begin(session: Session) -> None:
    """Begin explicitly, and change nothing yet."""
    session.begin()


def begin_savepoint(session: Session) -> None:
    """Begin a savepoint after a read, and change nothing yet."""
    session.get(Movie, 1)
    session.begin_nested()


def flush_and_release_savepoint(session: Session) -> None:
    """Flush a row, then release a savepoint that changes nothing."""
    flush(session)
    with session.begin_nested():
        session.connection()


# Verbs inside writing().


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


def test_error_caught_inside_writing_undoes_only_its_block(
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
    """Commit, then call another verb."""
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


def test_service_session_without_entities_refuses_them_inside_writing(
    sqlite_url: str,
) -> None:
    engine = create_db_engine(sqlite_url)
    with service_session(engine) as session:
        with writing(session), pytest.raises(InvalidRequestError, match="Autobegin is disabled"):
            add(session)

        add(session)
        session.commit()
    assert titles(engine) == ["Alien"]
    engine.dispose()


@pytest.mark.parametrize("make", [service_session, Session])
def test_writing_takes_sqlites_write_lock_at_its_beginning(
    sqlite_url: str, make: Callable[[Engine], AbstractContextManager[Session]]
) -> None:
    engine = create_db_engine(sqlite_url)
    other = create_db_engine(sqlite_url, busy_timeout=0)

    with (
        make(engine) as session,
        writing(session),
        pytest.raises(OperationalError, match="locked"),
        other.begin() as connection,
    ):
        connection.execute(update(MOVIE).values(year=2000))

    with other.begin() as connection:
        connection.execute(update(MOVIE).values(year=2000))
    other.dispose()
    engine.dispose()


def test_threads_that_write_based_on_a_read_lose_no_update(engine: Engine) -> None:
    [movie_id] = store(engine, HEAT)

    def make_newer(session: Session, _: int) -> None:
        repository = MovieRepository(session)
        for _ in range(5):
            with writing(session):
                repository.update(movie_id, year=repository.require(movie_id).year + 1)

    in_threads(engine, make_newer)

    assert movie_rows(engine) == [movie_row(movie_id, HEAT._replace(year=1995 + 5 * THREADS))]


# Inside the caller's transaction.


# An action of the caller, and the titles after its commit.
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
def test_failed_verb_leaves_the_callers_transaction_unchanged(
    repository: MovieRepository, session: Session, engine: Engine, caller: Callable[[Session], None]
) -> None:
    store(engine, HEAT, RONIN)
    caller(session)

    with pytest.raises(DuplicateTitle):
        repository.create(title="Ronin", year=2001)

    session.commit()
    assert titles(engine) == CALLERS[caller]


def test_verbs_compose_in_a_session_without_autobegin(
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


def test_read_sees_the_callers_uncommitted_rows(
    repository: MovieRepository, session: Session
) -> None:
    add(session)

    page = repository.list()

    assert [movie.title for movie in page] == ["Alien"]


# After the caller has only read.


def get(session: Session) -> None:
    """Load a row."""
    session.get_one(Movie, 1)


def read(session: Session) -> None:
    """Read through Core."""
    session.execute(MOVIE.select()).all()


def assign_the_same(session: Session) -> None:
    """Assign the stored value."""
    movie = session.get_one(Movie, 1)
    movie.year = int(movie.year)


def change_no_row(session: Session) -> None:
    """Run an update that matches no row."""
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


def test_verb_after_an_outdated_read_is_committed(
    repository: MovieRepository, session: Session, engine: Engine
) -> None:
    store(engine, HEAT)
    session.get_one(Movie, 1)
    store(engine, RONIN)

    repository.add_rating(1, 4)

    assert movie_rows(engine) == [movie_row(1, HEAT._replace(scores=(4,))), movie_row(2, RONIN)]


def write_after_own_row(session: Session) -> None:
    """Call a verb after adding a row, so that it does not commit."""
    add(session)
    MovieRepository(session).create(title="Zodiac", year=2007)


@pytest.mark.parametrize("caller", [None, get, begin, write_after_own_row])
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


# Entities of the caller.


def test_entity_shows_the_values_that_a_verb_stored(
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
    with_callers_change = (movie.average_rating, movie.year)

    assert (after_the_first, inside, with_callers_change) == (4.0, 4.5, (4.0, 1996))


def test_entity_loaded_inside_reading_shows_later_changes(engine: Engine) -> None:
    store(engine, HEAT)
    with Session(engine) as session, Session(engine) as another:
        with reading(session):
            movie = session.get_one(Movie, 1)
        MovieRepository(another).add_rating(1, 4)

        assert movie.average_rating == 4.0


def test_entity_stays_usable_with_expire_on_commit_false(engine: Engine) -> None:
    store(engine, HEAT)
    with Session(engine, expire_on_commit=False) as session:
        repository = MovieRepository(session)
        movie = session.get_one(Movie, 1)
        repository.add_rating(1, 4)  # ends the caller's read and commits
        repository.list()
        session.add(Movie(title="Ronin", year=1998))
        repository.add_rating(1, 5)
        session.commit()

    assert (movie.title, movie.average_rating) == ("Heat", None)
    assert movie_rows(engine)[0] == movie_row(1, HEAT._replace(scores=(4, 5)))


# Events.


def undo_writing(session: Session) -> None:
    """Raise inside writing()."""
    with pytest.raises(Interrupted), writing(session):
        create_and_raise(session)


def undo_a_part_of_writing(session: Session) -> None:
    """Raise inside an inner writing()."""
    with writing(session), pytest.raises(Interrupted), writing(session):
        create_and_raise(session)


def undo_a_savepoint(session: Session) -> None:
    """Raise inside a savepoint of the caller's transaction."""
    with session.begin(), pytest.raises(Interrupted), session.begin_nested():
        create_and_raise(session)


def undo_by_closing(session: Session) -> None:
    """Close the session before the caller commits its row and the verb's."""
    add(session)
    MovieRepository(session).create(title="Ronin", year=1998)
    session.close()


@pytest.mark.parametrize(
    "undone",
    [undo_writing, undo_a_part_of_writing, undo_a_savepoint, undo_by_closing],
)
def test_only_committed_changes_are_logged(
    session: Session,
    engine: Engine,
    caplog: pytest.LogCaptureFixture,
    undone: Callable[[Session], None],
) -> None:
    caplog.set_level(logging.INFO, logger="app")
    undone(session)

    MovieRepository(session).create(title="Heat", year=1995)

    assert titles(engine) == ["Heat"]
    assert [record.getMessage() for record in caplog.records] == ["movie.created"]


@pytest.mark.parametrize("caller", [None, add])
def test_events_are_logged_after_the_outermost_commit(
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
    events = [record.getMessage() for record in caplog.records]
    assert events == ["movie.created", "rating.added"]


# Engines set up by other code.


def test_plain_engine_reads_one_snapshot(sqlite_url: str) -> None:
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


def test_verbs_compose_on_an_engine_set_up_as_sqlalchemy_documents(sqlite_url: str) -> None:
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

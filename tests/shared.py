"""Applications and engines that several tests use one after another.

To create one and use it for the first time takes ten times as long as to use it again: FastAPI
builds the routes' models, and SQLAlchemy compiles each statement. A test that changes one, such as
by adding a route or a listener, is the last to use it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import isfunction
from typing import Any, Generic, TypeVar

from fastapi import FastAPI
from sqlalchemy import Engine
from sqlalchemy.engine.events import ConnectionEvents
from sqlalchemy.pool.events import PoolEvents

from app.config import Settings
from app.db import create_db_engine
from app.dependencies import service_of
from app.http import configure_logging, limit_connections
from app.main import create_app

K = TypeVar("K")
T = TypeVar("T")


class Shared(Generic[K, T]):
    """Keeps what was created, by the argument it was created with."""

    def __init__(self, create: Callable[[K], T], parts: Callable[[T], list[Any]]) -> None:
        """Create nothing yet.

        Args:
            create: creates a value.
            parts: returns what a test can change in it.
        """
        self._create = create
        self._parts = parts
        self._kept: list[tuple[K, T]] = []

    @contextmanager
    def borrowed(self, key: K) -> Iterator[T]:
        """Yield a value that no other test uses meanwhile."""
        value = self._taken(key)
        before = self._parts(value)
        yield value
        if self._parts(value) == before:
            self._kept.append((key, value))

    def _taken(self, key: K) -> T:
        for index, (known, value) in enumerate(self._kept):
            if known == key:
                del self._kept[index]
                return value
        return self._create(key)


@contextmanager
def shared_engine(database_url: str) -> Iterator[Engine]:
    """Yield an engine of the service without connections."""
    with _ENGINES.borrowed(database_url) as engine:
        yield engine
        engine.dispose()


@contextmanager
def shared_application(settings: Settings) -> Iterator[FastAPI]:
    """Yield an application with these settings, which does not run."""
    with _APPLICATIONS.borrowed(settings) as app:
        service = service_of(app)
        # These two are global, so another application may have changed them.
        configure_logging(settings)
        limit_connections(service.limits)
        yield app
        service.database.engine.dispose()


def _parts(app: FastAPI) -> list[Any]:
    service = service_of(app)
    attributes = {
        name: value.copy() if isinstance(value, list | dict | set) else value
        for name, value in vars(service).items()
    }
    return [
        [*app.routes],
        [*app.user_middleware],
        {**app.exception_handlers},
        {**app.dependency_overrides},
        attributes,
        service.database.observer,
        *_listeners(service.database.engine),
    ]


def _listeners(engine: Engine) -> list[Any]:
    return [
        [*getattr(target.dispatch, name)]
        for events, target in ((ConnectionEvents, engine), (PoolEvents, engine.pool))
        for name, value in vars(events).items()
        if isfunction(value) and not name.startswith("_")
    ]


_ENGINES = Shared(create_db_engine, _listeners)
_APPLICATIONS = Shared(create_app, _parts)

"""Dependencies of the routes. All are async: FastAPI runs sync ones in a worker thread."""

from typing import Annotated

from fastapi import Depends, FastAPI, Request
from sqlmodel import Session

from app.db import Database
from app.repository import MovieRepository
from app.service import SESSIONS, Service

# Keys of a request's scope: a function that returns its session, if not the database does; and
# whether its response depends on nothing but the service's database.
SESSION_MAKER = "movie_service.session_maker"
READS_DATABASE = "movie_service.reads_database"


def service_of(app: FastAPI) -> Service:
    """Return the service of an application."""
    service: Service = app.state.service
    return service


async def get_service(request: Request) -> Service:
    """Return the service of the application."""
    return service_of(request.app)


ServiceDep = Annotated[Service, Depends(get_service)]


async def get_database(request: Request) -> Database:
    """Return the application's database."""
    return service_of(request.app).database


DatabaseDep = Annotated[Database, Depends(get_database)]


async def get_session(request: Request) -> Session:
    """Return a session for this request.

    Each method of the repository ends its transaction, which returns the connection, so the session
    is closed after the response only if a route has left a transaction open. Yielding it and
    closing it afterwards, as the bench's baseline does, would cost a request a tenth of its time.
    """
    if make := request.scope.get(SESSION_MAKER):
        session: Session = make()
        return session
    session = service_of(request.app).database.session()
    request.scope.setdefault(SESSIONS, []).append(session)
    return session


SessionDep = Annotated[Session, Depends(get_session)]


def mark_cacheable(request: Request, session: Session) -> None:
    """Let a response be cached if it is read with the service's session."""
    request.scope[READS_DATABASE] = session in request.scope.get(SESSIONS, ())


async def get_repository(
    request: Request, session: SessionDep, database: DatabaseDep
) -> MovieRepository:
    """Return the repository of this request."""
    mark_cacheable(request, session)
    return MovieRepository(session, database.observer)


RepositoryDep = Annotated[MovieRepository, Depends(get_repository)]

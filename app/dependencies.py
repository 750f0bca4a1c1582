"""What a route asks for by its signature. All are asynchronous, so that they cost no thread."""

import secrets
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, Request
from sqlmodel import Session

from app.errors import PreconditionFailed, WrongApiKey
from app.etags import etag_of_movie, is_among
from app.observer import OBSERVER
from app.read_models import MovieRead
from app.repository import MovieReader, MovieRepository, Precondition
from app.transactions import KEPT, ReadSession

API_KEY_HEADER = "X-API-Key"
# Key of a request's scope: a function that makes its read session, if that is not like any other.
MAKE_READ_SESSION = "movie_service.make_read_session"


async def get_session(request: Request) -> Session:
    """Return a session of the application's database for this request.

    Nothing closes it, and nothing has to: each method of the repository ends its transaction,
    which hands the connection back. To yield it and close it afterwards, as the bench's baseline
    does, would cost a request a tenth of its time.
    """
    state = request.app.state
    return Session(state.engine, info={KEPT: state.kept, OBSERVER: state.observer})


SessionDep = Annotated[Session, Depends(get_session)]


async def get_repository(session: SessionDep) -> MovieRepository:
    """Return the repository of this request."""
    return MovieRepository(session)


RepositoryDep = Annotated[MovieRepository, Depends(get_repository)]


async def get_read_session(request: Request) -> ReadSession:
    """Return a session to read from, for this request."""
    make = request.scope.get(MAKE_READ_SESSION)
    return ReadSession(await get_session(request) if make is None else make())


ReadSessionDep = Annotated[ReadSession, Depends(get_read_session)]


async def get_read_repository(session: ReadSessionDep) -> MovieReader:
    """Return what this request reads the catalogue with."""
    return MovieReader(session)


ReadRepositoryDep = Annotated[MovieReader, Depends(get_read_repository)]


class DependencyOverrides(dict[Callable[..., Any], Callable[..., Any]]):
    """An application's ``dependency_overrides``, where what is put in to write with is read from.

    To let the dependencies that read rest on those that write would do the same, and cost every
    read a tenth of its time.
    """

    def get(self, call: Any, default: Any = None) -> Any:  # noqa: ANN401 - as dict's own
        """Return what is put in for a dependency."""
        written = {get_read_session: get_session, get_read_repository: get_repository}
        return super().get(call) or super().get(written.get(call, call), default)


async def if_match(request: Request) -> Precondition | None:
    """Return what holds a write back unless the stored movie has one of the ETags sent."""
    seen = request.headers.getlist("If-Match")
    if not seen:
        return None

    def require_seen_version(movie: MovieRead) -> None:
        if not is_among(etag_of_movie(movie), seen):
            raise PreconditionFailed(movie.id)

    return require_seen_version


IfMatchDep = Annotated[Precondition | None, Depends(if_match)]


def require_api_key(request: Request) -> None:
    """Let only those write who know the API key, where the service has one.

    Raises:
        WrongApiKey: the header is missing, or its key is another one.
    """
    expected = request.app.state.settings.api_key
    if expected is None:
        return
    sent = request.headers.get(API_KEY_HEADER, "")
    # Compares in constant time: how long it takes tells nothing of the key.
    if not secrets.compare_digest(sent.encode(), expected.get_secret_value().encode()):
        raise WrongApiKey

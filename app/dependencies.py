"""What a route asks for by its signature. All are asynchronous, so that they cost no thread."""

import secrets
from typing import Annotated

from fastapi import Depends, Request
from sqlmodel import Session

from app.errors import PreconditionFailed, WrongApiKey
from app.etags import etag_of_movie, is_among
from app.read_models import MovieRead
from app.repository import MovieRepository, Precondition
from app.transactions import KEPT

API_KEY_HEADER = "X-API-Key"


async def get_session(request: Request) -> Session:
    """Return a session of the application's database for this request.

    Nothing closes it, and nothing has to: each method of the repository ends its transaction,
    which hands the connection back. To yield it and close it afterwards, as the bench's baseline
    does, would cost a request a tenth of its time.
    """
    state = request.app.state
    return Session(state.engine, info={KEPT: state.kept})


SessionDep = Annotated[Session, Depends(get_session)]


async def get_repository(session: SessionDep) -> MovieRepository:
    """Return the repository of this request."""
    return MovieRepository(session)


RepositoryDep = Annotated[MovieRepository, Depends(get_repository)]


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

"""Conditional requests (RFC 9110): ETag, 304 and 412, and the compressed form of a response."""

import gzip
import hashlib
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Annotated

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter
from starlette.responses import Response

from app.errors import PreconditionFailed
from app.read_models import MovieRead, Precondition

# Smaller bodies fit one packet.
MIN_BYTES = 1000
# Half the time of the higher levels, for bodies that are a quarter larger.
GZIP_LEVEL = 1
# Longer header values are not parsed: parsing costs more time and memory than receiving.
MAX_HEADER_LENGTH = 4000
# These headers can change while the body stays the same.
PAGE_HEADERS = ("X-Total-Count", "Link", "X-Searched-For")
# A client may keep a response, and validates it before each use. The second directive says nothing
# new, but some client caches know only that one.
CACHE_CONTROL = "no-cache, max-age=0"

_MOVIE = TypeAdapter(MovieRead)
# A proxy that compresses weakens a validator or adds a suffix, as in W/"..." and "...-gzip".
_TAG = re.compile(r'(?:W/)?"([0-9a-f]{32})(?:\W[^"]*)?"|\*')
_GZIP = '-gzip"'
_WEIGHT = re.compile(r"\s*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*", re.IGNORECASE)


def conditional(request: Request, response: Response) -> Response:
    """Return a response with an ETag, compressed if the client prefers gzip.

    If the client's ``If-None-Match`` has the ETag, return 304 instead. A response that is not 200
    is returned unchanged.
    """
    if response.status_code != 200:  # noqa: PLR2004 - OK
        return response
    tagged(response)
    if_none_match = request.headers.getlist("if-none-match")
    if len(response.body) >= MIN_BYTES and prefers_gzip(request.headers.getlist("accept-encoding")):
        compress(response, skip=matches(response.headers["ETag"], if_none_match))
    return unless_current(response, if_none_match)


def tagged(response: Response) -> Response:
    """Add the headers with which a client may keep a response and validate it."""
    headers = response.headers
    page = [headers[name] for name in PAGE_HEADERS if name in headers]
    headers["ETag"] = etag_of(bytes(response.body), *page)
    headers["Cache-Control"] = CACHE_CONTROL
    headers["Vary"] = "Accept-Encoding"
    return response


def compress(response: Response, *, skip: bool = False) -> Response:
    """Turn a tagged response into its gzip form, whose ETag differs.

    Args:
        response: the response.
        skip: change only the ETag, because the body will not be sent.
    """
    # A strong ETag identifies bytes, not content.
    response.headers["ETag"] = f"{response.headers['ETag'][:-1]}{_GZIP}"
    if not skip:
        response.body = gzip.compress(bytes(response.body), GZIP_LEVEL, mtime=0)
        response.headers["Content-Length"] = str(len(response.body))
        response.headers["Content-Encoding"] = "gzip"
    return response


def unless_current(response: Response, if_none_match: Iterable[str]) -> Response:
    """Return a tagged response, or 304 if the client has it already."""
    if not matches(response.headers["ETag"], if_none_match):
        return response
    kept = {
        name: value for name, value in response.headers.items() if not name.startswith("content-")
    }
    return Response(status_code=304, headers=kept)


def etag_of(body: bytes, *headers: str) -> str:
    """Return the ETag of a body and the headers that belong to its content."""
    digest = hashlib.blake2b(body, digest_size=16)
    for header in headers:
        digest.update(b"\0" + header.encode())
    return f'"{digest.hexdigest()}"'


def etag_of_movie(movie: MovieRead) -> str:
    """Return the ETag of ``GET /movies/{id}``."""
    return etag_of(_MOVIE.dump_json(movie))


def matches(etag: str, conditions: Iterable[str]) -> bool:
    """Return whether the values of If-Match or If-None-Match have an ETag, or are ``*``.

    The compressed and the plain form of a response match each other.
    """
    etag = etag.replace(_GZIP, '"')
    short = (value for value in conditions if len(value) <= MAX_HEADER_LENGTH)
    tags = (tag.strip() for condition in short for tag in condition.split(","))
    found = filter(None, map(_TAG.fullmatch, tags))
    return any(match[0] == "*" or f'"{match[1]}"' == etag for match in found)


def prefers_gzip(accept_encoding: Iterable[str]) -> bool:
    """Return whether the values of Accept-Encoding prefer gzip to no compression (RFC 9110)."""
    value = ",".join(accept_encoding)
    return len(value) <= MAX_HEADER_LENGTH and _prefers_gzip(value)


# Every client repeats the same header, so cache the parse.
@lru_cache(maxsize=64)
def _prefers_gzip(accept_encoding: str) -> bool:
    weights: dict[str, float] = {}
    for coding in accept_encoding.lower().split(","):
        name, has_weight, weight = coding.partition(";")
        valid = _WEIGHT.fullmatch(weight)
        # Treat an unparsable weight as absent coding.
        weights[name.strip()] = float(valid[1]) if valid else 0.0 if has_weight else 1.0
    weight_of_gzip = weights.get("gzip", weights.get("*", 0.0))
    return weight_of_gzip > 0 and weight_of_gzip >= weights.get("identity", 0.0)


async def if_match(request: Request) -> Precondition | None:
    """Return a check that fails unless the stored movie has one of these ETags.

    Raises:
        RequestValidationError: the header is empty or too long.
    """
    seen = request.headers.getlist("If-Match")
    if not seen:
        return None
    if not any(seen) or len(max(seen, key=len)) > MAX_HEADER_LENGTH:
        message = (
            f"Send the movie's ETag as it was received; at most {MAX_HEADER_LENGTH} characters"
        )
        raise RequestValidationError(
            [{"type": "etag", "loc": ("header", "If-Match"), "msg": message}]
        )

    def require_seen_version(movie: MovieRead) -> None:
        if not matches(etag_of_movie(movie), seen):
            raise PreconditionFailed(movie.id)

    return require_seen_version


IfMatchDep = Annotated[Precondition | None, Depends(if_match)]

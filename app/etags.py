"""ETags: validators that let a client keep a response, or change only what it has seen."""

import hashlib
import re
from collections.abc import Iterable

from pydantic import TypeAdapter

from app.read_models import MovieRead

_MOVIE = TypeAdapter(MovieRead)
# A proxy that compresses weakens a validator or adds a suffix, as in W/"..." and "...-gzip".
_TAG = re.compile(r'(?:W/)?"([0-9a-f]{32})(?:\W[^"]*)?"|\*')
_GZIP = '-gzip"'


def etag_of(body: bytes, *headers: str) -> str:
    """Return the ETag of a response: of its body, and of the headers that belong to its content."""
    digest = hashlib.blake2b(body, digest_size=16)
    for header in headers:
        digest.update(b"\0" + header.encode())
    return f'"{digest.hexdigest()}"'


def etag_of_movie(movie: MovieRead) -> str:
    """Return the ETag that ``GET /movies/{id}`` answers for a movie."""
    return etag_of(_MOVIE.dump_json(movie))


def of_gzip(etag: str) -> str:
    """Return the ETag of a response's compressed form: a strong one names bytes, not content."""
    return f"{etag[:-1]}{_GZIP}"


def is_among(etag: str, conditions: Iterable[str]) -> bool:
    """Tell whether the values of If-Match or If-None-Match name an ETag, or any by ``*``.

    The form in which the content was sent does not matter.
    """
    etag = etag.replace(_GZIP, '"')
    tags = (tag.strip() for condition in conditions for tag in condition.split(","))
    matches = filter(None, map(_TAG.fullmatch, tags))
    return any(match[0] == "*" or f'"{match[1]}"' == etag for match in matches)

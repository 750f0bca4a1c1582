"""CSV files that are generated while they are sent, in constant memory."""

import zlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import chain
from types import MappingProxyType
from typing import Self

from fastapi import Request
from fastapi.responses import StreamingResponse

from app.db import Database
from app.errors import ClientDisconnected
from app.filters import Filters
from app.http import GZIP_LEVEL, IS_HEAD, prefers_gzip
from app.movielens.files import MovieRow, encode_movies, encode_ratings, year_of
from app.movielens.repository import CatalogueRepository
from app.movielens.spreadsheet import MARK

# The value of wbits for gzip's format.
GZIP_FORMAT = 16 + zlib.MAX_WBITS


class CsvStream(StreamingResponse):
    """A CSV file. Each piece is generated when the client has received the previous one.

    Generating a piece takes a worker thread, which is free again before the piece is sent.
    """

    media_type = "text/csv"

    @classmethod
    async def begin(
        cls,
        request: Request,
        db: Database,
        name: str,
        pieces: Iterator[str],
        more_headers: Mapping[str, str] = MappingProxyType({}),
    ) -> Self:
        """Return the response after generating its first piece.

        Args:
            request: the request, which may accept gzip.
            db: runs the pieces' reads in its worker threads.
            name: the file's name.
            pieces: the file's text. The first is generated here: its error becomes an error
                response. A later error drops the connection, so no client mistakes a partial file
                for a complete one.
            more_headers: headers to add.
        """
        first = await db.stream(partial(next, pieces))
        headers = {
            "Content-Disposition": f'attachment; filename="{name}"',
            "Vary": "Accept-Encoding",
            "Cache-Control": "no-cache",
            **more_headers,
        }
        content: Iterator[str] | Iterator[bytes] = chain([first], pieces)
        if prefers_gzip(request.headers.getlist("accept-encoding")):
            headers["Content-Encoding"] = "gzip"
            content = _compressed(chain([first], pieces))
        sent: Iterable[str] | AsyncIterable[str | bytes] = _in_turn(db, content)
        return cls(() if request.scope.get(IS_HEAD) else sent, headers=headers)


def movies_csv(
    catalogue: CatalogueRepository, filters: Filters, *, for_spreadsheet: bool = False
) -> Iterator[str]:
    """Yield the text of movies.csv in pieces.

    Args:
        catalogue: the stored movies.
        filters: the result of ``movie_filters()``.
        for_spreadsheet: begin with a byte order mark, and protect cells that a spreadsheet would
            run as a formula.

    Raises:
        RuntimeError: a title that needs the column ``year`` was added after the header was sent.
    """
    with_year = any(map(_needs_year, catalogue.movies_by_page(filters)))

    def movies() -> Iterator[MovieRow]:
        for movie in catalogue.movies_by_page(filters):
            if not with_year and _needs_year(movie):
                raise RuntimeError(f"movie {movie.id} needs a column that the header lacks")
            yield movie

    text = encode_movies(movies(), with_year=with_year, for_spreadsheet=for_spreadsheet)
    if for_spreadsheet:
        yield MARK + next(text)
    yield from text


def ratings_csv(catalogue: CatalogueRepository, filters: Filters) -> Iterator[str]:
    """Yield the text of ratings.csv in pieces."""
    yield from encode_ratings(catalogue.ratings_by_page(filters))


def _needs_year(movie: MovieRow) -> bool:
    return year_of(movie.title) != movie.year


async def _in_turn(
    db: Database, pieces: Iterator[str] | Iterator[bytes]
) -> AsyncIterator[str | bytes]:
    """Yield the pieces, each generated in turn with those of other downloads."""
    with suppress(ClientDisconnected):
        while (piece := await db.stream(partial(next, pieces, None))) is not None:
            yield piece


def _compressed(pieces: Iterable[str]) -> Iterator[bytes]:
    compressor = zlib.compressobj(GZIP_LEVEL, wbits=GZIP_FORMAT)
    for piece in pieces:
        if compressed := compressor.compress(piece.encode()):
            yield compressed
    yield compressor.flush()

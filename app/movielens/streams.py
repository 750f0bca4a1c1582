"""CSV files that are made while they are sent, in constant memory."""

import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Self

from fastapi import Request
from fastapi.responses import StreamingResponse

from app.compression import LEVEL, accepts_gzip
from app.middleware.head import IS_HEAD
from app.movielens.files import MovieRow, encode_movies, encode_ratings, year_of
from app.movielens.repository import CatalogueReader
from app.repository import Filters
from app.routes.route_class import run_in_thread

# zlib's number for the format of gzip.
GZIP_FORMAT = 16 + zlib.MAX_WBITS


class CsvStream(StreamingResponse):
    """A CSV file, each piece of it made when its reader has taken the one before.

    A piece is made in a worker thread, which is free again before the piece is sent.
    """

    media_type = "text/csv"

    @classmethod
    async def begin(cls, request: Request, name: str, pieces: Iterator[str]) -> Self:
        """Return the response, ready to be sent.

        Args:
            request: may accept gzip.
            name: the file's.
            pieces: its text. The first is made here, so that an error is answered as one. A later
                error breaks the connection off, so that no reader takes the part for the whole.
        """
        first = await run_in_thread(request.app, partial(next, pieces))
        headers = {
            "Content-Disposition": f'attachment; filename="{name}"',
            "Vary": "Accept-Encoding",
        }
        content: Iterable[str] | Iterable[bytes] = chain([first], pieces)
        if accepts_gzip(request.headers.getlist("accept-encoding")):
            headers["Content-Encoding"] = "gzip"
            content = _compressed(chain([first], pieces))
        return cls(() if request.scope.get(IS_HEAD) else content, headers=headers)


def movies_csv(catalogue: CatalogueReader, filters: Filters) -> Iterator[str]:
    """Yield the text of movies.csv in pieces.

    Raises:
        RuntimeError: since the header was sent, a title came to need the column ``year``.
    """
    with_year = any(map(_needs_year, catalogue.movies_by_page(filters)))

    def movies() -> Iterator[MovieRow]:
        for movie in catalogue.movies_by_page(filters):
            if not with_year and _needs_year(movie):
                raise RuntimeError(f"movie {movie.id} needs a column that the header lacks")
            yield movie

    yield from encode_movies(movies(), with_year=with_year)


def ratings_csv(catalogue: CatalogueReader, filters: Filters) -> Iterator[str]:
    """Yield the text of ratings.csv in pieces."""
    yield from encode_ratings(catalogue.ratings_by_page(filters))


def _needs_year(movie: MovieRow) -> bool:
    return year_of(movie.title) != movie.year


def _compressed(pieces: Iterable[str]) -> Iterator[bytes]:
    compressor = zlib.compressobj(LEVEL, wbits=GZIP_FORMAT)
    for piece in pieces:
        if compressed := compressor.compress(piece.encode()):
            yield compressed
    yield compressor.flush()

"""Import and export of catalogues as MovieLens' CSV files."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.service import Service


def install(service: "Service") -> None:
    """Add ``GET /movies.csv`` and ``GET /ratings.csv``."""
    from app.movielens.routes import router  # noqa: PLC0415 - commands need no web framework

    service.app.include_router(router)

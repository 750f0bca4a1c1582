"""Whole catalogues in and out, as MovieLens' CSV files."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI


def install(app: "FastAPI") -> None:
    """Add ``GET /movies.csv`` and ``GET /ratings.csv``."""
    # Imported here: the commands would spend more time on loading the web framework than on work.
    app.include_router(import_module("app.movielens.routes").router)

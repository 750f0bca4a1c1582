"""What to watch next: similar movies and recommendations.

Training, offline and rare, stores which movies go together. Serving joins that with the ratings as
they are now.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI


def install(app: "FastAPI") -> None:
    """Add ``GET /movies/{id}/similar`` and ``GET /recommendations/{user_id}``."""
    # Imported here: training would otherwise load the web framework.
    routes = import_module("app.recommender.routes")
    app.openapi_tags = [*(app.openapi_tags or ()), routes.TAG]
    app.include_router(routes.router)

"""Similar movies and recommendations.

Training runs offline and stores each movie's neighbours. Serving joins these with the current
ratings.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.service import Service


def install(service: "Service") -> None:
    """Add ``GET /movies/{id}/similar`` and ``GET /recommendations/{user_id}``."""
    from app.recommender.routes import TAG, router  # noqa: PLC0415 - training needs no web framework

    service.app.openapi_tags = [*(service.app.openapi_tags or ()), TAG]
    service.app.include_router(router)

"""Which pages of other origins may call the service from a browser, and what they may read."""

from typing import Any

from app.config import Settings
from app.logs import TRACE_HEADER


def cors_options(settings: Settings) -> dict[str, Any]:
    """Return the options of Starlette's CORSMiddleware."""
    return {
        "allow_origins": settings.cors_origins,
        "allow_methods": ["*"],
        "allow_headers": ["*"],
        "expose_headers": [TRACE_HEADER, "X-Total-Count", "Link", "Location", "ETag"],
    }

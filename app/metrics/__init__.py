"""``GET /metrics``: what the service does, for Prometheus."""

from importlib import import_module

from fastapi import FastAPI

from app.config import stop
from app.metrics.workers import share_with_workers


def install(app: FastAPI) -> None:
    """Measure the service and serve the measurements, if the settings ask for it."""
    if not app.state.settings.metrics:
        return
    # The client library reads where workers share their measurements when it is imported.
    folder = share_with_workers()
    try:
        routes = import_module("app.metrics.routes")
    except ModuleNotFoundError as error:
        if error.name != "prometheus_client":
            raise
        stop("MOVIE_METRICS needs prometheus-client. Run: uv sync --extra metrics")
    routes.install(app, folder)

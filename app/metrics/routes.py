"""``GET /metrics``."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from fastapi import Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from app.metrics.measurements import Measurements
from app.metrics.repository import database_bytes
from app.metrics.workers import kept_folder
from app.service import Service

PATH = "/metrics"


def install_routes(service: Service, folder: Path | None) -> None:
    """Collect measurements and serve them. If an API key is set, clients must send it.

    Args:
        service: the service to measure.
        folder: where workers share their measurements; None for a single process.
    """
    measurements = Measurements(folder, partial(database_bytes, service.database))
    service.database.observer = measurements

    async def metrics(_request: Request) -> Response:
        """Return the measurements since the start of the service."""
        body = await service.database.read_in_thread(measurements.exposition)
        return Response(body, media_type=CONTENT_TYPE_LATEST)

    # Not in the OpenAPI document: it serves Prometheus, in Prometheus' format.
    service.app.add_route(PATH, metrics, include_in_schema=False)
    service.paths_with_key.add(PATH)
    if folder is not None:

        @asynccontextmanager
        async def kept() -> AsyncIterator[None]:
            with kept_folder(folder):
                yield

        service.lifespans.append(kept)

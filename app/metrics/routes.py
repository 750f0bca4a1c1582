"""``GET /metrics``."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from app.dependencies import require_api_key
from app.metrics.measurements import Measurements
from app.metrics.repository import database_bytes
from app.metrics.workers import kept_folder
from app.routes.route_class import run_in_thread


def install(app: FastAPI, folder: Path | None) -> None:
    """Put the measurements in, and serve them."""

    def size() -> Mapping[str, int]:
        return database_bytes(app.state.engine, app.state.kept)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        with nullcontext() if folder is None else kept_folder(folder):
            yield

    app.state.observer = Measurements(folder, size)
    router = APIRouter(lifespan=lifespan)
    # Not in the OpenAPI document: it is for one program, whose format it has.
    router.add_route("/metrics", metrics, include_in_schema=False)
    app.include_router(router)


async def metrics(request: Request) -> Response:
    """Return what the service has done since it started, to those who may write."""
    require_api_key(request)
    body = await run_in_thread(request.app, request.app.state.observer.exposition)
    return Response(body, media_type=CONTENT_TYPE_LATEST)

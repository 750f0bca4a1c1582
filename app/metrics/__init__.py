"""``GET /metrics`` for Prometheus."""

from app.config import stop
from app.metrics.workers import share_with_workers
from app.service import Service


def install(service: Service) -> None:
    """Measure the service and serve the measurements, if the settings enable it."""
    if not service.settings.metrics:
        return
    # Set the folder first: prometheus-client reads it on import.
    folder = share_with_workers()
    try:
        from app.metrics.routes import install_routes  # noqa: PLC0415 - see above
    except ModuleNotFoundError as error:
        if error.name != "prometheus_client":
            raise
        stop("MOVIE_METRICS needs prometheus-client. Run: uv sync --extra metrics")
    install_routes(service, folder)

"""A page for people: the catalogue in a browser. It uses only the public API."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import HTTPException, Request, Response

from app.http import CACHE_CONTROL, compress, prefers_gzip, tagged, unless_current
from app.service import Service

FOLDER = Path(__file__).parent
TYPES = {"css": "text/css", "html": "text/html", "js": "text/javascript", "svg": "image/svg+xml"}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; connect-src 'self'; img-src 'self'; script-src 'self'; "
        "style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
}


def install(service: Service) -> None:
    """Serve the page at ``/``, and show browsers a page for an unknown path."""
    files = {path.name: _served(path) for path in (FOLDER / "static").iterdir()}
    not_found = (FOLDER / "not_found.html").read_text(encoding="utf-8")

    async def static(request: Request) -> Response:
        if request.path_params["name"] not in files:
            raise HTTPException(404)
        return await files[request.path_params["name"]](request)

    def not_found_page(request: Request) -> Response:
        content = not_found.replace("{root}", _to_root(request))
        headers = HEADERS | {"Cache-Control": CACHE_CONTROL}
        return Response(content, 404, headers, media_type="text/html")

    service.app.add_route("/", _served(FOLDER / "index.html"), include_in_schema=False)
    service.app.add_route("/static/{name}", static, include_in_schema=False)
    service.not_found_page = not_found_page


def _served(path: Path) -> Callable[[Request], Awaitable[Response]]:
    """Return a route that serves a file from memory: reading it would take a worker thread."""
    body, media_type = path.read_bytes(), TYPES[path.suffix[1:]]
    plain, compressed = (
        tagged(Response(body, 200, HEADERS, media_type=media_type)) for _ in range(2)
    )
    compress(compressed)

    async def serve(request: Request) -> Response:
        wants_gzip = prefers_gzip(request.headers.getlist("accept-encoding"))
        response = compressed if wants_gzip else plain
        return unless_current(response, request.headers.getlist("if-none-match"))

    return serve


def _to_root(request: Request) -> str:
    """Return the relative URL of the page, which is right behind any prefix of a proxy."""
    scope = request.scope
    path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
    prefix = scope.get("app_root_path", scope.get("root_path", ""))
    return "../" * (path.removeprefix(prefix).count("/") - 1) or "./"

"""A page for people: the catalogue in a browser, made with the public API alone."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request, Response

from app.compression import accepts_gzip, compress
from app.etags import etag_of, is_among, of_gzip

FOLDER = Path(__file__).parent
TYPES = {"css": "text/css", "html": "text/html", "js": "text/javascript", "svg": "image/svg+xml"}
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; connect-src 'self'; img-src 'self'; script-src 'self'; "
        "style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
}


def install(app: FastAPI) -> None:
    """Serve the page at ``/``, and answer a browser's unknown paths in HTML."""
    files = {path.name: _served(path) for path in (FOLDER / "static").iterdir()}

    async def static(request: Request) -> Response:
        if request.path_params["name"] not in files:
            raise HTTPException(404)
        return await files[request.path_params["name"]](request)

    app.add_route("/", _served(FOLDER / "index.html"), include_in_schema=False)
    app.add_route("/static/{name}", static, include_in_schema=False)
    _answer_browsers(app)


def _served(path: Path) -> Callable[[Request], Awaitable[Response]]:
    """Return what answers with a file, from memory: to read it would occupy a worker thread."""
    media_type, body = TYPES[path.suffix[1:]], path.read_bytes()
    etag, compressed = etag_of(body), compress(body)

    async def serve(request: Request) -> Response:
        headers = HEADERS | {"ETag": etag, "Vary": "Accept-Encoding"}
        if is_among(etag, request.headers.getlist("if-none-match")):
            return Response(status_code=304, headers=headers)
        if not accepts_gzip(request.headers.getlist("accept-encoding")):
            return Response(body, media_type=media_type, headers=headers)
        headers |= {"ETag": of_gzip(etag), "Content-Encoding": "gzip"}
        return Response(compressed, media_type=media_type, headers=headers)

    return serve


def _answer_browsers(app: FastAPI) -> None:
    answer = app.exception_handlers[404]
    page = (FOLDER / "not_found.html").read_text(encoding="utf-8")

    async def answer_unknown_path(request: Request, error: HTTPException) -> Response:
        response: Response = await answer(request, error)  # type: ignore[misc] # it is a coroutine
        if response.status_code == error.status_code:
            accepted = ",".join(request.headers.getlist("accept")).lower().split(",")
            types = {item.partition(";")[0].strip() for item in accepted}
            # API clients accept JSON or anything.
            if request.method == "GET" and "text/html" in types and "application/json" not in types:
                content = page.replace("{root}", _to_root(request))
                response = Response(content, 404, HEADERS, media_type="text/html")
            response.headers["Vary"] = "Accept"
        return response

    app.add_exception_handler(404, answer_unknown_path)  # type: ignore[arg-type] # of this error


def _to_root(request: Request) -> str:
    """Return the relative URL of the page, which holds behind any prefix of a proxy's."""
    scope = request.scope
    path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
    prefix = scope.get("app_root_path", scope.get("root_path", ""))
    return "../" * (path.removeprefix(prefix).count("/") - 1) or "./"

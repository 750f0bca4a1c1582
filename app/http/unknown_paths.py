"""Responses to paths and methods without a route: redirects, 404, OPTIONS and 405."""

from urllib.parse import quote

from fastapi import HTTPException, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.routing import RouteContext, iter_route_contexts
from starlette.convertors import StringConvertor, register_url_convertor

from app.dependencies import service_of
from app.http.errors import ErrorResponse, json_response


class _NotTop(StringConvertor):
    """Matches a part of a path other than "top"."""

    regex = "(?!top$)[^/]+"


register_url_convertor("not_top", _NotTop())

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


async def answer_unknown_path(request: Request, error: HTTPException) -> Response:
    """Redirect a path with a superfluous slash at its end, or answer 404.

    A browser gets a page, any other client JSON.
    """
    scope = request.scope
    path, query = scope["path"].rstrip("/"), scope["query_string"].decode("latin-1")
    is_own = "app_root_path" not in scope  # a mounted application has its own paths
    if path != scope["path"] and is_own and _routes_of_path(request, path):
        # Relative to the host, so it does not echo the Host header.
        return RedirectResponse(quote(path) + (query and f"?{query}"))
    response = json_response(ErrorResponse(404, None), error.detail)
    if page := service_of(request.app).not_found_page:
        if _is_browser(request):
            response = page(request)
        response.headers["Vary"] = "Accept"
    return response


async def answer_wrong_method(request: Request, error: HTTPException) -> Response:
    """Answer OPTIONS, which no route declares, or 405."""
    headers = {"Allow": ", ".join(_methods_of_path(request, error))}
    if request.method == "OPTIONS":
        return Response(status_code=204, headers=headers)
    return json_response(ErrorResponse(405, None, headers), error.detail)


def _is_browser(request: Request) -> bool:
    accepted = ",".join(request.headers.getlist("accept")).lower().split(",")
    types = {item.partition(";")[0].strip() for item in accepted}
    # API clients accept JSON or anything.
    return request.method == "GET" and "text/html" in types and "application/json" not in types


def _methods_of_path(request: Request, error: HTTPException) -> list[str]:
    scope = request.scope
    if "app_root_path" in scope:
        # A mounted application has answered, and names the methods of its path.
        methods = set((error.headers or {}).get("Allow", "").split(", "))
    else:
        routes = _routes_of_path(request, scope["path"])
        # Only the first path: "/movies/top" also matches "/movies/{movie_id}".
        methods = {
            method
            for route in routes
            if route.path_format == routes[0].path_format
            for method in route.methods or ()
        }
    if "GET" in methods:
        methods.add("HEAD")
    methods.add("OPTIONS")
    return [method for method in METHODS if method in methods]


def _routes_of_path(request: Request, path: str) -> list[RouteContext]:
    path = path.removeprefix(request.scope.get("root_path", ""))
    return [
        route for route in iter_route_contexts(request.app.routes) if route.path_regex.match(path)
    ]

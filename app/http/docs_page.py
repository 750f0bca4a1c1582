"""The Content-Security-Policy of the documentation page."""

import re
from base64 import b64encode
from hashlib import sha256

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute

_INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


def restrict_docs(app: FastAPI, path: str = "/docs") -> None:
    """Let the page run only its own scripts, and let no other page frame it."""
    [page] = [r for r in app.routes if isinstance(r, APIRoute) and r.path == path]

    async def docs(request: Request) -> Response:
        response: Response = await page.endpoint(request)
        # The inline script has the path of the OpenAPI document, which depends on the root path.
        scripts = _INLINE_SCRIPT.findall(bytes(response.body))
        hashes = (f"'sha256-{b64encode(sha256(script).digest()).decode()}'" for script in scripts)
        response.headers["Content-Security-Policy"] = (
            f"default-src 'self'; script-src 'self' {' '.join(hashes)}; img-src 'self' data:; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    app.router.routes.remove(page)
    app.add_route(path, docs, include_in_schema=False)

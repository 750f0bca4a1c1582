"""HEAD, wherever GET answers."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# In the scope of a GET that stands for a HEAD, so that a long body need not be made.
IS_HEAD = "movie_service.is_head"


class HeadMiddleware:
    """Answers HEAD with the headers of GET and no body.

    No route declares HEAD, so that the OpenAPI document lists each read once.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, a HEAD as the GET of its path."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
            elif not message.get("more_body"):
                await send({"type": "http.response.body"})

        as_get = {**scope, "method": "GET", IS_HEAD: True}
        try:
            await self.app(as_get, receive, send_without_body)
        finally:
            # For the layers outside, which learn from the scope what route has answered.
            scope.update(as_get, method="HEAD")

"""The OpenAPI document, as the settings of this service make it."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

from app.dependencies import API_KEY_HEADER

_SCHEME = "ApiKey"


def openapi_of(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """Return what makes the document: FastAPI's own, with the API key where writing needs one.

    Without a key it asks for none, so that generated clients send none.
    """
    original = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None and app.state.settings.api_key is not None:
            _ask_for_key(original())
        return original()

    return openapi


def _ask_for_key(document: dict[str, Any]) -> None:
    document["components"]["securitySchemes"] = {
        _SCHEME: {
            "type": "apiKey",
            "in": "header",
            "name": API_KEY_HEADER,
            "description": "Needed to write.",
        }
    }
    for methods in document["paths"].values():
        for method, operation in methods.items():
            if method != "get":
                operation["security"] = [{_SCHEME: []}]

"""Hooks that a metrics backend can implement."""

from collections.abc import MutableMapping
from typing import Any


class Observer:
    """Hooks that do nothing.

    The service calls them on the event loop and in worker threads, for every request. They must not
    raise.
    """

    def request_finished(
        self, scope: MutableMapping[str, Any], status: int, seconds: float
    ) -> None:
        """A response was sent. ``scope["route"]`` is the route that matched, if any."""

    def cache_lookup(self, *, hit: bool) -> None:
        """A read hit or missed the read cache."""

    def read_interrupted(self) -> None:
        """A read took too long for the event loop and is repeated in a worker thread."""

    def waiting_writers_changed(self, change: int) -> None:
        """The number of requests waiting to write changed by ``change``."""

    def ratings_committed(self, count: int) -> None:
        """A transaction that stored ``count`` ratings was committed."""

"""What the service tells of its work, for whoever measures it."""

from collections.abc import MutableMapping
from typing import Any

# Key of Session.info: the observer of the application whose session it is.
OBSERVER = "movie_service.observer"


class Observer:
    """Is told what the service does, and does nothing with it.

    A capability that measures puts its own into ``app.state.observer``. The methods are called on
    the event loop and in worker threads, for every request, and never raise.
    """

    def request_answered(
        self, scope: MutableMapping[str, Any], status: int, seconds: float
    ) -> None:
        """A response has been sent. ``scope["route"]`` is the route that answered, if one did."""

    def cache_asked(self, *, hit: bool) -> None:
        """The read cache had the response to a read, or had not."""

    def read_interrupted(self) -> None:
        """A read took too long for the event loop and is repeated in a worker thread."""

    def writers_waiting(self, change: int) -> None:
        """So many more requests wait for their turn to write, or fewer if negative."""

    def ratings_committed(self, count: int) -> None:
        """A transaction that stored so many ratings has been committed."""

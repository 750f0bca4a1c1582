"""Parts of long lists."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Page(list[T]):
    """A part of a longer list, which knows how long that is."""

    def __init__(self, items: Iterable[T], total: int) -> None:
        super().__init__(items)
        self.total = total


class Window(NamedTuple):
    """The rows of a page, counted from the nearer end of the list.

    An offset costs as much as the rows it skips, so the last page would cost the most.
    """

    backwards: bool
    limit: int
    offset: int

    @classmethod
    def of(cls, total: int, limit: int, offset: int) -> "Window":
        """Return the window of ``limit`` rows after ``offset`` of ``total``."""
        if offset <= total // 2:
            return cls(backwards=False, limit=limit, offset=offset)
        limit = max(0, min(limit, total - offset))
        return cls(backwards=True, limit=limit, offset=max(0, total - offset - limit))

    @property
    def parameters(self) -> dict[str, int]:
        """The bound parameters of a paged statement."""
        return {"row_limit": self.limit, "row_offset": self.offset}

    def in_order(self, rows: Sequence[T]) -> Iterable[T]:
        """Return the rows in the list's own order."""
        return reversed(rows) if self.backwards else rows

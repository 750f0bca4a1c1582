"""Title search: what is stored of a title to find and to sort it.

These names need no database. Searches themselves are in ``lookup.py``.
"""

from app.search.keys import SEARCH_KEY_MAX_LENGTH, search_key, search_words
from app.search.names import (
    NAMES_MAX_LENGTH,
    SORT_TITLE_MAX_LENGTH,
    WORD_MAX_LENGTH,
    index_words,
    names_key,
    sort_title,
)

__all__ = [
    "NAMES_MAX_LENGTH",
    "SEARCH_KEY_MAX_LENGTH",
    "SORT_TITLE_MAX_LENGTH",
    "WORD_MAX_LENGTH",
    "index_words",
    "names_key",
    "search_key",
    "search_words",
    "sort_title",
    "title_columns",
]


def title_columns(title: str) -> dict[str, str]:
    """Return the columns of a movie that are derived from its title."""
    return {
        "search_title": search_key(title),
        "search_names": names_key(title),
        "sort_title": sort_title(title),
    }

"""Title search: search keys and search words."""

from app.search.keys import SEARCH_KEY_MAX_LENGTH, search_key, search_words

__all__ = ["SEARCH_KEY_MAX_LENGTH", "search_key", "search_words"]

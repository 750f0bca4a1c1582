"""The headers of a page: the length of its list and links to other pages."""

from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import URL

from app.read_models import Page

# Parameters that select a part of a list.
POSITION = {"limit", "offset", "after"}


def page_headers(url: URL, page: Page[Any], *, limit: int, offset: int) -> dict[str, str]:
    """Return X-Total-Count and Link (RFC 8288: first, prev, next, last) for a page.

    If another text was searched than the caller's, also X-Searched-For.

    A keyset page has no prev, because that would take counting the items before it.
    """
    last = max(0, (page.total - 1) // limit * limit)
    targets = {"first": {"offset": 0}}
    if offset > 0:
        targets["prev"] = {"offset": max(0, min(offset - limit, last))}
    if page.next:
        targets["next"] = page.next
    targets["last"] = {"offset": last}
    query = parse_qsl(url.query, keep_blank_values=True)
    filters = [(name, value) for name, value in query if name not in POSITION]
    # Relative: a reverse proxy may have another host name.
    links = [
        f'<{url.path}?{urlencode([*filters, ("limit", limit), *target.items()])}>; rel="{relation}"'
        for relation, target in targets.items()
    ]
    headers = {"X-Total-Count": str(page.total), "Link": ", ".join(links)}
    return headers | searched_for(page.searched_for)


def searched_for(text: str | None) -> dict[str, str]:
    """Return the header that names the text that was searched instead of the caller's, if any."""
    return {} if text is None else {"X-Searched-For": quote(text, safe="")}

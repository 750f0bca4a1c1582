"""The headers of a list: how long it is and where its other pages are."""

from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import URL

from app.read_models import Page

# The parameters that choose a part of a list.
POSITION = {"limit", "offset", "after"}


def page_headers(url: URL, page: Page[Any], *, limit: int, offset: int) -> dict[str, str]:
    """Return X-Total-Count and Link (RFC 8288: first, prev, next, last) for a page.

    A page that was asked for by keyset has no prev: how many items precede it takes counting.
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
    # Relative to the host, which a reverse proxy may know by another name.
    links = [
        f'<{url.path}?{urlencode([*filters, ("limit", limit), *target.items()])}>; rel="{relation}"'
        for relation, target in targets.items()
    ]
    return {"X-Total-Count": str(page.total), "Link": ", ".join(links)}

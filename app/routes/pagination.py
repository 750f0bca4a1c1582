"""The headers of a list: how long it is and where its other pages are."""

from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import URL


def page_headers(url: URL, *, total: int, limit: int, offset: int) -> dict[str, str]:
    """Return X-Total-Count and Link (RFC 8288: first, prev, next, last) for a page."""
    last = max(0, (total - 1) // limit * limit)
    offsets = {"first": 0}
    if offset > 0:
        offsets["prev"] = max(0, min(offset - limit, last))
    if offset + limit < total:
        offsets["next"] = offset + limit
    offsets["last"] = last
    query = parse_qsl(url.query, keep_blank_values=True)
    filters = urlencode([(name, value) for name, value in query if name not in ("limit", "offset")])
    # Relative to the host, which a reverse proxy may know by another name.
    page = f"{url.path}?{filters}&" if filters else f"{url.path}?"
    links = [
        f'<{page}limit={limit}&offset={target}>; rel="{relation}"'
        for relation, target in offsets.items()
    ]
    return {"X-Total-Count": str(total), "Link": ", ".join(links)}

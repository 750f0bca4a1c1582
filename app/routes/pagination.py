"""The headers of a list: how long it is and where its other pages are."""

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
    links = []
    for relation, target in offsets.items():
        page = url.include_query_params(limit=limit, offset=target)
        # Relative to the host, which a reverse proxy may know by another name.
        links.append(f'<{page.path}?{page.query}>; rel="{relation}"')
    return {"X-Total-Count": str(total), "Link": ", ".join(links)}

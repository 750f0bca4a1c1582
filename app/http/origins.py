"""Origins and host names of the settings, in the form in which browsers send them."""

import re
from ipaddress import IPv4Address, IPv6Address

from app.errors import SetupError

DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_PORT = 65535

_ORIGIN = re.compile(
    # Pages, then apps and browser extensions that show one.
    r"(?P<scheme>https?|capacitor|ionic|tauri|chrome-extension)://"
    r"(?P<host>[^\s/?#@:\[\]]+|\[[0-9a-f:.]+\])"
    r"(:((?P<port>[0-9]{1,5})|(?P<any_port>\*)))?/?",
    re.IGNORECASE | re.ASCII,
)
_HOST = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")


def normalize_origin(origin: str) -> str:
    """Return an origin as browsers send it: lower case, punycode, no default port.

    ``*``, ``null`` and the port ``*`` stay as they are.

    Raises:
        SetupError: no browser sends such an origin.
    """
    if origin in ("*", "null"):
        return origin
    parts = _ORIGIN.fullmatch(origin)
    if parts is None or (parts["port"] and not 0 < int(parts["port"]) <= MAX_PORT):
        shown = re.sub(r".*@", "...@", origin, flags=re.DOTALL)  # a password may precede it
        raise SetupError(
            f"MOVIE_CORS_ORIGINS cannot match {shown[:100]!r}. Write origins like "
            "http://localhost:3000 or https://example.com, without a path, separated by commas."
        )
    scheme, host = parts["scheme"].lower(), _normalize_host("MOVIE_CORS_ORIGINS", parts["host"])
    if parts["any_port"]:
        return f"{scheme}://{host}:*"
    if parts["port"] and int(parts["port"]) != DEFAULT_PORTS.get(scheme):
        return f"{scheme}://{host}:{int(parts['port'])}"
    return f"{scheme}://{host}"


def normalize_allowed_host(host: str) -> str:
    """Return a host name as browsers send it, without a dot at its end.

    Raises:
        SetupError: no browser sends such a name.
    """
    return _normalize_host("MOVIE_ALLOWED_HOSTS", host).removesuffix(".")


def _normalize_host(setting: str, host: str) -> str:
    host = host.lower()
    try:
        if host.startswith("["):
            return f"[{IPv6Address(host[1:-1])}]"
        if host.rpartition(".")[2].isdecimal():
            return str(IPv4Address(host))
        encoded = host if host.isascii() else host.encode("idna").decode()
        # Python's codec replaces characters that browsers keep, such as the German sharp s.
        lossless = encoded == host or encoded.encode().decode("idna") == host
        if lossless and _HOST.fullmatch(encoded):
            return encoded
    except ValueError:
        pass
    raise SetupError(
        f"{setting} cannot match the host {host[:100]!r}. Write it as a browser's address bar "
        "copies it: example.com, 127.0.0.1, [::1] or xn--bcher-kva.example."
    )

"""Host names that the service answers to.

This prevents DNS rebinding: otherwise a malicious page could resolve its own name to this machine,
and a browser would let it read and write here as its own origin, regardless of CORS. The attack
needs a public name, so IP addresses and names outside public DNS are always allowed.
"""

import re
from collections.abc import Callable, Collection
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

PRIVATE = (".localhost", ".local", ".internal")

_HOST = re.compile(r"(?:\[(?P<ipv6>[0-9a-f:.]+)\]|(?P<name>[a-z0-9_.-]+))(?::[0-9]*)?")


def allowed_hosts(names: Collection[str]) -> Callable[[bytes], bool]:
    """Return a function that returns whether a Host header is allowed.

    Args:
        names: names to allow beside those that always are, in lower case.
    """

    @lru_cache(maxsize=32)
    def is_allowed(host: bytes) -> bool:
        return _is_allowed(host.decode("latin-1"), names)

    return is_allowed


def _is_allowed(host: str, allowed: Collection[str]) -> bool:
    parts = _HOST.fullmatch(host.lower())
    if parts is None:
        return False
    try:
        if parts["ipv6"]:
            IPv6Address(parts["ipv6"])
            return True
        name = parts["name"].removesuffix(".")
        if "." not in name or name.endswith(PRIVATE) or name in allowed:
            return True
        IPv4Address(name)
    except ValueError:
        return False
    return True

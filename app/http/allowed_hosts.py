"""Host names that the service answers to.

This prevents DNS rebinding: otherwise a malicious page could resolve its own name to this machine,
and a browser would let it read and write here as its own origin, regardless of CORS. The attack
needs a public name, so IP addresses and names outside public DNS are always allowed.

A name under a delegated top-level domain needs the setting, even if routers use it at home, such as
``.box``: its owner can make it resolve to any address.
"""

import re
from collections.abc import Callable, Collection
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

# No public resolver returns an attacker's address for a name with one of these endings.
PRIVATE = (
    ".localhost",  # RFC 6761: resolves to the machine itself
    ".local",  # RFC 6762: resolved by multicast, within the network
    ".internal",  # reserved by ICANN for private use in 2024
    ".home.arpa",  # RFC 8375: for home networks, public DNS has no names below it
    ".test",  # RFC 6761: never delegated
    # Not reserved, but not delegated either: these names cannot be registered.
    ".lan",  # routers
    ".svc",  # Kubernetes: NAME.NAMESPACE.svc
)

_HOST = re.compile(
    # A zone, as in [fe80::1%25eth0], selects a network interface and no other address.
    r"(?:\[(?P<ipv6>[0-9a-f:.]+(?:%[a-z0-9_.~-]+)?)\]|(?P<name>[a-z0-9_.-]+))(?::[0-9]*)?"
)


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

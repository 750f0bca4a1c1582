"""Compression of responses, for callers who ask for it."""

import gzip
import re
from collections.abc import Iterable
from functools import lru_cache

# What is smaller fits into a packet anyway.
MIN_BYTES = 1000
# Half the time of the higher levels, for bodies that are a quarter larger.
LEVEL = 1

_WEIGHT = re.compile(r"\s*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*", re.IGNORECASE)


def accepts_gzip(accept_encoding: Iterable[str]) -> bool:
    """Tell whether the values of Accept-Encoding prefer gzip to no compression (RFC 9110)."""
    return _prefers_gzip(",".join(accept_encoding))


# Each browser and library sends a value of its own, over and over.
@lru_cache(maxsize=64)
def _prefers_gzip(accept_encoding: str) -> bool:
    weights: dict[str, float] = {}
    for coding in accept_encoding.lower().split(","):
        name, has_weight, weight = coding.partition(";")
        valid = _WEIGHT.fullmatch(weight)
        # One that cannot be read asks for nothing.
        weights[name.strip()] = float(valid[1]) if valid else 0.0 if has_weight else 1.0
    weight_of_gzip = weights.get("gzip", weights.get("*", 0.0))
    return weight_of_gzip > 0 and weight_of_gzip >= weights.get("identity", 0.0)


def compress(body: bytes) -> bytes:
    """Return a body in gzip's format: the same bytes for the same body."""
    return gzip.compress(body, LEVEL, mtime=0)

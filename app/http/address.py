"""Finds the address that the server listens on, which ASGI does not pass to an application."""

import sys
from pathlib import Path

from uvicorn import main as uvicorn_command


def server_address() -> str | None:
    """Return the URL that uvicorn's command listens on.

    None if another program was started, or if a proxy with its own address is in front.
    """
    program = Path(sys.argv[0])
    if "uvicorn" not in {program.stem, program.parent.name}:
        return None
    options = uvicorn_command.make_context("uvicorn", sys.argv[1:], resilient_parsing=True).params
    if options["uds"] or options["fd"] or options["root_path"] or not options["port"]:
        return None
    scheme = "https" if options["ssl_keyfile"] else "http"
    # Every interface: a browser needs the name of one.
    host = {"0.0.0.0": "localhost", "::": "localhost"}.get(options["host"], options["host"])  # noqa: S104 - compared
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host}:{options['port']}/"

"""Parses the service's log lines as strictly as a log collector does."""

import json
import re
from typing import Any

_LINE = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (?P<level>[A-Z]+) (?P<event>[a-z]+\.[a-z]+)"
    r'(?P<fields>(?: [a-z_]+=(?:[A-Za-z0-9._/:-]+|"(?:[^"\\]|\\.)*"))*)'
)
_FIELD = re.compile(r' ([a-z_]+)=([A-Za-z0-9._/:-]+|"(?:[^"\\]|\\.)*")')

Event = dict[str, Any]


def parse_text(line: str) -> Event:
    """Return the event of a line of text; each value is text.

    Raises:
        AssertionError: the line is not an event, or a field occurs twice.
    """
    match = _LINE.fullmatch(line)
    assert match is not None, line
    fields = _FIELD.findall(match["fields"])
    names = [name for name, _ in fields]
    assert len(set(names)) == len(names), line
    event = {name: json.loads(value) if value[0] == '"' else value for name, value in fields}
    return {"level": match["level"], "event": match["event"], **event}


def parse_json(line: str) -> Event:
    """Return the event of a line of JSON.

    Raises:
        AssertionError: a field occurs twice.
    """

    def unique(pairs: list[tuple[str, Any]]) -> Event:
        assert len({name for name, _ in pairs}) == len(pairs), line
        return dict(pairs)

    event: Event = json.loads(line, object_pairs_hook=unique)
    return event


def events(written: str, log_format: str) -> list[Event]:
    """Return the events that the service itself has logged, in their order."""
    if log_format == "json":
        parsed = [parse_json(line) for line in written.splitlines()]
        return [event for event in parsed if event["logger"] == "app"]
    # A reader may end lines at any line separator, as str.splitlines() does.
    return [
        parse_text(line)
        for line in written.splitlines()
        if re.match(
            r"\S+ [A-Z]+ (http|request|cors|host|log|movie|movies|rating|database|forged)\.", line
        )
    ]

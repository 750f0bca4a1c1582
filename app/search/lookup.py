"""Finds out what a search text means: words, else words with typos, else parts of words."""

import json
from collections.abc import Iterator
from itertools import chain, islice
from typing import NamedTuple

from sqlalchemy import Connection

from app.search import statements
from app.search.corrections import corrected
from app.search.names import LEADING_ARTICLES
from app.search.query import Parameters, Query, Ranges, parts
from app.text import normalize_text

# A word that occurs more often is not looked up: checking all movies takes less time.
COMMON = 5_000


class Search(NamedTuple):
    """A search that finds something, if anything does.

    Attributes:
        parameters: of statements that select its matches.
        searched_for: the text that was searched instead, None if it is the caller's.
    """

    parameters: Parameters
    searched_for: str | None = None


def find(connection: Connection, text: str | None) -> Search:
    """Return the search that a text means, which depends on all titles and on nothing else.

    Each step is taken only if those before find nothing.
    """
    text = normalize_text(text or "")
    if not text:
        return Search({})
    query = Query.of(text)
    if query.words:
        for typed in _as_typed(connection, query):
            if (found := _matching(connection, typed)) is not None:
                return Search(found, _difference(query, typed))
        if (better := corrected(connection, query)) is not None:
            for attempt in (better._replace(year=query.year), better):
                if (found := _matching(connection, attempt)) is not None:
                    return Search(found, attempt.text)
    return Search(_named(parts(text)))


def _as_typed(connection: Connection, query: Query) -> Iterator[Query]:
    """Yield a query and those that mean the same, the most literal first."""
    yield query
    if query.year is not None:
        # "Blade Runner 2049", if there is no such movie.
        yield query.without_year()
    yield from _with_joined_words(connection, query)
    if query.words[0] in LEADING_ARTICLES and len(query.words) > 1:
        yield query.with_words(query.words[1:])
    if len(query.phrases[0]) < len(query.words):
        # The alternate titles are others than ours.
        yield query.with_words(query.phrases[-1])


def _with_joined_words(connection: Connection, query: Query) -> Iterator[Query]:
    """Yield queries with two words joined to one: "the amazing spider man" in "Spiderman"."""
    words = query.words
    joined = {first + second: i for i, (first, second) in enumerate(zip(words, words[1:]))}  # noqa: B905, RUF007 - pairs
    given = {"given": json.dumps([*joined])}
    known = connection.execute(statements.known_words(connection.dialect.name), given)
    for word in sorted(known.scalars()):
        place = joined[word]
        yield query.with_words((*words[:place], word, *words[place + 2 :]))


def _matching(connection: Connection, query: Query) -> Parameters | None:
    """Return the parameters of a search, or None if it finds nothing."""
    parameters = _named(query.parameters(_best_lookups(connection, query)))
    finds = connection.execute(statements.any_match(*parameters), parameters).scalar_one()
    return parameters if finds else None


def _best_lookups(connection: Connection, query: Query) -> list[Ranges]:
    """Return the ranges to look up: those of the rarest word, and of all words joined.

    There are none if every word is so common that checking all movies takes less time.
    """
    *words, joined = query.lookups()
    bounds: Parameters = {"most": COMMON}
    for n, (first, end) in enumerate(chain.from_iterable(words)):
        bounds |= {f"from_{n}": first, f"to_{n}": end}
    statement = statements.sizes(sum(map(len, words)))
    counts = iter(connection.execute(statement, bounds).one())
    size, rarest = min((sum(islice(counts, len(word))), word) for word in words)
    return [] if size >= COMMON else [rarest, joined]


def _difference(query: Query, found: Query) -> str | None:
    """Return the text of a query that finds something else than the one that was typed."""
    is_same = "".join(query.words) == "".join(found.words) and query.year == found.year
    return None if is_same else found.text


def _named(parameters: Parameters) -> Parameters:
    return {statements.PREFIX + name: value for name, value in parameters.items()}

"""The SQL of searches. All of it means the same on both engines, and sorts alike.

A parameter's name begins with ``q_``, so that it differs from those of other filters.
"""

from collections.abc import Collection
from functools import cache
from itertools import takewhile
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

PREFIX = "q_"
# How well a name matches. Multiplied by the number of ratings plus PRIOR_RATINGS, so that a movie
# with an exact name comes before one that merely contains it, unless that has far more ratings.
EXACT, BEGINS_WITH_WORDS, BEGINS, WORDS_TOGETHER, WHOLE_WORDS, OTHERS = 1000, 8, 4, 3, 2, 1
PRIOR_RATINGS = 10


class Sql(sa.TextClause):
    """SQL for SQLite, whose ``instr`` has another name on PostgreSQL.

    It is text because SQLAlchemy takes ten times as long to build the same from its elements.
    """

    inherit_cache = True


@compiles(Sql, "postgresql")
def _on_postgresql(element: Sql, compiler: Any, **options: Any) -> str:  # noqa: ANN401
    sql: str = compiler.visit_textclause(element, **options)
    return sql.replace("instr(", "strpos(")


# The version before stores movies without a sort title, and so does a catalogue until it is
# indexed. They are found by their older key.
_NOT_INDEXED = "SELECT id FROM movie AS other WHERE sort_title = ''"


def condition(names: Collection[str]) -> Sql:
    """Return the condition of a search with these parameters."""
    if not (ranges := _of(names, "from")):
        return Sql(_decides(names))
    candidates = [f"SELECT movie_id FROM movie_word WHERE {_is_in(name)}" for name in ranges]  # noqa: S608 - constants
    ids = " UNION ALL ".join((*candidates, _NOT_INDEXED))
    return Sql(f"movie.id IN ({ids}) AND {_decides(names)}")


@cache
def any_match(*names: str) -> Sql:
    """Select whether a search with these parameters finds anything. It stops at the first match."""
    from_index = "movie_word JOIN movie ON movie.id = movie_word.movie_id WHERE"
    lookups = [
        f"SELECT 1 FROM {from_index} {_is_in(name)} AND {_decides(names)}"  # noqa: S608 - constants
        for name in _of(names, "from")
    ]
    if lookups:
        lookups.append(f"SELECT 1 FROM movie WHERE sort_title = '' AND {_has_parts(names)}")  # noqa: S608
    else:
        lookups.append(f"SELECT 1 FROM movie WHERE {_decides(names)}")  # noqa: S608 - constants
    return Sql(f"SELECT {' OR '.join(f'EXISTS ({lookup})' for lookup in lookups)}")


@cache
def sizes(ranges: int) -> sa.TextClause:
    """Select the number of words in each of some ranges, up to ``most``."""
    counts = (
        "(SELECT count(*) FROM (SELECT 1 FROM movie_word "  # noqa: S608 - constants
        f"WHERE {_is_in(f'from_{n}')} LIMIT :most) AS range_{n})"
        for n in range(ranges)
    )
    return sa.text(f"SELECT {', '.join(counts)}")


def relevance(names: Collection[str]) -> Sql:
    """Return how well a movie matches a search with these parameters: the more, the better."""
    known = f"(CAST(movie.rating_count AS BIGINT) + {PRIOR_RATINGS})"
    phrases = _of(names, "phrase")
    if not phrases:
        return Sql(known)
    forms = {EXACT: "'| ' || {} || ' |'", BEGINS_WITH_WORDS: "'| ' || {} || ' '"}
    forms |= {BEGINS: "'| ' || {}", WORDS_TOGETHER: "' ' || {} || ' '"}
    tiers = {
        tier: " OR ".join(_has(form.format(f":{phrase}")) for phrase in phrases)
        for tier, form in forms.items()
    } | {WHOLE_WORDS: _has_words(names, "rtrim(:{}) || ' '")}
    if "q_joined_name" in names:
        tiers[EXACT] += f" OR {_has_joined('q_joined_name')}"
    cases = " ".join(f"WHEN {matches} THEN {tier}" for tier, matches in tiers.items())
    return Sql(f"CASE {cases} ELSE {OTHERS} END * {known}")


def _has(needle: str, text: str = "movie.search_names") -> str:
    return f"instr({text}, {needle}) > 0"


def _has_joined(name: str) -> str:
    return _has(f":{name}", "replace(movie.search_names, ' ', '')")


def _has_words(names: Collection[str], form: str = ":{}") -> str:
    last = [name for name in ("q_last", "q_last_spelling") if name in names]
    needed = [_has(form.format(name)) for name in _of(names, "word")]
    needed.append(" OR ".join(_has(form.format(name)) for name in last))
    return " AND ".join(f"({each})" for each in needed if each)


def _has_parts(names: Collection[str]) -> str:
    parts = [_has(f":{name}", "movie.search_title") for name in _of(names, "part")]
    return f"({' AND '.join(parts) or '1 = 0'})"


def _decides(names: Collection[str]) -> str:
    """Return whether a movie matches. The rows of movie_word may be out of date."""
    if "q_last" not in names:
        return _has_parts(names)
    matches = [_has_words(names), f"movie.sort_title = '' AND {_has_parts(names)}"]
    if "q_joined" in names:
        matches.append(_has_joined("q_joined"))
    of_year = f"{_has(':q_year_word')} OR movie.year = :q_year_number"
    any_of = f"({' OR '.join(matches)})"
    return f"{any_of} AND ({of_year})" if "q_year_word" in names else any_of


def _is_in(first: str) -> str:
    return f"word >= :{first} AND word < :{first.replace('from', 'to')}"


def _of(names: Collection[str], kind: str) -> list[str]:
    """Return the parameters ``q_KIND_N``, in their order."""
    numbered = (f"{PREFIX}{kind}_{n}" for n in range(len(names)))
    return [*takewhile(names.__contains__, numbered)]


# Takes more of SQLite's steps than lie between two checks of the deadline of reads on the event
# loop, so that a read of many small statements is interrupted too.
CHECK_DEADLINE = sa.text(
    "WITH RECURSIVE step(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM step WHERE n < 200) "
    "SELECT count(*) FROM step"
)

# The parameters below are lists in JSON.
_GIVEN = {
    "sqlite": "json_each(:given) AS given",
    "postgresql": "json_array_elements_text(CAST(:given AS json)) AS given(value)",
}
_FOLLOWS = "word >= given.value AND word < given.value || :last"
# Force a lookup for each text: by default, SQLite would scan the index and PostgreSQL compare each
# word with each text.
_LOOKUP = {
    "sqlite": f"CROSS JOIN movie_word ON {_FOLLOWS}",
    "postgresql": (
        f"CROSS JOIN LATERAL (SELECT word FROM movie_word WHERE {_FOLLOWS} OFFSET 0) AS found"  # noqa: S608 - constants
    ),
}


@cache
def known_beginnings(dialect: str) -> sa.TextClause:
    """Select those of the given texts with which an indexed word begins."""
    return sa.text(
        f"SELECT given.value FROM {_GIVEN[dialect]} "  # noqa: S608 - constants
        f"WHERE (SELECT word FROM movie_word WHERE {_FOLLOWS} LIMIT 1) IS NOT NULL"
    )


@cache
def known_words(dialect: str) -> sa.TextClause:
    """Select those of the given texts that are indexed words."""
    return sa.text(
        f"SELECT given.value FROM {_GIVEN[dialect]} "  # noqa: S608 - constants
        "WHERE EXISTS (SELECT 1 FROM movie_word WHERE word = given.value)"
    )


@cache
def words_beginning(dialect: str) -> sa.TextClause:
    """Select the given texts and the indexed words that begin with them, up to a limit."""
    return sa.text(
        f"SELECT DISTINCT given.value AS beginning, word FROM {_GIVEN[dialect]} "  # noqa: S608 - constants
        f"{_LOOKUP[dialect]} WHERE length(word) BETWEEN :shortest AND :longest "
        "ORDER BY word, given.value LIMIT :row_limit"
    )


@cache
def best_corrected(places: tuple[int, ...], *names: str) -> sa.TextClause:
    """Select the most rated movies that have a replacement of each of some words.

    Args:
        places: of these words; ``words_N`` are the replacements.
        names: the parameters of the other words.
    """
    replaced = [
        f"movie.id IN (SELECT movie_id FROM movie_word WHERE word IN :words_{n})"  # noqa: S608 - constants
        for n in places
    ]
    kept = [_has(f":{name}") for name in names]
    return Sql(
        "SELECT rating_count, title, search_names FROM movie "  # noqa: S608 - constants
        f"WHERE {' AND '.join((*replaced, *kept))} ORDER BY rating_count DESC, title LIMIT 10"
    ).bindparams(*(sa.bindparam(f"words_{n}", expanding=True) for n in places))

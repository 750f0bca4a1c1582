"""Corrects typos: one edit in words of four letters and more, two in words of eight.

An edit leaves a letter out, adds or replaces one, or swaps two neighbours.
"""

import json
from collections.abc import Iterator

from sqlalchemy import Connection

from app.search import statements
from app.search.names import canonical, index_words
from app.search.query import LAST, Query, Term

MIN_LETTERS, MIN_LETTERS_FOR_TWO_EDITS = 4, 8
# Longer words and more words with typos are not corrected, so that no search takes long.
MAX_LETTERS, MAX_WORDS = 25, 4
# Words that are compared with one that may have two typos, so that none takes long.
MAX_COMPARED = 3000
# The letters that a typo may have left out or replaced. In other scripts only the order is tried.
_ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyz",
    "абвгдежзийклмнопрстуфхцчшщъыьэюя",
    "αβγδεζηθικλμνξοπρσςτυφχψω",
)

# Indexed words that may be meant, by the place of the word that they replace.
Choices = dict[int, set[str]]


def corrected(connection: Connection, query: Query) -> Query | None:
    """Return a query that finds something with as few edits as possible, None if there is none.

    Among equals it is the one that finds the most rated movie. It is for any year.
    """
    words = [*canonical([*query.words])[:-1], query.words[-1]]
    given = {"given": json.dumps(words), "last": LAST}
    begun = statements.known_beginnings(connection.dialect.name)
    known = {*connection.execute(begun, given).scalars()}
    unknown = [place for place, word in enumerate(words) if word not in known]
    # Words that all occur, but in no movie together: any one of them may be wrong.
    longest = sorted(range(len(words)), key=lambda place: (-len(words[place]), place))
    occurring = [
        place for place in longest if _is_correctable(words[place]) and place not in unknown
    ]
    with_another = [sorted([*unknown, place]) for place in occurring[:MAX_WORDS]]
    if len(unknown) > MAX_WORDS or not all(_is_correctable(words[place]) for place in unknown):
        return None
    for attempts in ([unknown] if unknown else [], with_another):
        for edits in (1, 2):
            found = [
                best
                for places in attempts
                if (best := _best(connection, words, places, edits)) is not None
            ]
            if found:
                return query.with_words(min(found)[-1])
    return None


def _is_correctable(word: str) -> bool:
    return MIN_LETTERS <= len(word) <= MAX_LETTERS and word.isalpha()


def _best(
    connection: Connection, words: list[str], places: list[int], edits: int
) -> tuple[int, str, tuple[str, ...]] | None:
    """Return words with replacements at some places, such that the most rated movie has them all.

    Before them are the movie's number of ratings, negative, and its title.
    """
    if connection.dialect.name == "sqlite":
        connection.execute(statements.CHECK_DEADLINE)
    choices = {}
    for place in places:
        word, is_last = words[place], place == len(words) - 1
        if not (found := _similar(connection, word, edits, is_last=is_last)):
            return None
        choices[place] = found
    parameters = {
        f"{statements.PREFIX}word_{place}": Term(word, place == len(words) - 1).needle
        for place, word in enumerate(words)
        if place not in choices
    }
    lists = {f"words_{place}": sorted(found) for place, found in choices.items()}
    statement = statements.best_corrected(tuple(choices), *parameters)
    for rating_count, title, key in connection.execute(statement, parameters | lists):
        own = index_words(key)
        # Rows of movie_word may be out of date: the key decides.
        meant = {place: sorted(found & own)[:1] for place, found in choices.items()}
        if all(meant.values()):
            replaced = (meant.get(place, [word])[0] for place, word in enumerate(words))
            return -rating_count, title, tuple(replaced)
    return None


def _similar(connection: Connection, word: str, edits: int, *, is_last: bool) -> set[str]:
    """Return the indexed words that are up to so many edits away from a word."""
    dialect = connection.dialect.name
    near = sorted({*_single_edits(word)})
    given = {"given": json.dumps(near)}
    found = {*connection.execute(statements.known_words(dialect), given).scalars()}
    if edits > 1 and len(word) >= MIN_LETTERS_FOR_TWO_EDITS:
        found |= _two_edits_away(connection, word)
    if not found and is_last:
        # It may be unfinished, too.
        bounds = {"last": LAST, "shortest": len(word), "longest": 2 * len(word), "row_limit": 100}
        rows = connection.execute(statements.words_beginning(dialect), given | bounds)
        found = {row.word for row in rows}
    return found


def _two_edits_away(connection: Connection, word: str) -> set[str]:
    """Return the indexed words that are two edits away, unless both are in the first half."""
    half = len(word) // 2
    head, tail = word[:half], word[half:]
    parameters = {
        "given": json.dumps(sorted({head, *_single_edits(head)})),
        "last": LAST,
        "shortest": len(word) - 2,
        "longest": len(word) + 2,
        "row_limit": MAX_COMPARED,
    }
    rows = connection.execute(statements.words_beginning(connection.dialect.name), parameters)
    near = {tail, *_single_edits(tail)}
    found = set()
    for beginning, indexed in rows:
        rest = indexed[len(beginning) :]
        if rest in near or (beginning == head and not near.isdisjoint(_single_edits(rest))):
            found.add(indexed)
    return found


def _single_edits(word: str) -> Iterator[str]:
    """Yield the words that are one edit away from a word."""
    alphabet = next((letters for letters in _ALPHABETS if word[:1] in letters), "")
    for i in range(len(word) + 1):
        before, after = word[:i], word[i:]
        if after:
            yield before + after[1:]
        if len(after) > 1:
            yield before + after[1] + after[0] + after[2:]
        for letter in alphabet:
            yield before + letter + after
            yield before + letter + after[1:]

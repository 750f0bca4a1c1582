"""Names: the forms of a title by which searches find it, and its place among sorted titles."""

import re
from functools import lru_cache

from app.search.keys import article_first, fold, split_words

NAMES_MAX_LENGTH = 1500
SORT_TITLE_MAX_LENGTH = 300
WORD_MAX_LENGTH = 50
# Forms that make a title's key too long are left out, so the first ones are the most important.
_FORM_MAX_LENGTH = 300

# The same word, written differently. Numbers become digits, so "Rocky II" is "rocky 2".
_NUMBERS = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
    "twenty",
)  # fmt: skip
_SAME_WORDS = {name: str(number) for number, name in enumerate(_NUMBERS, 1)} | {
    "dr": "doctor", "mr": "mister", "mt": "mount", "pt": "part", "st": "saint", "vol": "volume",
    "vs": "versus",
}  # fmt: skip
# Roman numerals, except at the beginning of a name: "V for Vendetta" is not about a 5.
_NUMERALS = (
    "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii", "xiii", "xiv", "xv", "xvi",
    "xvii", "xviii", "xix", "xx",
)  # fmt: skip
_ROMAN = {numeral: str(number) for number, numeral in enumerate(_NUMERALS, 2)}
# A single I is a number only after these.
_BEFORE_ONE = {"book", "chapter", "episode", "part", "pt", "vol", "volume"}
# Articles at the beginning of a title. Fewer than those after a comma, where nothing else is meant:
# "Die Hard" does not begin with an article.
LEADING_ARTICLES = ("the", "a", "an", "la", "le", "les", "el", "il", "das", "der", "een", "het")
_LEADING_ARTICLE = re.compile(rf"^(?:(?:{'|'.join(LEADING_ARTICLES)})\s+|(?:l|un)['\u2019])(?=\S)")
_AND = re.compile(r"(?<=\w)[&+](?=\w)|(?<!\S)[&+](?!\S)")
# Parentheses that belong to a name: "(500) Days of Summer", "Ex(it)".
_INSIDE_A_NAME = re.compile(r"(?<!\s)\(([^()]*)\)(?<!\([0-9]{4}\))")
_YEARS = re.compile(r"\s*[0-9]{4}\s*(?:[\u2013-]\s*(?:[0-9]{4})?\s*)?")
_ALSO_KNOWN_AS = re.compile(r"\s*a\.?k\.?a\.?\s+")
# Bars and the slash separate the parts of a key.
_SIGNS = str.maketrans("|/", "¦\u2044")


@lru_cache(maxsize=1000)
def names_key(title: str) -> str:
    """Return the key that decides whether a search matches: names between bars, then the year.

    The title and each alternate title in parentheses is a name. A name is written with and without
    its article, with words joined by punctuation apart and as one, and with numbers as digits.
    ``Spider-Man II, The (2004)`` becomes ``| the spider man ii | spider man ii | the spiderman ii |
    spiderman ii | the spider man 2 | spider man 2 | the spiderman 2 | spiderman 2 | / 2004 ``.
    """
    names, years = name_parts(title)
    year = "".join(f"{year} " for year in years)[:_FORM_MAX_LENGTH]
    key = "| "
    for form in dict.fromkeys(form for name in names for form in _forms(name)):
        if len(key) + len(form) + len(year) + 5 <= NAMES_MAX_LENGTH:
            key += f"{form} | "
    return f"{key}/ {year}"


def index_words(key: str) -> set[str]:
    """Return the words under which a key is looked up: those of its names, and each name joined."""
    names = [name.split() for name in key.partition("/")[0].split("|")]
    words = {word for name in names for word in (*name, "".join(name))}
    return {word[:WORD_MAX_LENGTH] for word in words - {""}}


def sort_title(title: str) -> str:
    """Return the text by which titles are sorted: folded words, without article and year."""
    names, _ = name_parts(title)
    words = [word for name in names for word in split_words(_bare(name).replace("'", ""))]
    return (" ".join(words) or fold(title).strip() or title)[:SORT_TITLE_MAX_LENGTH]


def canonical(words: list[str]) -> list[str]:
    """Return words in the one spelling that all their spellings share."""
    return [
        _ROMAN[word]
        if place and word in _ROMAN
        else "1"
        if place and word == "i" and words[place - 1] in _BEFORE_ONE
        else _SAME_WORDS.get(word, word)
        for place, word in enumerate(words)
    ]


def tokens_of(part: str) -> list[list[str]]:
    """Return the words of each token of a folded part, or its signs if it has no words."""
    tokens = _AND.sub(" and ", part).replace("'", "").split()
    groups = [group for group in map(split_words, tokens) if group]
    return groups or [[token.translate(_SIGNS)] for token in part.split()]


def name_parts(title: str) -> tuple[list[str], list[str]]:
    """Return a title and its alternate titles in parentheses, and its years in parentheses.

    Case is folded; accents and articles are as they were.
    """
    parts = re.split("[()]", _INSIDE_A_NAME.sub(r"\1", title.casefold()))
    first, *others = [part for part in parts if part.strip()] or [title]
    names = [first, *(part for part in others if not _YEARS.fullmatch(part))]
    years = [year for part in others if _YEARS.fullmatch(part) for year in split_words(part)]
    return [_ALSO_KNOWN_AS.sub("", name, count=1) for name in names], years


def _bare(part: str) -> str:
    """Return a part of a title without its article, folded."""
    folded = fold(part).strip()
    moved = article_first(folded)
    if moved != folded:
        return folded.rpartition(",")[0]
    # The title's own letters: "À nous" does not begin with an English article.
    return fold(_LEADING_ARTICLE.sub("", part.strip(), count=1))


def _forms(part: str) -> list[str]:
    folded = fold(part).strip()
    forms = []
    for name in dict.fromkeys((article_first(folded), _bare(part))):
        groups = tokens_of(name)
        apart = [word for group in groups for word in group]
        joined = ["".join(group) for group in groups]
        forms += [apart, joined, canonical(apart), canonical(joined)]
    return [" ".join(words)[:_FORM_MAX_LENGTH].rstrip() for words in forms if any(words)]

"""Search keys: titles and search texts, normalized for comparison."""

import re
from unicodedata import category, combining, normalize

# Articles, which catalogues move to the end: "Matrix, The", "Avventura, L'", "Chien andalou, Un".
ARTICLES = (
    "a", "an", "the",  # English
    "l'", "la", "le", "les", "un", "une",  # French
    "das", "dem", "den", "der", "des", "die", "ein", "eine",  # German
    "gli", "i", "il", "lo", "un'", "una", "uno",  # Italian
    "el", "las", "los",  # Spanish
    "as", "o", "os", "um", "uma",  # Portuguese
    "de", "een", "het", "'t",  # Dutch
    "det", "en", "et", "ett",  # Danish, Norwegian, Swedish
    "az", "egy",  # Hungarian
)  # fmt: skip
SEARCH_KEY_MAX_LENGTH = 900
# Fold no more characters than this: a longer text is neither a title nor a search.
MAX_FOLDED = 1200

_APOSTROPHES = dict.fromkeys("`´ʹʻʼʽ‘’‛′＇ꞌ", "'")
_DASHES = dict.fromkeys("‐‑‒–—―−﹘﹣－", "-")
# Letters that people type without their stroke, hook or ligature. Unicode does not decompose them.
_PLAIN_LETTERS = {
    "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "ħ": "h", "ı": "i", "ł": "l", "ŋ": "n",
    "þ": "th", "ŧ": "t",
}  # fmt: skip
_SAME = str.maketrans(_APOSTROPHES | _DASHES | _PLAIN_LETTERS)
# Combining classes of marks that are part of a letter, not an accent: nukta, kana voicing, virama.
_KEPT_COMBINING_CLASSES = {0, 7, 8, 9}
_ARTICLE_LAST = re.compile(rf"(.+),\s*({'|'.join(map(re.escape, ARTICLES))})\s*")
# Separated from a digit before them: otherwise "8½" would decompose into "81/2".
_FRACTION = re.compile("[¼-¾⅐-⅞]")
_ASCII_WORD = re.compile("[a-z0-9]+")
_LETTERS_MARKS_AND_NUMBERS = "LMN"


def search_key(title: str) -> str:
    """Return the normalized title that searches match against.

    The key contains the folded words of the title with articles in front, then words joined by
    punctuation as one word, and then tokens without letters and digits.
    ``Spider-Man, The (2002)`` becomes ``the spider man 2002 spiderman``.
    """
    parts = re.split("[()]", fold(title))
    tokens = " ".join(map(article_first, parts)).replace("'", "").split()
    groups = [(token, split_words(token)) for token in tokens]
    words = [word for _, group in groups for word in group]
    joined = ["".join(group) for _, group in groups if len(group) > 1]
    signs = [token.replace("&", "and") for token, group in groups if not group]
    return " ".join(words + joined + signs)[:SEARCH_KEY_MAX_LENGTH]


def search_words(text: str) -> list[str]:
    """Return the words of a search text, longest first. A matching key contains each of them.

    Their order does not matter: of 202 titles of MovieLens, two words in any order find all, but
    one phrase finds only 57.

    Words joined by punctuation stay together. Words contained in a longer one are dropped, and so
    is punctuation unless there is nothing else.
    """
    tokens = fold(text).split()
    words = {" ".join(split_words(token.replace("'", ""))) for token in tokens} - {""} or {*tokens}
    # The longest word is the most selective condition, so it is checked first.
    ordered = sorted(words, key=lambda word: (-len(word), word))
    return [
        word
        for place, word in enumerate(ordered)
        if not any(word in longer for longer in ordered[:place])
    ]


def fold(text: str) -> str:
    """Return text without case, accents and compatibility forms, and with plain apostrophes."""
    text = text[:MAX_FOLDED]
    if text.isascii():
        return text.casefold().translate(_SAME)
    apart = _FRACTION.sub(r" \g<0>", text)
    decomposed = normalize("NFKD", apart.translate(_SAME).casefold())
    bare = "".join(c for c in decomposed if combining(c) in _KEPT_COMBINING_CLASSES)
    return normalize("NFC", bare).casefold().translate(_SAME)


def split_words(token: str) -> list[str]:
    """Return the words of a folded token: letters, marks and digits between other characters."""
    if token.isascii():
        return _ASCII_WORD.findall(token)
    letters = (c if category(c)[0] in _LETTERS_MARKS_AND_NUMBERS else " " for c in token)
    return "".join(letters).split()


def article_first(part: str) -> str:
    """Return a folded title with an article that follows a comma in front."""
    match = _ARTICLE_LAST.fullmatch(part)
    if match is None:
        return part
    rest, article = match.groups()
    return article + ("" if article.endswith("'") else " ") + rest.lstrip()

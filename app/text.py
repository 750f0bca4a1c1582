"""How titles, genres and ids are stored and compared.

Normalized text has a separate type, and is returned as it is when normalized again. So each layer
may call these functions, and the work is done once.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from unicodedata import normalize

DEFAULT_GENRE = "Unknown"
TITLE_MAX_LENGTH = 300
GENRE_MAX_LENGTH = 100
# As in MovieLens files.
GENRE_SEPARATOR = "|"
GENRES_MAX = 20
# "tt" and seven digits or, since 2019, more.
IMDB_ID_MIN_LENGTH, IMDB_ID_MAX_LENGTH = 9, 12
# Longer text is refused before it is normalized, which can take milliseconds for each kB: as many
# times its bound may be white space and what composes to fewer characters.
SLACK = 4

# Characters that no font shows: control characters except white space, Unicode's
# Default_Ignorable_Code_Point, and interlinear annotations.
# Source: DerivedCoreProperties.txt of Unicode 15.
_INVISIBLE = (
    r"\x01-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    r"\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    # The OpenAPI document quotes them: no escape means the same to Python and JavaScript.
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
# NUL, white space, the blocks of combining marks, and Braille's empty pattern.
_BLANK = (
    r"\x00\x09-\x0d\x1c-\x20\x85\xa0\u0300-\u034e\u0350-\u036f\u1680\u1ab0-\u1aff\u1dc0-\u1dff"
    r"\u2000-\u200a\u2028\u2029\u202f\u205f\u20d0-\u20ff\u2800\u3000\ufe20-\ufe2f"
)
_is_invisible = re.compile(f"[{_INVISIBLE}]")
_is_visible = re.compile(f"[^{_BLANK}{_INVISIBLE}]")
# Patterns of text that can be normalized, for the OpenAPI document.
TEXT_PATTERN = r"^[^\x00]*$"
TITLE_PATTERN = rf"^[^\x00]*[^{_BLANK}{_INVISIBLE}][^\x00]*$"
GENRE_PATTERN = rf"^[^\x00|]*[^|{_BLANK}{_INVISIBLE}][^\x00|]*$"
IMDB_ID_PATTERN = "^tt0*[1-9][0-9]{0,9}$"


class Text(str):
    """Normalized text: in NFC, without invisible characters, single spaces between words."""

    __slots__ = ()


class Title(Text):
    """A title as it is stored."""

    __slots__ = ()


class Genre(Title):
    """A genre as it is stored."""

    __slots__ = ()


class TooLong(ValueError):  # noqa: N818 - named like those in app/errors.py
    """Text exceeds its bound.

    Attributes:
        max_length: the bound, in characters.
    """

    def __init__(self, max_length: int) -> None:
        super().__init__(f"must be at most {max_length} characters")
        self.max_length = max_length


def normalize_text(text: str, max_length: int = TITLE_MAX_LENGTH) -> Text:
    """Return text in NFC, without invisible characters, with single spaces between words.

    Raises:
        TooLong: it has more than ``max_length`` characters.
        ValueError: it contains a NUL, which PostgreSQL cannot store, or half of a surrogate pair,
            which UTF-8 cannot encode.
    """
    if isinstance(text, Text) and len(text) <= max_length:
        return text
    if len(text) > SLACK * max_length:
        raise TooLong(max_length)
    if "\0" in text:
        raise ValueError("must not contain a NUL character")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("must not contain half of a surrogate pair") from None
    if not (text.isascii() and text.isprintable()):
        text = normalize("NFC", _is_invisible.sub("", text))
    text = " ".join(text.split())
    if len(text) > max_length:
        raise TooLong(max_length)
    return Text(text)


def normalize_title(title: str, max_length: int = TITLE_MAX_LENGTH) -> Title:
    """Return a title as it is stored: normalized text with at least one visible character.

    Raises:
        TooLong: it has more than ``max_length`` characters.
        ValueError: it has no visible character, or one that cannot be stored.
    """
    if isinstance(title, Title) and len(title) <= max_length:
        return title
    text = normalize_text(title, max_length)
    if not _is_visible.search(text):
        raise ValueError("must contain a visible character")
    return Title(text)


def normalize_genre(genre: str) -> Genre:
    """Return a genre as it is stored: a normalized title in title case.

    ``sci-fi`` becomes ``Sci-Fi`` and ``CHILDREN'S`` becomes ``Children's``.

    Raises:
        TooLong: it has more than GENRE_MAX_LENGTH characters.
        ValueError: it has no visible character, one that cannot be stored, or a '|', which
            separates genres in MovieLens files.
    """
    if isinstance(genre, Genre):
        return genre
    if len(genre) > SLACK * GENRE_MAX_LENGTH:
        raise TooLong(GENRE_MAX_LENGTH)
    return _normalize_genre(genre)


@lru_cache
def _normalize_genre(genre: str) -> Genre:
    if GENRE_SEPARATOR in genre:
        raise ValueError("must be a single genre, without '|'")
    words = re.split(r"([\s/&-])", normalize_title(genre, GENRE_MAX_LENGTH))
    cased = normalize("NFC", "".join(word.capitalize() for word in words))
    # Repeat: some characters change case in two steps, and the stored form must be stable.
    return Genre(cased) if cased == genre else _normalize_genre(cased)


def normalize_genres(genres: Iterable[str]) -> list[Genre]:
    """Return genres as they are stored: each normalized, without duplicates, in their order.

    Raises:
        ValueError: there is none, there are more than GENRES_MAX, or one cannot be normalized.
    """
    given = [*islice(genres, SLACK * GENRES_MAX + 1)]
    unique = (
        [] if len(given) > SLACK * GENRES_MAX else [*dict.fromkeys(map(normalize_genre, given))]
    )
    if not 1 <= len(unique) <= GENRES_MAX:
        raise ValueError(f"must be 1 to {GENRES_MAX} genres")
    return unique


def genre_columns(genres: Iterable[str]) -> dict[str, str]:
    """Return the columns of a movie that hold its genres, given all of them, normalized."""
    first, *others = genres
    return {"genre": first, "other_genres": "".join(GENRE_SEPARATOR + other for other in others)}


def normalize_imdb_id(imdb_id: str) -> str:
    """Return an IMDb id as IMDb writes it: ``tt114709`` becomes ``tt0114709``.

    Raises:
        TooLong: it has more than SLACK * IMDB_ID_MAX_LENGTH characters.
        ValueError: it is not "tt" and a number from 1 to 9999999999.
    """
    if len(imdb_id) > SLACK * IMDB_ID_MAX_LENGTH:
        raise TooLong(SLACK * IMDB_ID_MAX_LENGTH)
    match = re.fullmatch(r"\s*tt0*([1-9][0-9]{0,9})\s*", imdb_id)
    if match is None:
        raise ValueError("must be an IMDb id, such as tt0114709")
    return f"tt{match[1]:0>7}"

"""What a search text asks for, as the parameters of a statement."""

import re
from typing import Any, NamedTuple, Self

from app.search.keys import article_first, fold, search_words
from app.search.names import WORD_MAX_LENGTH, canonical, name_parts, tokens_of

# Parameters of a statement by name. Which names there are determines the statement.
Parameters = dict[str, Any]
# Ranges of words: the first one, and one that sorts after the last one.
Ranges = list[tuple[str, str]]

# The first year that a search text can mean, and the last.
YEARS = range(1900, 2101)
# More words than a title has. Further ones are ignored, and so is the end of a long phrase.
MAX_WORDS = 20
MAX_PHRASE_LENGTH = 100
# A shorter word may be unfinished only if it is the last: "it" is not the beginning of "italian".
MIN_LETTERS_OF_A_BEGINNING = 3
# Words written as one, such as "darkknig", may be unfinished too if they are this long.
MIN_LETTERS_OF_A_JOINED_BEGINNING = 6

_OPEN_YEAR = re.compile(r"\([0-9]{0,3}$")
# The last code point: no word that begins with a text sorts after that text and this character.
LAST = "\U0010ffff"
# Sorts before each character of a word.
_FIRST = "\x01"


class Term(NamedTuple):
    """A word to find."""

    word: str
    is_last: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether only the whole word matches, not one that begins with it."""
        if _is_number(self.word):
            return len(self.word) <= WORD_MAX_LENGTH
        # Scripts without case have no short words that are everywhere: 東京 begins 東京物語.
        has_case = self.word.upper() != self.word
        return not self.is_last and has_case and len(self.word) < MIN_LETTERS_OF_A_BEGINNING

    @property
    def needle(self) -> str:
        """What a matching key contains."""
        return f" {self.word} " if self.is_whole else f" {self.word}"

    @property
    def range(self) -> tuple[str, str]:
        """The range of words that match."""
        return _exactly(self.word) if self.is_whole else _beginning(self.word)


class Query(NamedTuple):
    """A search text, taken apart.

    Attributes:
        words: its folded words in their order, without the year.
        year: the year that filters, if any.
        phrases: the word sequences that an exact name has, each with and without the year.
    """

    words: tuple[str, ...]
    year: str | None
    phrases: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, text: str) -> Self:
        """Take a text apart. A text without letters and digits is searched for its signs."""
        names, years = name_parts(_OPEN_YEAR.sub("", text) or text)
        lists = [_words_of(name) for name in names]
        words = [word for words in lists for word in words]
        phrases = [lists[0]]
        year = years[-1] if years else None
        if year is None and len(words) > 1:
            # Of several numbers only the last can be a year: "2001 a space odyssey 1968".
            place = max((i for i, word in enumerate(words) if _is_number(word)), default=None)
            if place is not None and len(words[place]) == 4 and int(words[place]) in YEARS:  # noqa: PLR2004 - digits
                year = words.pop(place)
                phrases.append([word for word in lists[0] if word != year])
        unique = dict.fromkeys(tuple(phrase) for phrase in phrases if phrase)
        return cls(tuple(words), year, tuple(unique))

    @property
    def text(self) -> str:
        """The text that finds the same."""
        return " ".join(filter(None, (*self.words, self.year)))

    def without_year(self) -> Self:
        """Return the query for any year."""
        return self._replace(year=None, phrases=(self.words,))

    def with_words(self, words: tuple[str, ...]) -> Self:
        """Return the query for other words."""
        return self._replace(words=words, phrases=(words,))

    def lookups(self) -> list[Ranges]:
        """Return the ranges of indexed words that may match each word, and all of them joined."""
        words, ending, spelling = self._terms()
        ranges = [[term.range] for term in words]
        ranges.append([ending.range] if spelling is None else [ending.range, spelling.range])
        joined = "".join(self.words)
        is_long = len(joined) >= MIN_LETTERS_OF_A_JOINED_BEGINNING
        return [*ranges, [_beginning(joined) if is_long else _exactly(joined)]]

    def parameters(self, lookups: list[Ranges]) -> Parameters:
        """Return the parameters of a search for names that have each word, or all of them joined.

        ``word_N`` occurs in a matching key, and either ``last`` or ``last_spelling``; or ``joined``
        occurs in the key without spaces. Its words are among the ranges ``from_N`` to ``to_N``. A
        ``phrase_N`` or ``joined_name`` is a name that matches exactly.

        Args:
            lookups: the ranges in which matches are looked up; if there are none, in all movies.
        """
        words, ending, spelling = self._terms()
        parameters: Parameters = {f"word_{n}": term.needle for n, term in enumerate(words)}
        parameters["last"] = ending.needle
        if spelling is not None:
            parameters["last_spelling"] = spelling.needle
        ranges = (bounds for lookup in lookups for bounds in lookup)
        for n, (first, end) in enumerate(ranges):
            parameters |= {f"from_{n}": first, f"to_{n}": end}
        joined = "".join(self.words)
        if lookups and len(joined) >= MIN_LETTERS_OF_A_JOINED_BEGINNING:
            parameters |= {"joined": f"|{joined}", "joined_name": f"|{joined}|"}
        elif lookups and len(self.words) > 1:
            parameters["joined"] = f"|{joined}|"
        if self.year is not None:
            parameters |= {"year_word": f" {self.year} ", "year_number": int(self.year)}
        for n, phrase in enumerate(self._spelled_phrases()):
            parameters[f"phrase_{n}"] = phrase[:MAX_PHRASE_LENGTH]
        return parameters | parts(self.text)

    def _terms(self) -> tuple[list[Term], Term, Term | None]:
        """Return the complete words, the last one, and its other spelling if it has one.

        The last word may be unfinished: "seven" is a 7, and the beginning of "seventh".
        """
        *complete, (last, spelling) = zip(self.words, canonical([*self.words]), strict=True)
        words = dict.fromkeys(word for _, word in complete if word != spelling)
        # Longer words are more selective, so they are checked first.
        terms = sorted(map(Term, words), key=lambda term: (-len(term.word), term))[:MAX_WORDS]
        return terms, Term(last, is_last=True), Term(spelling) if spelling != last else None

    def _spelled_phrases(self) -> dict[str, None]:
        spelled = ((phrase, canonical([*phrase])) for phrase in self.phrases)
        forms = (form for phrase, same in spelled for form in ((*same[:-1], phrase[-1]), same))
        return dict.fromkeys(" ".join(form) for form in forms)


def parts(text: str) -> Parameters:
    """Return the parameters of a search for titles that contain each word, perhaps inside others.

    They are named ``part_N``.
    """
    return {f"part_{place}": word for place, word in enumerate(search_words(text)[:MAX_WORDS])}


def _beginning(word: str) -> tuple[str, str]:
    return word[:WORD_MAX_LENGTH], word[:WORD_MAX_LENGTH] + LAST


def _exactly(word: str) -> tuple[str, str]:
    return word[:WORD_MAX_LENGTH], word[:WORD_MAX_LENGTH] + _FIRST


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit()


def _words_of(name: str) -> list[str]:
    return [word for group in tokens_of(article_first(fold(name).strip())) for word in group]

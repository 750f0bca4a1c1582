"""Reading and writing MovieLens' CSV files.

The format is described in https://files.grouplens.org/datasets/movielens/ml-latest-README.html.
This module does not use the database.
"""

import csv
import os
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from io import StringIO
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from typing import Self, TextIO, TypeGuard, TypeVar

from pydantic import TypeAdapter, ValidationError

from app.db import unfinished_folder
from app.errors import UnusableFile
from app.models import SCORE_MAX, SCORE_MIN, YEAR_MAX, YEAR_MIN
from app.movielens.spreadsheet import MARK, is_marked, protected, unprotected
from app.schemas import Genre, Title, UrlId, UrlInt, UrlUserId
from app.text import (
    DEFAULT_GENRE,
    GENRE_SEPARATOR,
    normalize_genres,
    normalize_imdb_id,
    normalize_text,
)

T = TypeVar("T")
# Called periodically with the number of bytes read since the last call.
Advance = Callable[[int], object]

MOVIES_FILE = "movies.csv"
LINKS_FILE = "links.csv"
RATINGS_FILE = "ratings.csv"
# Not part of MovieLens: readers of ratings.csv expect a user in every row.
ANONYMOUS_RATINGS_FILE = "anonymous_ratings.csv"
FILES = (MOVIES_FILE, LINKS_FILE, RATINGS_FILE, ANONYMOUS_RATINGS_FILE)
# Written only if they have rows.
OPTIONAL_FILES = {LINKS_FILE, ANONYMOUS_RATINGS_FILE}
MOVIES_HEADER = ("movieId", "title", "genres")
# Not part of MovieLens: the year of movies whose title does not end in it.
YEAR_COLUMN = "year"
LINKS_HEADER = ("movieId", "imdbId", "tmdbId")
ANONYMOUS_RATINGS_HEADER = ("movieId", "rating", "timestamp")
RATINGS_HEADER = ("userId", *ANONYMOUS_RATINGS_HEADER)
IMDB_PREFIX = "tt"
NO_GENRES = "(no genres listed)"

NO_YEAR = "no year"
YEAR_OUT_OF_RANGE = f"year not in {YEAR_MIN}..{YEAR_MAX}"
UNKNOWN_MOVIE = f"movie not in {MOVIES_FILE}"

# Matches (1995) and, for series, (2006-2007) or (2019- ), with any kind of dash.
_YEAR_AT_END = re.compile(r"\(([0-9]{4})\s*(?:[-\u2013\u2014]\s*[0-9]*\s*)?\)$")
# "0.5" to "5.0", and "1" to "5". Half stars are rounded up (3.5 becomes 4).
_SCORES = {str(halves / 2): (halves + 1) // 2 for halves in range(1, 2 * SCORE_MAX + 1)} | {
    str(score): score for score in range(SCORE_MIN, SCORE_MAX + 1)
}
_TIMESTAMP = re.compile(r"(-?[0-9]{1,12})(?:\.([0-9]{1,6}))?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_MICROSECOND = timedelta(microseconds=1)
# In microseconds since the epoch. One day of slack keeps datetimes valid in every time zone.
_EARLIEST = (datetime(1, 1, 2, tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LATEST = (datetime(9999, 12, 30, tzinfo=UTC) - _EPOCH) // _MICROSECOND
# Whole seconds with at most this many digits are always within the bounds.
_USUAL_DIGITS = 11
# Characters per read.
_CHUNK = 2**16
# Characters of a row, which may have several lines. csv has the same limit for a cell.
MAX_ROW = 2**17
# Rows per piece of encoded text.
_ROWS_PER_PIECE = 250
# Matches blanks between a quoted cell and its commas: csv would make them part of the cell.
_QUOTED_CELL = re.compile(r'(^|,)[ \t]*("(?:[^"]|"")*")[ \t]*(?=[,\r\n]|$)')
# Errors shorten longer invalid values.
_QUOTED_CHARACTERS = 60

# A byte that is not valid UTF-8, as the error handler surrogateescape decodes it.
_UNDECODED = re.compile("[\udc80-\udcff]")

_TITLE: TypeAdapter[str] = TypeAdapter(Title)
_GENRE: TypeAdapter[str] = TypeAdapter(Genre)
_ID: TypeAdapter[int] = TypeAdapter(UrlId)
_USER_ID: TypeAdapter[int] = TypeAdapter(UrlUserId)
_INTEGER: TypeAdapter[int] = TypeAdapter(UrlInt)


@dataclass(slots=True)
class MovieRow:
    """A movie that is read from or written to files. Its genres are joined by '|'."""

    id: int
    title: str
    year: int
    genres: str
    imdb_id: str | None = None
    tmdb_id: int | None = None


@dataclass(slots=True)
class RatingRow:
    """A rating that is read from or written to files. Without a user it is anonymous."""

    movie_id: int
    user_id: int | None
    score: int
    created_at: datetime


class MovieLensFolder:
    """The movies and ratings of a folder. Consume movies() once, and then ratings() once.

    Attributes:
        bytes: the total size of the files.
        movies_left_out: the number of movies skipped so far, by reason.
        ratings_left_out: the number of ratings skipped so far, by reason.
        years_added: the number of titles so far to which the year was added.
    """

    def __init__(self, folder: Path, *, skip_unknown_movies: bool = False) -> None:
        """Read the headers.

        Args:
            folder: contains movies.csv and ratings.csv, and optionally links.csv and
                anonymous_ratings.csv. Other files are ignored.
            skip_unknown_movies: skip ratings of movies that are not in movies.csv, instead of
                raising an error.

        Raises:
            UnusableFile: a file cannot be read or lacks a column.
        """
        self._movies = _CsvFile(folder / MOVIES_FILE, MOVIES_HEADER, YEAR_COLUMN)
        self._ratings = _CsvFile(folder / RATINGS_FILE, RATINGS_HEADER)
        self._links = _CsvFile.if_exists(folder / LINKS_FILE, LINKS_HEADER)
        anonymous = folder / ANONYMOUS_RATINGS_FILE
        self._anonymous = _CsvFile.if_exists(anonymous, ANONYMOUS_RATINGS_HEADER)
        self._skip_unknown_movies = skip_unknown_movies
        # By movie id: why the movie is skipped, or None if it is imported.
        self._skip_reasons: dict[int, str | None] = {}
        files = filter(None, (self._movies, self._links, self._ratings, self._anonymous))
        self.bytes = sum(file.bytes for file in files)
        self.movies_left_out: Counter[str] = Counter()
        self.ratings_left_out: Counter[str] = Counter()
        self.years_added = 0

    def movies(self, advance: Advance) -> Iterator[MovieRow]:
        """Yield the movies whose year the catalogue can hold.

        If movies share a title and differ in the year column, the year is added to each title.

        Raises:
            UnusableFile: a row is invalid, or repeats an earlier id.
        """
        ids = self._external_ids(advance)
        ambiguous = self._ambiguous_titles()
        for movie_id, title, year, genres in self._movie_rows(advance):
            if movie_id in self._skip_reasons:
                raise self._movies.row_error(f"movie {movie_id} is already in a line above")
            if _is_usable(year):
                self._skip_reasons[movie_id] = None
                full_title = self._full_title(title, year, ambiguous)
                yield MovieRow(movie_id, full_title, year, genres, *ids.get(movie_id, (None, None)))
            else:
                reason = NO_YEAR if year is None else YEAR_OUT_OF_RANGE
                self._skip_reasons[movie_id] = reason
                self.movies_left_out[reason] += 1

    def ratings(self, advance: Advance) -> Iterator[RatingRow]:
        """Yield the ratings of the movies that movies() yielded.

        Raises:
            UnusableFile: a row is invalid, or rates a movie that movies.csv lacks.
        """
        yield from self._ratings_of(self._ratings, self._ratings.rows(advance))
        if self._anonymous:
            rows = self._anonymous.rows(advance)
            yield from self._ratings_of(self._anonymous, (("", *row) for row in rows))

    def _external_ids(self, advance: Advance) -> dict[int, tuple[str | None, int | None]]:
        """Return the IMDb and the TMDB id of each movie of links.csv."""
        ids: dict[int, tuple[str | None, int | None]] = {}
        if self._links is None:
            return ids
        for movie, imdb, tmdb in self._links.rows(advance):
            try:
                movie_id, external_ids = _id(movie), (_imdb_id(imdb), _tmdb_id(tmdb))
            except ValueError as error:
                raise self._links.row_error(error) from error
            if movie_id in ids:
                raise self._links.row_error(f"movie {movie_id} is already in a line above")
            ids[movie_id] = external_ids
        return ids

    def _movie_rows(self, advance: Advance) -> Iterator[tuple[int, str, int | None, str]]:
        """Yield id, title, year and genres of each row of movies.csv."""
        for movie, title, genres, *stated_year in self._movies.rows(advance):
            try:
                name = _TITLE.validate_python(title)
                row = _id(movie), name, _year("".join(stated_year), name), _genres(genres)
            except ValueError as error:
                raise self._movies.row_error(error) from error
            yield row

    def _ambiguous_titles(self) -> set[str]:
        """Return the titles that occur in movies.csv with different years."""
        ambiguous = set()
        if YEAR_COLUMN in self._movies.columns:
            years: dict[str, int] = {}
            for _, title, year, _ in self._movie_rows(ignore):
                if _is_usable(year) and years.setdefault(title, year) != year:
                    ambiguous.add(title)
        return ambiguous

    def _full_title(self, title: str, year: int, ambiguous: set[str]) -> str:
        if title not in ambiguous or year_of(title) == year:
            return title
        self.years_added += 1
        try:
            return _TITLE.validate_python(f"{title} ({year})")
        except ValueError as error:
            raise self._movies.row_error(error) from error

    def _ratings_of(self, file: "_CsvFile", rows: Iterable[tuple[str, ...]]) -> Iterator[RatingRow]:
        for user, movie, rating, timestamp in rows:
            try:
                movie_id = _id(movie)
                user_id = _user_id(user)
                score, created_at = _score(rating), _created_at(timestamp)
            except ValueError as error:
                raise file.row_error(error) from error
            reason = self._skip_reasons.get(movie_id, UNKNOWN_MOVIE)
            if reason is None:
                yield RatingRow(movie_id, user_id, score, created_at)
            elif reason != UNKNOWN_MOVIE or self._skip_unknown_movies:
                self.ratings_left_out[reason] += 1
            else:
                raise file.row_error(
                    f"movie {movie_id} is not in {MOVIES_FILE};"
                    " use --skip-unknown-movies to skip such ratings"
                )


def write_folder(
    folder: Path,
    movies: Callable[[], Iterable[MovieRow]],
    ratings: Iterable[RatingRow],
    anonymous_ratings: Iterable[RatingRow],
    *,
    for_spreadsheet: bool = False,
) -> tuple[int, int]:
    """Write the catalogue's files, all or none, and return the numbers of movies and ratings.

    links.csv and anonymous_ratings.csv are written only if they have rows.

    Args:
        folder: the target, created if it does not exist.
        movies: returns a new iterator over the movies. It is called several times: the header
            depends on whether every title ends in its year.
        ratings: the users' ratings of these movies.
        anonymous_ratings: the other ratings of these movies.
        for_spreadsheet: write a byte order mark, and no cell that a spreadsheet would run as a
            formula.

    Raises:
        UnusableFile: one of the files exists already or cannot be written.
    """
    try:
        for target in (folder / name for name in FILES):
            if target.exists():
                raise UnusableFile(f"{target} already exists. Choose another folder.")
        folder.mkdir(parents=True, exist_ok=True)
        # In the target folder, because a rename works only within one file system.
        with unfinished_folder(folder, "unfinished-") as unfinished:
            rows = _write_files(
                unfinished, movies, ratings, anonymous_ratings, for_spreadsheet=for_spreadsheet
            )
            for name in FILES:
                if rows[name] or name not in OPTIONAL_FILES:
                    (unfinished / name).rename(folder / name)
    except OSError as error:
        raise UnusableFile(f"Cannot write to {folder}: {error.strerror}") from error
    return rows[MOVIES_FILE], rows[RATINGS_FILE] + rows[ANONYMOUS_RATINGS_FILE]


def _write_files(
    folder: Path,
    movies: Callable[[], Iterable[MovieRow]],
    ratings: Iterable[RatingRow],
    anonymous_ratings: Iterable[RatingRow],
    *,
    for_spreadsheet: bool,
) -> Counter[str]:
    """Write all files, and return the number of rows by file."""
    rows: Counter[str] = Counter()
    opened = ExitStack()

    def read(items: Iterable[T]) -> Iterable[T]:
        # An error keeps iterators alive until it is printed, when their connection is closed.
        if isinstance(items, Generator):
            opened.callback(items.close)
        return items

    def counted(name: str, items: Iterable[T]) -> Iterator[T]:
        for item in items:
            rows[name] += 1
            yield item

    with opened:
        with_year = any(year_of(movie.title) != movie.year for movie in read(movies()))
        encoded = (
            encode_movies(
                counted(MOVIES_FILE, read(movies())),
                with_year=with_year,
                for_spreadsheet=for_spreadsheet,
            ),
            encode_links(counted(LINKS_FILE, filter(_has_external_id, read(movies())))),
            encode_ratings(counted(RATINGS_FILE, read(ratings))),
            encode_anonymous_ratings(counted(ANONYMOUS_RATINGS_FILE, read(anonymous_ratings))),
        )
        for name, text in zip(FILES, encoded, strict=True):
            _write(folder / name, chain([MARK] if for_spreadsheet else [], text))
    return rows


def encode_movies(
    movies: Iterable[MovieRow], *, with_year: bool, for_spreadsheet: bool = False
) -> Iterator[str]:
    """Yield the text of movies.csv in pieces.

    Args:
        movies: consumed as the text is read.
        with_year: add the year column, for titles that do not end in their year.
        for_spreadsheet: protect cells that a spreadsheet would run as a formula. The other files
            need no protection: all their cells are numbers.
    """
    header = (*MOVIES_HEADER, YEAR_COLUMN) if with_year else MOVIES_HEADER
    written = protected if for_spreadsheet else str
    return _encode(header, (_movie_cells(movie, written)[: len(header)] for movie in movies))


def encode_links(movies: Iterable[MovieRow]) -> Iterator[str]:
    """Yield the text of links.csv in pieces. The movies are consumed as it is read."""
    rows = (
        (movie.id, (movie.imdb_id or "").removeprefix(IMDB_PREFIX), movie.tmdb_id)
        for movie in movies
    )
    return _encode(LINKS_HEADER, rows)


def encode_ratings(ratings: Iterable[RatingRow]) -> Iterator[str]:
    """Yield the text of ratings.csv in pieces. The ratings are consumed as it is read."""
    rows = ((rating.user_id, *_rating_cells(rating)) for rating in ratings)
    return _encode(RATINGS_HEADER, rows)


def encode_anonymous_ratings(ratings: Iterable[RatingRow]) -> Iterator[str]:
    """Yield the text of anonymous_ratings.csv in pieces, like ``encode_ratings()``."""
    return _encode(ANONYMOUS_RATINGS_HEADER, map(_rating_cells, ratings))


def ignore(_bytes: int) -> None:
    """Ignore progress."""


def year_of(title: str) -> int | None:
    """Return the year at the end of a title, the first year of a series, or None."""
    match = _YEAR_AT_END.search(title)
    return int(match[1]) if match else None


class _CsvFile:
    """A CSV file that is read row by row. Columns may be in any order, and others are ignored.

    Attributes:
        columns: the known columns in the file.
        bytes: the size of the file.
    """

    def __init__(self, path: Path, required: Sequence[str], *optional: str) -> None:
        """Read the header.

        Raises:
            UnusableFile: the file cannot be read, or the header lacks or repeats a column.
        """
        self._path = path
        self._line, self._row_size = 1, 0
        with self._open() as file:
            self.bytes = os.fstat(file.fileno()).st_size
            self._is_marked = is_marked(file.buffer.read(3))
            file.seek(0)
            header = next(csv.reader(self._lines(file)), [])
        # Ignore case: if a column "Year" were not recognized, every movie would be skipped.
        names = [name.strip().lower() for name in header]
        self.columns = [*required, *(name for name in optional if name in names)]
        wanted = [column.lower() for column in self.columns]
        if any(names.count(name) != 1 for name in wanted):
            found = _quote(",".join(header))
            raise self.row_error(f"expected a header with {','.join(required)}, found {found}")
        self._width = len(names)
        self._known_cells = itemgetter(*map(names.index, wanted))

    @classmethod
    def if_exists(cls, path: Path, required: Sequence[str]) -> Self | None:
        """Return the file, or None if it does not exist."""
        return cls(path, required) if path.exists() else None

    def rows(self, advance: Advance) -> Iterator[tuple[str, ...]]:
        """Yield the cells of the known columns of each row after the header.

        Raises:
            UnusableFile: a row is not CSV in UTF-8, or has more or fewer columns than the header.
        """
        with self._open() as file:
            reader = csv.reader(self._lines(file, advance), strict=True)
            next(reader)
            self._line, self._row_size = reader.line_num + 1, 0
            for row in reader:
                if len(row) == self._width:
                    yield self._known_cells([*map(unprotected, row)] if self._is_marked else row)
                elif "".join(row).strip():  # skip blank lines
                    raise self.row_error(f"expected {self._width} columns, found {len(row)}")
                self._line, self._row_size = reader.line_num + 1, 0

    def row_error(self, problem: str | ValueError) -> UnusableFile:
        """Return the error for a problem in the current row."""
        reason = problem if isinstance(problem, str) else _explain(problem)
        return UnusableFile(f"{self._path.name}, line {self._line}: {reason}")

    @contextmanager
    def _open(self) -> Iterator[TextIO]:
        """Open the file, and name the file and the line in errors that reading it raises."""
        try:
            # Spreadsheets write a byte order mark, and some end lines with a bare CR.
            with self._path.open(
                encoding="utf-8-sig", errors="surrogateescape", newline=""
            ) as file:
                yield file
        except OSError as error:
            raise UnusableFile(f"Cannot read {self._path}: {error.strerror}") from error
        except csv.Error as error:
            raise self.row_error(f"not CSV: {error}") from error

    def _lines(self, file: TextIO, advance: Advance = ignore) -> Iterator[str]:
        read = 0
        while text := file.read(_CHUNK):
            text += file.readline(MAX_ROW)
            # Not splitlines(): it takes more characters for the end of a line.
            lines = StringIO(text, newline="").readlines()
            # Fast path: nearly all lines of ratings.csv need no _prepared().
            is_plain = text.isascii() and '"' not in text and len(lines[-1]) <= MAX_ROW
            yield from lines if is_plain else map(self._prepared, lines)
            advance(file.buffer.tell() - read)
            read = file.buffer.tell()

    def _prepared(self, line: str) -> str:
        """Return a line without blanks around quoted cells.

        Raises:
            UnusableFile: its row is too long, or the line is not UTF-8. A strict decoder reads
                ahead, so its error could not name the line.
        """
        self._row_size += len(line)
        if self._row_size > MAX_ROW:
            raise self.row_error(f"longer than {MAX_ROW} characters")
        if not line.isascii() and (wrong := _UNDECODED.search(line)):
            byte = ord(wrong[0]) - 0xDC00
            raise self.row_error(f"expected UTF-8, found the byte 0x{byte:02x}")
        return _QUOTED_CELL.sub(r"\1\2", line) if '"' in line else line


@lru_cache(maxsize=2**17)
def _id(text: str) -> int:
    return _ID.validate_python(_digits(text))


@lru_cache(maxsize=2**17)
def _user_id(text: str) -> int | None:
    digits = _digits(text)
    return _USER_ID.validate_python(digits) if digits else None


def _digits(text: str) -> str:
    """Return text without blanks, and without the '.0' that data frames add to whole numbers."""
    return text.strip().removesuffix(".0")


def _is_usable(year: int | None) -> TypeGuard[int]:
    return year is not None and YEAR_MIN <= year <= YEAR_MAX


def _year(stated: str, title: str) -> int | None:
    return _INTEGER.validate_python(_digits(stated)) if stated.strip() else year_of(title)


@lru_cache(maxsize=2**12)
def _genres(text: str) -> str:
    cells = text.split(GENRE_SEPARATOR)
    names = [name for name in cells if name.strip().lower() not in {"", NO_GENRES}]
    genres = normalize_genres(map(_GENRE.validate_python, names or [DEFAULT_GENRE]))
    return GENRE_SEPARATOR.join(genres)


def _imdb_id(text: str) -> str | None:
    """Return an id with the prefix that MovieLens omits: 0114709 becomes tt0114709."""
    digits = _digits(text).lower().removeprefix(IMDB_PREFIX)
    try:
        return normalize_imdb_id(IMDB_PREFIX + digits) if digits else None
    except ValueError as error:
        raise ValueError(f"{_quote(text)}: {error}") from error


def _tmdb_id(text: str) -> int | None:
    return _id(text) if text.strip() else None


def _score(text: str) -> int:
    score = _SCORES.get(text) or _SCORES.get(text.strip())
    if score is None:
        raise ValueError(f"{_quote(text)}: must be 0.5 to 5.0 in steps of 0.5")
    return score


def _created_at(text: str) -> datetime:
    # Fast path for the usual form, twice as fast.
    if len(text) <= _USUAL_DIGITS and text.isascii() and text.isdecimal():
        return datetime.fromtimestamp(int(text), UTC)
    match = _TIMESTAMP.fullmatch(text.strip())
    if match:
        seconds, fraction = match.groups("")
        microseconds = int(seconds + fraction.ljust(6, "0"))
        if _EARLIEST <= microseconds <= _LATEST:
            return _EPOCH + timedelta(microseconds=microseconds)
    raise ValueError(f"{_quote(text)}: must be a time in seconds since 1970")


def _explain(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    problem = error.errors()[0]
    return f"{_quote(str(problem['input']))}: {problem['msg'].removeprefix('Value error, ')}"


def _quote(text: str) -> str:
    """Return a value quoted and shortened, on one line, with invisible characters escaped."""
    quoted = repr(text if len(text) <= _QUOTED_CHARACTERS else f"{text[:_QUOTED_CHARACTERS]}...")
    return "".join(
        character if character.isascii() or normalize_text(character) else ascii(character)[1:-1]
        for character in quoted
    )


def _encode(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    lines = chain([header], rows)
    while piece := [*islice(lines, _ROWS_PER_PIECE)]:
        text = StringIO(newline="")
        csv.writer(text).writerows(piece)
        yield text.getvalue()


def _movie_cells(movie: MovieRow, written: Callable[[str], str]) -> Sequence[object]:
    genres = NO_GENRES if movie.genres == DEFAULT_GENRE else movie.genres
    return movie.id, written(movie.title), written(genres), movie.year


def _has_external_id(movie: MovieRow) -> bool:
    return movie.imdb_id is not None or movie.tmdb_id is not None


def _rating_cells(rating: RatingRow) -> Sequence[object]:
    # Whole seconds: readers that expect integers reject a fraction.
    timestamp = (rating.created_at - _EPOCH) // _SECOND
    return rating.movie_id, f"{rating.score}.0", timestamp


def _write(path: Path, text: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.writelines(text)
        file.flush()
        os.fsync(file.fileno())

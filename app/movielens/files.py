"""MovieLens' two CSV files, movies.csv and ratings.csv: reading and writing them.

The format is described in https://files.grouplens.org/datasets/movielens/ml-latest-README.html.
This module knows nothing of the database.
"""

import csv
import os
import re
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from pydantic import TypeAdapter, ValidationError

from app.errors import UnusableFile
from app.models import DEFAULT_GENRE, SCORE_MAX, SCORE_MIN, YEAR_MAX, YEAR_MIN
from app.schemas import Genre, Title, UrlId, UrlInt

MOVIES_FILE = "movies.csv"
RATINGS_FILE = "ratings.csv"
MOVIES_HEADER = ("movieId", "title", "genres")
# Our own extension, for titles that do not end in their year.
MOVIES_HEADER_WITH_YEAR = (*MOVIES_HEADER, "year")
RATINGS_HEADER = ("userId", "movieId", "rating", "timestamp")
NO_GENRES = "(no genres listed)"

NO_YEAR = "no year"
YEAR_OUT_OF_RANGE = f"year not in {YEAR_MIN}..{YEAR_MAX}"

# (1995), and for series (2006-2007) or (2019- ), with any kind of dash.
_YEAR_AT_END = re.compile(r"\(([0-9]{4})\s*(?:[-\u2013\u2014]\s*[0-9]*\s*)?\)$")
# "0.5" to "5.0", and "1" to "5". Half stars round half up.
_SCORES = {str(halves / 2): (halves + 1) // 2 for halves in range(1, 2 * SCORE_MAX + 1)} | {
    str(score): score for score in range(SCORE_MIN, SCORE_MAX + 1)
}
_TIMESTAMP = re.compile(r"(-?[0-9]{1,12})(?:\.([0-9]{1,6}))?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# In microseconds since the epoch. A day of slack keeps datetimes valid in every time zone.
_EARLIEST = (datetime(1, 1, 2, tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LATEST = (datetime(9999, 12, 30, tzinfo=UTC) - _EPOCH) // _MICROSECOND
# Whole seconds of so few digits need no check against the bounds.
_USUAL_DIGITS = 11
# Bytes read at a time.
_CHUNK = 2**16
# How much of an invalid value an error quotes.
_QUOTED_CHARACTERS = 60

_TITLE: TypeAdapter[str] = TypeAdapter(Title)
_GENRE: TypeAdapter[str] = TypeAdapter(Genre)
_ID: TypeAdapter[int] = TypeAdapter(UrlId)
_INTEGER: TypeAdapter[int] = TypeAdapter(UrlInt)


@dataclass(slots=True)
class MovieRow:
    """A movie of a file."""

    id: int
    title: str
    year: int
    genre: str


@dataclass(slots=True)
class RatingRow:
    """A rating of a file. Without a user it is anonymous."""

    movie_id: int
    user_id: int | None
    score: int
    created_at: datetime


class MovieLensFolder:
    """The movies and ratings of a folder. Read all movies first, then the ratings, once each.

    Attributes:
        bytes: the size of the two files together.
        movies_left_out: the number of movies skipped so far, by reason.
        ratings_left_out: the number of ratings skipped so far, by their movie's reason.
    """

    def __init__(self, folder: Path) -> None:
        """Read the headers.

        Raises:
            UnusableFile: a file cannot be read or has another header.
        """
        self._movies = _CsvFile(folder / MOVIES_FILE, MOVIES_HEADER, MOVIES_HEADER_WITH_YEAR)
        self._ratings = _CsvFile(folder / RATINGS_FILE, RATINGS_HEADER)
        # The reason each movie is skipped for, None for those that are imported.
        self._reasons: dict[int, str | None] = {}
        self.bytes = self._movies.bytes + self._ratings.bytes
        self.movies_left_out: Counter[str] = Counter()
        self.ratings_left_out: Counter[str] = Counter()

    def movies(self, advance: Callable[[int], object]) -> Iterator[MovieRow]:
        """Yield the movies whose year the catalogue can hold.

        Args:
            advance: called now and then with the number of bytes just read.

        Raises:
            UnusableFile: a row is invalid, or repeats an earlier id.
        """
        for row in self._movies.rows(advance):
            try:
                movie_id, title, genre = _id(row[0]), _TITLE.validate_python(row[1]), _genre(row[2])
                stated_year = "".join(row[3:])
                year = _INTEGER.validate_python(stated_year) if stated_year else year_of(title)
            except ValueError as error:
                raise self._movies.broken(_explain(error)) from error
            if movie_id in self._reasons:
                raise self._movies.broken(f"there is another movie {movie_id} above")
            if year is not None and YEAR_MIN <= year <= YEAR_MAX:
                self._reasons[movie_id] = None
                yield MovieRow(movie_id, title, year, genre)
            else:
                reason = NO_YEAR if year is None else YEAR_OUT_OF_RANGE
                self._reasons[movie_id] = reason
                self.movies_left_out[reason] += 1

    def ratings(self, advance: Callable[[int], object]) -> Iterator[RatingRow]:
        """Yield the ratings of the movies that movies() yielded.

        Args:
            advance: called now and then with the number of bytes just read.

        Raises:
            UnusableFile: a row is invalid, or rates a movie that movies.csv lacks.
        """
        for user, movie, rating, timestamp in self._ratings.rows(advance):
            try:
                movie_id = _id(movie)
                user_id = _id(user) if user else None
                score, created_at = _score(rating), _moment(timestamp)
            except ValueError as error:
                raise self._ratings.broken(_explain(error)) from error
            if movie_id not in self._reasons:
                raise self._ratings.broken(f"there is no movie {movie_id} in {MOVIES_FILE}")
            if reason := self._reasons[movie_id]:
                self.ratings_left_out[reason] += 1
            else:
                yield RatingRow(movie_id, user_id, score, created_at)


def write_folder(
    folder: Path, movies: Callable[[], Iterable[MovieRow]], ratings: Iterable[RatingRow]
) -> tuple[int, int]:
    """Write movies.csv and ratings.csv, both or neither, and return their numbers of rows.

    Args:
        folder: the target, created if it does not exist.
        movies: returns a new iterator over the movies. It is called twice, since the header
            depends on whether every title ends in its year.
        ratings: the ratings of these movies.

    Raises:
        UnusableFile: there is such a file already, or it cannot be written.
    """
    targets = folder / MOVIES_FILE, folder / RATINGS_FILE
    try:
        for target in targets:
            if target.exists():
                raise UnusableFile(f"{target} exists and is not overwritten. Name another folder.")
        folder.mkdir(parents=True, exist_ok=True)
        # In the same folder, so that finishing is a rename.
        with TemporaryDirectory(dir=folder, prefix="unfinished-") as name:
            unfinished = [Path(name, target.name) for target in targets]
            with_year = any(year_of(movie.title) != movie.year for movie in movies())
            header = MOVIES_HEADER_WITH_YEAR if with_year else MOVIES_HEADER
            counts = (
                _write(unfinished[0], header, (_cells(row, with_year) for row in movies())),
                _write(unfinished[1], RATINGS_HEADER, map(_rating_cells, ratings)),
            )
            for source, target in zip(unfinished, targets, strict=True):
                source.rename(target)
    except OSError as error:
        raise UnusableFile(f"Cannot write to {folder}: {error.strerror}") from error
    return counts


def year_of(title: str) -> int | None:
    """Return the year that a title ends in, the first of a series' two."""
    match = _YEAR_AT_END.search(title)
    return int(match[1]) if match else None


class _CsvFile:
    """A CSV file with one of several headers, read row by row."""

    def __init__(self, path: Path, *headers: Sequence[str]) -> None:
        """Read the header.

        Raises:
            UnusableFile: the file cannot be read or has another header.
        """
        self._path = path
        self._line = 1
        with self._open() as file:
            self.bytes = os.fstat(file.fileno()).st_size
            self._header = next(csv.reader(_lines(file)), [])
        if tuple(self._header) not in headers:
            raise self.broken(f"the header has to be {','.join(headers[0])}")

    def rows(self, advance: Callable[[int], object]) -> Iterator[list[str]]:
        """Yield the rows after the header.

        Raises:
            UnusableFile: a row is not CSV in UTF-8, or has more or fewer columns than the header.
        """
        with self._open() as file:
            reader = csv.reader(_lines(file, advance), strict=True)
            next(reader)
            self._line = reader.line_num + 1
            for row in reader:
                if len(row) == len(self._header):
                    yield row
                elif row:  # a blank line is no row
                    raise self.broken(f"{len(row)} column(s) instead of {len(self._header)}")
                self._line = reader.line_num + 1

    def broken(self, problem: str) -> UnusableFile:
        """Return the error for a problem of the current row."""
        return UnusableFile(f"{self._path.name}, line {self._line}: {problem}")

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        """Open the file; an error while reading it names the file and the line."""
        try:
            with self._path.open("rb") as file:
                # Spreadsheets write a byte order mark.
                if file.read(len(BOM_UTF8)) != BOM_UTF8:
                    file.seek(0)
                yield file
        except OSError as error:
            raise UnusableFile(f"Cannot read {self._path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise self.broken("not UTF-8") from error
        except csv.Error as error:
            raise self.broken(f"not CSV: {error}") from error


def _lines(file: BinaryIO, advance: Callable[[int], object] = lambda _: None) -> Iterator[str]:
    while lines := file.readlines(_CHUNK):
        for line in lines:
            yield line.decode()
        advance(sum(map(len, lines)))


@lru_cache(maxsize=2**17)
def _id(text: str) -> int:
    return _ID.validate_python(text)


@lru_cache
def _genre(text: str) -> str:
    return DEFAULT_GENRE if text == NO_GENRES else _GENRE.validate_python(text.split("|", 1)[0])


def _score(text: str) -> int:
    try:
        return _SCORES[text]
    except KeyError:
        raise ValueError(f"{_quote(text)} is no number of stars, 0.5 to 5.0 in halves") from None


def _moment(text: str) -> datetime:
    # A fast path for the usual form: half the time.
    if len(text) <= _USUAL_DIGITS and text.isascii() and text.isdecimal():
        return datetime.fromtimestamp(int(text), UTC)
    match = _TIMESTAMP.fullmatch(text)
    if match:
        seconds, fraction = match.groups("")
        microseconds = int(seconds + fraction.ljust(6, "0"))
        if _EARLIEST <= microseconds <= _LATEST:
            return _EPOCH + timedelta(microseconds=microseconds)
    raise ValueError(f"{_quote(text)} is no time in seconds since 1970")


def _explain(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    problem = error.errors()[0]
    return f"{_quote(str(problem['input']))}: {problem['msg'].removeprefix('Value error, ')}"


def _quote(text: str) -> str:
    """Return a value quoted and escaped, on one line."""
    return repr(text if len(text) <= _QUOTED_CHARACTERS else f"{text[:_QUOTED_CHARACTERS]}...")


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for row in rows:
            writer.writerow(row)
            count += 1
        file.flush()
        os.fsync(file.fileno())
    return count


def _cells(movie: MovieRow, with_year: bool) -> Sequence[object]:  # noqa: FBT001 - private
    genres = NO_GENRES if movie.genre == DEFAULT_GENRE else movie.genre
    cells = (movie.id, movie.title, genres)
    return (*cells, movie.year) if with_year else cells


def _rating_cells(rating: RatingRow) -> Sequence[object]:
    moment = rating.created_at
    microseconds = (moment - _EPOCH) // _MICROSECOND
    timestamp = Decimal(microseconds).scaleb(-6) if moment.microsecond else microseconds // 10**6
    return rating.user_id, rating.movie_id, f"{rating.score}.0", timestamp

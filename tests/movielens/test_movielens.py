"""MovieLens files: reading, import, export, and the files that are refused."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakSet

import pytest
from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.exc import OperationalError
from sqlmodel import Session, SQLModel

from app.checks import data_problems
from app.db import create_db_engine, reading
from app.errors import UnusableFile
from app.models import Rating
from app.movielens.files import MovieLensFolder, MovieRow, RatingRow, write_folder, year_of
from app.movielens.repository import BATCH_SIZE, CatalogueRepository, MergeCounts
from app.repository import MovieRepository
from tests.databases import new_database
from tests.helpers import Sample, everything, listed, movie_row, movie_rows, problems_of, words
from tests.server import Command, Finished

MOVIES = """\
movieId,title,genres
1,Toy Story (1995),Adventure|Animation|Children
6,"Heat  (1995) ",action|Crime
900,"Cats, ""The Musical"" (1998)",(no genres listed)
"""
RATINGS = """\
userId,movieId,rating,timestamp
1,1,4.0,964982703
1,6,0.5,964982224
2,1,3.5,1445714835
"""
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


OWN_FILES = ("movies.csv", "links.csv", "ratings.csv", "anonymous_ratings.csv")
# The number of ratings in a statement, for tests that need several statements.
FEW = 10


class Moment(datetime):
    """A datetime that supports weak references."""


@pytest.fixture
def few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make statements short."""
    monkeypatch.setattr("app.movielens.repository.RATINGS_PER_STATEMENT", FEW)


def write(folder: Path, movies: str = MOVIES, ratings: str = RATINGS) -> Path:
    """Write the two files into a folder and return it."""
    folder.mkdir(exist_ok=True)
    (folder / "movies.csv").write_bytes(movies.encode())
    (folder / "ratings.csv").write_bytes(ratings.encode())
    return folder


def ignore(_bytes: int) -> None:
    """Ignore progress."""


def read(folder: Path) -> tuple[list[MovieRow], list[RatingRow]]:
    """Return the movies and ratings in a folder."""
    source = MovieLensFolder(folder)
    return list(source.movies(ignore)), list(source.ratings(ignore))


def summary(finished: Finished) -> dict[str, tuple[int, int]]:
    """Return the numbers of movies and ratings in an import's table, without empty rows."""
    assert finished.exit_code == 0, finished.errors
    rows = [line.strip("│ ").split("│") for line in finished.output.splitlines()]
    numbers = {
        name.strip(): (int(movies), int(ratings))
        for name, movies, ratings in (row for row in rows if len(row) == 3)
    }
    assert [*numbers][:4] == ["new", "updated", "unchanged", "merged by title"]
    return {name: both for name, both in numbers.items() if any(both)}


def remarks(finished: Finished) -> list[str]:
    """Return the lines below an import's table."""
    return finished.output.partition("┘\n")[2].splitlines()


def rating_rows(engine: Engine) -> list[dict[str, Any]]:
    """Return the stored ratings by id, with their times."""
    return everything(engine)[1]


def catalogue(engine: Engine) -> tuple[list[Any], list[Any]]:
    """Return the content of an export: titles instead of ids, and times in whole seconds."""
    movies, ratings = everything(engine)
    titles = {movie["id"]: movie["title"] for movie in movies}
    for movie in movies:
        movie["id"] = None
    for rating in ratings:
        rating["id"] = None
        rating["movie_id"] = titles[rating["movie_id"]]
        rating["created_at"] = rating["created_at"].replace(microsecond=0)
    return sorted(movies, key=str), sorted(ratings, key=str)


def merge(engine: Engine, movies: list[MovieRow], ratings: list[RatingRow]) -> MergeCounts:
    """Merge rows into a catalogue."""
    with Session(engine) as session:
        return CatalogueRepository(session).merge(movies, ratings)


HEAT = MovieRow(6, "Heat (1995)", 1995, "Action")


def rated(score: int, user_id: int | None = 1, *, hour: int = 0, movie_id: int = 6) -> RatingRow:
    """Return a rating some hours after noon."""
    return RatingRow(movie_id, user_id, score, NOON + timedelta(hours=hour))


def scores(engine: Engine) -> list[tuple[int, int | None, int]]:
    """Return movie, user and score of each rating, by id."""
    return [(row["movie_id"], row["user_id"], row["score"]) for row in rating_rows(engine)]


# Reading


def test_year_is_read_from_the_end_of_a_title() -> None:
    years = {
        "Heat (1995)": 1995,
        "Death Note: Desu nôto (2006\u20132007)": 2006,
        "Fawlty Towers (1975-1979)": 1975,
        "The Big Bang Theory (2007-)": 2007,
        "Kingdom (2019 - )": 2019,
        "2001: A Space Odyssey (1968)": 1968,
        "Old (0001)": 1,
        "(1995)": 1995,
        "Babylon 5": None,
        "1984": None,
        "Solaris (1972) again": None,
        "Count (12345)": None,
        "Digits (\u0661\u0669\u0669\u0665)": None,
        "": None,
    }

    assert {title: year_of(title) for title in years} == years


def test_titles_and_genres_are_normalized(tmp_path: Path) -> None:
    genres = {
        "Adventure|Animation|Children": "Adventure|Animation|Children",
        "action|Crime": "Action|Crime",
        "film-noir|IMAX": "Film-Noir|Imax",
        " Drama || War| drama|(no genres listed)": "Drama|War",
        **dict.fromkeys(("", " ", "|", "(no genres listed)", " (No Genres Listed) "), "Unknown"),
    }
    titles = {
        "Heat  (1995) ": "Heat (1995)",
        '"Cats, ""The Musical"" (1998)"': 'Cats, "The Musical" (1998)',
        # Blanks inside quotes belong to the title.
        ' "A "" , ""B"" ,C (1995)" ': 'A " , "B" ,C (1995)',
    }
    rows = [f"{n},Heat (1995),{text}" for n, text in enumerate(genres, 1)]
    rows += [f"{n},{title},War" for n, title in enumerate(titles, 50)]

    movies, _ = read(write(tmp_path, M + "\n".join(rows), R))

    assert [movie.genres for movie in movies[: len(genres)]] == [*genres.values()]
    assert [movie.title for movie in movies[len(genres) :]] == [*titles.values()]


def test_half_stars_are_rounded_up(tmp_path: Path) -> None:
    scores = {"0.5": 1, "1.0": 1, "1.5": 2, "2.0": 2, "2.5": 3, "3.0": 3, "3.5": 4, "4.0": 4}
    scores |= {"4.5": 5, "5.0": 5, "1": 1, "5": 5}

    _, rows = read(write(tmp_path, ratings=R + "".join(f"1,1,{stars},0\n" for stars in scores)))

    assert dict(zip(scores, (row.score for row in rows), strict=True)) == scores


def test_timestamp_is_in_seconds_and_may_have_a_fraction(tmp_path: Path) -> None:
    moments = {
        "0": datetime(1970, 1, 1, tzinfo=UTC),
        "964982703": datetime(2000, 7, 30, 18, 45, 3, tzinfo=UTC),
        "964982703.0": datetime(2000, 7, 30, 18, 45, 3, tzinfo=UTC),
        "964982703.25": datetime(2000, 7, 30, 18, 45, 3, 250_000, tzinfo=UTC),
        "964982703.000001": datetime(2000, 7, 30, 18, 45, 3, 1, tzinfo=UTC),
        "-0.5": datetime(1969, 12, 31, 23, 59, 59, 500_000, tzinfo=UTC),
        "-86400": datetime(1969, 12, 31, tzinfo=UTC),
        "253402128000": datetime(9999, 12, 30, tzinfo=UTC),
    }

    _, rows = read(write(tmp_path, ratings=R + "".join(f"1,1,3.0,{time}\n" for time in moments)))

    assert dict(zip(moments, (row.created_at for row in rows), strict=True)) == moments


ALIKE = {
    "blanks": (
        (
            " movieId ,\ttitle, genres\u00a0\n"
            " 1 , Toy Story (1995) , Adventure | Animation|Children\n"
            "6\t,Heat (1995),\u2003action|Crime\n"
            '900 , "Cats, ""The Musical"" (1998)"\t, "(no genres listed)" \n'
        ),
        (
            "userId , movieId , rating , timestamp\n"
            " 1 , 1 , 4.0 , 964982703\n"
            " \t\n1,\t6,0.5\t,964982224 \n"
            "2,1,\u00a03.5,1445714835\n"
        ),
    ),
    "extra columns in another order": (
        (
            "Title,added by,GENRES,movieid\n"
            "Toy Story (1995),me,Adventure|Animation|Children,1\n"
            "Heat (1995),,Action|Crime,6\n"
            '"Cats, ""The Musical"" (1998)","you, me", ,900\n'
        ),
        (
            "userId,movieId,rating,timestamp,,\n"
            "1,1,4.0,964982703,,\n1,6,0.5,964982224,,\n2,1,3.5,1445714835,,\n"
        ),
    ),
    "a data frame's numbers": (
        MOVIES,
        (
            "userId,movieId,rating,timestamp\n"
            "1.0,1.0,4,964982703.0\n1.0,6.0,0.5,964982224.0\n2.0,1.0,3.5,1445714835.0\n"
        ),
    ),
    **{
        f"byte order mark {mark!r}, lines that end in {end!r}": (
            mark + MOVIES.replace("\n", end) + end,
            mark + RATINGS.replace("\n", end).removesuffix(end),
        )
        for mark, end in product(("", "\ufeff"), ("\n", "\r\n", "\r"))
    },
}


def test_import_reads_files_of_every_tool(tmp_path: Path) -> None:
    expected = read(write(tmp_path))
    # Other files of a data set are ignored.
    for name in ("tags.csv", "genome-scores.csv", "genome-tags.csv", "README.txt"):
        (tmp_path / name).write_bytes(b"\xff\xfe no CSV")

    found = {name: read(write(tmp_path, *files)) for name, files in ALIKE.items()}

    assert found == dict.fromkeys(ALIKE, expected)


def test_external_ids_are_read_from_links(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "links.csv").write_text(
        "movieId,imdbId,tmdbId\n1,0114709,862\n6, TT0113277 ,\n900,10872600,949.0\n7,1,1\n"
    )

    movies, _ = read(folder)

    assert [(movie.id, movie.imdb_id, movie.tmdb_id) for movie in movies] == [
        (1, "tt0114709", 862),
        (6, "tt0113277", None),
        (900, "tt10872600", 949),
    ]


def test_progress_counts_every_byte(tmp_path: Path) -> None:
    source = MovieLensFolder(write(tmp_path))
    advances: list[int] = []

    for _ in source.movies(advances.append):
        pass
    for _ in source.ratings(advances.append):
        pass

    assert sum(advances) == source.bytes == len(MOVIES) + len(RATINGS)


M = "movieId,title,genres\n"
R = "userId,movieId,rating,timestamp\n"
L = "movieId,imdbId,tmdbId\n"
LONG = "x" * 294
NOT_A_NUMBER = "must be a whole number, written in digits"
TOO_SMALL = "Input should be greater than or equal to 1"
# The content of a file, and its error.
BROKEN: list[tuple[str, str | bytes, str]] = [
    *(
        (
            "movies.csv",
            content,
            f"line 1: expected a header with movieId,title,genres, found {found}",
        )
        for content, found in (
            ("", "''"),
            ("movieId,title\n", "'movieId,title'"),
            ("movieId;title;genres\n", "'movieId;title;genres'"),
            (R, "'userId,movieId,rating,timestamp'"),
            ("movieId,title,genres,title\n", "'movieId,title,genres,title'"),
            ("movie\u200bId,ti\u3164tle\0,genres\n", r"'movie\u200bId,ti\u3164tle\x00,genres'"),
            ("\ufeff\ufeff" + M, r"'\ufeffmovieId,title,genres'"),
            ("東京\n", "'東京'"),
            ("x" * 99, "'" + "x" * 60 + "...'"),
            (MOVIES.encode("utf-16-le"), ""),
        )
    ),
    ("movies.csv", MOVIES.encode("utf-16"), "line 1: expected UTF-8, found the byte 0xff"),
    ("ratings.csv", M, f"line 1: expected a header with {R.strip()}, found '{M.strip()}'"),
    ("links.csv", "movieId,imdbId\n", f"line 1: expected a header with {L.strip()}, found "),
    ("movies.csv", M + "1,Heat (1995)\n", "line 2: expected 3 columns, found 2"),
    ("movies.csv", M + "1,Heat (1995),Action,1995\n", "line 2: expected 3 columns, found 4"),
    ("movies.csv", M + "one,Heat (1995),Action\n", f"line 2: 'one': {NOT_A_NUMBER}"),
    ("movies.csv", M + "0,Heat (1995),Action\n", f"line 2: '0': {TOO_SMALL}"),
    (
        "movies.csv",
        M + "2147483648,Heat (1995),Action\n",
        "line 2: '2147483648': Input should be less than or equal to 2147483647",
    ),
    (
        "movies.csv",
        M + f"1,{LONG} (1995),Action\n",
        f"line 2: '{LONG[:60]}...': String should have at most 300 characters",
    ),
    ("movies.csv", M + "1, ,Action\n", "line 2: ' ': must contain a visible character"),
    (
        "movies.csv",
        M + "1,He\0at (1995),Action\n",
        r"line 2: 'He\x00at (1995)': must not contain a NUL character",
    ),
    (
        "movies.csv",
        M + "1,\u2060\u00a0\ufe0f,Action\n",
        r"line 2: '\u2060\xa0\ufe0f': must contain a visible character",
    ),
    (
        "movies.csv",
        M + '1,"Heat\n (1995)",Action\n\n1,Ronin (1998),Action\n',
        "line 5: movie 1 is already in a line above",
    ),
    (
        "movies.csv",
        M + '1,"Heat (1995),Action\n2,Ronin (1998),Action\n',
        "line 2: not CSV: unexpected end of data",
    ),
    ("movies.csv", M + '1,"Heat" (1995),Action\n', "line 2: not CSV: ',' expected after '\"'"),
    (
        "movies.csv",
        "movieId,title,genres,year\n1,Heat (1995),Action,MCMXCV\n",
        f"line 2: 'MCMXCV': {NOT_A_NUMBER}",
    ),
    (
        "movies.csv",
        MOVIES.encode() + "7,Amélie (2001),Comedy\n".encode("latin-1"),
        "line 5: expected UTF-8, found the byte 0xe9",
    ),
    ("ratings.csv", R + "1,1,4.0\n", "line 2: expected 4 columns, found 3"),
    (
        "ratings.csv",
        R + "1,1,4.0,0\n1,7,4.0,0\n",
        "line 3: movie 7 is not in movies.csv; use --skip-unknown-movies to skip such ratings",
    ),
    ("ratings.csv", R + "0,1,4.0,0\n", f"line 2: '0': {TOO_SMALL}"),
    ("ratings.csv", R + "1,one,4.0,0\n", f"line 2: 'one': {NOT_A_NUMBER}"),
    *(
        (
            "ratings.csv",
            R + f"1,1,{stars},0\n",
            f"line 2: '{stars}': must be 0.5 to 5.0 in steps of 0.5",
        )
        for stars in ("", *words("0 0.0 5.5 6 -1.0 3.7 good nan 4e0"))
    ),
    *(
        (
            "ratings.csv",
            R + f"1,1,4.0,{time}\n",
            f"line 2: '{time}': must be a time in seconds since 1970",
        )
        for time in ("", *words("noon 1e9 +1 1_0 1. 0.1234567 nan 253402214400"))
    ),
    (
        "links.csv",
        L + "1,nm0000199,\n",
        "line 2: 'nm0000199': must be an IMDb id, such as tt0114709",
    ),
    ("links.csv", L + "1,0,\n", "line 2: '0': must be an IMDb id, such as tt0114709"),
    ("links.csv", L + "1,,\n6,,abc\n", f"line 3: 'abc': {NOT_A_NUMBER}"),
    ("links.csv", L + "1,,0\n", f"line 2: '0': {TOO_SMALL}"),
    ("links.csv", L + "1,,\n1,,\n", "line 3: movie 1 is already in a line above"),
]


def test_broken_row_is_named_by_file_and_line(tmp_path: Path) -> None:
    failures = []
    for number, (name, content, message) in enumerate(BROKEN):
        folder = write(tmp_path / str(number))
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

        with pytest.raises(UnusableFile) as error:
            read(folder)

        told = str(error.value)
        # A message that ends in a space continues with the header that was found.
        is_whole = told == f"{name}, {message}" or message[-1] == " "
        if not (told.startswith(f"{name}, {message}") and is_whole and told.isprintable()):
            failures.append((name, content[:99], told))

    assert not failures, listed(failures)


# Importing


def test_import_fills_a_new_database(
    database_url: str, engine: Engine, tmp_path: Path, command: Command
) -> None:
    finished = command(database_url, "import-movielens", write(tmp_path / "files"))

    assert summary(finished) == {"new": (3, 3), "read": (3, 3)}
    assert finished.errors == ""
    assert everything(engine) == (
        [
            movie_row(1, Sample("Toy Story (1995)", 1995, "Adventure", (4, 4)))
            | {"other_genres": "|Animation|Children"},
            movie_row(2, Sample("Heat (1995)", 1995, "Action", (1,))) | {"other_genres": "|Crime"},
            movie_row(3, Sample('Cats, "The Musical" (1998)', 1998, "Unknown")),
        ],
        [
            dict(zip(("id", "movie_id", "user_id", "score", "created_at"), values, strict=True))
            for values in (
                (1, 1, 1, 4, datetime(2000, 7, 30, 18, 45, 3, tzinfo=UTC)),
                (2, 2, 1, 1, datetime(2000, 7, 30, 18, 37, 4, tzinfo=UTC)),
                (3, 1, 2, 4, datetime(2015, 10, 24, 19, 27, 15, tzinfo=UTC)),
            )
        ],
    )


class Import(NamedTuple):
    """Files, and the result of their import into an empty database.

    Attributes:
        files: the content of files by name, beside ``movies.csv`` and ``ratings.csv``.
        stored: title, year and number of ratings of the first movies.
        external_ids: of the first movies.
    """

    summary: dict[str, tuple[int, int]]
    stored: list[tuple[str, int, int]]
    movies: str = MOVIES
    ratings: str = RATINGS
    files: dict[str, str] = {}  # noqa: RUF012 - never changed
    options: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    external_ids: tuple[tuple[str | None, int | None], ...] = ()


CATS = 'Cats, "The Musical" (1998)'
THREE = [("Toy Story (1995)", 1995, 2), ("Heat (1995)", 1995, 1), (CATS, 1998, 0)]
EMMA = "".join(f"{number}, Emma (1996),Comedy\n" for number in (2, 3, 4))
BETWEEN = "".join(f"{n},Movie {n} (2000),Drama\n" for n in range(1000, 1000 + BATCH_SIZE))
IMPORTS = {
    "a title twice, anonymous ratings": Import(
        {"new": (3, 5), "updated": (0, 1), "merged by title": (1, 0), "read": (4, 6)},
        [THREE[0], ("Heat (1995)", 1995, 3), THREE[2]],
        MOVIES + "901,Heat (1995),Drama\n",
        RATINGS + "1,901,5.0,964982225\n,6,3.0,1\n,6,3.0,1\n",
    ),
    "movies without a usable year": Import(
        {
            "new": (3, 3),
            "left out: no year": (1, 2),
            "left out: year not in 1900..2100": (2, 1),
            "read": (6, 6),
        },
        THREE,
        MOVIES + "2,Babylon 5,Sci-Fi\n3,Old (1899),Drama\n4,Far (2101),Drama\n",
        RATINGS + "1,2,4.0,0\n2,2,4.0,0\n1,3,4.0,0\n",
    ),
    "a year column, which wins over the title": Import(
        {"new": (3, 0), "read": (3, 0)},
        [("Inception", 2010, 0), ("Heat (1995)", 1996, 0), ("Ronin (1998)", 1998, 0)],
        "movieId,title,genres,year\n"
        "1,Inception,Sci-Fi,2010\n2,Heat (1995),Action,1996\n3,Ronin (1998),Action,\n",
        R,
    ),
    "one title and several years": Import(
        {"new": (7, 4), "merged by title": (1, 0), "left out: no year": (1, 0), "read": (9, 4)},
        [
            ("Hamlet (1948)", 1948, 2),
            ("hamlet", 1996, 0),
            ("Hamlet (1996)", 1996, 1),
            ("Hamlet (1964)", 1964, 0),
            ("Solaris (1972)", 1972, 0),
            ("Solaris (1972) (2002)", 2002, 1),
            ("Ronin", 1998, 0),
        ],
        "movieId,title,genres,year\n"
        "1,Hamlet,Drama,1948\n2, hamlet ,Drama,1996\n3,Hamlet,Drama,1996\n"
        "4,Hamlet  ,Comedy,1948\n5,Hamlet (1964),Drama,\n6,Hamlet,Drama,\n"
        "7,Solaris (1972),Drama,1972\n8,Solaris (1972),Drama,2002\n9,Ronin,Action,1998\n",
        R + "1,1,5.0,0\n1,3,4.0,0\n2,4,3.0,0\n1,8,2.0,0\n",
        remarks=("4 movie(s) got their year appended to a title that they share with other years",),
    ),
    "unknown movies": Import(
        {"new": (3, 4), "left out: movie not in movies.csv": (0, 3), "read": (3, 7)},
        [("Toy Story (1995)", 1995, 3), *THREE[1:]],
        ratings=RATINGS + "1,7,4.0,0\n2,8,4.0,0\n",
        files={"anonymous_ratings.csv": "movieId,rating,timestamp\n9,1.0,0\n1,1.0,0\n"},
        options=("--skip-unknown-movies",),
    ),
    "links": Import(
        {"new": (3, 3), "read": (3, 3)},
        THREE,
        files={"links.csv": L + "1,0114709,862\n6,0113277,\n"},
        external_ids=(("tt0114709", 862), ("tt0113277", None), (None, None)),
    ),
    **{
        f"merged movies with different IMDb ids in {batches}": Import(
            {"new": (new, 0), "merged by title": (3, 0), "read": (new + 3, 0)},
            [("Emma (1996)", 1996, 0)],
            f"{M}1,Emma (1996),Drama\n{between}{EMMA}",
            R,
            {"links.csv": L + "1,0116191,3573\n2,0118308,\n3,0116191,3573\n4,,12254\n"},
            remarks=("1 movie(s) merged by title although their IMDb ids differ",),
            external_ids=(("tt0116191", 3573),),
        )
        for batches, between, new in (
            ("one batch", "", 1),
            ("two batches", BETWEEN, 1 + BATCH_SIZE),
        )
    },
}


@pytest.mark.parametrize("case", IMPORTS.values(), ids=IMPORTS)
def test_import_stores_the_files_and_changes_nothing_when_repeated(
    database_url: str, engine: Engine, tmp_path: Path, command: Command, case: Import
) -> None:
    folder = write(tmp_path / "files", case.movies, case.ratings)
    for name, content in case.files.items():
        (folder / name).write_text(content)

    finished = command(database_url, "import-movielens", folder, *case.options)

    movies = movie_rows(engine)
    stored = [(row["title"], row["year"], row["rating_count"]) for row in movies]
    assert summary(finished) == case.summary
    assert remarks(finished) == [*case.remarks]
    assert stored[: len(case.stored)] == case.stored
    assert tuple(external_ids(engine)[: len(case.external_ids)]) == case.external_ids
    before = everything(engine)
    again = command(database_url, "import-movielens", folder, *case.options)
    (movies_new, ratings_new), (_, replaced) = (
        case.summary["new"],
        case.summary.get("updated", (0, 0)),
    )
    assert {"new", "updated"}.isdisjoint(summary(again))
    assert summary(again)["unchanged"] == (movies_new, ratings_new + replaced)
    assert everything(engine) == before


def test_repeated_import_uses_no_ids(engine: Engine) -> None:
    merge(engine, [HEAT], [rated(5, 1), rated(4, 2)])

    merge(engine, [HEAT], [rated(5, 1), rated(4, 2)])

    merge(engine, [HEAT, MovieRow(7, "Ronin (1998)", 1998, "Action")], [rated(3, 3, movie_id=7)])
    assert [row["id"] for row in movie_rows(engine)] == [1, 2]
    assert [row["id"] for row in rating_rows(engine)] == [1, 2, 3]


def test_imported_genres_replace_the_stored_ones(engine: Engine) -> None:
    with Session(engine) as session:
        repository = MovieRepository(session)
        repository.create(title=HEAT.title, year=1995, genres=["Comedy", "Crime", "War"])
        repository.create(title="Ronin (1998)", year=1998, genres=["War", "Action"])

        counts = merge(engine, [replace(HEAT, genres="Action|Crime")], [])

        found = {
            genre: [movie.title for movie in repository.list(genre=genre, sort="id")]
            for genre in ("Action", "Comedy", "Crime", "War")
        }
    assert counts == MergeCounts(movies_updated=1)
    assert problems_of(engine) == []
    assert found == {
        "Action": [HEAT.title, "Ronin (1998)"],
        "Comedy": [],
        "Crime": [HEAT.title],
        "War": ["Ronin (1998)"],
    }


def external_ids(engine: Engine) -> list[tuple[str | None, int | None]]:
    """Return the IMDb and TMDB ids of the movies, by id."""
    return [(row["imdb_id"], row["tmdb_id"]) for row in movie_rows(engine)]


def linked(number: int, imdb: int | None, tmdb: int | None = None) -> MovieRow:
    """Return one of several movies, with external ids."""
    imdb_id = None if imdb is None else f"tt{imdb:07}"
    return MovieRow(number, f"Movie {number} (2000)", 2000, "Drama", imdb_id, tmdb)


def test_given_external_ids_replace_the_stored_ones_and_others_stay(engine: Engine) -> None:
    merge(engine, [linked(1, 1, 10), linked(2, 2, 20), linked(3, 3, 30), linked(4, None)], [])

    counts = merge(
        # The first two swap their ids.
        engine,
        [linked(1, 2, 20), linked(2, 1, 10), linked(3, None), linked(4, 4, 40)],
        [],
    )

    assert counts == MergeCounts(movies_updated=3, movies_unchanged=1)
    assert external_ids(engine) == [
        ("tt0000002", 20),
        ("tt0000001", 10),
        ("tt0000003", 30),
        ("tt0000004", 40),
    ]


def test_external_id_of_another_movie_is_left_out(engine: Engine) -> None:
    merge(engine, [linked(1, 1, 10), linked(2, 2)], [])
    given = [
        # Movie 1 is not in the file and keeps its ids.
        linked(2, 1, 20),
        linked(3, 3, 10),
        linked(4, 3, 40),
        # Movie 2 keeps its IMDb id.
        linked(5, 2),
    ]

    counts = merge(engine, given, [])

    assert counts == MergeCounts(movies_new=3, movies_updated=1, external_ids_left_out=4)
    expected = [
        ("tt0000001", 10),
        ("tt0000002", 20),
        ("tt0000003", None),
        (None, 40),
        (None, None),
    ]
    assert external_ids(engine) == expected
    again = MergeCounts(movies_unchanged=4, external_ids_left_out=4)
    assert merge(engine, given, []) == again
    assert external_ids(engine) == expected


def test_stored_title_keeps_its_id_and_ratings_and_is_updated(engine: Engine) -> None:
    with Session(engine) as session:
        repository = MovieRepository(session)
        kept = repository.create(title="Heat (1995)", year=1994)
        other = repository.create(title="Ronin", year=1998, genre="Action")
        repository.add_rating(kept.id, 2, user_id=7)
        repository.add_rating(other.id, 2, user_id=7)

    counts = merge(engine, [HEAT], [rated(5)])

    assert counts == MergeCounts(movies_updated=1, ratings_new=1)
    with Session(engine) as session:
        repository = MovieRepository(session)
        assert list(data_problems(repository.session)) == []
        movie = repository.require(kept.id)
        assert (movie.year, movie.genre, movie.average_rating) == (1995, "Action", 3.5)
        assert repository.require(other.id).rating_count == 1


def test_movies_with_the_same_title_merge_into_the_first(engine: Engine) -> None:
    twin = MovieRow(7, HEAT.title, 1996, "Drama")

    counts = merge(engine, [HEAT, twin], [rated(5, 1), rated(1, 2, movie_id=7)])

    assert counts == MergeCounts(movies_new=1, movies_merged=1, ratings_new=2)
    assert scores(engine) == [(1, 1, 5), (1, 2, 1)]
    [movie] = movie_rows(engine)
    assert (movie["year"], movie["genre"], movie["average_rating"]) == (1995, "Action", 3.0)


def test_movies_with_the_same_title_merge_across_batches(engine: Engine) -> None:
    movies = [MovieRow(n, f"Movie {n} (2000)", 2000, "Drama") for n in range(1, 2 * BATCH_SIZE)]
    movies[-1] = MovieRow(movies[-1].id, movies[0].title, 2001, "Action")

    counts = merge(engine, movies, [rated(5, movie_id=1), rated(3, 2, movie_id=movies[-1].id)])

    assert counts == MergeCounts(movies_new=len(movies) - 1, movies_merged=1, ratings_new=2)
    first = movie_rows(engine)[0]
    assert (first["year"], first["genre"], first["rating_count"]) == (2000, "Drama", 2)
    assert merge(engine, movies, []) == MergeCounts(
        movies_unchanged=len(movies) - 1, movies_merged=1
    )


@pytest.mark.usefixtures("few_at_a_time")
@pytest.mark.parametrize("gap", [0, FEW], ids=["one statement", "two statements"])
@pytest.mark.parametrize("hours", [(1, 2), (2, 1), (1, 1)], ids=["later", "earlier", "same"])
def test_later_of_two_ratings_by_a_user_wins(
    engine: Engine, hours: tuple[int, int], gap: int
) -> None:
    between = [rated(3, user) for user in range(2, 2 + gap)]

    counts = merge(engine, [HEAT], [rated(2, hour=hours[0]), *between, rated(4, hour=hours[1])])

    is_replaced = hours == (1, 2)
    assert (counts.ratings_new, counts.ratings_replacing) == (1 + gap, int(is_replaced))
    assert counts.ratings_ignored == int(not is_replaced)
    assert scores(engine)[0] == (1, 1, 4 if is_replaced else 2)
    assert problems_of(engine) == []


@pytest.mark.parametrize("hour", [-1, 0, 1], ids=["older", "same time", "later"])
def test_rating_replaces_the_stored_one_only_if_it_is_later(engine: Engine, hour: int) -> None:
    merge(engine, [HEAT], [rated(2)])

    counts = merge(engine, [HEAT], [rated(4, hour=hour)])

    is_later = int(hour == 1)
    assert counts == MergeCounts(
        movies_unchanged=1, ratings_replacing=is_later, ratings_ignored=1 - is_later
    )
    [rating] = rating_rows(engine)
    assert (rating["id"], rating["score"]) == (1, 4 if is_later else 2)
    assert rating["created_at"] == NOON + timedelta(hours=is_later)
    assert problems_of(engine) == []


def test_imported_time_has_the_same_form_as_others(sqlite_url: str) -> None:
    engine = create_db_engine(sqlite_url)
    merge(engine, [HEAT], [rated(5)])
    with Session(engine) as session:
        session.add(Rating(movie_id=1, user_id=2, score=5, created_at=NOON))
        session.commit()

    with engine.connect() as connection:
        texts = connection.exec_driver_sql("SELECT created_at FROM rating").scalars().all()

    assert texts == ["2026-01-31 12:00:00.000000"] * 2
    engine.dispose()


def test_rating_given_to_the_service_survives_an_import(engine: Engine) -> None:
    with Session(engine) as session:
        repository = MovieRepository(session)
        movie = repository.create(title=HEAT.title, year=1995, genre="Action")
        repository.add_rating(movie.id, 5, user_id=1)

    counts = merge(engine, [HEAT], [RatingRow(6, 1, 1, datetime(2000, 1, 1, tzinfo=UTC))])

    assert counts == MergeCounts(movies_unchanged=1, ratings_ignored=1)
    assert scores(engine) == [(1, 1, 5)]


def test_anonymous_ratings_are_imported_only_if_the_file_has_more_of_them(
    engine: Engine,
) -> None:
    ronin = MovieRow(7, "Ronin (1998)", 1998, "Action")
    stored = [rated(5, None), rated(5, None), rated(4, None), rated(5, 1)]
    given = [
        *[rated(5, None)] * 3,  # one more than stored
        rated(4, None, hour=1),
        rated(3, None),
        rated(5, None, movie_id=7),
        rated(5, 1),
    ]
    merge(engine, [HEAT], stored)

    counts = merge(engine, [HEAT, ronin], given)

    assert counts == MergeCounts(movies_new=1, movies_unchanged=1, ratings_new=4, ratings_ignored=3)
    assert sorted(row[:1] + row[2:] for row in scores(engine) if row[1] is None) == [
        (1, 3),
        (1, 4),
        (1, 4),
        (1, 5),
        (1, 5),
        (1, 5),
        (2, 5),
    ]
    assert problems_of(engine) == []


def test_broken_file_leaves_the_database_unchanged(
    database_url: str, engine: Engine, tmp_path: Path, command: Command
) -> None:
    command(database_url, "seed")
    merge(engine, [HEAT], [rated(5)])
    before = everything(engine)
    cases = [
        (MOVIES.replace("title", "name"), RATINGS, "movies.csv, line 1: "),
        (MOVIES + "1,Ronin (1998),Action\n", RATINGS, "movies.csv, line 5: "),
        (MOVIES, RATINGS.replace("rating", "stars"), "ratings.csv, line 1: "),
        (MOVIES, RATINGS + "1,7,4.0,0\n", "ratings.csv, line 5: "),
        (MOVIES, RATINGS + "9007199254740992,6,4.0,1\n", "ratings.csv, line 5: "),
        (MOVIES, RATINGS + "1,6,4.0,soon", "ratings.csv, line 5: "),
    ]

    for movies, ratings, message in cases:
        folder = write(tmp_path / "files", movies, ratings)
        finished = command(database_url, "import-movielens", folder)

        assert (finished.exit_code, finished.output) == (1, "")
        assert finished.errors.startswith(message)
        assert finished.errors.count("\n") == 1
        assert everything(engine) == before


def test_missing_file_is_named_and_no_database_is_made(tmp_path: Path, command: Command) -> None:
    for name in ("movies.csv", "ratings.csv"):
        folder = write(tmp_path / "files")
        (folder / name).unlink()

        finished = command(f"sqlite:///{tmp_path / 'new.db'}", "import-movielens", folder)

        reason = f"Cannot read {folder / name}: No such file or directory\n"
        assert finished == Finished(1, "", reason)
        assert not (tmp_path / "new.db").exists()


@pytest.mark.usefixtures("few_at_a_time")
def test_import_on_a_plain_engine_is_all_or_nothing(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'notebook.db'}")
    SQLModel.metadata.create_all(engine)

    def broken() -> Iterator[RatingRow]:
        yield from (rated(3, user) for user in range(1, 2 * FEW))
        raise UnusableFile

    with Session(engine) as session:
        repository = CatalogueRepository(session)
        with pytest.raises(UnusableFile):
            repository.merge([HEAT], broken())
        nothing = everything(engine)
        repository.merge([HEAT], [rated(5)])

    assert nothing == ([], [])
    assert scores(engine) == [(1, 1, 5)]
    engine.dispose()


def test_other_writers_wait_while_an_import_runs(database_url: str, engine: Engine) -> None:
    with Session(engine) as session:
        movie = MovieRepository(session).create(title=HEAT.title, year=1995)
    if make_url(database_url).get_backend_name() == "sqlite":
        impatient = create_db_engine(database_url, busy_timeout=0)
    else:
        impatient = create_engine(database_url, connect_args={"options": "-c lock_timeout=1"})

    def movies() -> Iterator[MovieRow]:
        # No row is stored yet.
        with Session(impatient) as session, pytest.raises(OperationalError):
            MovieRepository(session).add_rating(movie.id, 1, user_id=2)
        yield HEAT

    with Session(engine) as session:
        CatalogueRepository(session).merge(movies(), [rated(5)])
    with Session(impatient) as session:
        MovieRepository(session).add_rating(movie.id, 1, user_id=2)
        assert list(data_problems(session)) == []
    impatient.dispose()

    assert scores(engine) == [(movie.id, 1, 5), (movie.id, 2, 1)]


@pytest.mark.usefixtures("few_at_a_time")
def test_import_keeps_few_ratings_in_memory(engine: Engine) -> None:
    held: WeakSet[Moment] = WeakSet()
    most = 0

    def ratings() -> Iterator[RatingRow]:
        nonlocal most
        for user_id in range(1, 5 * FEW + 1):
            moment = Moment.fromtimestamp(user_id, UTC)
            held.add(moment)
            most = max(most, len(held))
            yield RatingRow(HEAT.id, user_id, 3, moment)

    with Session(engine) as session:
        counts = CatalogueRepository(session).merge([HEAT], ratings())

    assert counts.ratings_new == 5 * FEW
    # One batch is stored while the next one fills.
    assert most <= 2 * FEW + 1


def test_terminal_shows_the_progress_of_an_import(
    sqlite_url: str, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")

    finished = command(sqlite_url, "import-movielens", write(tmp_path / "files"))

    assert "Importing" in finished.errors
    assert "100%" in finished.errors


# Exporting


def test_export_has_the_format_of_movielens(
    database_url: str, engine: Engine, tmp_path: Path, command: Command
) -> None:
    merge(
        engine,
        [
            MovieRow(1, 'Cats, "The Musical" (1998)', 1998, "Unknown", "tt0173714"),
            MovieRow(
                2,
                "Death Note: Desu nôto (2006\u20132007)",
                2006,
                "Sci-Fi|Children's",
                "tt10872600",
                13916,
            ),
            MovieRow(3, "Heat (1995)", 1995, "Unknown|Crime", None, 949),
            MovieRow(4, "Ronin (1998)", 1998, "Action"),
        ],
        [
            rated(4, 7, movie_id=2),
            RatingRow(1, None, 5, NOON + timedelta(microseconds=1)),
            RatingRow(2, 8, 1, NOON + timedelta(microseconds=999_999)),
            RatingRow(2, 9, 1, datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
        ],
    )
    folder = tmp_path / "new" / "files"

    finished = command(database_url, "export", folder)

    assert finished == Finished(0, f"Wrote 4 movies and 4 ratings to {folder}\n", "")
    assert {path.name: path.read_bytes().decode() for path in folder.iterdir()} == {
        "movies.csv": (
            "movieId,title,genres\r\n"
            '1,"Cats, ""The Musical"" (1998)",(no genres listed)\r\n'
            "2,Death Note: Desu nôto (2006\u20132007),Sci-Fi|Children's\r\n"
            "3,Heat (1995),Unknown|Crime\r\n"
            "4,Ronin (1998),Action\r\n"
        ),
        "links.csv": "movieId,imdbId,tmdbId\r\n1,0173714,\r\n2,10872600,13916\r\n3,,949\r\n",
        "ratings.csv": (
            "userId,movieId,rating,timestamp\r\n"
            "7,2,4.0,1769860800\r\n"
            "8,2,1.0,1769860800\r\n"
            "9,2,1.0,-1\r\n"
        ),
        "anonymous_ratings.csv": "movieId,rating,timestamp\r\n1,5.0,1769860800\r\n",
    }


def test_export_has_a_year_column_if_a_title_lacks_its_year(
    database_url: str, tmp_path: Path, command: Command
) -> None:
    command(database_url, "seed")

    command(database_url, "export", tmp_path / "files")

    assert (tmp_path / "files" / "movies.csv").read_text().splitlines() == [
        "movieId,title,genres,year",
        "1,Inception,Sci-Fi,2010",
        "2,The Matrix,Sci-Fi,1999",
        "3,The Godfather,Crime,1972",
        "4,Spirited Away,Animation,2001",
        "5,Black Panther,Action,2018",
    ]


def test_export_and_import_give_the_same_catalogue_in_a_new_database(
    database_url: str, engine: Engine, tmp_path: Path, command: Command
) -> None:
    command(database_url, "seed")
    with Session(engine) as session:
        repository = MovieRepository(session)
        repository.create(
            title="Heat (1995)", year=1994, genres=["Unknown", "Crime"], imdb_id="tt0113277"
        )
        repository.create(
            title='=1+1, "東京" x', year=2100, genres=["Sci-Fi, Adult", "War"], tmdb_id=2**31 - 1
        )
        repository.delete(2)
        for movie_id in (1, 3, 6, 6, 6):
            repository.add_rating(movie_id, 5)
            repository.add_rating(movie_id, 4, user_id=2**53 - movie_id)
    twins = [RatingRow(1, None, 3, NOON), RatingRow(1, None, 3, NOON)]
    merge(engine, [MovieRow(1, "Inception", 2010, "Sci-Fi")], twins)
    backend = make_url(database_url).get_backend_name()

    command(database_url, "export", tmp_path / "files")

    with new_database(backend, tmp_path) as url:
        summary(command(url, "import-movielens", tmp_path / "files"))
        other = create_db_engine(url)
        assert catalogue(other) == catalogue(engine)
        command(url, "export", tmp_path / "again")
        other.dispose()
        assert command(url, "check").exit_code == 0
    # Movie ids differ, because the import leaves no gap; the rest is equal byte for byte.
    sizes = [
        [path.stat().st_size for path in sorted((tmp_path / name).iterdir())]
        for name in ("files", "again")
    ]
    assert len(sizes[0]) == len(OWN_FILES)
    assert sizes[0] == sizes[1]


def test_export_imported_into_its_own_database_changes_nothing(
    database_url: str, engine: Engine, tmp_path: Path, command: Command
) -> None:
    command(database_url, "seed")
    merge(engine, [HEAT], [rated(5, None), rated(5, None), rated(3, 1)])
    with Session(engine) as session:
        # Their times have a fraction of a second, which an export drops.
        for user_id in (None, None, 2):
            MovieRepository(session).add_rating(1, 5, user_id)
    before = everything(engine)
    command(database_url, "export", tmp_path / "files")

    finished = command(database_url, "import-movielens", tmp_path / "files")

    assert summary(finished)["unchanged"] == summary(finished)["read"] == (6, 6)
    assert everything(engine) == before


def test_export_overwrites_nothing(sqlite_url: str, tmp_path: Path, command: Command) -> None:
    for name in OWN_FILES:
        (tmp_path / name).write_text("precious")

        finished = command(sqlite_url, "export", tmp_path)

        message = f"{tmp_path / name} already exists. Choose another folder.\n"
        assert finished == Finished(1, "", message)
        assert [path.read_text() for path in tmp_path.glob("*.csv")] == ["precious"]
        (tmp_path / name).unlink()


def test_export_to_an_impossible_folder_names_the_reason(
    sqlite_url: str, tmp_path: Path, command: Command
) -> None:
    (tmp_path / "file").write_text("no folder")

    for name, reason in (("file/files", "Not a directory"), ("n" * 300, "File name too long")):
        finished = command(sqlite_url, "export", tmp_path / name)
        assert finished == Finished(1, "", f"Cannot write to {tmp_path / name}: {reason}\n")


def test_failed_export_leaves_no_file(tmp_path: Path) -> None:
    def broken() -> Iterator[RatingRow]:
        yield rated(3)
        raise OperationalError("SELECT", {}, Exception("the server went away"))

    with pytest.raises(OperationalError):
        write_folder(tmp_path / "files", lambda: [HEAT], broken(), [])

    assert list((tmp_path / "files").iterdir()) == []


def test_export_shows_one_snapshot_despite_writes(engine: Engine) -> None:
    merge(engine, [HEAT], [rated(3)])
    with Session(engine) as session, Session(engine) as other_session:
        repository, other = CatalogueRepository(session), MovieRepository(other_session)

        with reading(session):
            movies = list(repository.every_movie())
            ronin = other.create(title="Ronin", year=1998)
            other.add_rating(ronin.id, 5, user_id=1)
            other.add_rating(movies[0].id, 5, user_id=1)
            ratings = list(repository.every_rating())
            same_movies = list(repository.every_movie())

        assert ratings == [RatingRow(1, 1, 3, NOON)]
        assert same_movies == movies
        assert len(list(repository.every_movie())) == 2
        assert [rating.score for rating in repository.every_rating()] == [5, 5]

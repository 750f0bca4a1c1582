"""Rows of an import are bounded before a pattern looks at them."""

import tracemalloc
from pathlib import Path

import pytest

from app.errors import UnusableFile
from app.movielens.files import MAX_ROW, MovieLensFolder, ignore

HEADER = "movieId,title,genres\n"


def titles(folder: Path, row: str) -> list[str]:
    """Return the titles of a movies.csv with one row after Heat's."""
    (folder / "movies.csv").write_text(f"{HEADER}1,Heat (1995),Crime\n{row}\n", newline="")
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n")
    return [movie.title for movie in MovieLensFolder(folder).movies(ignore)]


@pytest.mark.parametrize(
    "row",
    ['2,"' + "a" * 2_000_000 + '",Drama', "2,Ronin (1998)" + ',"x\n"' * 400_000, "a" * 2_000_000],
    ids=["one cell", "many lines", "without quotes"],
)
def test_long_row_is_refused_at_a_small_cost(tmp_path: Path, row: str) -> None:
    tracemalloc.start()

    with pytest.raises(UnusableFile) as error:
        titles(tmp_path, row)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Writing the file takes three times the text.
    assert peak < 4 * len(row) + 8_000_000
    assert str(error.value) == f"movies.csv, line 3: longer than {MAX_ROW} characters"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_no_row_is_split_where_a_chunk_of_the_file_ends(tmp_path: Path, end: str) -> None:
    count = 4_000
    rows = [f'{n},"{n}{"x" * (n % 7)}, a movie (2000)",Drama' for n in range(2, count)]
    (tmp_path / "movies.csv").write_text(end.join([HEADER.strip(), *rows, ""]), newline="")
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n")

    movies = [*MovieLensFolder(tmp_path).movies(ignore)]

    assert [movie.id for movie in movies] == [*range(2, count)]
    assert {movie.title.partition(",")[2] for movie in movies} == {" a movie (2000)"}

"""Searches find the film that a text means, best match first."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine
from sqlmodel import Session

from app.models import Movie
from app.repository import MovieRepository
from app.search import sort_title
from tests.helpers import Sample, listed, store

LOST_CHILDREN = "City of Lost Children, The (Cité des enfants perdus, La) (1995)"
CATALOGUE = {
    "Alien (1979)": 9, "Aliens (1986)": 7, "Alien³ (a.k.a. Alien 3) (1992)": 4,
    "AVP: Alien vs. Predator (2004)": 3, "Alien (2015)": 0, "It (1990)": 3, "It (2017)": 5,
    "Italian Job, The (2003)": 6, "Rocky (1976)": 8, "Rocky II (1979)": 4, "Rocky III (1982)": 3,
    "E.T. the Extra-Terrestrial (1982)": 9, "Harry Potter and the Goblet of Fire (2005)": 6,
    "Dr. Strangelove or: How I Learned to Stop Worrying (1964)": 7, "St. Elmo's Fire (1985)": 2,
    "Back to the Future Part II (1989)": 6, "Romeo and Juliet (1968)": 2,
    "Romeo + Juliet (1996)": 6,
    "Matrix, The (1999)": 9, "Matrix Reloaded, The (2003)": 6, "Spider-Man (2002)": 7,
    "Superman (1978)": 6, "WALL·E (2008)": 6, "Seven (a.k.a. Se7en) (1995)": 8, "1917 (2019)": 4,
    LOST_CHILDREN: 5, "Dark Knight, The (2008)": 9,
    "2001: A Space Odyssey (1968)": 8, "Blade Runner (1982)": 8, "Star Wars: Episode I (1999)": 6,
    "Kill Bill: Vol. 2 (2004)": 6, "東京物語": 3, "Сталкер": 4, "$ (1971)": 1,
    "(500) Days of Summer (2009)": 5,
    "Terminator, The (1984)": 8, "Shawshank Redemption, The (1994)": 9, "M*A*S*H (1970)": 5,
}  # fmt: skip


class Typed(NamedTuple):
    """A text, the first results, and the text that was searched instead."""

    text: str
    first: tuple[str, ...]
    instead: str | None = None


TYPED = [
    Typed("alien", ("Alien (1979)", "Alien (2015)")),
    Typed("It", ("It (2017)", "It (1990)", "Italian Job, The (2003)")),
    Typed("it 1990", ("It (1990)",)),
    Typed("Rocky 2", ("Rocky II (1979)",)),
    Typed("rocky ii", ("Rocky II (1979)", "Rocky III (1982)")),
    Typed("rocky two", ("Rocky II (1979)",)),
    Typed("et", ("E.T. the Extra-Terrestrial (1982)",)),
    Typed("E.T.", ("E.T. the Extra-Terrestrial (1982)",)),
    Typed("harry poter", ("Harry Potter and the Goblet of Fire (2005)",), "harry potter"),
    Typed("doctor strangelove", ("Dr. Strangelove or: How I Learned to Stop Worrying (1964)",)),
    Typed("dr strangelove", ("Dr. Strangelove or: How I Learned to Stop Worrying (1964)",)),
    Typed("saint elmo", ("St. Elmo's Fire (1985)",)),
    Typed("Back to the Future 2", ("Back to the Future Part II (1989)",)),
    Typed("back to the future pt 2", ("Back to the Future Part II (1989)",)),
    Typed("romeo and juliet", ("Romeo + Juliet (1996)", "Romeo and Juliet (1968)")),
    Typed("Romeo & Juliet 1968", ("Romeo and Juliet (1968)",)),
    Typed("the matrix", ("Matrix, The (1999)", "Matrix Reloaded, The (2003)")),
    Typed("Matrix, The (1999)", ("Matrix, The (1999)",)),
    Typed("matrix the", ("Matrix, The (1999)", "Matrix Reloaded, The (2003)")),
    Typed("matr", ("Matrix, The (1999)", "Matrix Reloaded, The (2003)")),
    Typed("spiderman", ("Spider-Man (2002)",)),
    Typed("spider man", ("Spider-Man (2002)",)),
    Typed("super man", ("Superman (1978)",)),
    Typed("wall e", ("WALL·E (2008)",)),
    Typed("walle", ("WALL·E (2008)",)),
    Typed("mash", ("M*A*S*H (1970)",)),
    Typed("darkknight", ("Dark Knight, The (2008)",)),
    Typed("se7en", ("Seven (a.k.a. Se7en) (1995)",)),
    Typed("7", ("Seven (a.k.a. Se7en) (1995)",)),
    Typed("cite des enfants perdus", (LOST_CHILDREN,)),
    Typed("1917", ("1917 (2019)",)),
    Typed("2001", ("2001: A Space Odyssey (1968)",)),
    Typed("2001 a space odyssey 1968", ("2001: A Space Odyssey (1968)",)),
    Typed("500 days", ("(500) Days of Summer (2009)",)),
    Typed("alien 1986", ("Aliens (1986)",)),
    Typed("alien (19", ("Alien (1979)",)),
    Typed("blade runner 2049", ("Blade Runner (1982)",), "blade runner"),
    Typed("shawshenk redemtion", ("Shawshank Redemption, The (1994)",), "shawshank redemption"),
    Typed("termnatr", ("Terminator, The (1984)",), "terminator"),
    Typed("harry poter 2005", ("Harry Potter and the Goblet of Fire (2005)",), "harry potter 2005"),
    Typed("rangelov", ("Dr. Strangelove or: How I Learned to Stop Worrying (1964)",)),
    Typed("star wars episode 1", ("Star Wars: Episode I (1999)",)),
    Typed("kill bill volume two", ("Kill Bill: Vol. 2 (2004)",)),
    Typed("東京", ("東京物語",)),
    Typed("сталк", ("Сталкер",)),
    Typed("сталкир", ("Сталкер",), "сталкер"),
    Typed("$", ("$ (1971)",)),
    Typed("the superman", ("Superman (1978)",), "superman"),
    Typed("rocy 2", ("Rocky II (1979)",), "rocky 2"),
    Typed("xyzzy", ()),
    Typed("20001", ()),
    Typed("'", ()),
]  # fmt: skip


@pytest.fixture
def catalogue(engine: Engine) -> None:
    """The catalogue above, in which each title has so many ratings."""
    store(
        engine, *(Sample(title, _year(title), "Drama", (4,) * n) for title, n in CATALOGUE.items())
    )


def _year(title: str) -> int:
    year = title[-5:-1]
    return int(year) if year.isdigit() else 2000


@pytest.mark.usefixtures("catalogue")
def test_typed_text_finds_the_film_first(repository: MovieRepository) -> None:
    failures = []
    for text, first, instead in TYPED:
        page = repository.list(q=text)
        found = tuple(movie.title for movie in page)
        if found[: max(1, len(first))] != first or page.searched_for != instead:
            failures.append((text, found[:4], page.searched_for))

    assert not failures, listed(failures)


@pytest.mark.usefixtures("catalogue")
def test_words_inside_other_words_match_only_if_nothing_else_does(
    repository: MovieRepository,
) -> None:
    assert [movie.title for movie in repository.list(q="edator")] == [
        "AVP: Alien vs. Predator (2004)"
    ]
    repository.create(title="Edator", year=2000)
    assert [movie.title for movie in repository.list(q="edator")] == ["Edator"]


@pytest.mark.usefixtures("catalogue")
def test_correction_ignores_the_other_filters(repository: MovieRepository) -> None:
    page = repository.list(q="harry poter", genre="Western")

    assert (list(page), page.total, page.searched_for) == ([], 0, "harry potter")


@pytest.mark.usefixtures("catalogue")
def test_pages_by_relevance_are_slices_of_one_list_in_both_directions(
    repository: MovieRepository,
) -> None:
    whole = list(repository.list(q="t"))
    assert len(whole) > 10

    for order, expected in (("relevance", whole), ("-relevance", whole[::-1])):
        for offset in range(len(whole) + 1):
            page = repository.list(q="t", sort=order, limit=3, offset=offset)  # type: ignore[arg-type] # one of Sort
            assert list(page) == expected[offset : offset + 3], (order, offset)


@pytest.mark.usefixtures("catalogue")
def test_explicit_sort_orders_the_matches(repository: MovieRepository) -> None:
    page = repository.list(q="rocky", sort="-year")

    assert [movie.year for movie in page] == [1982, 1979, 1976]


def test_relevance_without_a_search_is_refused(
    client: TestClient, repository: MovieRepository
) -> None:
    with pytest.raises(ValueError, match="relevance needs q"):
        repository.list(sort="relevance")

    for query in ("sort=relevance", "sort=-relevance&q=", "sort=relevance&q=%20"):
        response = client.get(f"/movies?{query}")
        assert response.status_code == 422, query
        assert response.json()["detail"][0]["loc"] == ["query", "sort"]


@pytest.mark.usefixtures("catalogue")
def test_searched_text_is_a_header_of_every_response(client: TestClient) -> None:
    path = "/movies?q=%D1%81%D1%82%D0%B0%D0%BB%D0%BA%D0%B8%D1%80"
    first = client.get(path)
    responses = [
        first,
        client.get(path),  # from the read cache
        client.head(path),
        client.get(path, headers={"If-None-Match": first.headers["ETag"]}),
        client.get(path.replace("/movies", "/movies.csv")),
    ]

    assert [response.status_code for response in responses] == [200, 200, 200, 304, 200]
    assert {response.headers["X-Searched-For"] for response in responses} == {
        "%D1%81%D1%82%D0%B0%D0%BB%D0%BA%D0%B5%D1%80"
    }
    assert "X-Searched-For" not in client.get("/movies?q=alien").headers
    assert "Сталкер" in responses[-1].text


@pytest.mark.usefixtures("catalogue")
def test_download_has_the_matches_by_id(client: TestClient) -> None:
    lines = client.get("/movies.csv?q=aliens").text.splitlines()

    assert [line.split(",")[1] for line in lines[1:]] == ["Aliens (1986)"]
    ids = [
        int(line.split(",")[0]) for line in client.get("/movies.csv?q=alien").text.splitlines()[1:]
    ]
    assert ids == sorted(ids)
    assert len(ids) == 5


def test_search_by_a_year_knows_the_year_of_the_movie(repository: MovieRepository) -> None:
    repository.create(title="Solaris", year=1972)
    repository.create(title="Solaris (2002)", year=2002)

    assert [movie.year for movie in repository.list(q="solaris 1972")] == [1972]


@pytest.mark.parametrize("change", ["create", "update", "session"])
def test_movie_is_found_by_its_new_title_at_once(
    repository: MovieRepository, session: Session, change: str
) -> None:
    movie = repository.create(title="Heat", year=1995)
    if change == "create":
        repository.create(title="Ronin", year=1998)
    elif change == "update":
        repository.update(movie.id, title="Ronin")
    else:
        stored = session.get(Movie, movie.id)
        assert stored is not None
        stored.title = "Ronin"
        session.commit()

    assert [found.title for found in repository.list(q="ronni")] == ["Ronin"]
    assert repository.list(q="heat").total == (change == "create")


SORTED = [
    "'71 (2014)", "À nous la liberté (1931)", "Alien (1979)", "Alien 3", "Aliens (1986)",
    "Avventura, L' (1960)", "The Beach", "Die Hard (1988)", "Die Hard 2 (1990)", "eXistenZ (1999)",
    "Matrix, The (1999)", "The Matrix (2030)", "¡Three Amigos! (1986)", "Zulu (1964)", "Дом",
]  # fmt: skip


def test_titles_sort_as_in_a_library(repository: MovieRepository) -> None:
    for title in sorted(SORTED, key=lambda title: title[::-1]):
        repository.create(title=title, year=2000)

    assert [movie.title for movie in repository.list()] == SORTED
    assert [movie.title for movie in repository.list(sort="-title")] == SORTED[::-1]
    assert sort_title("!!!") == "!!!"


@pytest.mark.parametrize(
    "make",
    [lambda n: "a b " * 74 + str(n), lambda n: "ab" * 147 + str(n), lambda n: "a" * 296 + str(n)],
)
def test_long_titles_of_few_letters_can_be_searched(
    repository: MovieRepository, make: Callable[[int], str]
) -> None:
    for n in range(20):
        repository.create(title=make(n), year=2000)

    for text in (make(0), make(0)[:-1] + "x", "b" * 300, "a b " * 75, "a" * 9):
        repository.list(q=text)

    assert repository.list(q=make(7)).total >= 1

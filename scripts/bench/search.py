"""Measures searches: how often the film that a text means comes first, and what that costs."""

import random
import re
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple, Unpack

from rich import box
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, select
from sqlmodel import Session

from app.db import create_db_engine, migrate
from app.movielens.files import MovieRow
from app.movielens.repository import CatalogueRepository
from app.read_models import MovieSelection
from app.repository import MovieRepository
from app.search.names import name_parts
from app.tables import MOVIE
from scripts.bench.movielens import import_folder

SEED = 26
QUERIES_A_CLASS = 250
MANY_MOVIES = 87_000
CRAFTED_TITLES = 1_000
# Films that people ask for have at least this many ratings.
KNOWN = 20
PAGE = 24
SHARE_OF_FORMS = 0.25
LETTERS = "abcdefghijklmnopqrstuvwxyz"

# How people misspell titles, and a word of the title that they mean.
REAL_TYPOS = """
shawshank redemtion=Shawshank Redemption|shawshenk=Shawshank Redemption|pulp ficton=Pulp Fiction
forest gump=Forrest Gump|forrest gmup=Forrest Gump|schindlers lsit=Schindler's List
terminater=Terminator, The|jurrasic park=Jurassic Park|jurasic park=Jurassic Park
silense of the lambs=Silence of the Lambs|fightclub=Fight Club|star warz=Star Wars: Episode IV
inceptoin=Inception|gladitor=Gladiator|braveheat=Braveheart|titanik=Titanic (1997)
the godfater=Godfather, The (1972)|godfahter=Godfather, The (1972)|memneto=Memento
american beuty=American Beauty|sixth sence=Sixth Sense|independance day=Independence Day
lord of the rngs fellowship=Fellowship of the Ring|pirates of the carribean=Black Pearl
pirates of the caribean black pearl=Black Pearl|finding nimo=Finding Nemo|schrek=Shrek (2001)
beutiful mind=Beautiful Mind|donnie darco=Donnie Darko|kill bil=Kill Bill: Vol. 1
eternal sunshne=Eternal Sunshine|napolean dynamite=Napoleon Dynamite|ratatoullie=Ratatouille
ratatuille=Ratatouille|interstaler=Interstellar|clockwrok orange=Clockwork Orange
apocolypse now=Apocalypse Now|reservior dogs=Reservoir Dogs|amercan history x=American History X
raiders of the lost arc=Raiders of the Lost Ark|casablanka=Casablanca|vertgo=Vertigo (1958)
monty pyhton holy grail=Holy Grail|princess brid=Princess Bride|groundhog dya=Groundhog Day
ghostbustres=Ghostbusters (a.k.a.|good will huntign=Good Will Hunting|truman shwo=Truman Show
beetlejuce=Beetlejuice|edward scissorhads=Edward Scissorhands|trianspotting=Trainspotting
dances with wolfs=Dances with Wolves|avengrs=Avengers, The (2012)|batman begings=Batman Begins
"""
# Other spellings of the same words: what is replaced, and by what.
FORMS = [
    (r" & ", " and "), (r" and ", " & "), (r"\bII\b", "2"), (r"\bIII\b", "3"), (r"\bIV\b", "4"),
    (r"\bDr\.", "Doctor"), (r"\bDr\.", "Dr"), (r"\bMr\.", "Mister"), (r"\bMr\.", "mr"),
    (r"\bSt\.", "Saint"), (r"\bvs\.", "versus"), (r"\bVol\.", "Volume"), (r"\bPart\b", "pt"),
    (r"(\w)-(\w)", r"\1\2"), (r"(\w)-(\w)", r"\1 \2"), (r"(\w)[·*](\w)", r"\1\2"),
    (r"\b(\w)\.(?=\w\.|\s|$)", r"\1"), (r"'", ""), (r"'", "\u2019"), (r"\bTwo\b", "2"),
    (r"\b2\b", "II"),
    (r"\bThree\b", "3"), (r"\bSeven\b", "7"), (r"\bTwelve\b", "12"), (r"\bEleven\b", "11"),
    (r"([a-z]{4,})([a-z]{4,})\b", r"\1 \2"), (r"\b(\w{3,}) (\w{3,})", r"\1\2"),
]  # fmt: skip


class Asked(NamedTuple):
    """A text that somebody types, and the id of the film that they mean."""

    kind: str
    text: str
    movie_id: int


class Film(NamedTuple):
    """A film that people ask for."""

    id: int
    title: str
    year: int
    rating_count: int

    @property
    def name(self) -> str:
        """The title as people say it, without year and alternate titles."""
        name = re.sub(r"\s*\(.*", "", self.title)
        return re.sub(r"^(.+), (The|A|An|Les?|La|L'|Il|Das|Die|Der|El)$", r"\2 \1", name)

    @property
    def full_titles(self) -> list[str]:
        """The title in ways in which people copy it, and its alternate titles."""
        bare = re.sub(r"\s*\(\d{4}\)$", "", self.title)
        alternates = re.findall(r"\((?!\d{4}\))(?:a\.k\.a\. )?([^()]{4,})\)", self.title)
        whole = [self.title, self.title.lower(), f"{self.name} {self.year}", f"{bare} {self.year}"]
        return [*whole, *alternates]

    @property
    def short(self) -> str:
        """The part of the name that people type."""
        return re.sub(r"^(The|A|An) ", "", re.split(r": | - ", self.name)[0]).lower()


def asked(films: list[Film], seed: int = SEED) -> list[Asked]:
    """Return the queries, the same for a seed. Films with many ratings are asked for more often."""
    rng = random.Random(seed)  # noqa: S311 - nothing is secret here
    known = [film for film in films if film.rating_count >= KNOWN]
    most_rated: dict[str, Film] = {}
    for film in sorted(films, key=lambda film: film.rating_count):
        most_rated |= dict.fromkeys((film.name.lower(), film.short), film)
    # Others who type the name mean another film.
    named = [film for film in known if most_rated[film.name.lower()] is film]
    meant = [film for film in known if most_rated[film.short] is film and len(film.short) > 1]

    def sample(some: list[Film]) -> list[Film]:
        chosen = rng.choices(some, [film.rating_count for film in some], k=4 * QUERIES_A_CLASS)
        return [*dict.fromkeys(chosen)][:QUERIES_A_CLASS]

    queries = [Asked("full title", rng.choice(film.full_titles), film.id) for film in sample(known)]
    queries += (
        Asked("full title", rng.choice([film.name, film.name.lower()]), film.id)
        for film in sample(named)
    )
    queries += (Asked("short title", film.short, film.id) for film in sample(meant))
    queries += (
        Asked("other form", text, film.id)
        for film in named
        if (text := _in_another_form(film.name, rng)) is not None
    )
    queries += (
        Asked(
            "prefix",
            film.short[: rng.randrange(max(4, len(film.short) * 2 // 3), len(film.short))].strip(),
            film.id,
        )
        for film in sample(meant)
        if len(film.short) > 5  # noqa: PLR2004 - letters
    )
    queries += (
        Asked("typo", text, film.id)
        for film in sample(meant)
        if (text := _mistyped(film.short, rng)) is not None
    )
    for line in re.split(r"[\n|]", REAL_TYPOS.strip()):
        text, _, title = line.partition("=")
        film = max((film for film in films if title in film.title), key=lambda f: f.rating_count)
        queries.append(Asked("typo", text, film.id))
    return [*dict.fromkeys(queries)]


def _in_another_form(name: str, rng: random.Random) -> str | None:
    for pattern, replacement in FORMS:
        if re.search(pattern, name) and rng.random() < SHARE_OF_FORMS:
            return re.sub(pattern, replacement, name, count=1).lower()
    return None


def _mistyped(text: str, rng: random.Random) -> str | None:
    words = text.split()
    places = [i for i, word in enumerate(words) if len(word) > 4 and word.isalpha()]  # noqa: PLR2004 - letters
    if not places:
        return None
    place = rng.choice(places)
    for _ in range(1 if len(words[place]) < 8 or rng.random() < 0.7 else 2):  # noqa: PLR2004
        word = words[place]
        i = rng.randrange(1, len(word))
        letter = rng.choice(LETTERS)
        words[place] = rng.choice([
            word[:i] + word[i + 1 :],
            word[:i] + letter + word[i:],
            word[:i] + letter + word[i + 1 :],
            word[: i - 1] + word[i] + word[i - 1] + word[i + 1 :],
        ])  # fmt: skip
    return " ".join(words) if words != text.split() else None


class Score:
    """The places of the films that were meant, 0 if they were not found."""

    def __init__(self) -> None:
        self.places: list[int] = []

    def within(self, first: int) -> float:
        """Return the share of films among the first results."""
        return sum(0 < place <= first for place in self.places) / len(self.places)

    def cells(self) -> list[str]:
        """Return the cells of a table."""
        shares = (f"{self.within(first):.1%}" for first in (1, 5))
        return [f"{self.mean_reciprocal_rank:.3f}", *shares]

    @property
    def mean_reciprocal_rank(self) -> float:
        """The mean of 1, 1/2, 1/3 ... for the first, second, third place."""
        return sum(1 / place for place in self.places if place) / len(self.places)


def score(repository: MovieRepository, queries: list[Asked]) -> dict[str, Score]:
    """Search for each query and return the scores, in all and by kind."""
    scores: dict[str, Score] = defaultdict(Score)
    for query in queries:
        ids = [movie.id for movie in repository.list(q=query.text, limit=50)]
        place = ids.index(query.movie_id) + 1 if query.movie_id in ids else 0
        scores["all"].places.append(place)
        scores[query.kind].places.append(place)
    return dict(scores)


def add_decoys(engine: Engine, movies: int) -> None:
    """Fill a catalogue up with obscure titles that are made of the words of its titles."""
    rng = random.Random(SEED)  # noqa: S311 - nothing is secret here
    with Session(engine) as session:
        titles = session.execute(select(MOVIE.c.title).order_by(MOVIE.c.id)).scalars().all()
    words = [word for title in titles for word in name_parts(title)[0][0].title().split()]
    made: dict[str, int] = {}
    while len(made) < movies - len(titles):
        year = rng.randint(1920, 2025)
        text = " ".join(rng.choices(words, k=rng.choice((1, 2, 2, 3, 3, 4, 5, 6))))
        made[f"{text} ({year})"] = year
    rows = [MovieRow(n, title, year, "Unknown") for n, (title, year) in enumerate(made.items())]
    with Session(engine) as session:
        CatalogueRepository(session).merge(rows, ())


def add_crafted(engine: Engine) -> None:
    """Add long titles that are made of two letters, which searches could take long to compare."""
    makers = ("a b " * 70, "ab" * 140, "a" * 280, "ba " * 90)
    rows = [
        MovieRow(n, f"{makers[n % len(makers)]} {n} (2000)", 2000, "Unknown")
        for n in range(CRAFTED_TITLES)
    ]
    with Session(engine) as session:
        CatalogueRepository(session).merge(rows, ())


def cpu_milliseconds(function: Callable[[], object], repetitions: int = 5) -> float:
    """Return the CPU time of a function that has run before."""
    function()
    times = []
    for _ in range(repetitions):
        started = time.process_time()
        function()
        times.append(time.process_time() - started)
    return 1000 * median(times)


COSTS = {
    "hit": [
        "the matrix",
        "alien",
        "harry potter",
        "rocky 2",
        "back to the future",
        "toy story 1995",
    ],
    "typo": ["harry poter", "shawshenk redemtion", "back to the futrue", "terminater 2"],
    "miss": ["nobody has this", "xqzvw", "qwrtz plmkn", "zzzzzzzzzzzzzzzz"],
    "single letter": ["a", "s", "t", "i", "th", "of the"],
    "crafted titles": [
        "ab" * 100, "a b " * 70, "aaaaaaaab", "a b a b", "ba", "a" * 300, "b a" * 90, "aaaabbbb",
        "ba ba ba", "abab" * 8, "ab ab ab ab",
    ],
}  # fmt: skip


def costs(repository: MovieRepository) -> dict[str, float]:
    """Return the CPU time of the slowest search of each kind, above that of an empty list."""

    def milliseconds(**selection: Unpack[MovieSelection]) -> float:
        return cpu_milliseconds(partial(repository.list, limit=PAGE, **selection))

    empty = milliseconds(imdb_id="tt9999999999")
    return {kind: max(milliseconds(q=q) for q in texts) - empty for kind, texts in COSTS.items()}


def print_searches(source: Path, console: Console, folder: Path) -> None:
    """Print how well and how fast searches of a MovieLens folder's catalogue are.

    Args:
        source: the MovieLens folder.
        console: where to print the tables.
        folder: where to keep the catalogues.
    """
    url = f"sqlite:///{folder / 'searches.db'}"
    migrate(url)
    engine = create_db_engine(url)
    import_folder(source, engine)
    with Session(engine) as session:
        columns = MOVIE.c["id", "title", "year", "rating_count"]
        films = [Film(*row) for row in session.execute(select(*columns).order_by(MOVIE.c.id))]
    queries = asked(films)
    with Session(engine) as session:
        repository = MovieRepository(session)
        few, before = score(repository, queries), costs(repository)
        add_decoys(engine, MANY_MOVIES)
        add_crafted(engine)
        many, after = score(repository, queries), costs(repository)
    engine.dispose()
    console.width = max(console.width, 120)
    table = Table(
        "queries", "number", *_headings(len(films)), *_headings(MANY_MOVIES), box=box.MARKDOWN
    )
    for kind, own in few.items():
        table.add_row(kind, str(len(own.places)), *own.cells(), *many[kind].cells())
    console.print(table)
    table = Table("CPU, ms", f"{len(films):,} titles", f"{MANY_MOVIES:,} titles", box=box.MARKDOWN)
    for kind in COSTS:
        table.add_row(kind, f"{before[kind]:.1f}", f"{after[kind]:.1f}")
    console.print(table)


def _headings(titles: int) -> list[str]:
    return [f"MRR, {titles:,} titles", "first", "first five"]

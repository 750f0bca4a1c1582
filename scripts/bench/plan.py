"""The size of a run, and the ratios that it measures."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

from rich.console import Console

from scripts.bench.catalogues import fill_baseline, fill_baseline_on_postgresql, make_catalogue
from scripts.bench.load import ANSWER_TIMEOUT, BenchError, Load, Target, load, serve

# A round counts complete responses: if they are few and slow, the last one, cut off, would distort
# the rate.
ENOUGH_ANSWERS = 40


@dataclass
class Plan:
    """The sizes of the catalogues, and how long and how often servers are loaded."""

    folder: Path
    console: Console
    movies: int
    ratings: int
    many_movies: int
    many_ratings: int
    clients: int
    seconds: float
    rounds: int
    movielens: Path | None
    postgres: str | None

    def say(self, text: str) -> None:
        """Print progress, dimmed to set it apart from the table."""
        self.console.print(f"{text} ...", style="dim")

    def catalogue(self, *, movies: int, ratings: int) -> Path:
        """Return a database with this many movies and ratings, made on first use."""
        path = self.folder / f"{movies}-movies-{ratings}-ratings.db"
        if not path.exists():
            self.say(f"Making a catalogue of {movies:,} movies and {ratings:,} ratings")
            make_catalogue(path, movies=movies, ratings=ratings)
        return path

    @contextmanager
    def service(
        self, database: Path | str, *, read_cache: bool = False, workers: int = 1
    ) -> Iterator[int]:
        """Run the service on a catalogue or a URL, and yield its port."""
        environment = {"MOVIE_DATABASE_URL": _url(database), "MOVIE_READ_CACHE": str(read_cache)}
        log = self.folder / f"service-{workers}.log"
        with serve("app.main:app", log, environment, workers=workers) as port:
            yield port

    @contextmanager
    def baseline(self, database: Path | str) -> Iterator[int]:
        """Run the baseline on a copy of a catalogue, and yield its port."""
        copy = self.folder / "baseline.db" if isinstance(database, Path) else database
        environment = {"BASELINE_URL": _url(copy)}
        with serve("scripts.bench.baseline:app", self.folder / "baseline.log", environment) as port:
            if isinstance(copy, Path) and isinstance(database, Path):
                fill_baseline(copy, database)
            else:
                fill_baseline_on_postgresql(str(copy))
            yield port
        if isinstance(copy, Path):
            copy.unlink()


def _url(database: Path | str) -> str:
    return f"sqlite:///{database}" if isinstance(database, Path) else database


class Rounds(NamedTuple):
    """The loads of two servers that took turns."""

    one: list[Load]
    other: list[Load]

    def compare(self, measure: Callable[[Load], float]) -> tuple[float, float, float]:
        """Return the median of each side, and the median of the rounds' ratios."""
        mine, others = (list(map(measure, loads)) for loads in self)
        ratios = [one / another for one, another in zip(mine, others, strict=True)]
        return median(mine), median(others), median(ratios)


class Row(NamedTuple):
    """A line of the table: a ratio and its aim."""

    measured: str
    service: str
    compared_with: str
    ratio: float
    bound: float
    at_least: bool
    note: str = ""

    @classmethod
    def of_rate(cls, measured: str, rounds: Rounds, at_least: float, other: str) -> "Row":
        """Return the row of a rate that should be ``at_least`` times another one."""
        mine, others, ratio = rounds.compare(lambda load: load.rate)
        compared_with = f"{others:,.0f}/s {other}"
        return cls(measured, f"{mine:,.0f}/s", compared_with, ratio, at_least, at_least=True)

    @classmethod
    def of_latency(
        cls, measured: str, rounds: Rounds, at_most: float, other: str, percentile: str = "median"
    ) -> "Row":
        """Return the row of a latency that should be ``at_most`` times another one."""
        mine, others, ratio = rounds.compare(lambda load: getattr(load, percentile))
        compared_with = f"{others:,.2f} ms {other}"
        return cls(measured, f"{mine:,.2f} ms", compared_with, ratio, at_most, at_least=False)

    @property
    def is_met(self) -> bool:
        """Return whether the ratio meets its aim."""
        return self.ratio >= self.bound if self.at_least else self.ratio <= self.bound


def load_in_turn(plan: Plan, *targets: Target) -> Rounds:
    """Load two targets in turn, each long enough for ENOUGH_ANSWERS responses a round."""
    lengths = [warm_up(plan, target) for target in targets]
    loads = [
        [load(*turn, plan.folder) for turn in zip(targets, lengths, strict=True)]
        for _ in range(plan.rounds)
    ]
    if not all(each.requests > each.errors for turn in loads for each in turn):
        raise BenchError("A server returns only errors")
    return Rounds(*map(list, zip(*loads, strict=True)))


def warm_up(plan: Plan, target: Target) -> float:
    """Load a target briefly and return how many seconds its rounds must last."""
    seconds = 1.0
    while not (first := load(target, seconds, plan.folder)).requests and seconds < ANSWER_TIMEOUT:
        seconds *= 2
    return max(plan.seconds, ENOUGH_ANSWERS * first.seconds / max(first.requests, 1))

#!/usr/bin/env bash
# With SQLAlchemy on SQLite, an average of two integers that was just read is not found again.
#
# Behaviour: Movie.total / Movie.votes of two Integer columns has the type Numeric. SQLite computes
#   3.3333333333333335, and SQLAlchemy makes Decimal("3.3333333333") of it, with 10 digits after the
#   point. As a parameter it is a float again, of those 10 digits. So no row has the average that was
#   read, and paging by key does not advance: the last row of a page counts as coming after itself. With
#   Movie.total * 1.0 / Movie.votes, which looks the same, the value is a float and both work.
# Expected: a value that was read compares as equal to itself, and division gives a float on SQLite,
#   as func.avg() does.
# Versions: sqlalchemy 2.1.9, with SQLite 3.40.1.
# Documentation: says that / is true division and that Numeric returns Decimal. The 10 digits are
#   under decimal_return_scale, for columns; that they apply to a division is not said.
# Output (ids of five movies read two at a time, for at most six pages):
#   total / votes:       Decimal('3.3333333333') found in []
#     pages [5, 1] [1, 4] [1, 4] [1, 4] [1, 4] [1, 4]
#   total * 1.0 / votes: 3.3333333333333335 found in [1, 4]
#     pages [5, 1] [4, 3] [2]
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
uv venv -q --python 3.11 "$folder/venv"
uv pip install -q --python "$folder/venv" sqlalchemy==2.1.9

"$folder/venv/bin/python" - <<'PYTHON'
import sys

from sqlalchemy import create_engine, select, tuple_
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase):
    pass


class Movie(Base):
    __tablename__ = "movie"
    id: Mapped[int] = mapped_column(primary_key=True)
    total: Mapped[int]
    votes: Mapped[int]


def pages(session: Session, average) -> list[list[int]]:
    found, last = [], None
    while len(found) < 6:
        page = select(Movie.id, average.label("average")).order_by(average, Movie.id).limit(2)
        if last is not None:
            page = page.where(tuple_(average, Movie.id) > tuple_(last.average, last.id))
        rows = session.execute(page).all()
        if not rows:
            break
        found.append([row.id for row in rows])
        last = rows[-1]
    return found


engine = create_engine("sqlite://")
Base.metadata.create_all(engine)
seen = []
with Session(engine) as session:
    tallies = [(10, 3), (11, 3), (7, 2), (20, 6), (22, 7)]
    session.add_all(Movie(total=total, votes=votes) for total, votes in tallies)
    session.commit()
    divided, multiplied = Movie.total / Movie.votes, Movie.total * 1.0 / Movie.votes
    for label, average in (("total / votes:", divided), ("total * 1.0 / votes:", multiplied)):
        value = session.scalar(select(average).where(Movie.id == 1))
        same = session.scalars(select(Movie.id).where(average == value)).all()
        seen.append((same, pages(session, average)))
        print(f"{label:20} {value!r} found in {same}")
        print("  pages", *seen[-1][1])
turns = [[5, 1]] + [[1, 4]] * 5
if seen != [([], turns), ([1, 4], [[5, 1], [4, 3], [2]])]:
    sys.exit("the behaviour has changed")
PYTHON

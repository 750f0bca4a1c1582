"""Titles and genres in normal form, which the service stores from now on.

The service looks movies up by this form: NFC, no invisible characters, single spaces, genres in
title case. A movie keeps a title whose normal form another movie has, and text without a normal
form. ``scripts/db.py check`` lists these movies.

Revision: d2b7e4c91f06
Revises: c4a8d1f0e7b3
Created: 2026-11-25
"""

import re
from unicodedata import category, normalize

import sqlalchemy as sa
from alembic import op

revision = "d2b7e4c91f06"
down_revision = "c4a8d1f0e7b3"
branch_labels = None
depends_on = None

# A copy of the rules in app/models.py at the time of this revision.
INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
BLANK_CATEGORIES = {"Zs", "Mn", "Me"}
EMPTY_BRAILLE_PATTERN = "\u2800"
TITLE_LENGTH, GENRE_LENGTH = 300, 100

MOVIE = sa.table("movie", *map(sa.column, ("id", "title", "search_title", "genre")))


def normal_form(text: str, max_length: int) -> str | None:
    """Return text in normal form, or None if that is too long or has no visible character."""
    if text.isascii() and text.isprintable():
        form = " ".join(text.split())
    else:
        form = " ".join(normalize("NFC", INVISIBLE.sub("", text)).split())
    shows = any(
        category(character) not in BLANK_CATEGORIES and character != EMPTY_BRAILLE_PATTERN
        for character in form
    )
    return form if shows and len(form) <= max_length else None


def normal_genre(genre: str) -> str | None:
    """Return a genre in normal form, or None if it has no such form or is several genres."""
    form = normal_form(genre, GENRE_LENGTH)
    if form is None or "|" in form:
        return None
    words = re.split(r"([\s/&-])", form)
    cased = normalize("NFC", "".join(word.capitalize() for word in words))
    # Repeat: a few characters change case in two steps.
    return cased if cased == genre else normal_genre(cased)


def upgrade() -> None:
    connection = op.get_bind()
    query = sa.select(MOVIE.c.id, MOVIE.c.title, MOVIE.c.genre).order_by(MOVIE.c.id)
    movies = connection.execute(query).all()
    taken = {title for _, title, _ in movies}
    changed = []
    for movie_id, title, genre in movies:
        new_title = normal_form(title, TITLE_LENGTH) or title
        new_genre = normal_genre(genre) or genre
        if (new_title, new_genre) == (title, genre) or (new_title != title and new_title in taken):
            continue
        taken.add(new_title)
        changed.append(
            {
                "this_movie": movie_id,
                "title": new_title,
                "search_title": new_title.casefold(),
                "genre": new_genre,
            }
        )
    if changed:
        update = sa.update(MOVIE).where(MOVIE.c.id == sa.bindparam("this_movie"))
        connection.execute(update, changed)


def downgrade() -> None:
    """Change nothing: the older version reads both."""

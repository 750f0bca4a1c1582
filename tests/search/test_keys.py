"""Searches find titles as people type them."""

# ruff: noqa: RUF001 - characters that look alike are what it tests

from app.repository import MovieRepository
from app.search import SEARCH_KEY_MAX_LENGTH, search_key, search_words
from app.text import TITLE_MAX_LENGTH
from tests.helpers import listed

# (typed text, title that it finds).
TYPED = [
    ("the matrix", "Matrix, The (1999)"),
    ("matrix the", "Matrix, The (1999)"),
    ("Matrix, The", "Matrix, The (1999)"),
    ("MATRIX 1999", "Matrix, The (1999)"),
    ("atri", "Matrix, The (1999)"),
    ("les miserables", "Misérables, Les (1995)"),
    ("LES MISÉRABLES", "Misérables, Les (1995)"),
    ("la cite des enfants", "City of Lost Children, The (Cité des enfants perdus, La) (1995)"),
    ("the city of lost children", "City of Lost Children, The (Cité des enfants perdus, La)"),
    ("l'avventura", "Avventura, L' (1960)"),
    ("l’avventura", "Avventura, L' (1960)"),
    ("avventura", "Avventura, L' (1960)"),
    ("wall-e", "WALL·E (2008)"),
    ("walle", "WALL·E (2008)"),
    ("WALL·E", "WALL-E"),
    ("ocean’s eleven", "Ocean's Eleven (2001)"),
    ("oceans eleven", "Ocean's Eleven (2001)"),
    ("ocean's eleven", "Ocean’s Eleven"),
    ("ocean`s", "Ocean's Eleven (2001)"),
    ("istanbul", "\u0130stanbul"),
    ("\u0130STANBUL", "istanbul"),
    ("isik", "Işık"),
    ("spiderman", "Spider-Man (2002)"),
    ("spider man", "Spider-Man (2002)"),
    ("spider\u2013man", "Spider-Man (2002)"),
    ("mash", "M*A*S*H (1970)"),
    ("m*a*s*h", "M*A*S*H (1970)"),
    ("et", "E.T. the Extra-Terrestrial (1982)"),
    ("face off", "Face/Off (1997)"),
    ("8 1/2", "8½ (1963)"),
    ("8½", "8 1/2"),
    ("alien 3", "Alien³ (1992)"),
    ("strasse", "Straße"),
    ("STRASSE", "Straße"),
    ("grønne", "Grønne slagtere, De (2003)"),
    ("gronne slagtere", "Grønne slagtere, De (2003)"),
    ("aeon flux", "Æon Flux"),
    ("ｍａｔｒｉｘ", "Matrix, The (1999)"),
    ("film", "\ufb01lm"),
    ("tom and jerry", "Tom & Jerry"),
    ("tom & jerry", "Tom & Jerry"),
    ("tom jerry", "Tom & Jerry"),
    ("ДОМ", "Дом"),
    ("елки", "Ёлки"),
    ("東京", "東京物語"),
    ("がらす", "がらす"),
    ("हिन्दी", "हिन्दी"),
    ("$", "$ (1971)"),
    ("!!!", "!!!"),
    ("Pokemon: the first movie", "Pokémon: The First Movie"),
]


def test_typed_text_finds_the_title() -> None:
    failures = [
        (typed, title, search_words(typed), search_key(title))
        for typed, title in TYPED
        if not search_words(typed)
        or not all(word in search_key(title) for word in search_words(typed))
    ]

    assert not failures, listed(failures)


def test_search_finds_the_movies_that_have_all_words(repository: MovieRepository) -> None:
    titles = ("Matrix, The (1999)", "Matrix Reloaded, The (2003)", "Misérables, Les (1995)", "Heat")
    for title in titles:
        repository.create(title=title, year=2000)
    expected = {
        "the matrix": ["Matrix, The (1999)", "Matrix Reloaded, The (2003)"],
        "RELOADED matrix": ["Matrix Reloaded, The (2003)"],
        "les miserables": ["Misérables, Les (1995)"],
        "matrix heat": [],
        "the": ["Matrix, The (1999)", "Matrix Reloaded, The (2003)"],
        "'": [],
        "' -": [],
        "?": [],
    }

    assert {
        q: [movie.title for movie in repository.list(q=q, sort="id")] for q in expected
    } == expected


def test_key_begins_with_the_article_and_joins_hyphenated_words() -> None:
    keys = {
        "Spider-Man, The (2002)": "the spider man 2002 spiderman",
        "Tinker, Tailor, Soldier, Spy (1979)": "tinker tailor soldier spy 1979",
        "Avventura, L' (Adventure, The) (1960)": "lavventura the adventure 1960",
        "I, Tonya (2017)": "i tonya 2017",
        "  Heat  ": "heat",
    }

    assert {title: search_key(title) for title in keys} == keys


def test_words_within_others_are_dropped_and_the_longest_comes_first() -> None:
    assert search_words("the theory of it, wit") == ["theory", "wit", "of"]


def test_key_of_the_longest_title_can_be_stored(repository: MovieRepository) -> None:
    # Each character becomes eighteen.
    title = "\ufdfa" * TITLE_MAX_LENGTH

    repository.create(title=title, year=2000)

    assert len(search_key(title)) == SEARCH_KEY_MAX_LENGTH
    assert [movie.title for movie in repository.list(q="الله")] == [title]

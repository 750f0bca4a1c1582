"""The starter movies: what a new catalogue holds."""

from app.schemas import MovieCreate

STARTER_MOVIES = (
    MovieCreate(title="Inception", year=2010, genre="Sci-Fi"),
    MovieCreate(title="The Matrix", year=1999, genre="Sci-Fi"),
    MovieCreate(title="The Godfather", year=1972, genre="Crime"),
    MovieCreate(title="Spirited Away", year=2001, genre="Animation"),
    MovieCreate(title="Black Panther", year=2018, genre="Action"),
)

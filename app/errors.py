"""What can go wrong, in the service's own words. error_handlers.py maps each to a response."""

from collections.abc import Sequence


class MovieServiceError(Exception):
    """Root of every error that the service raises on purpose."""


class MovieNotFound(MovieServiceError):
    """No movie has this id."""


class MoviesNotFound(MovieNotFound):
    """Some ratings of a list are of movies that do not exist; their positions are named.

    Attributes:
        positions: where they stand in the list, counted from zero.
    """

    def __init__(self, positions: Sequence[int]) -> None:
        named = ", ".join(map(str, positions))
        super().__init__(f"Movie not found: at position {named} of the list, counted from zero")
        self.positions = positions


class RatingNotFound(MovieServiceError):
    """The user has not rated this movie."""


class DuplicateTitle(MovieServiceError):
    """Another movie already has this title."""


class DuplicateExternalId(MovieServiceError):
    """Another movie already has this IMDb or TMDB id. The message names which."""


class PreconditionFailed(MovieServiceError):
    """The stored movie is not the version that the caller has seen."""


class WrongApiKey(MovieServiceError):
    """A write request has no API key, or not the service's."""


class UnsupportedEncoding(MovieServiceError):
    """A request's body is compressed. The message names the encoding."""


class DatabaseError(MovieServiceError):
    """The database did not do what it was asked. Nothing was stored."""


class DatabaseBusy(DatabaseError):
    """Another writer held the database for longer than a request may wait."""


class DatabaseFull(DatabaseError):
    """The database's disk is full."""


class IdsExhausted(DatabaseFull):
    """Every id that a movie or rating can have is used."""


class DatabaseUnavailable(DatabaseError):
    """The database is out of reach, read-only or broken."""


class DatabaseFileReplaced(DatabaseUnavailable):
    """The SQLite file is not the one that was opened: deleted, moved, replaced or overwritten."""


class PermissionMissing(DatabaseUnavailable):
    """The service's database role may not read or write what the service does."""


class SequenceBehind(DatabaseUnavailable):
    """The database gives out ids that stored rows have, since these were copied with their ids."""


class SchemaMissing(DatabaseError):
    """The database has no tables, or not those of this version."""


class UnusableFile(MovieServiceError):
    """A file cannot be read or written as it is. The message says which, where in it and why."""


class SetupError(MovieServiceError):
    """The database cannot be used as it is. The message says why and what to do next."""

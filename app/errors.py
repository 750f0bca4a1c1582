"""What can go wrong. The table in app/http/errors.py maps each error to a response."""

from collections.abc import Sequence


class MovieServiceError(Exception):
    """Base of every error that the service raises on purpose."""


class MovieNotFound(MovieServiceError):
    """No movie has this id."""


class MoviesNotFound(MovieNotFound):
    """Some ratings of a list are of unknown movies; the message names their positions.

    Attributes:
        positions: their positions in the list, counted from zero.
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
    """The stored movie has changed since the caller read it."""


class WrongApiKey(MovieServiceError):
    """A write has no API key or a wrong one."""


class ClientDisconnected(MovieServiceError):
    """The client closed the connection before its request's turn came."""


class UnsupportedEncoding(MovieServiceError):
    """A request's body is compressed. The message names the encoding."""


class DatabaseError(MovieServiceError):
    """The database failed. Nothing was stored."""


class DatabaseBusy(DatabaseError):
    """Another writer locked the database for longer than a request may wait."""


class DatabaseFull(DatabaseError):
    """The database's disk is full."""


class IdsExhausted(DatabaseFull):
    """Every id that a movie or rating can have is used."""


class DatabaseUnavailable(DatabaseError):
    """The database is unreachable, read-only or broken."""


class DatabaseFileReplaced(DatabaseUnavailable):
    """The SQLite file was deleted, moved, replaced or overwritten after it was opened."""


class PermissionMissing(DatabaseUnavailable):
    """The service's database role lacks a privilege."""


class SequenceBehind(DatabaseUnavailable):
    """The id sequence is missing or behind the highest stored id: rows were copied without it."""


class SchemaMissing(DatabaseError):
    """The database lacks the tables or columns of this version."""


class UnusableFile(MovieServiceError):
    """A file cannot be read or written. The message says which, where in it and why."""


class SetupError(MovieServiceError):
    """The service cannot start or use its database. The message says why and what to do next."""

"""What can go wrong, in the service's own words. Status codes are given in error_handlers.py."""


class MovieServiceError(Exception):
    """Root of every error that the service raises on purpose."""


class MovieNotFound(MovieServiceError):
    """No movie has this id."""


class RatingNotFound(MovieServiceError):
    """The user has not rated this movie."""


class DuplicateTitle(MovieServiceError):
    """Another movie already has this title."""


class DatabaseBusy(MovieServiceError):
    """Other writers kept the database for longer than a request may wait."""


class WrongApiKey(MovieServiceError):
    """A request that writes has no API key, or another one than the service's."""


class UnusableFile(MovieServiceError):
    """A file cannot be read or written as it is. The message says which, where in it and why."""


class SetupError(MovieServiceError):
    """The database cannot be used as it is. The message says why and what to do next."""

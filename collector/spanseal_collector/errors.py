"""What can go wrong in the collector, as a shallow tree."""

from __future__ import annotations

__all__ = [
    "BindError",
    "BusyError",
    "CollectorError",
    "DecodeError",
    "ForbiddenError",
    "InadmissibleError",
    "NoTokenError",
    "StalledError",
    "TokenError",
    "TokenFileError",
    "TooLargeError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnsupportedError",
]


class CollectorError(Exception):
    """Base of all errors of this package."""


class BindError(CollectorError):
    """The address to listen at cannot be had."""


class DecodeError(CollectorError):
    """The bytes of a request are not OTLP."""


class TooLargeError(CollectorError):
    """A request is over a limit. Its message says "too large": over gRPC nothing else tells it from being busy."""


class UnsupportedError(CollectorError):
    """The content type or the compression of a request is not one that is taken."""


class UnauthenticatedError(CollectorError):
    """A request has no token, or one that never was; what was good until lately is `UnavailableError`."""


class ForbiddenError(CollectorError):
    """A request's token is good, but for something else."""


class NoTokenError(CollectorError):
    """The collector is to ask for tokens, and there is none that it could accept."""


class TokenError(CollectorError):
    """There is no such token, or it cannot be made as it was asked for."""


class TokenFileError(CollectorError):
    """The token file cannot be read or written."""


class InadmissibleError(CollectorError):
    """A record cannot be admitted; the message is the reason that is sealed with it. Never a request's error."""


class StalledError(CollectorError):
    """A sealed batch could not be stored in the time there was; whether it is stored is not known."""


class UnavailableError(CollectorError):
    """Nothing can be stored now; the client shall send the same again."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds."""


class BusyError(UnavailableError):
    """More is being sent than fits into memory; the same as unavailable, but it is the senders' doing."""

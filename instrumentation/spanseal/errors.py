"""What can go wrong on the application's side."""

from __future__ import annotations


class SpansealError(Exception):
    """Base of every error that this package raises."""


class ConfigurationError(SpansealError):
    """A setting has a value that cannot be used. The message names the variable."""


class InvalidRecord(SpansealError, ValueError):
    """`record()` or `set_actor()` was given something that cannot become an audit record."""


class NotAudited(SpansealError):
    """Something cannot be audited and must therefore not be done (`SPANSEAL_ON_ERROR=closed`)."""


class SpoolError(SpansealError):
    """Base of the spool's errors."""


class SpoolUnavailable(SpoolError):
    """The spool cannot take a record now: no space, no permission, a damaged file, an I/O error."""


class SpoolDamaged(SpoolUnavailable):
    """A spool file's bytes are not what was written: nothing more can be expected of it."""

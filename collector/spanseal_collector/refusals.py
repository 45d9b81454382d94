"""Why a request was not taken, in the words of both transports.

400 and INVALID_ARGUMENT are for bytes that are not OTLP, and for nothing else, since clients drop a batch for
good on them; whatever is temporary is 503 or UNAVAILABLE with RetryInfo, or 429 or RESOURCE_EXHAUSTED with
RetryInfo where more is sent than fits. 401 and UNAUTHENTICATED are for who has no token or one that never was;
clients drop on them too, so a token that was good until lately is 503. 500, INTERNAL and UNKNOWN are never
answered.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from spanseal_collector.errors import (
    BusyError,
    DecodeError,
    ForbiddenError,
    TooLargeError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)

__all__ = ["Refusal", "refusal"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is not a success."""

    http: int
    """Status code of HTTP."""
    code: int
    """Code of google.rpc.Code, which is also that of gRPC."""
    text: str
    retry_after: float | None = None
    """Seconds after which the same may be sent again; None where that would not help."""

    def status(self) -> status_pb2.Status:
        """Return it as the message that both transports carry, with RetryInfo where it is temporary."""
        status = status_pb2.Status(code=self.code, message=self.text)
        if self.retry_after is not None:
            delay = duration_pb2.Duration()
            delay.FromMilliseconds(round(self.retry_after * 1000))
            detail = any_pb2.Any()
            detail.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
            status.details.append(detail)
        return status


def refusal(error: BaseException) -> Refusal:  # noqa: PLR0911 - one line for each kind
    """Tell how an error of a request is answered."""
    match error:
        case DecodeError():
            return Refusal(400, code_pb2.INVALID_ARGUMENT, str(error))
        case UnauthenticatedError():
            return Refusal(401, code_pb2.UNAUTHENTICATED, str(error))
        case ForbiddenError():
            return Refusal(403, code_pb2.PERMISSION_DENIED, str(error))
        case TooLargeError():
            return Refusal(413, code_pb2.RESOURCE_EXHAUSTED, str(error))
        case UnsupportedError():
            return Refusal(415, code_pb2.UNIMPLEMENTED, str(error))
        case BusyError():
            return Refusal(429, code_pb2.RESOURCE_EXHAUSTED, str(error), error.retry_after)
        case UnavailableError():
            return Refusal(503, code_pb2.UNAVAILABLE, str(error), error.retry_after)
        case _:
            # A bug here must not make clients drop what they hold.
            _log.error("a request failed", exc_info=error)
            return Refusal(503, code_pb2.UNAVAILABLE, "the collector failed; see its log", 5)

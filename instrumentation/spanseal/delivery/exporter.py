"""One OTLP request: protobuf out, and what the answer means for the records in it. HTTP here, gRPC beside it."""

from __future__ import annotations

import email.utils
import enum
import gzip
import logging
import time
from dataclasses import dataclass
from typing import Protocol

import requests
from google.protobuf.message import DecodeError
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from spanseal.__about__ import __version__
from spanseal.throttle import Throttle

from .endpoint import Export

__all__ = ["Answer", "Exporter", "HttpExporter", "Verdict", "judge_response", "open_exporter"]

logger = logging.getLogger("spanseal")

_throttle = Throttle()

MAX_RETRY_AFTER = 300.0
"""Seconds: a longer Retry-After is not waited for."""

_MAX_ANSWER = 64 << 10
_PROTOBUF = "application/x-protobuf"


class Verdict(enum.Enum):
    """What an answer means for a batch."""

    STORED = "stored"
    """All of it is durable: the spool may forget it."""
    REFUSED = "refused"
    """Something in it will never be taken; what, only smaller batches tell."""
    LATER = "later"
    """Nothing is known to be stored: send the same again."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The verdict on one request."""

    verdict: Verdict
    reason: str = ""
    """For people; holds neither a header that was sent nor any part of a record."""
    retry_after: float | None = None
    """Seconds, where the server named a time."""


class Exporter(Protocol):
    """Sends request bodies to one endpoint. Used by one thread."""

    def send(self, body: bytes, timeout: float) -> Answer:
        """Send one ExportLogsServiceRequest. Never raises: what went wrong is in the answer.

        Args:
            body: The serialised request.
            timeout: Seconds for all of it.
        """

    def close(self) -> None:
        """Close the connection."""


def open_exporter(export: Export) -> Exporter:
    """Return an exporter that speaks the configured protocol. Nothing is connected before something is sent."""
    if export.protocol == "grpc":
        # Only where it is wanted: gRPC brings threads and a memory of its own.
        from .grpc_exporter import GrpcExporter  # noqa: PLC0415

        return GrpcExporter(export)
    return HttpExporter(export)


class HttpExporter:
    """Sends request bodies to one endpoint over one kept-alive connection. Used by one thread."""

    def __init__(self, export: Export) -> None:
        self._export = export
        self._session = requests.Session()
        self._session.headers.update(
            {
                "User-Agent": f"Spanseal/{__version__}",
                "Content-Type": _PROTOBUF,
                **export.headers,
            }
        )
        # An Authorization header of ~/.netrc would replace the configured one.
        self._session.auth = lambda prepared: prepared
        if export.client_certificate:
            self._session.cert = (
                (export.client_certificate, export.client_key)
                if export.client_key
                else export.client_certificate
            )
        if export.gzip:
            self._session.headers["Content-Encoding"] = "gzip"

    def send(self, body: bytes, timeout: float) -> Answer:
        """Send one ExportLogsServiceRequest. Never raises: what went wrong is in the answer.

        Args:
            body: The serialised request.
            timeout: Seconds for connecting, for each silence of the server, and for its whole answer.
        """
        data = gzip.compress(body, compresslevel=5, mtime=0) if self._export.gzip else body
        end = time.monotonic() + timeout
        try:
            # The application's own instrumentation must not make spans of this.
            with suppress_instrumentation():
                response = self._session.post(
                    self._export.endpoint,
                    data=data,
                    timeout=timeout,
                    allow_redirects=False,
                    stream=True,
                    # Given here: REQUESTS_CA_BUNDLE goes before what a session has.
                    verify=self._export.certificate or True,
                )
                with response:
                    content = _content(response, end)
        except Exception as error:  # noqa: BLE001 - requests lets errors of several libraries through
            return Answer(Verdict.LATER, f"{self._export.shown} cannot be reached: {_kind(error)}")
        return _judge(self._export.shown, response, content)

    def close(self) -> None:
        """Close the connection."""
        self._session.close()


def _content(response: requests.Response, end: float) -> bytes:
    """Read an answer to its end.

    Raises:
        TimeoutError: It goes on for too long.
        ValueError: It is larger than an answer can be.
    """
    content = bytearray()
    while data := response.raw.read(4096, decode_content=True):
        content += data
        if len(content) > _MAX_ANSWER:
            raise ValueError("the answer is too large")
        if time.monotonic() > end:
            raise TimeoutError("the answer takes too long")
    return bytes(content)


def _judge(endpoint: str, response: requests.Response, content: bytes) -> Answer:
    status = response.status_code
    if status == 200:
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        return judge_response(endpoint, content if kind == _PROTOBUF else None)
    if status in (400, 413):
        return Answer(Verdict.REFUSED, f"{endpoint} answered {status}")
    advice = {
        401: ": check OTEL_EXPORTER_OTLP_HEADERS",
        403: ": check OTEL_EXPORTER_OTLP_HEADERS",
        404: ": check OTEL_EXPORTER_OTLP_ENDPOINT, /v1/logs is added to it",
        405: ": check OTEL_EXPORTER_OTLP_ENDPOINT, /v1/logs is added to it",
        415: ": it takes no OTLP protobuf",
    }.get(status, "")
    return Answer(Verdict.LATER, f"{endpoint} answered {status}{advice}", _retry_after(response))


def judge_response(endpoint: str, content: bytes | None) -> Answer:
    """Say what an answer means whose status is success.

    Args:
        endpoint: Who gave it, for people.
        content: The serialised ExportLogsServiceResponse; None for an answer that is none.
    """
    try:
        if content is None:
            raise DecodeError
        partial = ExportLogsServiceResponse.FromString(content).partial_success
    except DecodeError:
        # Some other server answers 200 to anything: it is no evidence that records are stored.
        return Answer(
            Verdict.LATER, f"{endpoint} accepted the records, but does not answer as an OTLP receiver does"
        )
    if partial.rejected_log_records:
        return Answer(Verdict.REFUSED, f"{endpoint} rejected {partial.rejected_log_records} records")
    if partial.error_message and _throttle.due(endpoint):
        logger.warning("%s took the audit records with a warning", endpoint)
    return Answer(Verdict.STORED)


def _retry_after(response: requests.Response) -> float | None:
    """Read Retry-After (RFC 9110 section 10.2.3): seconds or a date."""
    text = response.headers.get("Retry-After", "").strip()
    if not text:
        return None
    if text.isdecimal() and len(text) < 10:
        seconds = float(text)
    else:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _kind(error: Exception) -> str:
    """Say what went wrong by the kind of the error alone: its text may hold a URL with a password."""
    cause: BaseException | None = error
    names: list[str] = []
    while cause is not None and len(names) < 3:
        names.append(type(cause).__name__)
        cause = cause.__cause__ or cause.__context__
    return " from ".join(names)

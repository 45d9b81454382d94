"""HTTP for the collector's tests: requests as bytes on a socket, and what is stored behind them."""

from __future__ import annotations

import http.client
import io
import json
import socket
from pathlib import Path
from typing import Any, Self

import requests
from google.rpc import status_pb2

from examples.demo.processes import Collector, run_spanseal
from spanseal_storage.access import open_reader
from spanseal_storage.directory import DataDirectory
from spanseal_storage.rows import query

PROTOBUF = {"Content-Type": "application/x-protobuf"}


def post(url: str, body: bytes, **headers: str) -> requests.Response:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return requests.post(url + "/v1/logs", data=body, headers=PROTOBUF | named, timeout=30)


def status(answer: requests.Response) -> status_pb2.Status:
    assert answer.headers["content-type"] == "application/x-protobuf"
    return status_pb2.Status.FromString(answer.content)


class _Answers(io.BufferedReader):
    """What comes on a connection, read ahead once for all answers on it."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(socket.SocketIO(connection, "r"))

    def makefile(self, *_: object) -> Self:
        return self

    def close(self) -> None:
        """Stay open: http.client closes it after each answer."""


def raw_answers(port: int, data: bytes, count: int = 1) -> list[int]:
    """Send bytes on one connection and read so many answers; returns their status codes."""
    codes = []
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(data)
        answers = _Answers(connection)
        for _ in range(count):
            answer = http.client.HTTPResponse(answers)  # type: ignore[arg-type]  # it asks for nothing else
            answer.begin()
            answer.read()
            codes.append(answer.status)
    return codes


def head(length: int | None, *extra: str, version: str = "1.1") -> bytes:
    lines = [
        f"POST /v1/logs HTTP/{version}",
        "Host: localhost",
        "Content-Type: application/x-protobuf",
        *([] if length is None else [f"Content-Length: {length}"]),
        *extra,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def rows(data: Path, sql: str) -> list[Any]:
    """Run a query over what a collector stored, whether it runs or not."""
    with open_reader(DataDirectory(data), "test") as client:
        return query(client, sql)


def verdict(data: Path, *options: str) -> dict[str, Any]:
    done = run_spanseal("verify", "--data", str(data), "--json", *options)
    assert done.stdout, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if result["verdict"] == "clean" else 1), done.stderr
    return result


def health(collector: Collector) -> dict[str, Any]:
    found: dict[str, Any] = requests.get(collector.url + "/health", timeout=30).json()
    return found

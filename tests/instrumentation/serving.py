"""Real WSGI servers in a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.simple_server import make_server as make_wsgiref

from werkzeug.serving import WSGIRequestHandler as WerkzeugHandler
from werkzeug.serving import make_server as make_werkzeug


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_arguments: Any) -> None:
        pass


class _QuietWerkzeug(WerkzeugHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_arguments: Any) -> None:
        pass


@contextmanager
def wsgiref_server(application: Any) -> Iterator[int]:
    """Serve with the standard library's server; gives the port."""
    with make_wsgiref("127.0.0.1", 0, application, WSGIServer, _Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


@contextmanager
def werkzeug_server(application: Any) -> Iterator[int]:
    """Serve with Flask's development server, a thread for each request; gives the port."""
    server = make_werkzeug("127.0.0.1", 0, application, threaded=True, request_handler=_QuietWerkzeug)
    # Requests in flight are waited for, so that a test sees what they leave.
    server.daemon_threads = False  # type: ignore[attr-defined]  # socketserver's own name
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()

"""The project's routes and views: paths, patterns, users, errors, streams, asynchronous views."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Iterator

from django.contrib.auth import authenticate, login, logout
from django.contrib.auth.decorators import login_required
from django.core.handlers.asgi import ASGIRequest
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import include, path, re_path

import spanseal


def health(_request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


@login_required  # type: ignore[untyped-decorator]  # Django has no types
def patient(request: HttpRequest, pk: int) -> HttpResponse:
    if request.method == "POST":
        spanseal.record("patient.checked", resource_id=pk)
    return HttpResponse(spanseal.request_id())


def unlooked(_request: HttpRequest, pk: str) -> HttpResponse:
    return HttpResponse(pk)


def widget(_request: HttpRequest, token: str) -> HttpResponse:
    return HttpResponse(token)


async def slow(_request: HttpRequest, pk: int) -> HttpResponse:
    await asyncio.sleep(0)
    spanseal.record("patient.waited", resource_id=pk)
    return HttpResponse(spanseal.request_id())


def sign_in(request: HttpRequest) -> HttpResponse:
    user = authenticate(request, username=request.POST["username"], password=request.POST["password"])
    if user is None:
        return HttpResponse("no", status=401)
    login(request, user)
    return HttpResponse("yes")


def sign_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return HttpResponse("bye")


def boom(_request: HttpRequest) -> HttpResponse:
    raise LookupError("s3cr3t")


def missing(_request: HttpRequest) -> HttpResponse:
    raise Http404("s3cr3t")


def stream(_request: HttpRequest) -> StreamingHttpResponse:
    def rows() -> Iterator[bytes]:
        spanseal.record("row.sent")
        yield b"1,"
        yield b"2"

    return StreamingHttpResponse(rows())


def hang(_request: HttpRequest, pk: int) -> HttpResponse:
    sys.stderr.write(f"hanging {pk}\n")
    sys.stderr.flush()
    threading.Event().wait()
    return HttpResponse("never")


def begin(request: HttpRequest, pk: int) -> StreamingHttpResponse:
    def rows() -> Iterator[str]:
        yield f"patient {pk}"
        threading.Event().wait()

    async def rows_of_asgi() -> AsyncIterator[str]:
        yield f"patient {pk}"
        await asyncio.Event().wait()

    return StreamingHttpResponse(rows_of_asgi() if isinstance(request, ASGIRequest) else rows())


def own_id(_request: HttpRequest) -> HttpResponse:
    answer = HttpResponse("own")
    answer["X-Request-Id"] = "the application's"
    return answer


urlpatterns = [
    path("healthz", health),
    path("patients/<int:pk>/", patient),
    path("clinic/", include([re_path(r"^wards/(?P<pk>[a-z0-9-]+)/$", unlooked)])),
    path("patients/<int:pk>/slow/", slow),
    path("login/", sign_in),
    path("logout/", sign_out),
    path("widgets/<str:token>/", widget),
    path("boom/", boom),
    path("missing/", missing),
    path("stream/", stream),
    path("hang/<int:pk>/", hang),
    path("begin/<int:pk>/", begin),
    path("own/", own_id),
]

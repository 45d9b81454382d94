"""Traffic for the clinic: four people at once, each with a role and a session, over real HTTP.

    python -m examples.clinic.traffic http://127.0.0.1:8000 --count 400

The requests follow from the seed; how those of different people mix does not.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random

import click
import requests

from .clinic.seed import ACCOUNTS
from .people import ROLES, Call, Drawer, next_call, sign_in, sign_out

__all__ = ["Answered", "Report", "Traffic"]

TIMEOUT_S = 10.0
"""For a connection, and for each wait for bytes of an answer."""
_SIGN_OUT_SHARE = 0.04
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.5
_BROKEN = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
)


@dataclass(frozen=True, slots=True)
class Answered:
    """One request that is over."""

    method: str
    path: str
    """Without the query."""
    status: int
    """0 where no whole answer came."""
    request_id: str | None
    """The answer's `X-Request-Id` header."""
    actor: str
    """The user name that was signed in, or that this request signed in or out; empty for nobody."""


@dataclass(slots=True)
class Report:
    """What became of a run's requests."""

    answered: list[Answered] = field(default_factory=list)
    unanswered: int = 0
    """Requests whose connection broke, or that timed out, before a whole answer had come."""


class Traffic:
    """Traffic for one server, drawn from a seed."""

    def __init__(self, url: str, *, seed: int, secrets: Sequence[str] = (), limit: float = 600.0) -> None:
        """Prepare it; nothing is sent yet.

        Args:
            url: Where the clinic answers, without a path.
            seed: The same seed makes the same people ask for the same things.
            secrets: Values that are planted wherever a secret can stand in a request: query, cookie,
                `Authorization` and `X-Api-Key` headers, passwords, notes, a mistyped number. Letters, digits and
                `._~-`, at most 128, a letter first: no number, and no encoding on the way makes another text of it.
            limit: Seconds after which a run sends nothing more, even if its count is not reached.

        Raises:
            ValueError: A secret has other characters, or is too long.
        """
        for position, secret in enumerate(secrets):
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9._~-]{0,127}", secret):
                raise ValueError(
                    f"secret number {position} must be a letter and up to 127 letters, digits or ._~-: "
                    "choose another one"
                )
        self._url = url.rstrip("/")
        self._seed = seed
        self._secrets = tuple(secrets)
        self._limit = limit

    def run(self, count: int, on_answer: Callable[[Answered], None] | None = None) -> Report:
        """Send requests, from one thread for each role, and return when they are over.

        Args:
            count: How many requests.
            on_answer: Called for each request that is over, answered or not (then with status 0), in the thread
                that sent it: several at a time. What it raises ends the run.

        Returns:
            What became of them. `answered` has the order in which the answers came.
        """
        run = _Run(self._url, time.monotonic() + self._limit, on_answer)
        share, rest = divmod(count, len(ROLES))
        with ThreadPoolExecutor(len(ROLES), thread_name_prefix="clinic-traffic") as pool:
            futures = []
            try:
                for number, role in enumerate(ROLES):
                    drawer = Drawer(Random(f"{self._seed}/{role}"), self._secrets)  # noqa: S311 - no cryptography
                    person = _Person(run, role, drawer)
                    futures.append(pool.submit(person.work, share + (number < rest)))
                for future in futures:
                    future.result()
            finally:
                run.stop.set()
        return run.report


class _Run:
    """What the people of one run share."""

    def __init__(self, url: str, deadline: float, on_answer: Callable[[Answered], None] | None) -> None:
        self.url = url
        self.deadline = deadline
        self.stop = threading.Event()
        self.report = Report()
        self._on_answer = on_answer
        self._lock = threading.Lock()

    def over(self) -> bool:
        return self.stop.is_set() or time.monotonic() > self.deadline

    def note(self, done: Answered) -> None:
        with self._lock:
            if done.status:
                self.report.answered.append(done)
            else:
                self.report.unanswered += 1
        if self._on_answer is not None:
            self._on_answer(done)


class _Person:
    """One client thread: somebody of a role, and the colleagues who take turns at the same desk."""

    def __init__(self, run: _Run, role: str, drawer: Drawer) -> None:
        self._run = run
        self._role = role
        self._drawer = drawer
        self._names = [account.username for account in ACCOUNTS if account.role == role]
        self._turns = 0
        self._actor = ""
        self._own, self._strangers = _session(), _session()
        self._pause = _FIRST_PAUSE_S

    def work(self, count: int) -> None:
        """Send `count` requests, or fewer where the run is over."""
        try:
            for _ in range(count):
                if self._run.over():
                    return
                self._step()
        except BaseException:
            self._run.stop.set()
            raise
        finally:
            self._own.close()
            self._strangers.close()

    def _step(self) -> None:
        if not self._actor:
            name = self._names[self._turns % len(self._names)]
            answer = self._send(sign_in(name), actor=name)
            if answer is not None and answer.status_code == 200:
                self._actor = name
            return
        if self._drawer.random.random() < _SIGN_OUT_SHARE:
            answer = self._send(sign_out(), actor=self._actor)
            if answer is not None and answer.status_code == 200:
                self._actor = ""
                self._turns += 1
            return
        call = next_call(self._role, self._drawer)
        answer = self._send(call, actor="" if call.stranger else self._actor)
        if answer is None or call.stranger:
            return
        if answer.status_code == 401:
            self._actor = ""
        elif answer.status_code == 201 and call.path == "/users":
            self._drawer.accounts.append(int(answer.json()["id"]))

    def _send(self, call: Call, *, actor: str) -> requests.Response | None:
        """Send one request, once, and note what became of it; returns None where no whole answer came."""
        session = self._strangers if call.stranger else self._own
        query, headers, cookies = dict(call.query), {}, {}
        if self._drawer.secrets:
            secret = self._drawer.secret("")
            query["token"] = secret
            headers = {"Authorization": f"Bearer {secret}", "X-Api-Key": secret}
            cookies = {"tracking": secret}
        try:
            answer = session.request(
                call.method,
                self._run.url + call.path,
                params=query,
                json=call.body,
                headers=headers,
                cookies=cookies,
                timeout=TIMEOUT_S,
                allow_redirects=False,
            )
        except _BROKEN:
            self._run.note(Answered(call.method, call.path, 0, None, actor))
            # The next request opens a connection of its own; a server that is away is not asked without pause.
            session.close()
            self._run.stop.wait(self._pause)
            self._pause = min(self._pause * 2, _LONGEST_PAUSE_S)
            return None
        self._pause = _FIRST_PAUSE_S
        request_id = answer.headers.get("X-Request-Id")
        self._run.note(Answered(call.method, call.path, answer.status_code, request_id, actor))
        return answer


def _session() -> requests.Session:
    session = requests.Session()
    session.headers["Accept"] = "application/json"
    # Neither a proxy nor a password of this machine's settings.
    session.trust_env = False
    return session


@click.command()
@click.argument("url")
@click.option("--count", default=400, show_default=True, help="How many requests.")
@click.option("--seed", default=7, show_default=True, help="What they are drawn from.")
def main(url: str, count: int, seed: int) -> None:
    """Send traffic to the clinic at URL and print how it was answered."""
    report = Traffic(url, seed=seed).run(count)
    for status, number in sorted(Counter(answer.status for answer in report.answered).items()):
        click.echo(f"{status}  {number}")
    click.echo(f"unanswered  {report.unanswered}")


if __name__ == "__main__":
    main()

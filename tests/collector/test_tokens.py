"""The token file, its commands, and what is limited and counted of failures."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from spanseal_collector.authentication import GRACE_SECONDS, Authenticator, Tokens, is_loopback, tokens_needed
from spanseal_collector.errors import (
    BusyError,
    ForbiddenError,
    NoTokenError,
    TokenError,
    TokenFileError,
    UnauthenticatedError,
    UnavailableError,
)
from spanseal_collector.failures import FailureReports, PeerLimit
from spanseal_collector.sealer import Notice
from spanseal_collector.token_commands import tokens
from spanseal_collector.tokens import TOKEN, Scope, TokenFile, new_token, parse_lifetime
from spanseal_storage.directory import DataDirectory, write_private


def run(*arguments: str) -> Result:
    return CliRunner().invoke(tokens, arguments)


def listed(data: Path) -> list[dict[str, str | None]]:
    return [json.loads(line) for line in run("list", "--json", "--data", str(data)).stdout.splitlines()]


def test_a_token_is_made_listed_and_revoked(tmp_path: Path) -> None:
    data = tmp_path / "data"
    options = ("--tenant", "acme", "--expires", "90d", "--name", "otelcol in Zürich")
    made = run("create", "--scope", "ingest", "--data", str(data), *options)
    assert made.exit_code == 0, made.output
    text = made.stdout.strip()
    found = TOKEN.fullmatch(text)
    assert found is not None
    assert found[1] in made.stderr
    assert text not in made.stderr
    stored = data / "keys" / "tokens.json"
    assert stored.stat().st_mode & 0o777 == 0o600
    assert text[-43:] not in stored.read_text()
    entry = listed(data)[0]
    assert (entry["id"], entry["scope"], entry["tenant"]) == (found[1], "ingest", "acme")
    assert (entry["name"], entry["state"]) == ("otelcol in Zürich", "active")
    table = run("list", "--data", str(data)).output
    assert "acme" in table
    assert json.loads(stored.read_text())["tokens"][0]["sha256"] not in table + json.dumps(entry)

    assert run("revoke", str(found[1]), "--data", str(data)).exit_code == 0
    first = stored.read_bytes()
    assert run("revoke", str(found[1]), "--data", str(data)).exit_code == 0
    assert stored.read_bytes() == first
    assert listed(data)[0]["state"] == "revoked"
    # The log is named when a collector makes it, not by this.
    assert DataDirectory(data).create("audit.example.org/later").log_name == "audit.example.org/later"
    assert len(listed(data)) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "--scope", "ingest", "--tenant", "_collector"), "collector's own"),
        (("create", "--scope", "ingest", "--tenant", "a\nb"), "printable"),
        (("create", "--scope", "ingest", "--name", "n" * 256), "255"),
        (("create", "--scope", "ingest", "--expires", "soon"), "90d"),
        (("create", "--scope", "all"), "ingest"),
        (("revoke", "000000000000"), "no token"),
        (("revoke", "sst_000000000000_" + "s" * 43), "12 hex digits"),
    ],
)
def test_what_cannot_be_done_is_told_and_nothing_is_made(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    result = run(*arguments, "--data", str(tmp_path / "data"))
    assert result.exit_code == 2
    assert said in result.stderr
    assert "s" * 43 not in result.output
    assert not (tmp_path / "data").exists()


def test_a_directory_with_something_else_in_it_gets_no_tokens(tmp_path: Path) -> None:
    (tmp_path / "report.odt").touch()
    result = run("create", "--scope", "ingest", "--data", str(tmp_path))
    assert (result.exit_code, "not empty" in result.stderr) == (2, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.odt"]


def test_lifetimes() -> None:
    assert [parse_lifetime(text) for text in ("5m", "2h", "90d", "52w")] == [300, 7200, 7_776_000, 31_449_600]
    for text in ("", "0d", "-1d", "1.5d", "90", "9999999d", "1y", "٣d"):
        with pytest.raises(TokenError):
            parse_lifetime(text)


def test_tokens_made_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    file = TokenFile(DataDirectory(tmp_path / "data"))
    made = [new_token(Scope.INGEST)[1] for _ in range(24)]

    def add(some: int) -> None:
        for token in made[some::4]:
            file.add(token)

    threads = [threading.Thread(target=add, args=(some,)) for some in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(token.id for token in file.read()[0]) == sorted(token.id for token in made)


DAMAGED = [
    b"",
    b"\xff",
    b"[]",
    b"{}",
    b'{"version": 2, "tokens": []}',
    b'{"version": 1, "tokens": [{}]}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_file_is_told_and_never_replaced(tmp_path: Path, text: bytes) -> None:
    run("create", "--scope", "ingest", "--data", str(tmp_path / "data"))
    path = tmp_path / "data" / "keys" / "tokens.json"
    path.write_bytes(text)
    for arguments in (("list",), ("create", "--scope", "ingest"), ("revoke", "0" * 12)):
        result = run(*arguments, "--data", str(tmp_path / "data"))
        assert result.exit_code == 2
        assert "tokens.json" in result.stderr
    assert path.read_bytes() == text


@pytest.mark.parametrize(
    "change", [{"sha256": "x"}, {"scope": "all"}, {"tenant": 1}, {"expires_at": "1"}, {"id": 1}]
)
def test_an_entry_that_is_not_one_makes_the_file_unreadable(
    tmp_path: Path, change: dict[str, object]
) -> None:
    file = TokenFile(DataDirectory(tmp_path / "data"))
    file.add(new_token(Scope.INGEST)[1])
    data = json.loads(file.path.read_text())
    data["tokens"][0] |= change
    file.path.write_text(json.dumps(data))
    with pytest.raises(TokenFileError):
        file.read()


def test_when_tokens_are_needed(tmp_path: Path) -> None:
    file = TokenFile(DataDirectory(tmp_path / "data"))

    def needed(host: str, *, require: bool = False, insecure: bool = False) -> bool:
        return tokens_needed(file, host, require=require, insecure=insecure)

    local = ("127.0.0.1", "127.1.2.3", "::1", "localhost")
    beyond = ("0.0.0.0", "::", "192.0.2.1", "audit.example.org", "::ffff:192.0.2.1")
    assert [is_loopback(host) for host in (*local, *beyond)] == [True] * 4 + [False] * 5
    file.add(new_token(Scope.READ)[1])
    assert not any(needed(host) for host in local)
    for host in beyond:
        assert not needed(host, insecure=True)
        with pytest.raises(NoTokenError, match="insecure-no-auth"):
            needed(host)
    with pytest.raises(NoTokenError, match="require-tokens"):
        needed("127.0.0.1", require=True)
    token = new_token(Scope.INGEST)[1]
    file.add(token)
    file.revoke(token.id, 1)
    # A revoked one too: to take the last token away opens nothing.
    assert all(needed(host, insecure=True) for host in (*local, *beyond))
    file.path.chmod(0o644)
    with pytest.raises(TokenFileError, match="chmod 600"):
        needed("127.0.0.1")


class Reports(FailureReports):
    """Keeps what would be sealed."""

    def __init__(self, seconds: float = 60.0) -> None:
        self.notices: list[Notice] = []
        self.refuse = False
        self.broken = False
        super().__init__(self._keep, seconds=seconds)

    def _keep(self, notices: list[Notice], size: int) -> Future[None]:
        assert size > 0
        if self.refuse:
            raise UnavailableError("the storage takes no records", 5)
        done: Future[None] = Future()
        if self.broken:
            done.set_exception(UnavailableError("not stored", 5))
        else:
            self.notices += notices
            done.set_result(None)
        return done

    def said(self) -> list[tuple[str, int]]:
        return [
            (notice.metadata["audit.auth.reason"], int(notice.metadata["audit.auth.attempts"]))
            for notice in self.notices
        ]


def test_who_may_send_and_since_when_no_more(tmp_path: Path) -> None:
    file = TokenFile(DataDirectory(tmp_path / "data"))
    now = [1_000_000.0]
    made = {
        name: new_token(scope, tenant=tenant, lifetime=lifetime, now=1_000_000)
        for name, scope, tenant, lifetime in (
            ("ingest", Scope.INGEST, "", None),
            ("bound", Scope.INGEST, "acme", 100),
            ("admin", Scope.ADMIN, "", None),
            ("read", Scope.READ, "", None),
            ("bound reader", Scope.READ, "acme", None),
        )
    }

    async def check() -> None:
        reports = Reports()
        subject = Authenticator(Tokens(file, required=False), reports, clock=lambda: now[0])

        def send(name: str) -> str:
            return subject.sender([f"Bearer {made[name][0]}"], "192.0.2.1")

        # Without a token that may send, nobody needs one; the first that is made changes that.
        assert subject.sender([], "192.0.2.1") == ""
        assert subject.sender(["Bearer nonsense"], "192.0.2.1") == ""
        for _, token in made.values():
            file.add(token)
        assert [send(name) for name in ("ingest", "bound", "admin")] == ["", "acme", ""]
        assert subject.sender([f"bearer  {made['bound'][0]} "], "192.0.2.1") == "acme"
        with pytest.raises(ForbiddenError, match="read"):
            send("read")
        wrong = made["ingest"][0]
        others = (
            wrong[:-1] + ("A" if wrong[-1] != "A" else "B"),
            wrong + "A",
            wrong[4:],
            "é",
            "x" * 60_000,
            "",
        )
        for headers in (
            [],
            [""],
            ["Basic dTpw"],
            [wrong],
            [f"Bearer {wrong}", f"Bearer {wrong}"],
            *([f"Bearer {other}"] for other in others),
        ):
            with pytest.raises(UnauthenticatedError) as told:
                subject.sender(headers, "192.0.2.1")
            assert wrong[-43:] not in str(told.value)
        assert [subject.may_read(made[name][0]) for name in made] == [False, False, True, True, False]

        for name, ends in (("bound", 100.0), ("ingest", 200.0)):
            if name == "ingest":
                file.revoke(made[name][1].id, 1_000_200)
            now[0] = 1_000_000 + ends - 1
            assert send(name) == made[name][1].tenant
            for later in (0.0, GRACE_SECONDS - 1.0):
                now[0] = 1_000_000 + ends + later
                with pytest.raises(UnavailableError, match=made[name][1].id) as temporary:
                    send(name)
                assert type(temporary.value) is UnavailableError
                assert temporary.value.retry_after > 0
            now[0] += 1
            with pytest.raises(UnauthenticatedError):
                send(name)
        # A secret that is wrong tells nothing of its token's state.
        with pytest.raises(UnauthenticatedError, match=r"not known here$"):
            subject.sender([f"Bearer {wrong[:-43]}{'A' * 43}"], "192.0.2.9")
        assert {reason for reason, _ in reports.said()} == {
            "missing", "unknown", "scope", "expired", "revoked", "tenant_cannot_read",
        }  # fmt: skip
        assert [count for _, count in reports.said()] == [1] * 6
        assert made["ingest"][1].id in str([notice.metadata for notice in reports.notices])

    asyncio.run(check())


def test_a_file_that_cannot_be_read_is_temporary_for_everybody(tmp_path: Path) -> None:
    file = TokenFile(DataDirectory(tmp_path / "data"))
    text, token = new_token(Scope.INGEST)

    async def check() -> None:
        reports = Reports()
        subject = Authenticator(Tokens(file, required=False), reports)
        file.add(token)
        whole = file.path.read_text()
        broken: tuple[Callable[[], object], ...] = (
            lambda: file.path.write_text(whole[:-5]),
            lambda: file.path.write_text(""),
            lambda: file.path.chmod(0o640),
            file.path.unlink,
        )
        for break_it in broken:
            assert subject.sender([f"Bearer {text}"], "192.0.2.1") == ""
            break_it()
            for headers in ([f"Bearer {text}"], ["Bearer nonsense"], []):
                for _ in range(20):
                    with pytest.raises(UnavailableError, match="cannot be told now") as told:
                        subject.sender(headers, "192.0.2.1")
                    assert not isinstance(told.value, BusyError)
            assert not subject.may_read(text)
            write_private(file.path, whole)
        assert reports.said() == [("token_file_unreadable", 1)]
        assert reports.total == 4 * 61

    asyncio.run(check())


def test_a_peer_that_fails_too_often_is_told_to_wait_and_few_are_remembered() -> None:
    now = [0.0]
    limit = PeerLimit(failures=3, seconds=60, peers=5, clock=lambda: now[0])
    assert [limit.failed("192.0.2.1") for _ in range(5)] == [0, 0, 0, 60, 60]
    assert limit.failed("192.0.2.2") == 0
    assert limit.failed("::ffff:192.0.2.1") == 60
    # A whole network of version 6 is one peer's.
    assert [limit.failed(f"2001:db8::{some}") for some in range(4)][-1] == 60
    now[0] = 59.0
    assert limit.failed("192.0.2.1") == 1.0
    now[0] = 60.0
    assert limit.failed("192.0.2.1") == 0
    for some in range(100):
        limit.failed(f"198.51.100.{some}")
        limit.failed(f"not an address {some}")
    assert len(limit) == 5


def test_failures_are_sealed_at_once_then_together_and_none_is_forgotten() -> None:
    async def check() -> None:
        reports = Reports()
        for _ in range(5):
            reports.count("missing")
        reports.count("revoked", "0" * 12)
        assert reports.said() == [("missing", 1), ("revoked", 1)]
        assert json.loads(reports.notices[1].metadata["audit.auth.token_ids"]) == ["0" * 12]
        assert {notice.outcome for notice in reports.notices} == {"failure"}
        reports.flush()
        assert reports.said()[2:] == [("missing", 4)]
        # What could not be stored is told with the next.
        for trouble in ("refuse", "broken"):
            reports.notices.clear()
            setattr(reports, trouble, True)
            reports.count("unknown", "1" * 12)
            await asyncio.sleep(0)
            setattr(reports, trouble, False)
            reports.count("unknown")
            assert reports.said() == []
            reports.flush()
            assert reports.said() == [("unknown", 2)]
            assert "1" * 12 in reports.notices[0].metadata["audit.auth.token_ids"]
        assert reports.total == 10

        often = Reports(seconds=0.01)
        for _ in range(3):
            often.count("missing")
        while len(often.notices) < 2:  # noqa: ASYNC110 - until the timer has run
            await asyncio.sleep(0.01)
        assert often.said() == [("missing", 1), ("missing", 2)]

    asyncio.run(check())

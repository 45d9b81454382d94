"""The demonstration, step by step; every step looks at what really happened and fails where it is not so."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from examples.clinic.traffic import Answered, Report, Traffic
from examples.demo.forgeries import FORGERIES, Forgery
from examples.demo.processes import Clinic, Collector, run_spanseal

__all__ = ["Story", "StoryError"]

_SETTLE_SECONDS = 30.0


class StoryError(RuntimeError):
    """Something is not as the demonstration says."""


class Story:
    """One run of the demonstration in a folder of its own."""

    def __init__(self, console: Console, folder: Path, *, requests: int, seed: int) -> None:
        self._console = console
        self._folder = folder
        self._requests = requests
        self._seed = seed
        self._data = folder / "log"
        self._killed: list[str] = []
        self._collector = Collector(self._data, folder / "collector.txt")
        self._clinic = Clinic(folder, collector_url=self._collector.url, log=folder / "clinic.txt")

    def tell(self) -> None:
        """Run every step.

        Raises:
            StoryError: something is not as it must be.

        """
        with contextlib.ExitStack() as stack:
            stack.callback(self._collector.kill)
            stack.callback(self._clinic.kill)
            self._step("A collector and a Flask app, both real processes")
            self._collector.start()
            self._clinic.start()
            self._say(f"collector  {self._collector.url}/v1/logs, log in {self._data}")
            self._say(f"clinic     {self._clinic.url}, 2 gunicorn workers, source without a word of Spanseal")
            report = self._traffic()
            self._counted(report)
            self._one_request(report)
            self._clinic.stop()
            self._collector.stop()
        self._step("Verify")
        self._spanseal("verify", "--data", str(self._data), expected=0)
        self._forge()
        self._farewell()

    # --- steps -------------------------------------------------------------------------------------------

    def _traffic(self) -> Report:
        self._step("Traffic; a worker and the collector are killed with SIGKILL in the middle")
        columns = (
            TextColumn("requests"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
        )
        # A console of its own: a picture of what is shown is drawn of whole lines, not of a moving bar.
        with Progress(*columns, console=Console(), transient=True) as bar:
            task = bar.add_task("", total=self._requests, note="")
            kills = self._kills(lambda note: bar.update(task, note=note))
            lock = threading.Lock()
            done = 0

            def answered(_: Answered) -> None:
                nonlocal done
                with lock:
                    done += 1
                    bar.update(task, completed=done)
                    act = kills.pop(0)[1] if kills and done >= kills[0][0] else None
                if act is not None:
                    act()

            report = Traffic(self._clinic.url, seed=self._seed).run(self._requests, on_answer=answered)
        if kills:
            raise StoryError("the traffic ended before everything was killed")
        self._say(f"{self._requests} requests by four people of four roles; " + "; ".join(self._killed))
        return report

    def _kills(self, note: Callable[[str], None]) -> list[tuple[int, Callable[[], None]]]:
        def worker() -> None:
            pid = self._clinic.children()[0]
            os.kill(pid, signal.SIGKILL)
            note(f"killed worker {pid}")
            self._killed.append(f"killed gunicorn's worker {pid}")

        def collector() -> None:
            pid = self._collector.pid
            self._collector.kill()
            note(f"killed collector {pid}")
            self._collector.start()
            note(f"killed collector {pid}, started again")
            self._killed.append(f"killed collector {pid}, started it again")

        return [(self._requests * 3 // 10, worker), (self._requests * 6 // 10, collector)]

    def _counted(self, report: Report) -> None:
        self._step("Every request that got an answer has its record")
        answered = {answer.request_id for answer in report.answered if answer.request_id}
        nameless = [answer for answer in report.answered if not answer.request_id]
        found = self._wait_for(answered)
        missing = answered - found.keys()
        twice = [request_id for request_id, count in found.items() if count > 1]
        outcomes = self._query(
            "SELECT outcome, count() AS n FROM events WHERE service='clinic' "
            "AND request_id != '' GROUP BY outcome ORDER BY outcome"
        )
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_row("requests sent", str(len(report.answered) + report.unanswered))
        table.add_row("answered", str(len(report.answered)))
        table.add_row("unanswered (their worker was killed)", str(report.unanswered))
        table.add_row("answered, without a record", str(len(missing) + len(nameless)))
        table.add_row("with more than one request record", str(len(twice)))
        table.add_row("records by outcome", ", ".join(f"{row['outcome']} {row['n']}" for row in outcomes))
        self._console.print(table)
        if missing or nameless or twice:
            raise StoryError("records are missing or there twice; see the table")

    def _one_request(self, report: Report) -> None:
        failed = [a for a in report.answered if a.status == 403 and a.request_id]
        chosen = (failed or report.answered)[len(failed or report.answered) // 2]
        self._step(f"Who did what: the records of one request, {chosen.request_id}")
        self._spanseal(
            "events", "--data", str(self._data), "--request-id", chosen.request_id or "", expected=0
        )
        self._say("")
        self._spanseal(
            "events", "--data", str(self._data), "--outcome", "failure", "--limit", "5", expected=0
        )

    def _forge(self) -> None:
        self._step("Forgeries, each on a copy, by somebody with every right on the database")
        table = Table()
        for heading in ("what was done", "spanseal verify says"):
            table.add_column(heading, overflow="fold")
        for forgery in FORGERIES:
            table.add_row(*self._forgery(forgery))
        self._console.print(table)
        self._say(
            "The tail that is cut and the suffix that is rewritten, signatures and all, leave a database that"
        )
        self._say("agrees with itself: they show against the checkpoint log, which is kept outside of it.")

    def _forgery(self, forgery: Forgery) -> tuple[Text, Text]:
        copy = self._folder / f"forged-{forgery.name}"
        shutil.copytree(self._data, copy, symlinks=True)
        done = forgery.commit(copy)
        verified = run_spanseal("verify", "--data", str(copy), "--json")
        findings = json.loads(verified.stdout or "{}").get("findings", [])
        named = [finding for finding in findings if finding["kind"] == forgery.expected]
        if verified.returncode != 1 or not named:
            raise StoryError(f"{forgery.title}: not named ({verified.stdout or verified.stderr})")
        says = Text(f"{named[0]['kind']}", style="bold red")
        says.append(f" at seq {named[0]['seq']}: {named[0]['message']}", style="not bold")
        return Text.assemble((forgery.title, "bold"), f": {done}"), says

    def _farewell(self) -> None:
        self._step("What to try next")
        for command in (
            f"spanseal events --data {self._data} --outcome failure --limit 10",
            f'spanseal query --data {self._data} "SELECT actor_id, action, count() FROM events GROUP BY ALL"',  # noqa: S608 - shown
            f"spanseal verify --data {self._folder / 'forged-rewrite'}",
            f"spanseal keys show --data {self._data}",
        ):
            self._say(f"  .venv/bin/{command}")

    # --- helpers -----------------------------------------------------------------------------------------

    def _wait_for(self, answered: set[str]) -> dict[str, int]:
        """Wait until what the killed worker and the outage left behind has arrived."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while True:
            rows = self._query(
                "SELECT request_id, count() AS n FROM events WHERE request_id != '' "
                "AND metadata['audit.capture'] = 'wsgi' GROUP BY request_id"
            )
            found = {str(row["request_id"]): int(row["n"]) for row in rows}
            if answered <= found.keys() or time.monotonic() > deadline:
                return found
            time.sleep(0.2)

    def _query(self, sql: str) -> list[dict[str, Any]]:
        done = run_spanseal("query", "--data", str(self._data), "--json", sql)
        if done.returncode:
            raise StoryError(done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def _spanseal(self, *arguments: str, expected: int) -> None:
        self._console.print(Text(f"$ spanseal {' '.join(arguments)}", style="dim"), soft_wrap=True)
        colour = {"FORCE_COLOR": "1", "TTY_INTERACTIVE": "0"} if self._console.is_terminal else {}
        done = run_spanseal(*arguments, env={"COLUMNS": str(self._console.width), **colour})
        self._console.print(Text.from_ansi(done.stdout.strip("\n")), soft_wrap=True)
        if done.returncode != expected:
            raise StoryError(f"spanseal {arguments[0]} ended with {done.returncode}: {done.stderr}")

    def _step(self, title: str) -> None:
        self._console.print()
        self._console.rule(Text(title, style="bold"), align="left", characters="─")

    def _say(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)

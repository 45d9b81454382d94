"""What users write, for the type checker: mypy reads this file as it reads theirs. Nothing here is run.

A line that must be refused bears `type: ignore` with the error's code; mypy complains where it is not refused.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from typing import assert_type

import flask
from flask.views import MethodView

import spanseal
from spanseal import Actor
from spanseal.logging import RequestIdFilter
from spanseal.testing import Record, Records, capture_audit


class Invoice:
    number: int = 0
    status: str = "open"


# --- functions keep their signatures -----------------------------------------------------------------------------


@spanseal.audited("invoice.approved", resource_id="number", attributes=["amount"])
def approve(number: int, *, amount: float = 0) -> Invoice:
    invoice = Invoice()
    invoice.number += number if amount else 0
    return invoice


@spanseal.audited("invoice.sent", resource_id=lambda invoice: invoice.number, on="end")
async def send(invoice: Invoice) -> bool:
    return invoice.number > 0


@spanseal.audited("invoice.exported", attributes={"format": "csv"})
def export(count: int) -> Iterator[str]:
    yield str(count)


@spanseal.audited("invoice.streamed", changes=spanseal.changes_of("invoice", fields=["status"]))
async def stream(invoice: Invoice) -> AsyncIterator[str]:
    yield invoice.status


class Service:
    @spanseal.audited("service.called", resource_id="{self.name}")
    def method(self, word: str) -> int:
        return len(word)

    @classmethod
    @spanseal.audited("service.called")
    def of(cls, word: str) -> Service:
        return cls() if word else Service()

    @staticmethod
    @spanseal.audited("service.called")
    def count(word: str) -> int:
        return len(word)

    @property
    @spanseal.audited("service.called")
    def name(self) -> str:
        return "service"


async def calls(service: Service) -> None:
    assert_type(approve(1, amount=2.0), Invoice)
    assert_type(await send(Invoice()), bool)
    assert_type(list(export(3)), list[str])
    assert_type([one async for one in stream(Invoice())], list[str])
    assert_type(service.method("x"), int)
    assert_type(Service.of("x"), Service)
    assert_type(Service.count("x"), int)
    assert_type(service.name, str)
    approve("1")  # type: ignore[arg-type]
    approve(1, 2.0)  # type: ignore[call-arg]
    service.method()  # type: ignore[call-arg]
    await send(1)  # type: ignore[arg-type]


spanseal.audited("it.done", on="middle")  # type: ignore[arg-type]
spanseal.audited("it.done", changes={"a": 1})  # type: ignore[arg-type]


# --- who acts ----------------------------------------------------------------------------------------------------


@spanseal.actor("cron", type="system")
def nightly(day: str) -> int:
    with spanseal.actor(Actor("importer", type="service", role="batch")) as who:
        assert_type(who, Actor)
        spanseal.set_actor("user-5")
    return len(day)


assert_type(nightly("monday"), int)
nightly(5)  # type: ignore[arg-type]
spanseal.actor(5)  # type: ignore[arg-type]


# --- records -----------------------------------------------------------------------------------------------------


def records(before: Invoice, after: dict[str, object]) -> None:
    spanseal.record(
        "invoice.updated",
        resource_id=5,
        outcome="failure",
        failure_reason="limit",
        actor=Actor("u"),
        attributes={"a": [1, {"b": None}]},
        changes=spanseal.changes(before, after, fields=("status",), redact={"status"}),
    )
    spanseal.annotate(action="invoice.updated", resource_id="5", attributes={"a": 1})
    spanseal.record(action="it.done", when="now")  # type: ignore[call-arg]
    spanseal.annotate("it.done")  # type: ignore[call-arg]
    assert_type(spanseal.request_id(), str)


# --- views -------------------------------------------------------------------------------------------------------

app = flask.Flask("example")


@app.post("/invoices/<int:number>/approve")
@spanseal.action("invoice.approved", resource_id="number")
def approve_view(number: int) -> str:
    return str(number)


@spanseal.action("invoice.touched", methods=["POST", "PUT"])
class Invoices(MethodView):
    @spanseal.action("invoice.read")
    def get(self, number: int) -> str:
        return str(number)


assert_type(approve_view(5), str)
assert_type(Invoices().get(5), str)
app.add_url_rule("/invoices/<int:number>", view_func=Invoices.as_view("invoices"))
spanseal.instrument_app(app)

# --- logs and tests ----------------------------------------------------------------------------------------------

logging.getLogger().handlers[0].addFilter(RequestIdFilter(default="none"))


def test() -> None:
    with capture_audit(app) as captured:
        assert_type(captured, Records)
        assert_type(captured[0], Record)
        assert_type(captured[1:], list[Record])
        assert_type(captured.actions, list[str])
        assert_type(captured[0].actor.role, str)

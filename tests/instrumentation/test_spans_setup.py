"""How server spans come to be followed, in processes of their own: by the hook, late, not at all, and without Flask."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.instrumentation.fake_receiver import FakeReceiver
from tests.instrumentation.frameworks.serving import BIN, ROOT

REQUEST = """
with tracer.start_as_current_span("x", kind=trace.SpanKind.SERVER, attributes={"http.method": "GET", "http.route": "/a"}):
    import spanseal
    spanseal.record("inner.done")
    print("id", len(spanseal.request_id()))
"""
GLOBAL = "from opentelemetry import trace\ntracer = trace.get_tracer('t')\n" + REQUEST
LATE = (
    """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
tracer = trace.get_tracer("made before there was a provider")
trace.set_tracer_provider(TracerProvider(sampler=ALWAYS_OFF))
"""
    + REQUEST
)
OTHER = (
    """
from opentelemetry import trace
trace.set_tracer_provider(trace.NoOpTracerProvider())
tracer = trace.get_tracer("t")
"""
    + REQUEST * 2
)
# As in an environment where they are not installed.
NO_FLASK = (
    """
import sys
for name in ("flask", "werkzeug", "blinker"):
    sys.modules[name] = None
from opentelemetry.instrumentation.auto_instrumentation import initialize
initialize()
"""
    + GLOBAL
)


def run(tmp_path: Path, receiver: FakeReceiver, program: str, **env: str) -> tuple[list[str], str]:
    """Run a program; return the actions that were received, and what it said."""
    words = [sys.executable, "-c", program]
    if "initialize()" not in program:
        words.insert(0, str(BIN / "opentelemetry-instrument"))
    whole = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "SPANSEAL_"))},
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "SPANSEAL_SPOOL_DIR": str(tmp_path / "spool"),
        **env,
    }
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT, env=whole)
    assert done.returncode == 0, done.stderr
    assert "id " in done.stdout
    return [
        r.action for r in receiver.taken if not r.action.startswith("producer.")
    ], done.stdout + done.stderr


@pytest.mark.parametrize(
    ("program", "env"),
    [(GLOBAL, {"OTEL_TRACES_SAMPLER": "always_off"}), (LATE, {"OTEL_PYTHON_CONFIGURATOR": "none"})],
    ids=["the SDK's", "the application's own"],
)
def test_the_global_provider(
    tmp_path: Path, receiver: FakeReceiver, program: str, env: dict[str, str]
) -> None:
    actions, said = run(tmp_path, receiver, program, **env)
    assert actions == ["inner.done", "a.viewed"]
    assert "id 36" in said
    ids = {r.attributes["audit.request.id"] for r in receiver.taken if not r.action.startswith("producer.")}
    assert len(ids) == 1
    assert "not audited" not in said


def test_it_can_be_switched_off(tmp_path: Path, receiver: FakeReceiver) -> None:
    actions, said = run(tmp_path, receiver, GLOBAL, SPANSEAL_SPANS="false")
    assert (actions, "id 0" in said) == (["inner.done"], True)


@pytest.mark.parametrize(
    ("program", "env", "reason"),
    [
        (GLOBAL, {"OTEL_SDK_DISABLED": "true"}, "OTEL_SDK_DISABLED is true"),
        (OTHER, {"OTEL_PYTHON_CONFIGURATOR": "none"}, "NoOpTracerProvider"),
    ],
    ids=["disabled", "another"],
)
def test_without_the_sdk_it_is_said_once_that_spans_are_missed(
    tmp_path: Path, receiver: FakeReceiver, program: str, env: dict[str, str], reason: str
) -> None:
    actions, said = run(tmp_path, receiver, program, **env)
    assert set(actions) == {"inner.done"}
    assert said.count("requests of other frameworks than Flask are not audited") == 1
    assert reason in said


def test_flask_need_not_be_installed(tmp_path: Path, receiver: FakeReceiver) -> None:
    actions, said = run(tmp_path, receiver, NO_FLASK)
    assert actions == ["inner.done", "a.viewed"]
    assert "Traceback" not in said

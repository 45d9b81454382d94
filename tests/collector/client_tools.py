"""Clients in other languages, installed once into a cache outside of the repository, at locked versions.

Where they cannot be had (no toolchain, no network) a test is skipped and says why; in continuous integration it
fails instead.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

JAVASCRIPT = Path(__file__).parent / "javascript"
_TELEMETRYGEN = "github.com/open-telemetry/opentelemetry-collector-contrib/cmd/telemetrygen@v0.161.0"
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spanseal-tests"
_INSTALL_SECONDS = 540
"""The first time, on a machine that has none of it."""
_unavailable: dict[str, str] = {}


def javascript() -> list[str]:
    """Return the command that runs `send.mjs` with the SDK that `package-lock.json` names."""
    node = _program("node", [])
    npm = _program("npm", [])
    files = [JAVASCRIPT / name for name in ("package.json", "package-lock.json")]

    def install(folder: Path) -> None:
        for file in files:
            shutil.copy(file, folder)
        # No script of any package is run: none of them needs one.
        _run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder, {})

    content = b"".join(file.read_bytes() for file in files)
    folder = _installed("javascript", hashlib.sha256(content).hexdigest(), install)
    # A module finds packages beside itself only; another test process may be about to do the same.
    program = Path(shutil.copy(JAVASCRIPT / "send.mjs", folder / f"send-{os.getpid()}.mjs"))
    return [node, str(program.replace(folder / "send.mjs"))]


def telemetrygen() -> str:
    """Return the path of OpenTelemetry's load generator."""
    go = _program("go", ["/usr/local/go/bin/go"])

    def install(folder: Path) -> None:
        _run([go, "install", _TELEMETRYGEN], folder, {"GOBIN": str(folder)})

    version = hashlib.sha256(_TELEMETRYGEN.encode()).hexdigest()
    return str(_installed("telemetrygen", version, install) / "telemetrygen")


def _program(name: str, elsewhere: list[str]) -> str:
    found = shutil.which(name) or next((path for path in elsewhere if Path(path).exists()), None)
    if found is None:
        _missing(f"{name} is not installed")
    return found


def _installed(name: str, version: str, install: Callable[[Path], None]) -> Path:
    """Return the folder of this version; of several test processes one makes it."""
    if name in _unavailable:
        _missing(_unavailable[name])
    folder = _CACHE / f"{name}-{version[:16]}"
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            try:
                install(folder)
            except (OSError, subprocess.SubprocessError) as error:
                # Without a network this takes a minute: it is not tried again for each test.
                _unavailable[name] = f"{name} cannot be installed: {error}"
                _missing(_unavailable[name])
            (folder / "complete").touch()
    return folder


def _run(command: list[str], folder: Path, env: dict[str, str]) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=_INSTALL_SECONDS,
        check=False,
    )
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-5:])
        raise subprocess.SubprocessError(f"{' '.join(command[:2])} ended with {done.returncode}: {said}")


def _missing(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)

"""Virtual environments for what must not be in this one: made once, with locked packages, under `.cache`."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]
CACHE = _ROOT / ".cache" / "venvs"


def cached_venv(name: str, *, audited: bool = False) -> Path:
    """Make a virtual environment of `requirements/third-party-<name>.txt`, or find the one made before.

    Where it cannot be made, for want of a network or of a compiler, the test is skipped; where CI=true it fails.

    Args:
        name: Names the file of locked requirements.
        audited: Whether this checkout is installed into it as well, without its dependencies.

    Returns:
        Its folder of programs.
    """
    locked = _ROOT / "requirements" / f"third-party-{name}.txt"
    made_of = f"{sys.version} {audited} {hashlib.sha256(locked.read_bytes()).hexdigest()}"
    folder, mark = CACHE / name, CACHE / f"{name}.made"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.flock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several test processes one makes it
        if not (mark.exists() and mark.read_text() == made_of):
            mark.unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            _run([sys.executable, "-m", "venv", str(folder)])
            pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
            pip.append("--disable-pip-version-check")
            _run([*pip, "--require-hashes", "-r", str(locked)])
            if audited:
                _run([*pip, "--no-deps", "--no-build-isolation", "-e", str(_ROOT)])
            mark.write_text(made_of)
    return folder / "bin"


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    if done.returncode == 0:
        return
    said = "\n".join((done.stdout + done.stderr).splitlines()[-5:])
    reason = f"{' '.join(command[:5])} … ended with {done.returncode}: {said}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)

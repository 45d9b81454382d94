"""The clinic, made anew in a folder of its own, with passwords that are hashed fast."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask

from examples.clinic.clinic import create_app

FAST = "pbkdf2:sha256:1000"


def new_app(folder: Path) -> Flask:
    return create_app({"DATABASE": folder / "clinic.sqlite", "PASSWORD_METHOD": FAST})


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    return new_app(tmp_path)

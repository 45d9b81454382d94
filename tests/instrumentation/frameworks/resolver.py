"""An application's own way to know who acts."""

from __future__ import annotations


def who() -> str:
    return "resolved"

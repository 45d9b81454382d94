"""From the settings of a process to its gate."""

from __future__ import annotations

import os
import re
import threading
import weakref
from pathlib import Path

from spanseal.errors import ConfigurationError
from spanseal.meaning.rules_file import read
from spanseal.meaning.yaml_schema import Document, Node
from spanseal.runtime import Runtime

from .errors import GateUnavailable
from .gate import Gate
from .policy import Policy, load_function
from .policy_file import read_policy
from .sqlite_store import SqliteStore
from .store import Store

__all__ = ["default_store", "gate_of", "is_open", "is_told", "load_policy", "policy_of", "store_of"]

_lock = threading.Lock()
_gates: weakref.WeakKeyDictionary[Runtime, Gate] = weakref.WeakKeyDictionary()
_policies: weakref.WeakKeyDictionary[Runtime, Policy | GateUnavailable | None] = weakref.WeakKeyDictionary()


# Told by its line: what is wrong in a file can be anything, also what YAML cannot read.
_SECTION = re.compile(r"""^[\s{,]*["']?privileged["']?\s*:""", re.MULTILINE)


class _Unread:
    """Stands for a policy that was not looked for."""


_UNREAD = _Unread()


def load_policy(path: Path | None) -> Policy | None:
    """Read the policy of a rules file.

    Args:
        path: The rules file, None where there is none.

    Returns:
        None where it has no section `privileged`.

    Raises:
        GateUnavailable: It has one, or the file cannot be read at all: what is privileged is not known.
    """
    if path is None:
        return None
    found: list[Policy] = []

    def section(document: Document, node: Node) -> None:
        found.append(read_policy(document, node))

    try:
        read(path, section)
    except ConfigurationError as error:
        text = _text_of(path)
        if text and not _SECTION.search(text):
            return None  # the rules are wrong: that is said, and decided, where requests are recorded
        raise GateUnavailable(
            f"what is privileged cannot be read from the rules file:\n{error}", seed_only=not text
        ) from error
    return found[0] if found else None


def _text_of(path: Path) -> str:
    """Return the file's text, or nothing where it cannot be read."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def policy_of(runtime: Runtime) -> Policy | None:
    """Return a process's policy, read once. Errors as of `load_policy`, and a setting's."""
    found = _policies.get(runtime, _UNREAD)
    if isinstance(found, _Unread):
        with _lock:
            if runtime not in _policies:
                try:
                    _policies[runtime] = load_policy(_rules_file(runtime))
                except GateUnavailable as error:
                    _policies[runtime] = error
            found = _policies[runtime]
    if isinstance(found, GateUnavailable):
        raise GateUnavailable(str(found), seed_only=found.seed_only)
    return found


def is_open(runtime: Runtime) -> bool:
    """Say whether it is known that a process has no policy."""
    return _policies.get(runtime, _UNREAD) is None


def is_told() -> bool:
    """Say whether something is privileged, or may be, where the settings themselves cannot be read."""
    try:
        return load_policy(_named()) is not None
    except GateUnavailable:
        return True


def _rules_file(runtime: Runtime) -> Path | None:
    try:
        return runtime.settings.rules
    except ConfigurationError:
        # Another setting is wrong. What is privileged is still that.
        return _named()


def _named() -> Path | None:
    given = os.environ.get("SPANSEAL_RULES", "").strip()
    return Path(given).absolute() if given else None


def gate_of(runtime: Runtime) -> Gate:
    """Return a process's gate; by an empty policy where there is none. Errors as of `policy_of`."""
    policy = policy_of(runtime) or Policy()
    with _lock:
        gate = _gates.get(runtime)
        if gate is None:
            settings = runtime.settings
            gate = _gates[runtime] = Gate(policy, lambda: store_of(policy, settings.spool_dir))
    return gate


def default_store(spool_dir: Path) -> Path:
    """Say where approvals are where nothing else is said: in a directory that the spool's bound does not count."""
    return spool_dir / "approvals" / "approvals.db"


def store_of(policy: Policy, spool_dir: Path) -> Store:
    """Return the store that a policy names, or the default one.

    Raises:
        GateUnavailable: The function that is to make it fails.
    """
    if not policy.store_factory:
        return SqliteStore(policy.store or default_store(spool_dir))
    try:
        made = load_function(policy.store_factory, "`privileged: store`")()
    except Exception as error:
        raise GateUnavailable(
            f"`privileged: store` ({policy.store_factory}) failed: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(made, Store):
        raise GateUnavailable(f"`privileged: store` ({policy.store_factory}) returned no Store")
    return made

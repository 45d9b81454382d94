"""The section `privileged` of the rules file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from spanseal.meaning.mapping import wrong_action
from spanseal.meaning.yaml_schema import Document, Node

from .policy import SEED, SESSION_KEY, Policy, Requirement, duration

__all__ = ["read_policy"]

_KEYS = ("actions", "seed", "confirmation", "approvers", "store")
_OF_AN_ACTION = ("confirm", "approval", "use_within", "bind_body")
_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


def read_policy(document: Document, node: Node) -> Policy:
    """Read the section. What is wrong in it is told to the document: it is right if `Document.check` passes.

    Args:
        document: The rules file.
        node: The section's value.
    """
    return _Reader(document).policy(node)


class _Reader:
    def __init__(self, document: Document) -> None:
        self._document = document

    def policy(self, node: Node) -> Policy:
        keys = self._document.mapping(node, "`privileged`", _KEYS)
        actions: dict[str, Requirement] = {}
        if "seed" in keys and self._document.flag(keys["seed"], "`seed`"):
            actions.update(SEED)
        if "actions" in keys:
            for key_node, action, value in self._document.pairs(keys["actions"], "`actions`"):
                if wrong := wrong_action(action):
                    self._document.wrong(key_node, f"the action `{action}` {wrong}")
                else:
                    actions[action] = self._requirement(value, action)
        if not actions and not self._document.problems and "actions" not in keys and "seed" not in keys:
            self._document.wrong(node, "nothing is privileged here: write `actions:`, or `seed: true`")
        confirmation = self._one_of(keys, "confirmation", ("session_key", "callable"))
        approvers = self._approvers(keys)
        store, factory = self._store(keys)
        return Policy(
            actions=actions,
            session_key=confirmation.get("session_key") or SESSION_KEY,
            confirmation=confirmation.get("callable", ""),
            approvers=approvers[0],
            approver_roles=approvers[1],
            store=store,
            store_factory=factory,
        )

    def _requirement(self, node: Node, action: str) -> Requirement:
        keys = self._document.mapping(node, f"`{action}`", _OF_AN_ACTION)
        found: dict[str, Any] = {
            name: self._duration(keys[name], name) for name in _OF_AN_ACTION[:3] if name in keys
        }
        requirement = Requirement(**found)
        if "bind_body" in keys and self._document.flag(keys["bind_body"], "`bind_body`"):
            requirement = replace(requirement, bind_body=True)
        if "confirm" not in keys and "approval" not in keys:
            self._document.wrong(node, f"`{action}` takes nothing: write confirm: 15m, approval: 1h, or both")
        for name in ("use_within", "bind_body"):
            if name in keys and "approval" not in keys:
                self._document.wrong(keys[name], f"`{name}` is about approvals: write `approval` too")
        return requirement

    def _duration(self, node: Node, name: str) -> int:
        text = self._document.text(node, f"`{name}`")
        if text is None:
            return 0
        try:
            return duration(text)
        except ValueError as error:
            self._document.wrong(node, f"`{name}` is `{text}`: {error}")
            return 0

    def _one_of(self, keys: Mapping[str, Node], name: str, allowed: tuple[str, ...]) -> dict[str, str]:
        """Read a mapping with exactly one of some keys, whose value is a text."""
        if name not in keys:
            return {}
        parts = self._document.mapping(keys[name], f"`{name}`", allowed)
        if len(parts) > 1:
            self._document.wrong(keys[name], f"`{name}` comes from one place: write {' or '.join(allowed)}")
        found = {}
        for key, node in parts.items():
            text = self._document.text(node, f"`{key}`")
            if text is not None and (key != "callable" or self._is_function(node, text)):
                found[key] = text
        if not parts and not self._document.problems:
            self._document.wrong(keys[name], f"`{name}` says nothing: write {' or '.join(allowed)}")
        return found

    def _approvers(self, keys: Mapping[str, Node]) -> tuple[str, frozenset[str]]:
        if "approvers" not in keys:
            return "", frozenset()
        node = keys["approvers"]
        parts = self._document.mapping(node, "`approvers`", ("callable", "roles"))
        if len(parts) != 1:
            self._document.wrong(node, "`approvers` are said in one way: write callable or roles")
            return "", frozenset()
        if "roles" in parts:
            roles = [
                self._document.text(item, "a role")
                for item in self._document.one_or_more(parts["roles"], "`roles`")
            ]
            return "", frozenset(role.strip() for role in roles if role is not None)
        text = self._document.text(parts["callable"], "`callable`")
        return (text if text is not None and self._is_function(parts["callable"], text) else ""), frozenset()

    def _store(self, keys: Mapping[str, Node]) -> tuple[Path | None, str]:
        if "store" not in keys:
            return None, ""
        node = keys["store"]
        if isinstance(node.value, list):
            return None, self._one_of(keys, "store", ("callable",)).get("callable", "")
        text = self._document.text(node, "`store`")
        if text is None:
            return None, ""
        # Beside the file that names it, whatever directory the process works in.
        return (self._document.path.parent / text).absolute(), ""

    def _is_function(self, node: Node, text: str) -> bool:
        if _FUNCTION.fullmatch(text):
            return True
        self._document.wrong(node, f"`{text}` is no function: write module:function")
        return False

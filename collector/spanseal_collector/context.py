"""What the records of one scope of one resource have in common, read once for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spanseal_collector import attributes
from spanseal_collector.errors import InadmissibleError
from spanseal_collector.otlp import Group
from spanseal_ledger.metadata import Value, typed_text

__all__ = ["Context", "read_context"]


@dataclass(frozen=True, slots=True)
class Context:
    """Where a record came from."""

    service: str
    metadata: Mapping[str, tuple[str, str]]
    """`resource.*` and `scope.*`: text and letter of its type, by key."""
    size: int
    """Bytes of the texts in it."""


def read_context(group: Group) -> Context:
    """Read the resource and the scope of a group.

    Raises:
        InadmissibleError: one of them cannot be decoded, or what it says cannot be stored.
        LedgerError: a value has no text.

    """
    resource = attributes.read_attributes(group.read_resource().attributes, "resource attributes")
    service = resource.pop("service.name", "")
    if not isinstance(service, str):
        raise InadmissibleError("resource attribute service.name must be a string")
    values: dict[str, Value] = {f"resource.{key}": value for key, value in resource.items()}
    scope = group.read_scope()
    of_scope: dict[str, Value] = {
        f"scope.{key}": value
        for key, value in attributes.read_attributes(scope.attributes, "scope attributes").items()
    }
    for key, raw in (("scope.name", scope.name), ("scope.version", scope.version)):
        if raw:
            if key in of_scope:
                raise InadmissibleError(f"the key {key} is given twice")
            of_scope[key] = attributes.text(raw, key)
    metadata = {key: typed_text(value) for key, value in (values | of_scope).items()}
    size = len(service) + sum(len(key) + len(text) for key, (text, _) in metadata.items())
    return Context(service, metadata, size)

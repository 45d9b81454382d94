"""What an application says about the current request's own record."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Annotation"]


@dataclass(slots=True)
class Annotation:
    """It goes before the view's mark, the rules and the defaults; what is empty here is theirs."""

    action: str = ""
    resource_type: str = ""
    resource_id: str = ""
    outcome: str = ""
    failure_reason: str = ""
    attributes: dict[str, object] = field(default_factory=dict)

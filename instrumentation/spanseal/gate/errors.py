"""What can go wrong with privileged actions."""

from __future__ import annotations

from spanseal.errors import SpansealError

__all__ = [
    "ApprovalError",
    "GateUnavailable",
    "NotPending",
    "OwnApproval",
    "StoreUnavailable",
    "TooManyRequests",
    "UnknownApproval",
]


class GateUnavailable(SpansealError):
    """It cannot be found out whether something is allowed, so it is not."""

    def __init__(self, message: str, *, seed_only: bool = False) -> None:
        super().__init__(message)
        self.seed_only = seed_only
        """Whether that holds for the seed's actions alone: nothing tells that there is a policy at all."""


class StoreUnavailable(GateUnavailable):
    """The store of approvals cannot be read or written now."""


class ApprovalError(SpansealError):
    """Base of what a store refuses; nothing has changed."""


class UnknownApproval(ApprovalError):
    """There is none of that id."""


class NotPending(ApprovalError):
    """It is decided, used or expired already."""


class OwnApproval(ApprovalError):
    """Nobody approves what he asked for himself."""


class TooManyRequests(ApprovalError):
    """Too many requests of one person wait already."""

"""Which checkpoints of a chain are to be believed (rule 5, but for the root)."""

from __future__ import annotations

from dataclasses import dataclass

from spanseal_ledger.checkpoint import Checkpoint
from spanseal_ledger.errors import (
    BadSignature,
    CheckpointError,
    KeyFormatError,
    MalformedNote,
    NoTrustedSignature,
)
from spanseal_ledger.note import VerificationKey, open_note
from spanseal_ledger.verifier._model import TrustedKeys

__all__ = ["ChainKeys", "Untrusted", "key_of"]


class Untrusted(Exception):
    """A checkpoint is not to be believed."""

    def __init__(self, why: str, message: str) -> None:
        """Give the reason as a word and as a sentence."""
        super().__init__(message)
        self.why = why


@dataclass(slots=True)
class ChainKeys:
    """The keys whose signatures count for one chain."""

    chain_id: str
    trusted: TrustedKeys
    own: VerificationKey | None = None
    """The key that the chain's first record names: nobody else signs for a chain."""
    unpinned: VerificationKey | None = None
    """A key found only in the data, whose signature was relied on."""

    def open(self, note: str, *, own_only: bool) -> Checkpoint:
        """Verify a note as a checkpoint of this chain.

        Args:
            note: the signed note.
            own_only: whether it must be the chain's own key that signed, where that is known.

        Raises:
            Untrusted: it is malformed, another chain's or log's, or not signed as it should be.

        """
        keys = {*self.trusted.pinned, *self.trusted.found}
        if self.own is not None:
            keys.add(self.own)
        try:
            text, signers = open_note(note, keys)
            checkpoint = Checkpoint.parse(text)
            log_name, chain_id = checkpoint.log_name, checkpoint.chain_id
        except (MalformedNote, CheckpointError) as error:
            raise Untrusted("malformed", f"malformed: {error}") from None
        except NoTrustedSignature as error:
            raise Untrusted("signer", str(error)) from None
        except BadSignature as error:
            raise Untrusted("signature", str(error)) from None
        if chain_id != self.chain_id:
            raise Untrusted("chain", f"it is a checkpoint of chain {chain_id}")
        if own_only and self.own is not None and self.own not in signers:
            raise Untrusted("signer", f"signed by {signers[0]}, but the chain's key is {self.own}")
        signers = [key for key in signers if key.name.startswith(log_name + "/")]
        if not signers:
            raise Untrusted("log", f"no key of the log {log_name!a} signed it")
        if not any(key in self.trusted.pinned for key in signers):
            self.unpinned = signers[0]
        return checkpoint


def key_of(text: str) -> VerificationKey | None:
    """Read a vkey out of a record; None where it is malformed."""
    try:
        return VerificationKey.parse(text)
    except KeyFormatError:
        return None

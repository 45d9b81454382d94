"""The verifier: a pure state machine over what others read for it. No I/O, no clock.

A `ChainVerifier` is fed one chain's rows in the order of seq, or runs of rows that somebody else has already
hashed; a `LogVerifier` puts the chains' results and the checkpoint log together. Nothing stored is believed:
every hash, commitment and root is recomputed, and compared with what is stored and with what was signed.

The rules, in the order in which they are applied (docs/format.md, "What a verifier does"):

1. The first row, seq 0, is ``audit_log.started`` of the tenant ``_collector``; the format is known; the chain's
   key is pinned, or was introduced by a pinned key's chain (`not_started`, `format_unknown`, `key_unpinned`).
2. seq is contiguous (`missing`, `out_of_order`). Rows with an equal seq are copies of one row: equal in all
   columns they are `repeated_row` (information), else `conflicting_row`, and the copy whose hash fits both
   neighbours is named.
3. The hash is recomputed from the columns. It differs from the stored one: `record_changed`, or `hash_changed`
   where the row fits its neighbours and the stored hash alone does not. The stored hash is right, but the next
   row is chained to another one: `hash_changed` (row and hash were replaced) or `link_broken` (the next row's
   prev_hash was).
4. Salt present: the commitment is recomputed (`personal_changed`). Salt absent: no personal value may be there
   (`personal_changed`), and where the commitment is not zero a proved ``audit_log.erased`` must name the record
   (`personal_missing`).
5. A stored checkpoint is the chain's, of this size and this root, signed by the chain's key
   (`checkpoint_invalid`).
6. The last row carries a checkpoint: rows past the last valid one are `unsigned_tail`.
7. Every line of the checkpoint log is met in size and root (`truncated`, `rewritten`, `chain_missing`); lines
   that nobody trusted signed are `checkpoint_log_invalid`.
8. Every predecessor that a chain names is there, with that size and root (`chain_missing`, `truncated`,
   `predecessor_mismatch`, `predecessors_unreadable`); growth beyond it is `late_growth` (information).
9. Nothing follows the end of a chain (`after_end`); tenant_seq is contiguous per tenant (`tenant_gap`).
10. Numbers of a producer's stream below the highest one seen, or named by a later stream, are in a record, a
   quarantine record or a ``producer.gap`` (`lost_before_collector`; `pending` while they may still be on their
   way). Streams without an end are `stream_open`, records in two chains `delivered_twice` (information both), or
   `conflict` where they differ. Only where the streams are given: else every result says that it was not checked.
12. More than two missing heartbeats are `silent` (information).

Not checked yet, and said so in every result: 11 (ranges in archives or purged: what is absent is `missing`).

After an error the machine goes on with the hash that the rest of the chain was built on, as far as it can be
known, so that one forgery is one finding and not one for every row behind it. Findings of one kind over adjacent
rows are one finding with a range.
"""

from spanseal_ledger.verifier._chain import ChainVerifier
from spanseal_ledger.verifier._log import LogVerifier
from spanseal_ledger.verifier._model import (
    ENDING_ACTIONS,
    ChainResult,
    CheckedRun,
    Erasure,
    Finding,
    Predecessor,
    StoredRow,
    TrustedKeys,
    VerificationResult,
)
from spanseal_ledger.verifier._streams import (
    GRACE_NS,
    Absent,
    Stream,
    StreamFacts,
    Twin,
    gap_of,
    previous_of,
)

__all__ = [
    "ENDING_ACTIONS",
    "GRACE_NS",
    "Absent",
    "ChainResult",
    "ChainVerifier",
    "CheckedRun",
    "Erasure",
    "Finding",
    "LogVerifier",
    "Predecessor",
    "StoredRow",
    "Stream",
    "StreamFacts",
    "TrustedKeys",
    "Twin",
    "VerificationResult",
    "gap_of",
    "previous_of",
]

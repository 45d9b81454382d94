"""How fast a log is verified: in ClickHouse's SQL, beside the same rules row by row in Python.

python -m benchmarks.verify [--records 1000000] [--peer 100000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.machine import machine
from benchmarks.synthetic import make_log
from spanseal_ledger.checkpoint_log import Line
from spanseal_ledger.verifier import LogVerifier, TrustedKeys, VerificationResult
from spanseal_storage.checkpoint_file import read_checkpoint_file
from spanseal_storage.directory import DataDirectory
from spanseal_storage.engine import Role, open_engine
from spanseal_storage.keys import trusted_keys
from spanseal_storage.rows import query, read_rows
from spanseal_storage.verification import verify_log


def row_by_row(client: object, keys: TrustedKeys, lines: list[Line]) -> VerificationResult:
    """Verify with the ledger alone: every row is read and hashed in Python."""
    log = LogVerifier(keys=keys, checkpoint_log=lines)
    for (chain_id,) in query(client, "SELECT DISTINCT toString(chain_id) FROM audit.records"):
        verifier = log.chain(chain_id)
        first = 0
        while rows := list(
            read_rows(
                client,
                "chain_id = {chain:UUID} AND seq >= {first:UInt64} AND seq < {end:UInt64}",
                {"chain": chain_id, "first": first, "end": first + 10_000},
            )
        ):
            for row in rows:
                verifier.row(row)
            first += 10_000
        log.add(verifier.finish())
    return log.finish()


def measure(
    directory: DataDirectory,
    rounds: int,
    verify: Callable[[object, TrustedKeys, list[Line]], VerificationResult],
) -> None:
    """Verify some times and print the records per second."""
    keys = TrustedKeys(pinned=trusted_keys(directory))
    lines, _ = read_checkpoint_file(directory.checkpoint_log)
    speeds = []
    with directory.hold("benchmark"), open_engine(directory, Role.READER) as engine:
        client = engine.client()
        for _ in range(rounds):
            begun = time.perf_counter()
            result = verify(client, keys, lines)
            speeds.append(result.records / (time.perf_counter() - begun))
            if not result.clean:
                sys.exit(f"the log is not clean: {result.findings[:3]}")
        client.close()
    print(
        f"  {verify.__name__:<12} {min(speeds):>12,.0f} {statistics.median(speeds):>12,.0f} {max(speeds):>12,.0f}"
    )


def in_sql(client: object, keys: TrustedKeys, lines: list[Line]) -> VerificationResult:
    """Verify as `spanseal verify` does."""
    return verify_log(client, keys=keys, checkpoint_log=lines)


def main() -> None:
    """Make two logs, verify each, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--peer", type=int, default=100_000, help="records of the log for the slower peer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=5000, help="records in one insert")
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory(prefix="spanseal-bench-") as folder:
        begun = time.perf_counter()
        log = make_log(Path(folder) / "log", options.records, batch=options.batch)
        took = time.perf_counter() - begun
        print(
            f"sealed, signed and stored {options.records:,} records in {took:.1f} s ({options.records / took:,.0f}/s)"
        )
        peer = make_log(Path(folder) / "peer", options.peer, batch=options.batch)
        print(f"records/s     {'min':>12} {'median':>12} {'max':>12}")
        measure(log, options.rounds, in_sql)
        measure(peer, 1, row_by_row)


if __name__ == "__main__":
    main()

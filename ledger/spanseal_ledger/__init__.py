"""The bytes of the audit log: canonical record, hash chain, Merkle tree, checkpoints, and their verifier.

Pure computation: nothing here reads a file, a clock, a network or a database. `docs/format.md` is the
statement of the format that these modules implement.
"""

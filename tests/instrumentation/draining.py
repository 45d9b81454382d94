"""`spanseal spool drain` as a program, whatever is installed."""

from __future__ import annotations

import sys

from spanseal.commands.spool_command import spool

if __name__ == "__main__":
    spool(["drain", *sys.argv[1:]])

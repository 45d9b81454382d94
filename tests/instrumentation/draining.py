"""`spanseal spool drain` as a program, whatever is installed."""

from __future__ import annotations

import signal
import sys

from spanseal.commands.spool_command import spool

if __name__ == "__main__":
    # Whoever runs the tests in a shell's background has it ignored, and so would every child.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    spool(["drain", *sys.argv[1:]])

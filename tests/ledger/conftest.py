"""Makes the helpers of the tests importable as `tests.ledger.<name>`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

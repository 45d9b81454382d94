"""`make demo`: run it from the root of the repository."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from rich.console import Console

from examples.demo.story import Story, StoryError


def main() -> None:
    """Run the demonstration; exits with 1 where something is not as it must be."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("demo-data"), help="where everything is put")
    parser.add_argument("--requests", type=int, default=400, help="how much traffic there is")
    parser.add_argument("--seed", type=int, default=7, help="of the traffic and of what is killed when")
    parser.add_argument("--svg", type=Path, help="also draw what is shown into this file")
    options = parser.parse_args()
    console = Console(highlight=False, record=options.svg is not None)
    # Of an earlier demonstration: only what this program made is removed.
    if (options.folder / ".spanseal-demo").exists():
        shutil.rmtree(options.folder)
    if options.folder.exists() and any(options.folder.iterdir()):
        console.print(
            f"{options.folder} exists and is not of an earlier demonstration; name another --folder"
        )
        sys.exit(2)
    options.folder.mkdir(parents=True, exist_ok=True)
    (options.folder / ".spanseal-demo").touch()
    try:
        Story(console, options.folder, requests=options.requests, seed=options.seed).tell()
    except StoryError as error:
        console.print(f"[bold red]The demonstration failed:[/] {error}", soft_wrap=True)
        sys.exit(1)
    if options.svg is not None:
        console.save_svg(str(options.svg), title="make demo")


if __name__ == "__main__":
    main()

"""``python -m hpcddrl``: sub-commands, nothing else."""

import os
import sys


def main() -> None:
    """Run the command line, or say which package is missing."""
    # Before torch loads OpenMP: its threads spin while they wait, which on cores shared with other ranks makes a
    # network of four threads slower than one of one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        from hpcddrl.commands.cli import main as command_line
    except ModuleNotFoundError as error:
        sys.exit(f"hpcddrl: the package {error.name!r} is missing; run `make setup` or `python -m pip install -e .`")
    command_line()


if __name__ == "__main__":
    main()

"""``python -m hpcddrl``: sub-commands, nothing else."""

import os
import sys


def main() -> None:
    """Run the command line, or say which package is missing."""
    # Before torch loads OpenMP: its threads spin while they wait, which on cores shared with other ranks makes a
    # network of four threads slower than one of one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Before Open MPI begins: Horovod's thread is in a collective call once a millisecond, and waiting there without
    # yielding it took half of a processor from the rank beside it.
    os.environ.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")
    try:
        from hpcddrl.commands.cli import main as command_line
    except ModuleNotFoundError as error:
        sys.exit(f"hpcddrl: the package {error.name!r} is missing; run `make setup` or `python -m pip install -e .`")
    command_line()


if __name__ == "__main__":
    main()

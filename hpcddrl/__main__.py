"""``python -m hpcddrl``: sub-commands, nothing else."""

from hpcddrl.commands.cli import main

if __name__ == "__main__":
    main()

"""Unit tests start no MPI job and take one thread: they run beside other work."""

import sys

import pytest
import torch

from hpcddrl.__main__ import main


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def command(monkeypatch, capsys):
    """Return a function that runs ``hpcddrl …`` and gives exit code, standard output and standard error."""
    for name in ("commands.watch.step_back", "runtime.job.prepare_process"):
        monkeypatch.setattr(f"hpcddrl.{name}", lambda: None)  # the tests go on in this process
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["hpcddrl", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return end.value.code, printed.out, printed.err

    return run

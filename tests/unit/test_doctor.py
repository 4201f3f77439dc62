"""The doctor: what it makes of what ranks find, one thing wrong at a time; and what this machine itself gives."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hpcddrl.comm.installed import LAUNCHERS, Horovod, Mpi, started_by_launcher
from hpcddrl.comm.links import Link
from hpcddrl.logs.folder import complaint, nearest
from hpcddrl.runtime.diagnosis import Level, diagnose
from hpcddrl.runtime.facts import Facts, Survey, pairs

ROOT = Path(__file__).parents[2]
WELL = Facts(
    rank=0,
    host="a",
    processors=(0, 1, 2, 3),
    cpus=8,
    quota=math.inf,
    omp_num_threads="",
    shared_bytes=1e9,
    gpus=(),
    devices=0,
    mpi=Mpi("Open MPI v5", (3, 1), "multiple"),
    launched=2,
    horovod=Horovod("0.28.1", ("mpi",), ""),
    games=108,
    no_games="",
    no_file="",
    sees_folder=True,
    versions={"python": "3.11", "torch": "2.13"},
)


def survey(*changes, links=()):
    """Return what two ranks find that are well but for these changes: bound to one half of the processors each."""
    well = [WELL, WELL._replace(rank=1, processors=(4, 5, 6, 7))]
    facts = [fact._replace(**change) for fact, change in zip(well, [*changes, *[{}] * 2], strict=False)]
    return Survey("/runs", tuple(facts), tuple(links))


def wrong(found):
    """Return the findings that are not ok, with nothing missing in them."""
    bad = [finding for finding in diagnose(found) if finding.level is not Level.OK]
    assert all(finding.mend and finding.says and "\n" not in finding.says for finding in bad)
    return [(str(finding.level), finding.what, finding.says + " → " + finding.mend) for finding in bad]


def test_where_all_is_well_every_finding_is_ok():
    found = diagnose(survey())
    assert wrong(survey()) == []
    said = {finding.what: finding.says for finding in found}
    assert said["ranks"] == "2 on a (ranks 0-1)"
    assert said["processors"] == "a: 2 ranks, each bound to 4 of 8 processors, with 4 threads"
    assert said["Horovod"] == "0.28.1, built with mpi"
    assert said["GPUs"] == "none"
    assert said["versions"] == "python 3.11, torch 2.13"


HALF = {"processors": (0, 1, 2, 3)}
BROKEN = Horovod("", (), "undefined symbol")


@pytest.mark.parametrize(
    ("changes", "level", "what", "words"),
    [
        ([{"mpi": Mpi("MPICH 4", (4, 0), "multiple")}], "error", "MPI", "MPICH 4 (rank 0); Open MPI v5 (rank 1)"),
        ([{"mpi": Mpi("x", (3, 1), "single")}] * 2, "warning", "thread level", "update.backend=mpi"),
        ([{"quota": 1.0}] * 2, "warning", "processors", "more ranks than the 1 processors"),
        ([HALF | {"processors": (0,)}] * 2, "warning", "processors", "2 ranks, each bound to 1 of 8"),
        ([HALF, {"processors": (3, 4)}], "warning", "processors", "bound to the same processors"),
        ([{"processors": (0,)}, {"processors": (1,)}], "warning", "processors", "--map-by slot:PE=4"),
        ([{"shared_bytes": 30e6}], "warning", "shared memory", "30 MB are free"),
        ([{"shared_bytes": math.nan}] * 2, "warning", "shared memory", "there is no /dev/shm"),
        ([{}, {"horovod": BROKEN}], "warning", "Horovod", "rank 1: undefined symbol; only groups"),
        ([{"horovod": Horovod("1", ("gloo",), "")}] * 2, "warning", "Horovod", "built without MPI (with gloo)"),
        ([{}, {"no_file": "Unable to lock file"}], "error", "files", "HDF5_USE_FILE_LOCKING=FALSE"),
        ([{}, {"sees_folder": False}], "error", "files", "not the same folder for rank 1"),
        ([{"devices": 4}] * 2, "warning", "GPUs", "a: has 4, and torch 2.13 sees none"),
        ([{"gpus": ("H100",), "devices": 1}] * 2, "warning", "GPUs", "a: Horovod was built without NCCL"),
        ([{"no_games": "no ROM"}] * 2, "warning", "Atari", "ranks 0-1: no ROM"),
        ([{}, {"versions": {"torch": "2.9", "python": "3.11"}}], "error", "versions", "2.13 (rank 0); 2.9 (rank 1)"),
    ],
)
def test_what_is_wrong_is_named_with_what_mends_it(changes, level, what, words):
    ((found_level, found_what, text),) = wrong(survey(*changes))
    assert (found_level, found_what) == (level, what)
    assert words in text


def test_a_launcher_of_another_mpi_is_an_error():
    alone = Survey("/runs", (WELL._replace(launched=4),), ())
    ((level, what, text),) = wrong(alone)
    assert (level, what) == ("error", "ranks")
    assert "started 4 processes, and each takes itself for a job of one" in text


def test_what_a_launcher_says_is_believed(monkeypatch):
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    assert started_by_launcher() == 1
    monkeypatch.setenv("PMI_SIZE", "8")
    assert started_by_launcher() == 8


def test_gpus_are_shown_with_who_sees_them():
    sees = {"gpus": ("H100",), "devices": 2, "horovod": Horovod("0.28.1", ("mpi", "nccl"), "")}
    found = diagnose(survey(sees, sees))
    assert [finding.says for finding in found if finding.what == "GPUs"] == ["a: H100 (ranks 0-1)"]


@pytest.mark.parametrize(("latency", "speed", "slow"), [(2e-6, 1e10, False), (1e-3, 1e10, True), (2e-6, 1e8, True)])
def test_messages_between_hosts_are_judged_and_those_within_one_only_shown(latency, speed, slow):
    link = Link(0, 1, latency, speed)
    assert wrong(survey(links=[link])) == []
    apart = survey({}, {"host": "b"}, links=[link])
    assert [what for _, what, _ in wrong(apart)] == ["messages"] * slow
    (said,) = [finding.says for finding in diagnose(apart) if finding.what == "messages"]
    assert said.startswith("a to b: ")


def test_links_are_measured_within_the_first_host_and_to_each_other():
    assert pairs(["a"]) == []
    assert pairs(["a", "a", "a"]) == [(0, 1)]
    assert pairs(["a", "b", "a", "b", "c"]) == [(0, 2), (0, 1), (0, 4)]


def test_a_folder_that_can_be_written_has_nothing_against_it(tmp_path):
    assert complaint(tmp_path) == ""
    assert list(tmp_path.iterdir()) == []
    assert nearest(tmp_path / "not" / "yet") == tmp_path


def test_a_lock_that_fails_is_said(tmp_path, monkeypatch):
    def flush(log):
        raise BlockingIOError(11, "Unable to synchronously open file (unable to lock file)")

    monkeypatch.setattr("hpcddrl.logs.rank_log.RankLog.flush", flush)
    assert "unable to lock file" in complaint(tmp_path)


def test_an_mpi_that_does_not_start_is_one_error(command, monkeypatch):
    monkeypatch.setattr("hpcddrl.commands.doctor.PROBE", "raise SystemExit('cannot open libmpi.so')")
    code, out, err = command("doctor")
    assert (code, err) == (1, "")
    assert "MPI  it does not start: cannot open libmpi.so" in out
    assert "no job can run here: 1 error, 0 warnings" in out


def test_an_mpi_that_hangs_at_its_start_is_one_too(command, monkeypatch):
    monkeypatch.setattr("hpcddrl.commands.doctor.PROBE", "import time; time.sleep(60)")
    monkeypatch.setattr("hpcddrl.commands.doctor.PATIENCE_S", 0.1)
    code, out, _ = command("doctor")
    assert code == 1
    assert "it has not started within 0.1 s" in out


def test_one_rank_on_this_machine_and_a_folder_that_takes_no_files(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "hpcddrl", "doctor", "--out", "/proc/runs"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"ok +ranks +1 on ", done.stdout)
    assert re.search(r"error +files +rank 0 cannot write HDF5 files into /proc: ", done.stdout)
    assert "no job can run here: 1 error" in done.stdout

"""One rank's HDF5 file: its rows, its attributes, and that it opens at every moment."""

import math
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest

import hpcddrl
from hpcddrl.logs.rank_log import CHUNK_ROWS, RankLog
from hpcddrl.logs.schema import COLUMNS, TEXT


@pytest.fixture
def log(tmp_path):
    return RankLog(tmp_path / "rank-0003.h5", {"role": "actor", "world_rank": 3})


def read(log):
    """Return every column of the file."""
    columns = {}
    with h5py.File(log.path, "r") as file:
        file.visititems(lambda name, x: columns.update({name: x[:].tolist()}) if isinstance(x, h5py.Dataset) else None)
    return columns


def test_a_new_file_has_its_attributes_and_no_table(log):
    with h5py.File(log.path, "r") as file:
        assert dict(file.attrs) == {"role": "actor", "world_rank": 3}
        assert list(file) == []


def test_rows_are_appended_in_order_at_each_flush(log):
    for i in range(3):
        for j in range(i):
            log.append("episodes", {"frames": i, "return": j, "length": 1.5})
        log.flush()
    columns = read(log)
    assert columns["episodes/frames"] == [1, 2, 2]
    assert columns["episodes/return"] == [0, 0, 1]
    assert columns["episodes/length"] == [1.5] * 3


def test_nothing_is_in_the_file_before_a_flush(log):
    log.append("waiting", {"cpu": 1.0})
    assert read(log) == {}


def test_a_column_that_a_row_lacks_is_nan_there_and_a_late_one_was_nan_before(log):
    log.append("learning", {"loss": 1.0})
    log.append("learning", {"loss": 2.0, "kl": 0.5})
    log.flush()
    log.append("learning", {"entropy": 3.0})
    log.flush()
    columns = read(log)
    np.testing.assert_array_equal(columns["learning/loss"], [1.0, 2.0, math.nan])
    np.testing.assert_array_equal(columns["learning/kl"], [math.nan, 0.5, math.nan])
    np.testing.assert_array_equal(columns["learning/entropy"], [math.nan, math.nan, 3.0])


def test_tables_have_their_own_lengths_and_may_be_nested(log):
    log.append("traffic/rollout", {"messages": 1, "bytes": 10})
    log.append("traffic/weights", {"messages": 2, "bytes": 20})
    log.append("traffic/weights", {"messages": 3, "bytes": 30})
    log.flush()
    columns = read(log)
    assert columns["traffic/rollout/bytes"] == [10]
    assert columns["traffic/weights/messages"] == [2, 3]


def test_more_rows_than_a_chunk_holds(log):
    for i in range(CHUNK_ROWS + 5):
        log.append("progress", {"frames": i})
    log.flush()
    assert read(log)["progress/frames"] == list(range(CHUNK_ROWS + 5))


def test_every_column_has_its_unit_and_meaning(log):
    for name in COLUMNS:
        table, _, column = name.rpartition("/")
        log.append(table, {column: "why" if COLUMNS[name][0] == TEXT else 1.0})
    log.flush()
    seen = []
    with h5py.File(log.path, "r") as file:
        file.visititems(lambda name, x: seen.append((name, x)) if isinstance(x, h5py.Dataset) else None)
        assert {name for name, _ in seen} == set(COLUMNS)
        for name, dataset in seen:
            assert (dataset.attrs["unit"], dataset.attrs["meaning"]) == COLUMNS[name]
            assert dataset.dtype == np.float64 or COLUMNS[name][0] == TEXT
            assert dataset.attrs["unit"]
            assert dataset.attrs["meaning"]


def test_texts_stand_beside_numbers_and_what_is_missing_is_empty(log):
    log.append("stages", {"stage": 1.0, "reason": "left the band ± σ"})
    log.flush()
    log.append("stages", {"stage": 2.0})
    log.append("helpers", {"version": 3.0})
    log.flush()
    log.append("helpers", {"reason": "late"})
    log.flush()
    with h5py.File(log.path, "r") as file:
        assert file["stages/reason"].asstr()[:].tolist() == ["left the band ± σ", ""]
        assert file["stages/stage"][:].tolist() == [1.0, 2.0]
        assert file["helpers/reason"].asstr()[:].tolist() == ["", "late"]


def test_an_unknown_column_is_refused_and_the_file_stays(log):
    log.append("waiting", {"cpu": 1.0})
    log.flush()
    log.append("waiting", {"no_such": 1.0})
    with pytest.raises(KeyError, match="waiting/no_such"):
        log.flush()
    assert read(log) == {"waiting/cpu": [1.0]}


def test_a_reader_that_holds_the_file_open_sees_its_rows_and_disturbs_nobody(log):
    log.append("waiting", {"cpu": 1.0})
    log.flush()
    with h5py.File(log.path, "r") as reader:
        log.append("waiting", {"cpu": 2.0})
        log.flush()
        assert reader["waiting/cpu"][:].tolist() == [1.0]
    assert read(log)["waiting/cpu"] == [1.0, 2.0]


def test_a_file_that_cannot_be_written_is_an_os_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        RankLog(tmp_path / "file" / "rank-0000.h5", {})


def test_a_file_is_never_there_half_made(tmp_path):
    path = tmp_path / "rank-0000.h5"

    class Watching(Mapping):
        """Attributes that look at the file while they are written to it."""

        def __getitem__(self, name):
            assert not path.exists()
            return 1

        def __iter__(self):
            return iter(["role"])

        def __len__(self):
            return 1

    RankLog(path, Watching())
    with h5py.File(path, "r") as file:
        assert file.attrs["role"] == 1


FLUSHING = """
import sys
from pathlib import Path
from hpcddrl.logs.rank_log import RankLog
path, i = Path(sys.argv[1]), 0
log = RankLog(path, {"role": "actor"})
while True:
    for _ in range(20):
        log.append("episodes", {"frames": i, "return": 2.0 * i, "length": i % 7})
        log.append("learning", {"loss": i, "kl": i} if i > 100 else {"loss": i})
        i += 1
    log.flush()
"""


def flushing(path):
    """Start a process that flushes to a file without end."""
    source = Path(hpcddrl.__file__).parents[1]
    return subprocess.Popen([sys.executable, "-c", FLUSHING, str(path)], cwd=source)


def await_flushes(path, process, count):
    """Wait until the file is there and has been replaced at least so often since."""
    states = set()
    while len(states) <= count:
        assert process.poll() is None
        if path.exists():
            states.add((path.stat().st_ino, path.stat().st_mtime_ns))
        time.sleep(2e-4)


def test_the_file_opens_after_a_sigkill_at_any_moment(tmp_path):
    dice, moments, rows = random.Random(0), 10, []
    for i in range(moments):
        path = tmp_path / f"rank-{i:04d}.h5"
        process = flushing(path)
        await_flushes(path, process, dice.randrange(20))
        time.sleep(dice.random() * 0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=30) == -signal.SIGKILL
        with h5py.File(path, "r") as file:
            assert file.attrs["role"] == "actor"
            columns = {name: file[name][:] for table in file for name in (f"{table}/{c}" for c in file[table])}
        if columns:
            count = len(columns["episodes/frames"])
            assert count % 20 == 0, "a flush is there as a whole or not at all"
            np.testing.assert_array_equal(columns["episodes/frames"], np.arange(count))
            np.testing.assert_array_equal(columns["episodes/return"], 2.0 * np.arange(count))
            np.testing.assert_array_equal(columns["learning/loss"], np.arange(count))
            rows.append(count)
    assert len(rows) > moments // 2, "most were killed after they had written"


def test_the_file_opens_while_it_is_written(tmp_path):
    path = tmp_path / "rank-0000.h5"
    process = flushing(path)
    try:
        await_flushes(path, process, 0)
        counts = []
        while len(counts) < 50 or counts[-1] == counts[0]:
            with h5py.File(path, "r") as file:
                counts.append(len(file["episodes/frames"]) if "episodes" in file else 0)
        assert counts == sorted(counts)
    finally:
        process.kill()
        process.wait()

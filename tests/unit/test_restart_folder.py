"""Checkpoints of a whole job: whole or not at all, checked, the newest kept, nothing in them executed."""

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hpcddrl.logs.packing import ALIGNMENT, pack, unpack
from hpcddrl.logs.restart import DONE, Manifest, NewerSchemaError, RestartFolder, Seat, Section

STATE = {
    "plain": {"none": None, "flag": True, "count": 3, "name": "ε", "big": 2**100, 7: (1, [2.5, (None,)])},
    "tensor": torch.arange(6, dtype=torch.float32).view(2, 3),
    "scalar": torch.tensor(4.0),
    "arrays": [np.arange(5, dtype=np.int16), np.zeros((0, 3), bool), np.array(2.0)],
    "strided": np.arange(12).reshape(3, 4)[:, ::2],
    "number": np.float64(1.5),
}


def bytes_of(packed):
    return np.frombuffer(b"".join(bytes(piece) for piece in packed.pieces()), np.uint8).copy()


def test_a_state_comes_back_as_it_was():
    packed = pack(STATE)
    data = bytes_of(packed)
    assert len(data) == packed.nbytes
    assert packed.nbytes % ALIGNMENT == 0
    back = unpack(data)
    assert back["plain"] == STATE["plain"]
    assert back["number"] == 1.5
    for name in ("tensor", "scalar"):
        assert torch.equal(back[name], STATE[name])
        assert back[name].shape == STATE[name].shape
    for ours, theirs in zip([*back["arrays"], back["strided"]], [*STATE["arrays"], STATE["strided"]], strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)


@pytest.mark.parametrize("thing", [object(), {1, 2}, np.array([object()]), lambda: None])
def test_what_is_no_plain_data_is_not_packed(thing):
    with pytest.raises(TypeError):
        pack({"thing": thing})


@pytest.mark.parametrize("optimizer", [torch.optim.RMSprop, torch.optim.Adam, torch.optim.Adagrad])
def test_an_optimizer_goes_on_from_its_state(optimizer):
    def start():
        values = torch.nn.Parameter(torch.ones(3))
        return values, optimizer([values], 0.1)

    def step(values, stepper):
        values.grad = torch.sin(values.detach())
        stepper.step()

    values, stepper = start()
    for _ in range(3):
        step(values, stepper)
    saved = unpack(bytes_of(pack(stepper.state_dict())))
    others, other = start()
    others.data.copy_(values.data)
    other.load_state_dict(saved)
    step(values, stepper)
    step(others, other)
    assert torch.equal(values, others)


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


def test_nothing_that_is_read_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = np.frombuffer(pickle.dumps({"x": Bomb()}), np.uint8)
    with pytest.raises(ValueError, match="does not begin as"):
        unpack(data)
    assert not (tmp_path / "exploded").exists()


def write(folder, number, ranks=3, keep=10, value=None):
    """Write a checkpoint of some ranks: the first two in one file, the others in another."""
    folder.begin(number)
    sections, ends = [], {}
    for rank in range(ranks):
        packed = pack({"rank": rank, "values": np.full(100, number if value is None else value)})
        file = f"node-{rank // 2:04d}.bin"
        start = ends.get(file, 0)
        ends[file] = start + packed.nbytes
        sections.append(Section(file, start, packed.nbytes, folder.write(number, file, start, packed)))
    manifest = Manifest(
        number=number,
        recipe="test",
        config={"recipe": "test"},
        seats=tuple(Seat("learner", rank, 0) for rank in range(ranks)),
        sections=tuple(sections),
        versions=(number,) * ranks,
        frames=(100.0 * number,) * ranks,
        account={"frames": 1.0},
    )
    folder.finish(manifest, keep)
    return manifest


@pytest.fixture
def folder(tmp_path):
    return RestartFolder(tmp_path / "restart")


def test_every_rank_finds_its_part_of_a_shared_file(folder):
    manifest = write(folder, 4)
    assert folder.manifest(4) == manifest
    for rank, section in enumerate(manifest.sections):
        state = folder.read(4, section)
        assert state["rank"] == rank
        assert (state["values"] == 4).all()
        state["values"][:] = 0  # what is read may be changed, and the file stays
        assert (folder.read(4, section)["values"] == 4).all()
    assert sorted(p.name for p in folder.name(4).iterdir()) == [DONE, "node-0000.bin", "node-0001.bin"]


@pytest.mark.parametrize("keep", [1, 3])
def test_only_the_newest_are_kept(folder, keep):
    for number in (1, 2, 9, 10, 11):
        write(folder, number, keep=keep)
    assert folder.numbers == [11, 10, 9][:keep]
    assert len(list(folder.path.iterdir())) == keep


def test_one_that_a_run_went_on_from_before_is_written_anew(folder):
    for number in (1, 2, 3):
        write(folder, number)
    write(folder, 2, value=7)  # resumed from 1, since 3 and 2 were damaged
    assert (folder.read(2, folder.manifest(2).sections[0])["values"] == 7).all()


@pytest.mark.parametrize("moment", ["begin", "write", "finish", "mark"])
def test_what_is_cut_short_is_no_checkpoint(folder, monkeypatch, moment):
    write(folder, 1)
    manifest = folder.manifest(1)
    folder.begin(2)
    if moment != "begin":
        folder.write(2, "node-0000.bin", 0, pack({}))
    if moment in ("finish", "mark"):
        replace_file = os.replace

        def cut(old, new):
            if moment == "finish" or str(new).endswith(DONE):
                raise KeyboardInterrupt
            replace_file(old, new)

        monkeypatch.setattr("os.replace", cut)
        with pytest.raises(KeyboardInterrupt):
            folder.finish(replace(manifest, number=2), keep=1)
        monkeypatch.undo()
    assert folder.numbers == [1]
    write(folder, 2, keep=1)
    assert folder.numbers == [2]
    assert sorted(p.name for p in folder.path.iterdir()) == ["000002"]


def test_files_are_synced_before_the_folder_has_its_name_and_that_before_the_mark(folder, monkeypatch):
    calls = []
    sync, rename = os.fsync, os.replace
    monkeypatch.setattr(
        "os.fsync", lambda f: (calls.append(os.path.basename(os.readlink(f"/proc/self/fd/{f}"))), sync(f))
    )
    monkeypatch.setattr("os.replace", lambda a, b: (calls.append(f"-> {Path(b).name}"), rename(a, b)))
    write(folder, 1, ranks=1)
    assert calls == ["node-0000.bin", "000001.new", "-> 000001", f"{DONE}.new", f"-> {DONE}", "000001", "restart"]


def test_a_flipped_bit_is_found_wherever_it_is(folder):
    manifest = write(folder, 1, ranks=2)
    path = folder.name(1) / "node-0000.bin"
    good = path.read_bytes()
    for position in (0, 12, 60, len(good) // 2 - 1, len(good) // 2, len(good) - 1):
        bad = bytearray(good)
        bad[position] ^= 0x10
        path.write_bytes(bad)
        whose = position // (len(good) // 2)
        with pytest.raises(ValueError, match=r"node-0000\.bin: the bytes do not agree with their checksum"):
            folder.read(1, manifest.sections[whose])
        folder.read(1, manifest.sections[1 - whose])  # the other's part is not concerned


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_a_torn_file_is_found_from_the_mark(folder, size):
    write(folder, 1)
    path = folder.name(1) / "node-0000.bin"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=rf"000001: node-0000\.bin is cut off at {size:,} bytes"):
        folder.manifest(1)


@pytest.mark.parametrize(
    "spoil", [lambda text: text[:50], lambda text: text.replace("test", "tEst"), lambda text: "[]"]
)
def test_a_damaged_mark_is_found(folder, spoil):
    write(folder, 1)
    mark = folder.name(1) / DONE
    mark.write_text(spoil(mark.read_text()))
    with pytest.raises(ValueError, match="000001: "):
        folder.manifest(1)


def test_a_newer_schema_is_not_damage(folder):
    write(folder, 1)
    mark = folder.name(1) / DONE
    data = json.loads(mark.read_text())
    data["manifest"]["schema"] = 99
    mark.write_text(json.dumps(data))
    with pytest.raises(NewerSchemaError, match=r"schema 99 of checkpoints, and this program reads 1; update hpcddrl"):
        folder.manifest(1)


def test_a_disk_without_room_leaves_the_checkpoint_before(folder, monkeypatch):
    write(folder, 1)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    folder.begin(2)
    with pytest.raises(OSError, match="No space left"):
        folder.write(2, "node-0000.bin", 0, pack({}))
    folder.discard(2)
    assert folder.numbers == [1]
    assert [p.name for p in folder.path.iterdir()] == ["000001"]

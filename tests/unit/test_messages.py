"""The places of fields in a message's buffer, without MPI."""

import math

import numpy as np
import pytest

from hpcddrl.comm.control_messages import answer_layout, order_layout, report_layout, roll_layout, status_layout
from hpcddrl.comm.messages import (
    actions_layout,
    frames_layout,
    gradient_layout,
    pull_layout,
    rollout_layout,
    weights_layout,
)
from hpcddrl.comm.records import ALIGNMENT, Layout
from hpcddrl.types import Continuous, Discrete, EnvSpec, Rollout

IMAGE = EnvSpec((7, 9), np.dtype(np.uint8), 4, Discrete(6), 4)
VECTOR = EnvSpec((5,), np.dtype(np.float32), 1, Continuous(-np.ones(3), np.ones(3)), 1)

LAYOUTS = {
    "rollout of images": rollout_layout(IMAGE, 5, 3),
    "rollout of vectors": rollout_layout(VECTOR, 1, 1),
    "pull": pull_layout(),
    "weights": weights_layout(1001),
    "gradient": gradient_layout(17),
    "frames": frames_layout(IMAGE, 3),
    "actions": actions_layout(IMAGE, 3),
    "continuous actions": actions_layout(VECTOR, 3),
    "status": status_layout(15, 7),
    "order": order_layout(),
    "roll": roll_layout(7),
    "report": report_layout(100),
    "answer": answer_layout(9),
}
every_layout = pytest.mark.parametrize("name", sorted(LAYOUTS))


def fill(record, seed):
    rng = np.random.default_rng(seed)
    for field in record:
        if field.dtype == bool:
            field[...] = rng.random(field.shape) < 0.5
        elif field.dtype.kind in "iu":
            field[...] = rng.integers(0, 250, field.shape)
        else:
            field[...] = rng.normal(size=field.shape)


def spans(buffer, record):
    start = buffer.__array_interface__["data"][0]
    return sorted((f.__array_interface__["data"][0] - start, f.nbytes, n) for n, f in record._asdict().items())


@every_layout
def test_fields_are_aligned_lie_in_the_buffer_and_do_not_overlap(name):
    layout = LAYOUTS[name]
    buffer, record = layout.allocate()
    assert buffer.shape == (layout.nbytes,)
    assert buffer.dtype == np.uint8
    assert buffer.flags.c_contiguous
    end = 0
    for offset, nbytes, field in spans(buffer, record):
        assert offset % ALIGNMENT == 0, field
        assert offset >= end, field
        assert nbytes > 0, field
        end = offset + nbytes
    assert end <= layout.nbytes < end + ALIGNMENT


@every_layout
def test_fields_are_writable_contiguous_views_and_start_as_zeros(name):
    buffer, record = LAYOUTS[name].allocate()
    for field in record:
        assert np.shares_memory(field, buffer)
        assert field.flags.c_contiguous
        assert field.flags.aligned
        assert field.flags.writeable
        assert not field.any()


@every_layout
def test_a_record_comes_back_from_its_bytes(name):
    layout = LAYOUTS[name]
    buffer, sent = layout.allocate()
    fill(sent, seed=1)
    other, received = layout.allocate()
    other[:] = buffer
    for field, value in sent._asdict().items():
        np.testing.assert_array_equal(getattr(received, field), value)


@every_layout
def test_writing_one_field_leaves_the_others_alone(name):
    _, record = LAYOUTS[name].allocate()
    fill(record, seed=2)
    for field in record._fields:
        before = {n: f.copy() for n, f in record._asdict().items() if n != field}
        getattr(record, field)[...] = 1
        for n, value in before.items():
            np.testing.assert_array_equal(getattr(record, n), value)


def test_buffers_of_one_layout_are_apart():
    (one, _), (other, _) = LAYOUTS["weights"].allocate(), LAYOUTS["weights"].allocate()
    assert not np.shares_memory(one, other)


def test_a_rollout_holds_each_frame_once():
    _, rollout = rollout_layout(IMAGE, 5, 3).allocate()
    shapes = {name: (field.shape, field.dtype) for name, field in rollout._asdict().items()}
    assert shapes == {
        "version": ((1,), np.int64),
        "number": ((1,), np.int64),
        "last": ((1,), np.uint8),
        "frames": ((4 + 5, 3, 7, 9), np.uint8),
        "first": ((4 + 5, 3), np.bool_),
        "action": ((5, 3), np.int64),
        "log_mu": ((5, 3), np.float32),
        "value": ((5, 3), np.float32),
        "action_value": ((5, 3), np.float32),
        "reward": ((5, 3), np.float32),
        "discount": ((5, 3), np.float32),
    }


def test_continuous_actions_are_float_vectors():
    assert rollout_layout(VECTOR, 2, 3).allocate()[1].action.shape == (2, 3, 3)
    _, record = actions_layout(VECTOR, 4).allocate()
    assert record.action.shape == (4, 3)
    assert record.action.dtype == np.float32


def test_a_rollout_of_frames_is_a_quarter_of_one_of_stacked_observations():
    spec = EnvSpec((84, 84), np.dtype(np.uint8), 4, Discrete(6), 4)
    stacked = (20 + 1) * 16 * math.prod(spec.observation_shape)
    assert rollout_layout(spec, 20, 16).nbytes < 0.3 * stacked


def test_a_layout_that_forgets_a_field_is_refused():
    with pytest.raises(AssertionError):
        Layout(Rollout, {"version": ((1,), np.int64)})

"""A server's shards without MPI: who owns what, which gradients are applied, together or alone, and what is saved."""

import math
from collections import Counter, defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hpcddrl.comm.messages import gradient_layout
from hpcddrl.comm.placement import Place, Role, slices
from hpcddrl.config import Adam, Config, Optimization, ParameterServer, RMSProp
from hpcddrl.logs import checkpoint
from hpcddrl.logs.checkpoint import Checkpoint, newest_of_all, write
from hpcddrl.logs.timing import Timing
from hpcddrl.roles.admission import LOSSES, Admission, LossStatistic
from hpcddrl.roles.applying import (
    Averaged,
    DelayCompensation,
    OneByOne,
    as_they_come,
    averaged,
    in_turn,
    together,
)
from hpcddrl.roles.control import Control
from hpcddrl.roles.counters import counters_for
from hpcddrl.roles.server import Server
from hpcddrl.roles.updates import LocalUpdate, OptimizerStep
from hpcddrl.types import Stage, Weights

# --- slices


@pytest.mark.parametrize(("parameters", "shards"), [(10, 1), (10, 3), (7, 7), (1_000_003, 64)])
def test_slices_are_contiguous_even_and_all_there_is(parameters, shards):
    owned = slices(parameters, shards)
    assert len(owned) == shards
    assert [i for own in owned for i in range(own.start, own.stop)] == list(range(parameters))
    lengths = [own.stop - own.start for own in owned]
    assert max(lengths) - min(lengths) <= 1
    assert lengths == sorted(lengths, reverse=True)


# --- whose turn it is


def test_gradients_are_applied_as_they_come_in_turn_or_together():
    assert as_they_come([1, 2, 3], [3, 1]) == [[3], [1]]
    assert in_turn([2, 3, 1], [3, 1]) == []
    assert in_turn([2, 3, 1], [3, 2]) == [[2]]
    assert together([1, 2, 3], [3, 1]) == []
    assert together([1, 2, 3], [3, 1, 2]) == [[1, 2, 3]]


# --- admission


def test_the_age_bound_refuses_exactly_what_is_older():
    admit = Admission(2, None)
    ages = [0, 3, 2, 7, 1, 3, 2]
    assert [admit(age, 0.0) for age in ages] == [age <= 2 for age in ages]
    assert admit.metrics == {"refused_stale": 3.0}
    assert Admission(0, None)(0, 0.0)


def test_everything_is_admitted_without_a_rule():
    admit = Admission(None, None)
    assert all(admit(age, loss) for age, loss in ((0, 0.0), (1000, 1e9)))
    assert admit.metrics == {}


def losses(count, mean=2.0, deviation=0.5, seed=0):
    return np.random.default_rng(seed).normal(mean, deviation, count)


def test_a_loss_that_stands_out_is_refused_and_no_other():
    admit = Admission(None, 6.0)
    assert all(admit(0, loss) for loss in losses(500))
    assert not admit(0, 2.0 + 12 * 0.5)
    assert admit(0, 2.0 - 12 * 0.5), "only what is too high"
    assert all(admit(0, loss) for loss in losses(500, seed=1))
    assert admit.metrics == {"refused_loss": 1.0}


def test_no_loss_is_refused_before_the_statistic_stands():
    statistic = LossStatistic(2.0)
    assert not any(statistic.stands_out(loss) for loss in [*losses(LOSSES - 1), 1e9])


def test_one_outlier_does_not_open_the_gate():
    admit = Admission(None, 6.0)
    for loss in losses(500):
        admit(0, loss)
    assert [admit(0, loss) for loss in (1e9, 50.0, 1e9, 50.0)] == [False] * 4


@pytest.mark.parametrize("bound", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("before", [losses(300), np.full(300, 2.0)], ids=["noisy", "all-equal"])
def test_losses_that_rise_for_good_are_admitted_again(bound, before):
    admit = Admission(None, bound)
    for loss in before:
        admit(0, loss)
    after = [admit(0, loss) for loss in losses(3000, mean=1000.0, deviation=1.0)]
    assert not after[0]
    assert np.mean(after[-1000:]) > 0.4, "what is above a bound of nearly 0 is half of all losses"


# --- gradients alone


class Notes:
    """What the parts of a server tell a rank's control."""

    def __init__(self):
        self.timing, self.rows, self.counts = Timing(), [], defaultdict(Counter)

    def learned(self, metrics, lags):
        self.rows.append(metrics)

    def count(self, table, value):
        self.counts[table][value] += 1


def gradient(flat, version=0, samples=10, frames=10, loss=1.0, refused=False):
    _, record = gradient_layout(len(flat)).allocate()
    record.flat[:], record.version[0], record.samples[0], record.frames[0] = flat, version, samples, frames
    record.loss[0], record.refused[0] = loss, refused
    return record


def one_by_one(admission, compensation=None, rate=0.1, decides=True):
    weights, notes = Weights(5, torch.zeros(3)), Notes()
    step = OptimizerStep(weights.flat, Optimization(learning_rate=rate), None)
    return weights, OneByOne(step, admission, compensation, decides, notes), notes, step


def test_a_gradient_makes_an_update_and_is_counted_by_its_staleness():
    weights, apply, notes, step = one_by_one(Admission(None, None))
    for version in (5, 4, 5):
        weights, refused = apply(weights, {1: gradient([1, 2, 3], version=version)})
        assert not refused
    assert (weights.version, weights.frames, step.frames) == (8, 30, 30)
    assert notes.counts["staleness"] == {0: 1, 2: 2}
    assert [row["staleness_mean"] for row in notes.rows] == [0, 2, 2]


@pytest.mark.parametrize("by", ["age", "first shard"])
def test_a_refused_gradient_changes_no_weight_but_its_frames_count(by):
    weights, apply, notes, step = one_by_one(Admission(1 if by == "age" else None, None))
    after, refused = apply(weights, {1: gradient([1, 2, 3], version=0, refused=by != "age")})
    assert refused
    assert (after.version, after.frames, step.frames) == (5, 10, 10)
    assert torch.equal(after.flat, torch.zeros(3))
    assert not notes.counts


def test_weights_to_go_on_from_take_the_place_of_a_servers_and_its_optimizer_begins_anew():
    weights, apply, notes, step = one_by_one(Admission(None, None))
    handed = []
    notes.note = lambda table, **row: handed.append((table, row))
    weights, _ = apply(weights, {1: gradient([1, 2, 3])})
    assert step.optimizer.state_dict()["state"]
    told = gradient([0, 0, 0], version=9, frames=50, refused=True)
    weights, refused = apply(weights, {2: told})
    assert (weights.version, weights.frames, refused) == (9, 60, True), "versions never go back for who was ahead"
    left = gradient([7, 8, 9], version=8, refused=True)
    left.succeeds[0] = True
    weights, refused = apply(weights._replace(stage=Stage.LATE), {1: left})
    assert (weights.version, weights.frames, step.frames, refused) == (10, 70, 70, False)
    assert weights.flat.tolist() == [7, 8, 9]
    assert not step.optimizer.state_dict()["state"]
    rows = [(row["version"], row["learner"], row["updates"], row["restarted"]) for _, row in handed]
    assert rows == [(9, 2, 3, 0.0), (10, 1, 1, 1.0)]
    weights, refused = apply(weights, {1: gradient([1, 2, 3], version=10)})
    assert not refused
    assert weights.flat[0] < 7


def test_weights_to_go_on_from_that_come_after_the_late_stage_leave_what_others_have_learned_since():
    weights, apply, _, step = one_by_one(Admission(None, None))
    weights, _ = apply(weights._replace(stage=Stage.MIDDLE), {1: gradient([1, 2, 3])})
    left, learned = gradient([7, 8, 9], refused=True), weights.flat.clone()
    left.succeeds[0] = True
    weights, refused = apply(weights, {2: left})
    assert refused
    assert torch.equal(weights.flat, learned)
    assert step.optimizer.state_dict()["state"]
    assert weights.frames == 20


@pytest.mark.parametrize(
    ("apart", "gone", "heard", "stage"),
    [
        (True, (), [1], Stage.MIDDLE),
        (True, (), [2], Stage.LATE),
        (True, (), [], Stage.LATE),
        (True, (1,), [2], Stage.MIDDLE),
        (False, (), [2], Stage.MIDDLE),
    ],
)
def test_learners_that_are_apart_leave_the_late_stage_when_the_first_of_them_speaks(apart, gone, heard, stage):
    server = SimpleNamespace(
        _apart=apart,
        _learners=[1, 2, 3],
        _world=SimpleNamespace(gone=frozenset(gone)),
        _control=SimpleNamespace(wanted_with=lambda frames: Stage.MIDDLE),
    )
    assert Server._entering(server, Weights(9, torch.zeros(1), stage=Stage.LATE), heard).stage is stage
    assert Server._entering(server, Weights(9, torch.zeros(1), stage=Stage.EARLY), heard).stage is Stage.MIDDLE


def test_a_shard_that_knows_of_no_stage_takes_what_the_first_has_taken():
    weights, apply, notes, _ = one_by_one(Admission(None, None), decides=False)
    notes.note = lambda table, **row: None
    left = gradient([7, 8, 9], refused=True)
    left.succeeds[0] = True
    weights, refused = apply(weights._replace(stage=Stage.EARLY), {2: left})
    assert not refused
    assert weights.flat.tolist() == [7, 8, 9]


@pytest.mark.parametrize("method", [RMSProp(), Adam()])
def test_the_first_steps_after_a_restart_are_no_larger_than_usual(method):
    """Of constant gradients all steps of Adam, and of a restarted RMSProp, are of the learning rate's size."""
    values, rate = torch.zeros(2), 1e-3
    step = OptimizerStep(values, Optimization(method=method, learning_rate=rate), None)
    step(torch.tensor([1.0, -3.0]), 1)
    usual = rate / math.sqrt(1 - method.decay) if isinstance(method, RMSProp) else rate
    assert values.abs().tolist() == pytest.approx([usual] * 2, rel=1e-3), "a run's first step is as in the paper"
    step.restart()
    for _ in range(3):
        before = values.clone()
        step(torch.tensor([1.0, -3.0]), 1)
        assert (values - before).abs().tolist() == pytest.approx([rate] * 2, rel=1e-3)
    other = OptimizerStep(torch.zeros(2), Optimization(method=method, learning_rate=rate), None)
    other.restore(step.state())
    for one in (step, other):
        one(torch.tensor([1.0, 1.0]), 1)
    assert torch.equal(step.state()["parameters"], other.state()["parameters"])


def test_a_copy_of_what_each_learner_was_sent_compensates_its_gradients():
    compensation = DelayCompensation([1, 2], 3, lambda gradient: 0.5)
    assert compensation.nbytes == 2 * 3 * 4
    values = torch.tensor([1.0, 2.0, 3.0])
    compensation.sent(1, values)
    values += 1
    compensation.sent(2, values)
    g = torch.tensor([2.0, 2.0, 4.0])
    assert compensation(g, values, 2).tolist() == g.tolist()
    assert compensation(g, values, 1).tolist() == [2 + 0.5 * 4, 2 + 0.5 * 4, 4 + 0.5 * 16]


# --- gradients together


def test_a_mean_weighs_gradients_by_their_samples():
    parts = [(torch.tensor([1.0, 0.0]), 1), (torch.tensor([4.0, 8.0]), 3)]
    assert averaged(parts).tolist() == [3.25, 6.0]
    assert parts[1][0].tolist() == [4.0, 8.0]
    assert averaged([(torch.zeros(2), 0), (torch.zeros(2), 0)]).tolist() == [0.0, 0.0]
    alone = torch.randn(100)
    assert torch.equal(averaged([(alone, 77)]), alone)


@pytest.mark.parametrize("most", [None, 0.05])
@pytest.mark.parametrize("shards", [1, 3])
def test_averaged_gradients_of_parts_of_a_batch_step_as_the_whole_batch_does(most, shards):
    """A regression's gradients over 3 parts of unequal size, through 3 shards, against one learner with all of it."""
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 20, generator=rng), torch.randn(60, generator=rng)
    optimization = Optimization(learning_rate=0.01, max_gradient_norm=most)
    start = torch.randn(20, generator=rng)

    def gradient_of(w, rows):
        return x[rows].T @ (x[rows] @ w - y[rows]) / len(x[rows])

    one = Weights(0, start.clone())
    local = LocalUpdate(OptimizerStep(one.flat, optimization, None), optimization, Timing())
    many, owned = start.clone(), slices(20, shards)
    norms = []
    parts = [
        Averaged(OptimizerStep(many[own], optimization, None), most, lambda own: norms[0], Notes()) for own in owned
    ]
    weights = [Weights(0, many[own]) for own in owned]
    for _ in range(10):
        rows = [slice(0, 10), slice(10, 45), slice(45, 60)]
        found = {i: gradient_of(many, r) for i, r in enumerate(rows)}
        norms[:] = [float(gradient_of(many, slice(0, 60)).double().square().sum())]
        for k, own in enumerate(owned):
            sent = {
                i: gradient(g[own], weights[k].version, samples=rows[i].stop - rows[i].start) for i, g in found.items()
            }
            weights[k], refused = parts[k](weights[k], sent)
            assert not refused
        one = local(one, gradient_of(one.flat, slice(0, 60)), 30, 60, 0.5, stop=False)
    assert [(w.version, w.frames) for w in weights] == [(one.version, one.frames)] * shards
    torch.testing.assert_close(many, one.flat, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axis", [{"max_staleness": 3}, {"max_loss_deviations": 3.0}, {"compensation": "constant"}])
def test_what_is_about_stale_gradients_has_no_place_in_synchronous_mode(axis):
    axis = {k: {"kind": v} if k == "compensation" else v for k, v in axis.items()}
    update = {"kind": "server", **axis}
    Config(recipe="test", topology={"servers": 1}, update=update)
    with pytest.raises(ValueError, match=r"update\.mode = 'synchronous'.*leave"):
        Config(recipe="test", topology={"servers": 1}, update={**update, "mode": "synchronous"})
    assert ParameterServer().mode == "asynchronous"


# --- the histogram


def test_an_interval_has_a_row_for_every_value_with_its_count():
    tables = defaultdict(list)
    log = SimpleNamespace(append=lambda table, row: tables[table].append(row))
    signals, traffic = SimpleNamespace(received=0), SimpleNamespace(messages=defaultdict(int))
    place = Place(Role.ACTOR, 0, 0)
    control = Control(None, place, None, Timing(), counters_for(1, 1), log, signals, 1.0, 0, traffic)
    for value in (3, 0, 0, 3, 0):
        control.count("staleness", value)
    control.learned({"refused_stale": 1.0, "loss": 1.0}, np.empty(0))
    control.learned({"refused_stale": 4.0, "loss": 2.0}, np.empty(0))
    control._row()
    control.count("staleness", 1)
    control._row()
    assert [(row["staleness"], row["count"]) for row in tables["staleness"]] == [(0, 3), (3, 2), (1, 1)]
    first, same, later = (row["time"] for row in tables["staleness"])
    assert 0 <= first == same < later
    (learned,) = tables["learning"]
    assert 0 <= learned.pop("time") <= first
    assert learned == {"refused_stale": 4.0, "loss": 1.5}


# --- checkpoints

NETWORK = {"a.weight": torch.arange(12.0).view(3, 4), "a.bias": torch.arange(3.0), "b.weight": torch.randn(2, 2, 5)}
PARAMETERS = 12 + 3 + 20


def save(root, shards, numbers, version=7):
    for k in numbers:
        network, cut = checkpoint.part(NETWORK, slices(PARAMETERS, shards)[k])
        state = Checkpoint(version + k, 100 + k, network, {}, "{}", (k, shards), cut)
        write(root / f"server-{k:04d}", state, keep=3)


@pytest.mark.parametrize("shards", [1, 2, 3, 5, PARAMETERS])
def test_shards_are_joined_to_the_network_that_they_share(shards, tmp_path):
    """Also if they were saved some updates apart."""
    save(tmp_path, shards, range(shards))
    ((name, state),) = newest_of_all(tmp_path).items()
    assert (name, state.version, state.frames, state.shard) == ("server-0000", 7, 100, (0, shards))
    assert list(state.network) == list(NETWORK)
    assert all(torch.equal(state.network[name], tensor) for name, tensor in NETWORK.items())
    assert all(state.network[name].shape == tensor.shape for name, tensor in NETWORK.items())


def test_a_shard_holds_its_slice_and_nothing_else(tmp_path):
    save(tmp_path, 3, range(3))
    vector = torch.cat([tensor.reshape(-1) for tensor in NETWORK.values()])
    for k, own in enumerate(slices(PARAMETERS, 3)):
        assert torch.equal(checkpoint.vector(checkpoint.newest(tmp_path / f"server-{k:04d}")), vector[own])


def test_a_checkpoint_of_all_is_the_state_dict_itself():
    network, cut = checkpoint.part(NETWORK, slice(0, PARAMETERS))
    assert cut == ()
    assert all(torch.equal(network[name], tensor) for name, tensor in NETWORK.items())
    assert network["a.weight"].data_ptr() != NETWORK["a.weight"].data_ptr()


@pytest.mark.parametrize(
    ("there", "missing"), [([0, 2], "server-0001"), ([1, 2], "server-0000"), ([1], "server-0000, server-0002")]
)
def test_a_missing_shard_is_a_line_that_names_it(there, missing, tmp_path):
    save(tmp_path, 3, there)
    with pytest.raises(ValueError, match=f"no checkpoint of {missing}, of the 3") as caught:
        newest_of_all(tmp_path)
    assert "\n" not in str(caught.value)


def test_groups_are_owners_of_their_own(tmp_path):
    for group in range(3):
        write(tmp_path / f"group-{group:04d}", Checkpoint(group, 0, NETWORK, {}, "{}"), keep=1)
    assert {name: state.version for name, state in newest_of_all(tmp_path).items()} == {
        "group-0000": 0,
        "group-0001": 1,
        "group-0002": 2,
    }
    assert newest_of_all(tmp_path / "missing") == {}

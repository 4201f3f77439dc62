"""Learning-rate schedules, clipping, and where gradients become weights, without MPI."""

import copy
import math

import pytest
import torch
from torch import nn

from hpcddrl.comm.placement import slices
from hpcddrl.config import AdaGrad, Adam, Optimization, RMSProp
from hpcddrl.logs.timing import Phase, Timing
from hpcddrl.roles.reducing import AllReduceUpdate, AtOnce, Pipelined
from hpcddrl.roles.updates import LocalUpdate, OptimizerStep, clip, learning_rate
from hpcddrl.types import RunError, Stage, Weights


def rates(frames, learners=1, budget=1000.0, **options):
    optimization = Optimization(learning_rate=0.1, **options)
    return [learning_rate(optimization, f, budget, learners) for f in frames]


# --- learning rate


def test_a_constant_rate_needs_no_budget():
    assert rates([0, 500, 5000], budget=None) == pytest.approx([0.1, 0.1, 0.1])


def test_linear_decay_ends_at_zero_with_the_budget_and_stays_there():
    assert rates([0, 250, 500, 1000, 2000], decay="linear") == pytest.approx([0.1, 0.075, 0.05, 0.0, 0.0])


def test_warmup_climbs_from_zero():
    assert rates([0, 50, 100, 500], warmup_frames=100) == pytest.approx([0.0, 0.05, 0.1, 0.1])


def test_the_rate_scales_with_learners_only_if_asked():
    assert rates([0, 10], learners=4) == pytest.approx([0.1, 0.1])
    assert rates([0, 10], learners=4, scale_with_learners=True) == pytest.approx([0.4, 0.4])


def test_scaled_warmup_climbs_from_one_learners_rate():
    """Goyal et al. 2017, section 2.2."""
    got = rates([0, 50, 100, 300], learners=4, scale_with_learners=True, warmup_frames=100)
    assert got == pytest.approx([0.1, 0.25, 0.4, 0.4])


def test_warmup_and_decay_multiply():
    assert rates([50, 100], warmup_frames=100, decay="linear") == pytest.approx([0.05 * 0.95, 0.1 * 0.9])


# --- clipping


@pytest.mark.parametrize(
    ("most", "expected"), [(10.0, [3.0, 4.0]), (5.0, [3.0, 4.0]), (1.0, [0.6, 0.8]), (None, [3, 4])]
)
def test_clip_scales_to_the_norm_in_place_and_returns_the_norm_before(most, expected):
    gradient = torch.tensor([3.0, 4.0])
    assert clip(gradient, most) == pytest.approx(5.0)
    assert gradient.tolist() == pytest.approx(expected)


def test_clip_leaves_a_zero_gradient():
    gradient = torch.zeros(3)
    assert clip(gradient, 0.5) == 0.0
    assert gradient.tolist() == [0, 0, 0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("most", [0.5, None])
def test_a_gradient_that_is_not_finite_is_an_error_to_act_on(bad, most):
    with pytest.raises(RunError, match=r"not finite.*learning_rate") as caught:
        clip(torch.tensor([1.0, bad, 2.0]), most)
    assert "\n" not in str(caught.value)


# --- the optimizer over one vector


class Pieces(nn.Module):
    """The same numbers as a vector of six, in two parameters."""

    def __init__(self, values):
        super().__init__()
        self.a, self.b = nn.Parameter(values[:4].clone().view(2, 2)), nn.Parameter(values[4:].clone())


@pytest.mark.parametrize(
    ("method", "reference"),
    [
        (
            RMSProp(decay=0.9, epsilon=1e-3, momentum=0.5),
            lambda p: torch.optim.RMSprop(p, 0.1, alpha=0.9, eps=1e-3, momentum=0.5),
        ),
        (
            RMSProp(decay=0.9, epsilon=1e-3, centered=True),
            lambda p: torch.optim.RMSprop(p, 0.1, alpha=0.9, eps=1e-3, centered=True),
        ),
        (Adam(beta1=0.8, beta2=0.95, epsilon=1e-4), lambda p: torch.optim.Adam(p, 0.1, betas=(0.8, 0.95), eps=1e-4)),
        (AdaGrad(epsilon=1e-3), lambda p: torch.optim.Adagrad(p, 0.1, eps=1e-3)),
    ],
    ids=["rmsprop", "rmsprop-centered", "adam", "adagrad"],
)
def test_steps_over_the_vector_equal_torchs_over_its_parameters(method, reference):
    values = torch.linspace(-1, 1, 6)
    pieces = Pieces(values)
    optimizer = reference(pieces.parameters())
    step = OptimizerStep(values, Optimization(method=method, learning_rate=0.1), None)
    for i in range(4):
        gradient = torch.sin(torch.arange(6) + float(i))
        pieces.a.grad, pieces.b.grad = gradient[:4].view(2, 2).clone(), gradient[4:].clone()
        optimizer.step()
        assert step(gradient, frames=10) == 0.1
    torch.testing.assert_close(values, torch.cat([pieces.a.detach().flatten(), pieces.b.detach()]))
    assert step.frames == 40


@pytest.mark.parametrize("method", [RMSProp(momentum=0.5), RMSProp(centered=True), Adam(), AdaGrad()], ids=str)
@pytest.mark.parametrize("shards", [1, 2, 3, 7])
def test_optimizers_over_slices_of_a_vector_are_one_over_all_of_it(method, shards):
    """Bit for bit, wherever the vector is cut."""
    optimization = Optimization(method=method, learning_rate=0.1)
    whole, cut = torch.linspace(-1, 1, 1003), torch.linspace(-1, 1, 1003)
    one = OptimizerStep(whole, optimization, None)
    owned = slices(1003, shards)
    many = [OptimizerStep(cut[own], optimization, None) for own in owned]
    for i in range(4):
        gradient = torch.sin(torch.arange(1003) * 1.7 + i)
        one(gradient.clone(), 10)
        for step, own in zip(many, owned, strict=True):
            step(gradient[own].clone(), 10)
        assert torch.equal(whole, cut)


def test_the_rate_follows_the_frames_stepped_before():
    step = OptimizerStep(torch.zeros(2), Optimization(learning_rate=1.0, decay="linear"), 100.0)
    assert [step(torch.ones(2), 25) for _ in range(5)] == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])


# --- updates


def made(most=0.5, rate=0.1):
    flat = torch.zeros(2)
    optimization = Optimization(learning_rate=rate, max_gradient_norm=most)
    return Weights(3, flat), OptimizerStep(flat, optimization, None), optimization


def test_a_local_update_clips_steps_and_counts():
    weights, step, optimization = made()
    timing = Timing()
    update = LocalUpdate(step, optimization, timing)
    gradient = torch.tensor([3.0, 4.0])
    after = update(weights, gradient, frames=5, samples=5, loss=0.5, stop=False)
    assert (after.version, after.last) == (4, False)
    assert after.flat is weights.flat
    assert (weights.flat < 0).all()
    assert torch.linalg.vector_norm(gradient) == pytest.approx(0.5)
    assert update.metrics == {"grad_norm": pytest.approx(5.0), "learning_rate": 0.1}
    assert timing.seconds[Phase.UPDATE] > 0
    assert update(after, gradient, frames=5, samples=5, loss=0.5, stop=True).last


def test_a_local_update_ignores_the_room_for_a_flag():
    weights, step, optimization = made(most=None)
    update = LocalUpdate(step, optimization, Timing())
    update(weights, torch.tensor([3.0, 4.0, 1e9]), frames=5, samples=5, loss=0.5, stop=False)
    assert update.metrics["grad_norm"] == pytest.approx(5.0)
    assert weights.flat.shape == (2,)


def test_a_gradient_that_is_not_finite_leaves_the_weights_alone():
    weights, step, optimization = made()
    before = weights.flat.clone()
    with pytest.raises(RunError):
        LocalUpdate(step, optimization, Timing())(weights, torch.tensor([1.0, math.nan]), 5, 5, 0.5, stop=False)
    assert torch.equal(weights.flat, before)


class Others:
    """Averages with what the group's other learners hold."""

    name = "others"

    def __init__(self, *others):
        self.others, self.closed, self.begun = others, False, None
        self.size = 1 + len(others)

    def average(self, vector):
        torch.mean(torch.stack([vector, *self.others]), 0, out=vector)

    def begin(self, vector):
        assert self.begun is None, "one at a time"
        self.begun = vector
        return self.finish

    def advance(self):
        assert self.begun is not None

    def finish(self):
        self.average(self.begun)
        self.begun = None

    def close(self):
        self.closed = True


TAIL = (123.0, 123.0, 123.0)  # to be written over


def allreduced(own, *others, stop=False):
    weights, step, optimization = made(most=0.5)
    update = AllReduceUpdate(AtOnce(Others(*others)), step, optimization, Timing(), leads=True)
    return update(weights, own, frames=5, samples=5, loss=0.5, stop=stop), update


def test_allreduce_clips_the_average_and_not_the_parts():
    own, other = torch.tensor([4.0, 0.0, *TAIL]), torch.tensor([-4.0, 0.2, 0.0, 7.0, 0.0])
    _, update = allreduced(own, other)
    assert update.metrics["grad_norm"] == pytest.approx(0.1)


def test_allreduce_steps_as_one_learner_with_the_average_does():
    own, other = torch.tensor([0.1, 0.2, *TAIL]), torch.tensor([0.3, -0.1, 0.0, 7.0, 0.0])
    together, _ = allreduced(own.clone(), other)
    weights, step, optimization = made(most=0.5)
    alone = LocalUpdate(step, optimization, Timing())(weights, (own + other)[:2] / 2, 5, 5, 0.5, stop=False)
    assert torch.equal(together.flat, alone.flat)
    assert together.version == alone.version
    assert together.frames == 5 + 7, "those of both"


@pytest.mark.parametrize(
    ("own", "other", "last"), [(False, 0.0, False), (True, 0.0, True), (False, 1.0, True), (True, 1.0, True)]
)
def test_allreduced_learners_stop_together_if_any_wants_to(own, other, last):
    weights, step, optimization = made(most=0.5)
    others = Others(torch.tensor([0.1, 0.1, 0.0, 5.0, other]))
    update = AllReduceUpdate(AtOnce(others), step, optimization, Timing(), leads=True)
    after = update(weights, torch.tensor([0.1, 0.1, *TAIL]), frames=5, samples=5, loss=0.5, stop=own)
    assert after.last is last
    update.end()
    assert not others.closed, "another leg may follow"
    update.close()
    assert others.closed


@pytest.mark.parametrize("leads", [True, False])
def test_allreduced_learners_enter_the_first_ones_stage_with_the_same_version(leads):
    """The first has been told, the other has not: only the sum of what they say is known to each."""
    weights, step, optimization = made()
    told, untold = weights._replace(version=6).entering(Stage.LATE, 7), weights._replace(version=6)
    others = torch.tensor([0.1, 0.1, 0.0 if leads else float(Stage.LATE), 5.0, 0.0])
    update = AllReduceUpdate(AtOnce(Others(others)), step, optimization, Timing(), leads=leads)
    after = update(told if leads else untold, torch.tensor([0.1, 0.1, *TAIL]), 5, 5, 0.5, stop=False)
    assert (after.version, after.stage, after.since) == (7, Stage.LATE, 7)
    again = torch.tensor([0.1, 0.1, *TAIL])
    after = update(after, again, 5, 5, 0.5, stop=False)
    assert (after.version, after.stage, after.since) == (8, Stage.LATE, 7), "it goes on"


def gradients(count, own=1.0):
    """Make so many different ones; the tail is written over."""
    return [torch.tensor([own * (1 + n), 0.1 * n, *TAIL]) for n in range(count)]


def pipelined(others, restored=None):
    weights, step, optimization = made(most=0.5)
    reduction = Pipelined(others)
    if restored is not None:
        step.restore(restored[0])
        reduction.restore(restored[1])
    update = AllReduceUpdate(reduction, step, optimization, Timing(), leads=True)
    return update.first(weights), update, step, reduction


def test_overlapped_learners_take_each_step_one_update_late():
    """Li et al. 2018 (Pipe-SGD), Algorithm 1 with K = 2: w[t+1] = w[t] - step(mean gradient of t-1)."""
    others = Others(torch.tensor([0.3, -0.1, 0.0, 7.0, 0.0]))
    weights, update, _, reduction = pipelined(others)
    expected, step, optimization = made(most=0.5)
    alone, means = LocalUpdate(step, optimization, Timing()), []
    for n, gradient in enumerate(gradients(6)):
        means.append((gradient[:2] + others.others[0][:2]) / 2)
        if n:
            expected = alone(expected, means[n - 1].clone(), 12, 5, 0.5, stop=False)
        weights = update(weights, gradient, frames=5, samples=5, loss=0.5, stop=False)
        reduction.advance()
        assert weights.version == 4 + n
        assert weights.frames == 12 * n, "those of gradients in them"
        assert torch.equal(weights.flat, expected.flat)
    update.end()
    assert others.begun is None, "nothing is on its way"
    reduction.advance()


def test_overlapped_learners_that_are_cut_take_the_same_steps():
    other = torch.tensor([0.3, -0.1, 0.0, 7.0, 0.0])
    uncut, update, *_ = pipelined(Others(other))
    for gradient in gradients(6):
        uncut = update(uncut, gradient, frames=5, samples=5, loss=0.5, stop=False)

    weights, update, step, reduction = pipelined(Others(other))
    for gradient in gradients(6)[:3]:
        weights = update(weights, gradient, frames=5, samples=5, loss=0.5, stop=False)
    update.end()
    saved = copy.deepcopy((step.state(), reduction.state()))
    _, update, step, _ = pipelined(Others(other), saved)
    weights = update.first(weights._replace(flat=step.state()["parameters"]))
    for gradient in gradients(6)[3:]:
        weights = update(weights, gradient, frames=5, samples=5, loss=0.5, stop=False)
    assert torch.equal(weights.flat, uncut.flat)
    assert (weights.version, weights.frames) == (uncut.version, uncut.frames)


def test_overlapped_learners_hear_of_a_stage_and_of_the_end_with_the_mean():
    weights, update, *_ = pipelined(Others(torch.tensor([0.1, 0.1, 0.0, 5.0, 0.0])))
    first, second = gradients(2)
    weights = update(weights.entering(Stage.LATE, 4), first, frames=5, samples=5, loss=0.5, stop=True)
    assert (weights.version, weights.stage, weights.last) == (4, Stage.EARLY, False), "the others do not know yet"
    weights = update(weights, second, frames=5, samples=5, loss=0.5, stop=False)
    assert (weights.version, weights.stage, weights.since, weights.last) == (5, Stage.LATE, 5, True)


def test_overlapped_learners_begin_a_leg_without_the_wish_to_end_the_one_before():
    """Who wanted to stop says so again in the update that ends the leg, whose mean the next leg begins with."""
    weights, update, _, reduction = pipelined(Others(torch.tensor([0.1, 0.1, 0.0, 5.0, 0.0])))
    stops, ended = [False, True, True], []
    for stop, gradient in zip(stops, gradients(3), strict=True):
        weights = update(weights, gradient, frames=5, samples=5, loss=0.5, stop=stop)
        ended.append(weights.last)
    assert ended == [False, False, True]
    update.end()
    assert reduction.state()["mean"][-2] == 5, "the frames are counted in the next"
    weights = update.first(weights._replace(last=False))
    for gradient in gradients(2):
        weights = update(weights, gradient, frames=5, samples=5, loss=0.5, stop=False)
        assert not weights.last


@pytest.mark.parametrize("learners", [2, 3, 6])
def test_overlapped_learners_of_another_number_go_on_with_what_was_told(learners):
    weights, update, step, reduction = pipelined(Others(torch.tensor([0.1, 0.1, 0.0, 5.0, 0.0])))
    update(weights.entering(Stage.MIDDLE, 4), gradients(1)[0], frames=5, samples=5, loss=0.5, stop=False)
    update.end()
    saved = copy.deepcopy((step.state(), reduction.state()))
    more = Others(*[torch.tensor([0.1, 0.1, 0.0, 5.0, 0.0])] * (learners - 1))
    weights, update, *_ = pipelined(more, saved)
    after = update(weights, gradients(1)[0], frames=5, samples=5, loss=0.5, stop=False)
    assert (after.stage, after.frames) == (Stage.MIDDLE, 10)


def test_a_rate_of_zero_changes_nothing():
    weights, step, optimization = made()
    step = OptimizerStep(weights.flat, Optimization(learning_rate=0.1, decay="linear"), 0.5)
    step.frames = 1.0
    LocalUpdate(step, optimization, Timing())(weights, torch.ones(2), 5, 5, 0.5, stop=False)
    assert torch.equal(weights.flat, torch.zeros(2))

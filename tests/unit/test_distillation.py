"""The student's losses, when it is time to follow, and that following brings it closer."""

import math

import numpy as np
import pytest
import torch
from teachers import kl_between

from hpcddrl.compressors.compressed import Blueprint
from hpcddrl.compressors.distillation import Distiller, PolicyLikeness, ValueLikeness, answers, likeness_of
from hpcddrl.compressors.student import Student
from hpcddrl.config import ActorCritic, Network, QLearning
from hpcddrl.config.compression import AboveKL, Distillation, EveryUpdates, ShareOfTime
from hpcddrl.rl.distillation import Drift, is_due, student_loss, student_q_loss
from hpcddrl.rl.policies import Categorical, Gaussian
from hpcddrl.types import Continuous, Discrete, EnvSpec, Output

VECTOR = EnvSpec((5,), np.dtype(np.float32), 1, Discrete(3), 1)
BOX = EnvSpec((5,), np.dtype(np.float32), 1, Continuous(-np.ones(2, np.float32), np.ones(2, np.float32)), frame_skip=1)


def outputs(size, seed, count=7):
    g = torch.Generator().manual_seed(seed)
    return Output(
        torch.randn(count, size, generator=g).double().requires_grad_(),
        torch.randn(count, generator=g).double().requires_grad_(),
    )


def categorical_terms(teacher, student):
    """Return KL(π_T ‖ π_S) and H(π_S) of one state, by the definitions."""
    p, q = ([math.exp(x) / sum(map(math.exp, row)) for x in row] for row in (teacher, student))
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)), -sum(b * math.log(b) for b in q)


def gaussian_terms(teacher, student):
    """The same for two dimensions of independent normal distributions."""
    kl = entropy = 0.0
    for d in range(2):
        m_t, s_t, m_s, s_s = teacher[d], math.exp(teacher[2 + d]), student[d], math.exp(student[2 + d])
        kl += math.log(s_s / s_t) + (s_t**2 + (m_t - m_s) ** 2) / (2 * s_s**2) - 0.5
        entropy += 0.5 * math.log(2 * math.pi * math.e * s_s**2)
    return kl, entropy


POLICIES = [(Categorical(4), categorical_terms), (Gaussian(2), gaussian_terms)]


@pytest.mark.parametrize(("policy", "terms"), POLICIES, ids=["categorical", "gaussian"])
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_a_students_loss_is_the_proposals(policy, terms, beta):
    teacher, student = outputs(4, 0), outputs(4, 1)
    expected = 0.0
    for i in range(7):
        kl, entropy = terms(teacher.policy[i].tolist(), student.policy[i].tolist())
        difference = (student.value[i] - teacher.value[i]).item()
        expected += (kl + 0.5 * difference**2 - beta * entropy) / 7
    loss = student_loss(policy=policy, teacher=teacher, student=student, entropy_coefficient=beta)
    assert loss.item() == pytest.approx(expected)


@pytest.mark.parametrize(("policy", "terms"), POLICIES, ids=["categorical", "gaussian"])
def test_a_students_gradient_is_the_losss_and_its_teacher_is_a_constant(policy, terms):
    teacher, student = outputs(4, 0), outputs(4, 1)

    def loss_of(params, value):
        return student_loss(policy=policy, teacher=teacher, student=Output(params, value), entropy_coefficient=0.1)

    assert torch.autograd.gradcheck(loss_of, (student.policy, student.value))
    loss_of(*student).backward()
    assert teacher.policy.grad is None
    assert teacher.value.grad is None


def test_descent_raises_what_the_teacher_prefers_and_the_entropy_if_that_is_wanted():
    teacher = Output(torch.tensor([[3.0, 0.0]]), torch.tensor([2.0]))
    student = Output(torch.zeros(1, 2, requires_grad=True), torch.zeros(1, requires_grad=True))
    student_loss(policy=Categorical(2), teacher=teacher, student=student, entropy_coefficient=0.0).backward()
    assert student.policy.grad[0, 0] < 0 < student.policy.grad[0, 1]
    assert student.value.grad[0] < 0
    sharp = Output(torch.tensor([[3.0, 0.0]], requires_grad=True), torch.tensor([2.0], requires_grad=True))
    student_loss(policy=Categorical(2), teacher=teacher, student=sharp, entropy_coefficient=1.0).backward()
    assert sharp.policy.grad[0, 0] > 0 > sharp.policy.grad[0, 1]  # the KL is at its minimum: the entropy alone speaks


def test_equal_answers_cost_nothing():
    teacher = outputs(4, 0)
    loss = student_loss(policy=Categorical(4), teacher=teacher, student=teacher, entropy_coefficient=0.0)
    assert loss.item() == 0.0
    assert student_q_loss(teacher=teacher.policy, student=teacher.policy).item() == 0.0


def test_a_value_based_students_loss_is_the_mean_squared_error_of_q():
    teacher, student = outputs(3, 0).policy, outputs(3, 1).policy
    loss = student_q_loss(teacher=teacher, student=student)
    squares = [(student[i, a] - teacher[i, a]).item() ** 2 for i in range(7) for a in range(3)]
    assert loss.item() == pytest.approx(sum(squares) / len(squares))
    loss.backward()
    torch.testing.assert_close(student.grad, 2 * (student - teacher).detach() / 21)
    assert teacher.grad is None


# --- when


def drift(**changes):
    unmeasured = lambda: pytest.fail("measured a KL that nobody asked for")  # noqa: E731
    return Drift(
        **({"updates": 5, "unseen": 5, "kl": unmeasured, "spent_s": 0.0, "last_s": 0.0, "elapsed_s": 100.0} | changes)
    )


@pytest.mark.parametrize("trigger", [EveryUpdates(updates=1), AboveKL(threshold=1e-9), ShareOfTime()])
def test_a_teacher_that_has_not_moved_is_not_followed(trigger):
    assert not is_due(trigger, drift(updates=0))


def test_every_k_updates():
    assert [is_due(EveryUpdates(updates=3), drift(updates=n)) for n in range(1, 6)] == [False, False, True, True, True]


def test_above_a_kl_it_looks_only_so_often():
    trigger = AboveKL(threshold=0.1, check_every=4)
    assert not is_due(trigger, drift(unseen=3))
    assert is_due(trigger, drift(unseen=4, kl=lambda: 0.2))
    assert not is_due(trigger, drift(unseen=5, kl=lambda: 0.1))
    assert is_due(trigger, drift(unseen=5, kl=lambda: math.nan))


def test_a_share_of_the_time_is_never_exceeded_and_nearly_used():
    trigger, spent, elapsed = ShareOfTime(share=0.2), 0.0, 0.0
    for _ in range(2000):
        elapsed += 1.0  # an update
        if is_due(trigger, drift(spent_s=spent, last_s=1.5, elapsed_s=elapsed)):
            spent, elapsed = spent + 1.5, elapsed + 1.5
            assert spent <= 0.2 * elapsed
    assert spent > 0.19 * elapsed


# --- how


def networks(algorithm, spec, width=1.0):
    blueprint = Blueprint(Network(torso="mlp"), algorithm, spec, seed=1)
    teacher = blueprint.build()
    for head in (m for m in teacher.children() if isinstance(m, torch.nn.Linear)):
        torch.nn.init.orthogonal_(head.weight, 1.0)
    return teacher, blueprint._replace(seed=2).build(width=width)


@pytest.mark.parametrize(
    ("algorithm", "spec"), [(ActorCritic(), VECTOR), (ActorCritic(), BOX), (QLearning(), VECTOR)], ids=["pi", "n", "q"]
)
def test_a_narrower_student_comes_closer_to_its_teacher_and_leaves_it_alone(algorithm, spec):
    teacher, small = networks(algorithm, spec, width=0.25)
    states = torch.randn(256, 5, generator=torch.Generator().manual_seed(0))
    before = [p.clone() for p in teacher.parameters()]
    likeness = likeness_of(small, spec)
    student = Student(small, Distiller(small, Distillation(steps=60, learning_rate=3e-3), likeness, seed=0))
    kl = [kl_between(teacher, small, states, spec)]
    for _ in range(2):
        assert student.follow(teacher, states) == 60
        kl.append(kl_between(teacher, small, states, spec))
    assert kl[0] > 2 * kl[1]
    assert kl[1] > kl[2], "the second time it went on from the first"
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.parameters(), strict=True))
    assert all(p.grad is None for p in teacher.parameters())


def test_a_student_at_its_teacher_stays_there():
    teacher, small = networks(ActorCritic(), VECTOR)
    small.load_state_dict(teacher.state_dict())
    distiller = Distiller(small, Distillation(steps=3), likeness_of(small, VECTOR), seed=0)
    states = torch.randn(32, 5, generator=torch.Generator().manual_seed(0))
    distiller.follow(teacher, states)
    assert kl_between(teacher, small, states, VECTOR) < 1e-3


def test_a_student_without_observations_says_so():
    teacher, small = networks(ActorCritic(), VECTOR)
    distiller = Distiller(small, Distillation(), likeness_of(small, VECTOR), seed=0)
    with pytest.raises(ValueError, match="there are none"):
        distiller.follow(teacher, torch.empty(0, 5))


def test_constraints_hold_after_each_step():
    teacher, small = networks(ActorCritic(), VECTOR)
    distiller = Distiller(small, Distillation(steps=5), likeness_of(small, VECTOR), seed=0)
    seen = []
    distiller.follow(teacher, torch.randn(32, 5), lambda: seen.append(float(small.value.bias.detach()[0])))
    assert len(set(seen)) == 5


# --- likeness


def test_the_likeness_of_q_networks_is_that_of_softened_choices():
    teacher, other = (
        Output(torch.tensor([[0.1, 0.0]]), torch.zeros(1)),
        Output(torch.tensor([[0.0, 0.1]]), torch.ones(1)),
    )
    likeness = ValueLikeness(temperature=0.1)
    p = 1 / (1 + math.exp(-1))
    assert float(likeness.kl(teacher, other)) == pytest.approx((2 * p - 1) * 1.0, rel=1e-5)
    assert likeness.agrees(teacher, other).tolist() == [False]
    assert isinstance(likeness_of(networks(QLearning(), VECTOR)[0], VECTOR), ValueLikeness)


def test_greedy_actions_agree_when_they_are_the_same_or_nearly():
    logits = Output(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.zeros(2))
    others = Output(torch.tensor([[0.0, 9.0], [0.0, 1.0]]), torch.zeros(2))
    assert PolicyLikeness(Categorical(2), 0.0).agrees(logits, others).tolist() == [True, False]
    means = Output(torch.tensor([[0.5, 0.0], [0.5, 0.0]]), torch.zeros(2))
    moved = Output(torch.tensor([[0.51, 1.0], [0.6, 0.0]]), torch.zeros(2))
    assert PolicyLikeness(Gaussian(1), 0.0).agrees(means, moved).tolist() == [True, False]


def test_answers_to_many_states_are_those_to_each():
    teacher, _ = networks(ActorCritic(), VECTOR)
    states = torch.randn(600, 5)
    whole = answers(teacher, states)
    assert whole.policy.shape == (600, 3)
    torch.testing.assert_close(whole.value[520], teacher(states[520:521]).value[0].detach())

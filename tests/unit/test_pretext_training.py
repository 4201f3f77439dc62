"""A pretext task beside a learner's own loss: where its gradient goes, what it sees, when it ends."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from hpcddrl.config import AtFrames, AtPlateau, Network, Pretext, WithStage
from hpcddrl.config.helpers import Autoencoder, NextFrame, ObjectProposals, Segmentation
from hpcddrl.logs.packing import pack, unpack
from hpcddrl.logs.timing import Phase, Timing
from hpcddrl.networks.flat import flatten
from hpcddrl.networks.make import make_network
from hpcddrl.pretext.decoding import convolutions
from hpcddrl.roles.pretext import OwnEnd, PretextTraining, drawn
from hpcddrl.runtime.pretext import task_for
from hpcddrl.types import Batch, Continuous, Discrete, EnvSpec, Stage, Transitions, Weights

R, T, B = 2, 5, 3
SPEC = EnvSpec((24, 24), np.dtype(np.uint8), 2, Discrete(3), 1)


def batch_of(valid=None):
    """Return a batch whose observations [.., 2, 24, 24] say their place: rollout, step and environment."""
    r, t, b = np.meshgrid(np.arange(R), np.arange(T + 1), np.arange(B), indexing="ij")
    place = torch.from_numpy(100 * r + 10 * t + b).to(torch.uint8)
    observation = place[..., None, None, None].expand(R, T + 1, B, 2, 24, 24).clone()
    observation[:, :, :, 1, 3, 4] += 50
    zeros = torch.zeros(T, R * B)
    return Batch(
        observation=observation,
        action=torch.arange(T * R * B).view(T, R * B) % 3,
        log_mu=zeros,
        reward=zeros,
        discount=zeros,
        valid=torch.ones(T, R * B) if valid is None else valid,
        versions=np.zeros(R * B, np.int64),
        steps=T * R * B,
    )


@pytest.mark.parametrize("ahead", [1, 3, 99])
def test_pairs_are_so_many_steps_apart_with_no_reset_between(ahead):
    valid = torch.ones(T, R * B)
    valid[2, 4] = 0  # rollout 1, environment 1
    views = drawn(batch_of(valid), 1000, ahead, torch.Generator().manual_seed(0))
    before, after = (x[:, 0, 0, 0].int() for x in (views.observation, views.next_observation))
    apart = min(ahead, T)
    assert ((after - before) == 10 * apart).all()
    starts = T - apart + 1
    crossing = sum(t <= 2 < t + apart for t in range(starts))
    assert len(before) == len(set(before.tolist())) == starts * R * B - crossing
    for place, action in zip(before.tolist(), views.action.tolist(), strict=True):
        r, t, b = place // 100, place // 10 % 10, place % 10
        assert action == (t * R * B + r * B + b) % 3
        assert (r, b) != (1, 1) or not t <= 2 < t + apart


def test_as_many_as_asked_for_and_others_each_time():
    generator = torch.Generator().manual_seed(0)
    first, second = (drawn(batch_of(), 7, 1, generator).observation[:, 0, 0, 0].tolist() for _ in range(2))
    assert len(set(first)) == len(set(second)) == 7
    assert first != second
    assert len(drawn(batch_of(torch.zeros(T, R * B)), 7, 1, generator).action) == 0


def test_of_transitions_each_has_its_own_end():
    count = torch.arange(9, dtype=torch.uint8)
    wide = count[:, None, None, None].expand(9, 2, 24, 24)
    numbers = torch.zeros(9)
    given = Transitions(wide, wide + 100, count.long(), numbers, numbers, numbers, np.zeros(9), 9)
    views = drawn(given, 5, 4, torch.Generator().manual_seed(0))
    assert (views.next_observation - views.observation == 100).all()
    assert (views.observation[:, 0, 0, 0] == views.action).all()
    assert len(set(views.action.tolist())) == 5


def test_a_restored_task_goes_on_as_if_nothing_had_happened():
    config, batch = Pretext(task=Autoencoder(), observations=7, ends=AtPlateau(window_updates=2)), batch_of()
    one, other = trained(config), trained(config, seed=1)
    for _ in range(3):
        one[0].learn(batch, Weights(0, one[3].values))
    saved = b"".join(pack(one[0].state()).pieces())
    other[0].restore(unpack(np.frombuffer(bytearray(saved), np.uint8)))
    for _ in range(3):
        metrics = [made.learn(batch, Weights(0, flat.values)) for made, _, _, flat, _ in (one, other)]
        assert metrics[0] == metrics[1]
    assert pack(one[0].state()).header == pack(other[0].state()).header
    for mine, theirs in zip(one[1].parameters(), other[1].parameters(), strict=True):
        assert torch.equal(mine, theirs)


class Rank:
    """Stands for a rank's control."""

    def __init__(self):
        self.timing, self.rows = Timing(), []

    def helper(self, name, running, reason, version):
        self.rows.append((name, running, version, reason))


def trained(config, picture=None, seed=0):
    """Return what trains a task for a small network, its network, its vectors and its rank."""
    network = make_network(Network(torso="nips", width=0.25), SimpleNamespace(kind="actor_critic"), SPEC, seed=0)
    flat, rank = flatten(network), Rank()
    torch.manual_seed(seed)
    task = task_for(config.task, network, SPEC)
    made = PretextTraining(config, task, convolutions(network.torso), flat.gradient, seed, picture, rank)
    return made, task, network, flat, rank


TASKS = [Autoencoder(weighting=w) for w in ("even", "motion", "attention")]
TASKS += [NextFrame(), Segmentation(), ObjectProposals(points=2, ahead=2)]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.kind}-{getattr(task, 'weighting', '')}")
def test_the_torso_is_asked_on_top_of_the_others_and_nothing_else_of_the_network(task):
    made, own, network, flat, rank = trained(Pretext(task=task, weight=3.0))
    flat.gradient.fill_(1.0)
    before = [p.detach().clone() for p in own.parameters()]
    metrics = made.learn(batch_of(), Weights(0, flat.values))
    assert metrics["pretext_loss"] > 0
    assert set(metrics) <= {f"pretext_{name}" for name in ("loss", "error", "error_moving", "overlap")}
    touched = {name for name, p in network.named_parameters() if not (p.grad == 1).all()}
    assert touched
    assert touched <= {f"torso.{i}.{what}" for i in (0, 2) for what in ("weight", "bias")}, "the convolutions"
    assert any(not torch.equal(a, b) for a, b in zip(before, own.parameters(), strict=True)), "its own are stepped"
    assert rank.timing.seconds[Phase.PRETEXT] > 0


def test_its_gradient_is_its_weight_times_that_of_its_loss():
    asked = {}
    for weight in (1.0, 4.0):
        made, _, _, flat, _ = trained(Pretext(weight=weight))
        made.learn(batch_of(), Weights(0, flat.values))
        asked[weight] = flat.gradient.clone()
    assert asked[1.0].abs().max() > 0
    torch.testing.assert_close(asked[4.0], 4 * asked[1.0])


def test_before_the_others_it_is_alone():
    made, _, _, flat, _ = trained(Pretext(alone_frames=100))
    alone, _, _, clean, _ = trained(Pretext())
    flat.gradient.fill_(1.0)
    made.learn(batch_of(), Weights(0, flat.values, frames=99))
    alone.learn(batch_of(), Weights(0, clean.values))
    assert torch.equal(flat.gradient, clean.gradient)
    flat.gradient.fill_(1.0)
    made.learn(batch_of(), Weights(1, flat.values, frames=100))
    assert (flat.gradient == 1).sum() > 100, "the heads' stay"


def test_it_runs_in_the_early_stage_and_says_so(tmp_path):
    made, _, _, flat, rank = trained(Pretext(), tmp_path / "pretext/group-0000.png")
    runs = []
    for version, stage in enumerate((0, 0, 1, 2, 0)):
        runs.append(bool(made.learn(batch_of(), Weights(version, flat.values, stage=Stage(stage)))))
    assert runs == [True, True, False, False, True]
    assert rank.rows == [
        ("autoencoder", True, 0, "early stage"),
        ("autoencoder", False, 2, "middle stage"),
        ("autoencoder", True, 4, "early stage"),
    ]
    with Image.open(tmp_path / "pretext/group-0000.png") as image:
        assert image.text["rows"] == "frame, made"
    assert not list(tmp_path.glob("pretext/*.new"))


def test_it_ends_for_good_at_its_frames():
    made, _, _, flat, rank = trained(Pretext(ends=AtFrames(frames=50)))
    runs = [bool(made.learn(batch_of(), Weights(v, flat.values, frames=f))) for v, f in enumerate((0, 49, 50, 51, 0))]
    assert runs == [True, True, True, False, False], "the update that finds it is made"
    assert rank.rows[-1] == ("autoencoder", False, 3, "50 frames, as given")


def test_it_ends_at_a_plateau_of_its_own_loss():
    def updates(losses):
        end = OwnEnd(AtPlateau(window_updates=2, patience=2, gain=0.1))
        return next((i + 1 for i, loss in enumerate(losses) if end.see(loss, 0.0) or end.reason), None)

    assert updates([9, 9, 5, 5, 3, 3, 2, 2, 1, 1]) is None
    assert updates([9, 9, 5, 5, 5, 5, 5, 5, 1, 1]) == 8
    assert updates([9, 9, 5, 5, 6, 4, 5, 5]) == 8, "means of windows count"
    end = OwnEnd(WithStage())
    for _ in range(100):
        end.see(1.0, 1e9)
    assert not end.reason


VECTORS = EnvSpec((5,), np.dtype(np.float32), 2, Discrete(3), 1)
REALS = SPEC._replace(frame_dtype=np.dtype(np.float32))
STEERED = SPEC._replace(action=Continuous(-np.ones(2), np.ones(2)))


@pytest.mark.parametrize(
    ("task", "spec", "torso", "words"),
    [
        (Autoencoder(), VECTORS, "mlp", "needs images, the environment shows vectors"),
        (Autoencoder(), SPEC, "mlp", "network.torso = 'mlp'"),
        (Segmentation(), SPEC._replace(frame_stack=1), "nips", "env.frame_stack = 1"),
        (Segmentation(), REALS, "nips", "needs images of uint8"),
        (NextFrame(), STEERED, "nips", "needs a choice among actions"),
    ],
)
def test_what_cannot_be_learned_here_is_refused(task, spec, torso, words):
    network = make_network(Network(torso=torso), SimpleNamespace(kind="actor_critic"), spec, seed=0)
    with pytest.raises(ValueError, match=f"stages.early.task.kind = '{task.kind}': .*{words}"):
        task_for(task, network, spec)

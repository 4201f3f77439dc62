"""What each role computes on, and the way of its data there and back."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hpcddrl.comm.placement import place
from hpcddrl.networks.device import CPU, HostSide, Rows, answering_on, batch_to, finished, host_room, on_host, to_device
from hpcddrl.recipes import RECIPES
from hpcddrl.roles.publishing import AsTheyAre, Following
from hpcddrl.roles.reducing import ThroughHost
from hpcddrl.runtime.checks import fitted
from hpcddrl.runtime.devices import Devices, Seen, devices_of, wishes
from hpcddrl.settings import override
from hpcddrl.types import Discrete, EnvSpec, Transitions, Weights

IMAGES = EnvSpec((84, 84), np.dtype(np.uint8), 4, Discrete(6), 4)
VECTORS = EnvSpec((4,), np.dtype(np.float32), 1, Discrete(2), 1)
PROGRAM = Path(__file__).parents[1] / "elsewhere.py"


def found(ranks, recipe, seen, *settings, spec=IMAGES):
    """Return what each rank learns and infers on, and everything else of it."""
    config = fitted(override(RECIPES[recipe](), list(settings)), ranks)
    return devices_of(config, spec, place(config.topology), seen)


def node(name, ranks, gpus):
    return [Seen(name, tuple(f"{name} GPU {i}" for i in range(gpus)))] * ranks


def on(devices):
    return [str(rank.learner) for rank in devices]


def test_learners_take_the_gpus_of_their_node_in_rank_order():
    devices = found(8, "group_ensemble", node("a", 4, 2) + node("b", 4, 2))
    assert on(devices) == ["cuda:0", "cpu", "cuda:1", "cpu"] * 2
    assert all(rank.inference == rank.learner for rank in devices)
    assert [rank.sharing for rank in devices[:3]] == [(0,), (), (2,)]


def test_learners_share_where_they_are_more_than_gpus():
    devices = found(6, "group_ensemble", node("a", 6, 2))
    assert on(devices)[::2] == ["cuda:0", "cuda:1", "cuda:0"]
    assert [rank.sharing for rank in devices[::2]] == [(0, 4), (2,), (0, 4)]
    assert all(rank.one_each for rank in devices[::2]), "one of a group each: nothing of NCCL's is shared"


def test_ranks_that_are_shown_one_gpu_each_take_it():
    seen = [Seen("a", (f"GPU {rank}",)) for rank in range(3)]
    devices = found(3, "impala", seen, "topology.learners_per_group=3")
    assert on(devices) == ["cuda:0"] * 3
    assert all(rank.one_each for rank in devices)


@pytest.mark.parametrize("seen", [node("a", 3, 2), node("a", 2, 2) + node("b", 1, 0)], ids=["shared", "not all"])
def test_learners_of_a_group_without_a_gpu_each_cannot_reduce_there(seen):
    devices = found(3, "impala", seen, "topology.learners_per_group=3")
    assert "cuda:0" in on(devices)
    assert not any(rank.one_each for rank in devices)


@pytest.mark.parametrize(
    ("settings", "spec", "wanted"),
    [
        ([], IMAGES, ("auto", "auto")),
        ([], VECTORS, ("cpu", "cpu")),
        (["device.learner=cuda"], VECTORS, ("cuda", "cuda")),
        (["device.learner=cpu"], IMAGES, ("cpu", "cpu")),
        (["device.inference=cpu"], IMAGES, ("auto", "cpu")),
        (["device.learner=cpu", "device.inference=cuda"], IMAGES, ("cpu", "cuda")),
        (["compression=whole"], IMAGES, ("auto", "cpu")),
        (["deterministic=true"], IMAGES, ("cpu", "cpu")),
    ],
)
def test_what_profits_asks_for_a_gpu_by_itself(settings, spec, wanted):
    assert wishes(override(RECIPES["paac"](), ["acting.reuse_forward=false", *settings]), spec) == wanted


def test_without_gpus_auto_is_cores_and_cuda_is_refused_in_one_line():
    assert on(found(4, "impala", node("a", 4, 0))) == ["cpu"] * 4
    with pytest.raises(ValueError, match="torch sees no GPU on a, for learner 0") as refused:
        found(4, "impala", node("a", 4, 0), "device.learner=cuda")
    assert str(refused.value).startswith("device.learner = 'cuda':")
    assert "device.learner=auto" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("recipe", "settings", "words"),
    [
        ("impala", ["topology.actors_per_group=2", "device.inference=cuda"], "actors choose their actions on cores"),
        ("nnc_ga3c", ["device.inference=cuda"], "compressed networks act on cores"),
        ("paac", ["acting.reuse_forward=true", "device.inference=cpu"], "the forward passes that acted"),
        ("impala", ["deterministic=true", "device.learner=cuda"], "set device.learner=cpu"),
    ],
)
def test_what_cannot_be_computed_on_a_gpu_is_refused(recipe, settings, words):
    with pytest.raises(ValueError, match=words):
        override(RECIPES[recipe](), settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is of machines without a GPU")
def test_a_run_that_asks_for_a_gpu_ends_before_it_writes_anything(command, tmp_path):
    options = ["--env", "CartPole-v1", "--device", "cuda", "--out", tmp_path / "run"]
    code, _, error = command("run", "impala", *options)
    assert code == 2
    assert "device.learner = 'cuda': torch sees no GPU on" in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_on_cores_nothing_moves():
    vector = torch.arange(5.0)
    batch = Transitions(vector, vector, vector, vector, vector, vector, np.zeros(5), 5)
    assert to_device(vector, CPU) is vector
    assert batch_to(batch, CPU) is batch
    assert answering_on(torch.relu, CPU) is torch.relu
    assert finished(test_on_cores_nothing_moves, CPU) is test_on_cores_nothing_moves
    side = HostSide()
    assert side.of(vector) is vector
    assert side.fetch(vector) is vector
    side.store(vector)
    assert side._room is None, "it needs no room of its own"
    rows = Rows(host_room((3, 2), np.uint8, CPU), CPU)
    rows.host[1] = 7
    rows.begin()
    rows.send(1)
    assert rows.first(2).data_ptr() == rows.host.data_ptr()
    assert on_host({"state": {0: (vector, 3)}})["state"][0][0] is vector
    packing = AsTheyAre(vector)
    assert packing.pack().ctypes.data == vector.data_ptr()


def test_a_copy_follows_with_each_version():
    learned, copied = torch.zeros(4), torch.ones(4)
    following = Following(AsTheyAre(learned), copied.copy_)
    learned += 2
    assert following.renew(Weights(3, learned)) == 3
    assert torch.equal(copied, learned)
    assert np.array_equal(following.pack().view(np.float32), learned.numpy())
    copied.zero_()
    assert following.renew(Weights(3, learned)) == 3
    assert not copied.any(), "there is nothing new"
    following.renew(Weights(4, learned))
    assert torch.equal(copied, learned)


def test_what_learns_or_acts_on_another_device_comes_to_the_same_weights(tmp_path):
    small = "env.id=hpcddrl/Catch-v0 env.num_envs=2 algorithm.unroll_length=4 deterministic=true"
    images = "env.frame_stack=2 network.torso=resnet network.width=0.1"
    lines = [
        f"impala {small} {images} budget.frames=24 stages.early=pretext stages.early.ends=frames",
        f"ppo {small} budget.frames=40 algorithm.surrogate.minibatches=2",
        f"dqn {small} budget.frames=160 experience.learning_starts=50 experience.batch_size=16",
        f"impala {small} budget.frames=40 device.learner=cpu",
        f"impala {small} budget.frames=40 device.inference=cpu",
        f"nnc_impala {small} budget.frames=40 compression.distillation.trigger=every",
    ]
    done = subprocess.run([sys.executable, PROGRAM, tmp_path, *lines], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    for line in lines:
        assert f"{line}: the same" in done.stdout, done.stdout + done.stderr


# --- on a GPU


@pytest.mark.gpu
def test_vectors_and_rows_come_to_a_gpu_and_back():
    gpu = torch.device("cuda", 0)
    vector = torch.arange(5.0)
    side, there = HostSide(), to_device(vector, gpu)
    assert side.fetch(there).is_pinned()
    assert torch.equal(side.fetch(there), vector)
    side.of(there).mul_(2)
    side.store(there)
    assert torch.equal(there.cpu(), 2 * vector)
    rows = Rows(host_room((3, 4), np.uint8, gpu), gpu)
    for value in (3, 4):
        rows.begin()
        rows.host.fill_(value)
        rows.send(0)
        rows.send(2)
        assert rows.first(3)[::2].cpu().unique().tolist() == [value]
    packing = AsTheyAre(there)
    there.fill_(9.0)
    assert (packing.pack().view(np.float32) == 9).all()


@pytest.mark.gpu
@pytest.mark.parametrize("recipe", ["impala", "ppo", "dqn", "a3c"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_of_a_gpu_are_those_of_cores(recipe, precision):
    """Each family: V-trace, clipped, Q-learning, none; by the relative distance of the whole gradient."""
    from hpcddrl.networks.encoding import Precision
    from hpcddrl.networks.flat import flatten
    from hpcddrl.networks.make import make_network
    from hpcddrl.runtime.pace import _batch, _transitions
    from hpcddrl.runtime.parts import algorithm_for
    from hpcddrl.runtime.plan import job_of

    config = fitted(override(RECIPES[recipe](), ["network.torso=nature"]), 3 if recipe == "a3c" else 1)
    job, gradients, gpu = job_of(config, IMAGES), [], torch.device("cuda", 0)
    Devices(gpu, gpu).use()
    for device in (CPU, gpu):
        network = make_network(config.network, config.algorithm, IMAGES, seed=0).to(device)
        network.precision = Precision(precision, channels_last=True)
        flat = flatten(network)
        made, _ = _transitions(job) if recipe == "dqn" else _batch(job)
        algorithm = algorithm_for(config, network, IMAGES, flat.gradient)
        algorithm.gradients(batch_to(made, device), None, Weights(0, flat.values))
        gradients.append(flat.gradient.cpu())
    apart = (gradients[0] - gradients[1]).norm() / gradients[0].norm()
    assert apart < (1e-3 if precision == "fp32" else 0.2)


class Others:
    """Averages with a vector of the host's, as MPI does."""

    name, on_gpus, size = "others", False, 2

    def average(self, vector):
        assert vector.is_cpu
        vector.add_(1.0).div_(2.0)

    def close(self):
        self.closed = True


@pytest.mark.gpu
def test_a_gpus_vector_is_averaged_in_host_memory():
    vector = torch.full((6,), 5.0, device="cuda")
    ThroughHost(Others()).average(vector)
    assert vector.cpu().tolist() == [3.0] * 6

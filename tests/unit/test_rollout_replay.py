"""A replay of rollouts for on-policy algorithms: what is kept and drawn, and what its gradient is on average."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hpcddrl.algorithms.actor_critic import ActorCritic
from hpcddrl.comm.messages import rollout_layout
from hpcddrl.config import ActorCritic as ActorCriticConfig
from hpcddrl.config import Network, RolloutReplay
from hpcddrl.logs.packing import pack, unpack
from hpcddrl.logs.timing import Timing
from hpcddrl.networks.flat import flatten
from hpcddrl.networks.make import make_network
from hpcddrl.replay.rollouts import RolloutMemory, shared
from hpcddrl.rl.losses import effective_share
from hpcddrl.rl.policies import policy_for
from hpcddrl.roles.counters import Counters
from hpcddrl.roles.feeds import Arrived
from hpcddrl.roles.memories import OwnMemory
from hpcddrl.roles.reusing import Reusing
from hpcddrl.roles.rollouts import Batcher
from hpcddrl.types import Discrete, EnvSpec, Stage, Weights

T, B = 3, 2
SPEC = EnvSpec((2,), np.dtype(np.float32), 1, Discrete(2), 1)


def rollout_of(envs=B, version=0, unroll_length=T, spec=SPEC, **fields):
    """Return a rollout of zeros but for some fields."""
    _, record = rollout_layout(spec, unroll_length, envs).allocate()
    record.version[0] = version
    for name, values in fields.items():
        getattr(record, name)[...] = values
    return record


def memory_of(seed=0, like=None, **config):
    return RolloutMemory(RolloutReplay(**config), like or rollout_of(1), seed)


def numbered(number, envs=B, version=0):
    """Return a rollout in which everything says its number, step and environment."""
    t, b = np.meshgrid(np.arange(T), np.arange(envs), indexing="ij")
    place = 100.0 * number + 10 * t + b
    return rollout_of(envs, version, reward=place, log_mu=-place, action=place % 2, value=place + 0.5, discount=1.0)


def test_what_is_drawn_is_what_was_kept_and_the_oldest_goes_first():
    memory = memory_of(capacity=5)
    for number in range(4):  # 8 rollouts of one environment, of which 5 fit
        keys = memory.insert(numbered(number, version=number))
        assert len(memory) <= 5
        memory.learned(keys, np.ones(B))
    assert len(memory) == 5
    drawn = memory.draw(200)
    numbers, envs = np.divmod(drawn.rollout.reward[0], 100)
    assert set(zip(numbers.astype(int), envs.astype(int), strict=True)) == {(1, 1), (2, 0), (2, 1), (3, 0), (3, 1)}
    assert (drawn.rollout.version == numbers).all()
    for name, make in {"log_mu": lambda p: -p, "value": lambda p: p + 0.5, "action": lambda p: p % 2}.items():
        wanted = make(drawn.rollout.reward)
        np.testing.assert_array_equal(getattr(drawn.rollout, name), wanted, err_msg=name)
    assert drawn.rollout.frames.shape == (1 + T, 200, 2)


def test_what_is_not_learned_from_yet_or_too_old_is_not_drawn():
    memory = memory_of(capacity=8)
    keys = [memory.insert(numbered(number, version=10 * number)) for number in range(3)]
    assert len(memory) == 0
    for number in (0, 2):
        memory.learned(keys[number], np.ones(B))
    memory.drop_before(10)
    assert (len(memory), memory.stale) == (B, B)
    assert set(memory.draw(50).rollout.version) == {20}
    memory.drop_before(10)
    assert memory.stale == B, "counted once"


def test_what_was_dropped_for_its_age_while_it_was_being_learned_from_again_stays_away():
    memory = memory_of(capacity=2 * B)
    memory.learned(keys := memory.insert(numbered(0, version=1)), np.ones(B))
    drawn = memory.draw(4)
    memory.drop_before(5)
    memory.learned(drawn.keys, np.ones(4))  # comes back when all that it is of is too old
    assert (len(memory), memory.stale) == (0, B)
    memory.drop_before(5)
    assert memory.stale == B, "counted once"
    for number in (1, 2):  # in the others' place, and in that of those dropped
        memory.learned(memory.insert(numbered(number, version=9)), np.ones(B))
    memory.learned(keys, np.ones(B))
    assert len(memory) == 2 * B


def test_what_is_said_of_a_rollout_that_another_has_replaced_is_ignored():
    memory = memory_of(capacity=2 * B, alpha=1.0, epsilon=1e-9)
    keys = [memory.insert(numbered(number)) for number in range(3)]  # the third takes the first one's place
    memory.learned(keys[2], np.full(B, 3.0))
    memory.learned(keys[0], np.full(B, 7.0))
    np.testing.assert_allclose(memory._priorities.get(keys[2] % (2 * B)), [3.0, 3.0])
    memory.learned(np.concatenate(keys[:2]), np.array([7.0, 7.0, 1.0, 2.0]))
    np.testing.assert_allclose(memory._priorities.get(keys[1]), [1.0, 2.0])
    assert set(memory.draw(50).keys) == {*keys[1], *keys[2]}


REWARDS = np.array([[0, 0, 0], [1, 0, 2], [-1, 0, 0], [-3, 0, 1], [0, 0.5, 0], [0, -2, -2]], float).T  # [T, 6]
ERRORS = np.array([0.1, 2.0, 0.3, 0.0, 5.0, 1.0])


@pytest.mark.parametrize("priority", ["td_error", "reward", "negative_reward"])
@pytest.mark.parametrize(("alpha", "share"), [(1.0, 0.0), (0.6, 0.0), (0.6, 0.4), (0.0, 0.5)])
def test_draws_are_as_likely_as_the_formula_says_and_weighed_for_it(priority, alpha, share):
    config = {"priority": priority, "alpha": alpha, "epsilon": 0.05, "negative_share": share}
    memory = memory_of(capacity=7, beta=0.7, **config)
    memory.learned(memory.insert(rollout_of(6, reward=REWARDS)), ERRORS)
    p, q = [], []
    for env in range(6):
        gain = sum(abs(r) for r in REWARDS[:, env])
        loss = sum(-r for r in REWARDS[:, env] if r < 0)
        p.append(({"td_error": ERRORS[env], "reward": gain, "negative_reward": loss}[priority] + 0.05) ** alpha)
        q.append(loss**alpha if loss else 0.0)
    wanted = (1 - share) * np.array(p) / sum(p) + share * np.array(q) / sum(q)
    draws = [memory.draw(100) for _ in range(60)]
    found = np.bincount(np.concatenate([drawn.keys for drawn in draws]), minlength=7)[:6] / 6000
    np.testing.assert_allclose(found, wanted, atol=0.02)
    for drawn in draws[:2]:
        np.testing.assert_allclose(drawn.weight, (6 * wanted[drawn.keys]) ** -0.7, rtol=1e-5)


def test_rewards_of_steps_that_only_reset_are_no_rewards():
    memory = memory_of(capacity=4, priority="reward", alpha=1.0, epsilon=1e-6)
    rollout = rollout_of(2, reward=np.array([[5.0, 1.0]] * T))
    rollout.first[1:, 0] = True
    memory.learned(memory.insert(rollout), np.zeros(2))
    assert (memory.draw(100).keys == 1).all()


# --- the gradient


def learner(c=ActorCriticConfig(rho_bar=1e9, c_bar=1e9, entropy_coefficient=0.03)):  # noqa: B008 (frozen)
    network = make_network(Network(torso="mlp", width=0.1), c, SPEC, seed=3)
    with torch.no_grad():
        network.policy.weight.mul_(300.0)  # away from uniform
    flat = flatten(network)
    algorithm = ActorCritic(c, network, flat.gradient, policy_for(SPEC.action))

    def gradient(batch):
        learned = algorithm.gradients(batch, None, Weights(0, flat.values))
        return flat.gradient.clone(), learned

    return network, gradient


def every_rollout():
    """Return one rollout with an environment for each sequence of actions: what a uniform policy does on average.

    What is observed does not hang on the actions, so that ratios of actions are all that tells two policies apart; the
    rewards do, and on the step.
    """
    sequences = np.array(list(itertools.product((0, 1), repeat=T))).T  # [T, 8]
    reward = np.array([[1.0, -2.0], [0.5, 3.0], [-1.0, 0.25]])[np.arange(T)[:, None], sequences]
    frames = np.random.default_rng(1).normal(size=(1 + T, 1, 2)).astype(np.float32)
    discount = np.ones((T, 1)) * (np.arange(T) < T - 1)[:, None]
    uniform = np.full(sequences.shape, np.log(0.5))
    return rollout_of(8, action=sequences, reward=reward, frames=frames, discount=discount, log_mu=uniform)


def on_policy(network, gradient, batch):
    """Return the mean gradient of what the network's own policy does, by its probability of each sequence."""
    with torch.no_grad():
        policy = network(batch.observation.flatten(0, 2)).policy.view(T + 1, 8, 2)[:-1]
        log_pi = torch.log_softmax(policy, -1).gather(-1, batch.action[..., None]).squeeze(-1)  # [T, 8]
    chance = log_pi.sum(0).exp()
    assert chance.max() / chance.min() > 3, "far from what acted"
    total = 0
    for n in range(8):
        one = batch._replace(
            observation=batch.observation[:, :, n : n + 1],
            action=batch.action[:, n : n + 1],
            log_mu=log_pi[:, n : n + 1],
            reward=batch.reward[:, n : n + 1],
            discount=batch.discount[:, n : n + 1],
            valid=batch.valid[:, n : n + 1],
        )
        total = total + chance[n] * gradient(one)[0]
    return total


def apart(a, b):
    return float((a - b).norm() / b.norm())


def test_with_exact_weights_the_mean_gradient_is_the_on_policy_one():
    network, gradient = learner()
    rollouts = every_rollout()
    whole = Batcher(SPEC, T, 8, 1)([rollouts])
    wanted = on_policy(network, gradient, whole)
    replayed, learned = gradient(whole)
    assert apart(replayed, wanted) < 1e-4
    assert learned.errors.shape == (8,)
    as_if = whole._replace(log_mu=whole.log_mu + 0.3)
    assert apart(gradient(as_if)[0], wanted) > 0.05, "by the stored μ"


@pytest.mark.parametrize("config", [{}, {"priority": "reward"}, {"negative_share": 0.5, "alpha": 1.0}])
def test_however_rollouts_are_drawn_their_weights_make_up_for_it(config):
    network, gradient = learner()
    rollouts = every_rollout()
    whole = Batcher(SPEC, T, 8, 1)([rollouts])
    wanted = on_policy(network, gradient, whole)
    found = {}
    for beta in (1.0, 0.0):
        memory = memory_of(capacity=8, beta=beta, epsilon=0.1, **config)
        memory.learned(memory.insert(rollouts), gradient(whole)[1].errors)
        drawn = memory.draw(4000)
        batch = Batcher(SPEC, T, 4000, 1)([drawn.rollout])._replace(weight=torch.from_numpy(drawn.weight))
        replayed, learned = gradient(batch)
        found[beta] = apart(replayed, wanted)
        assert 0 < learned.metrics["replay_effective"] < 1
    assert found[1.0] < 0.02
    assert found[0.0] > 3 * found[1.0]


def test_weights_of_one_change_nothing():
    _, gradient = learner()
    whole = Batcher(SPEC, T, 8, 1)([every_rollout()])
    plain, weighed = gradient(whole)[0], gradient(whole._replace(weight=torch.ones(8)))[0]
    assert torch.equal(plain, weighed)


def test_errors_are_mean_distances_of_value_and_target():
    """With all ratios 1, undiscounted to the end: the targets are the returns."""
    network, gradient = learner(ActorCriticConfig(correction="none", discount=1.0))
    whole = Batcher(SPEC, T, 8, 1)([every_rollout()])
    with torch.no_grad():
        value = network(whole.observation.flatten(0, 2)).value.view(T + 1, 8)[:-1]
    returns = whole.reward.flip(0).cumsum(0).flip(0)
    np.testing.assert_allclose(gradient(whole)[1].errors, (returns - value).abs().mean(0), rtol=1e-5)


def test_effective_share_is_its_formula():
    x = torch.tensor([[1.0, 2.0], [float("inf"), 3.0]])
    valid = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    assert effective_share(x, valid) == pytest.approx(36 / (3 * 14))
    assert effective_share(torch.ones(4, 4), torch.ones(4, 4)) == 1.0
    assert effective_share(torch.zeros(2, 2), torch.ones(2, 2)) == 0.0


# --- over restarts


def through_a_file(state):
    packed = pack(state)
    return unpack(np.frombuffer(b"".join(bytes(piece) for piece in packed.pieces()), np.uint8).copy())


def some(count, capacity=7, seed=0):
    """Return a memory that was filled, learned from and drawn from."""
    memory, rng = memory_of(seed, capacity=capacity, negative_share=0.3), np.random.default_rng(4)
    for number in range(count):
        rollout = numbered(number, version=number)
        rollout.reward[:] = rng.normal(size=(T, B))
        memory.learned(memory.insert(rollout), rng.random(B))
        memory.draw(3)
    return memory


@pytest.mark.parametrize("count", [0, 2, 9], ids=["empty", "filling", "full"])
def test_a_restored_memory_goes_on_alike(count):
    first, second = some(count), memory_of(9, capacity=7, negative_share=0.3)
    second.restore(through_a_file(first.state()))
    assert len(second) == len(first)
    for number in range(20, 26):
        for memory in (first, second):
            memory.learned(memory.insert(numbered(number, version=number)), np.full(B, float(number)))
        ours, theirs = first.draw(5), second.draw(5)
        for a, b in zip(
            (*ours.rollout, ours.keys, ours.weight), (*theirs.rollout, theirs.keys, theirs.weight), strict=True
        ):
            np.testing.assert_array_equal(a, b)
    for memory in (first, second):
        memory.drop_before(25)
    assert first.stale == second.stale > 0


@pytest.mark.parametrize("capacity", [3, 12])
def test_with_another_capacity_the_newest_stay(capacity):
    before, after = some(9), memory_of(capacity=capacity)
    after.restore(through_a_file(before.state()))
    assert len(after) == min(7, capacity)
    assert {int(v) for v in after.draw(200).rollout.version} == {8, 7, 6, 5} if capacity > 7 else {8, 7}
    keys = after.insert(numbered(20, version=20))
    after.learned(keys, np.ones(B))
    assert len(after) == min(9, capacity)
    assert 8 in after.draw(300).rollout.version


def test_rollouts_of_another_length_are_left_out():
    after = memory_of(like=rollout_of(1, unroll_length=T + 1), capacity=7)
    after.restore(through_a_file(some(9).state()))
    assert len(after) == 0


def test_memories_are_dealt_to_any_number_of_holders():
    states = [through_a_file(some(count).state()) for count in (9, 2)]
    held = []
    for number in range(3):
        memory = memory_of(capacity=7, alpha=0.6)
        memory.restore(through_a_file(shared(states, 3, number)))
        held += sorted(memory._kept.version[memory._there].tolist())
    assert sorted(held) == sorted([8, 8, 7, 7, 6, 6, 5, 1, 1, 0, 0])


# --- as a source of batches


class Feed:
    """Stands for actors: a rollout of B environments each time, of the weights that ask."""

    sources = 1

    def __init__(self):
        self.number, self.rollout = 0, None

    def take(self, version, wait=True):
        self.rollout = numbered(self.number, version=version)
        self.number += 1
        return [Arrived(0, self.rollout)]

    def release(self):
        self.rollout.reward[:] = np.nan  # whoever looks at it later sees it


def source_of(**config):
    helped = []
    link = SimpleNamespace(
        timing=Timing(),
        counters=Counters(),
        stage=Stage.MIDDLE,
        helper=lambda name, running, reason, version: helped.append((name, running, reason, version)),
        learned=lambda metrics, lags: link.metrics.append(metrics),
        metrics=[],
    )
    chosen = RolloutReplay(**{"capacity": 20, **config})
    memory = OwnMemory(RolloutMemory(chosen, rollout_of(1), 0), B, chosen.max_lag)
    source = Reusing(Feed(), Batcher(SPEC, T, B, 1), None, memory, Batcher(SPEC, T, B, 1), chosen, link)
    return source, link, helped


def learn(source, updates, start=0, learned=True):
    """Return the batches of some updates."""
    batches = []
    for version in range(start, start + updates):
        batch = source.get(version)
        batches.append(batch._replace(reward=batch.reward.clone()))
        source.feedback(np.ones(B, np.float32), learned)
    return batches


@pytest.mark.parametrize(("ratio", "pattern"), [(1.0, "fdfdfdfd"), (0.5, "ffdffdff"), (2.0, "fddfddfd")])
def test_so_many_batches_are_drawn_for_each_fresh_one_and_counted_apart(ratio, pattern):
    source, link, _ = source_of(replay_ratio=ratio)
    batches = learn(source, 8)
    assert "".join("f" if batch.weight is None else "d" for batch in batches) == pattern
    assert link.counters.used == pattern.count("f") * T * B
    assert link.counters.replayed == pattern.count("d") * T * B
    assert link.counters.dropped == link.counters.pending == 0
    for version, batch in enumerate(batches):
        assert torch.isfinite(batch.reward).all()
        assert batch.steps == (T * B if batch.weight is None else 0), "env steps count once"
        assert (batch.versions <= version).all()
        assert batch.versions.shape == (B,), "ages count alike in both"
        if batch.weight is not None:
            assert batch.weight.shape == (B,)


def test_it_helps_in_the_middle_stage_alone():
    source, link, helped = source_of()
    kinds = ""
    for version, stage in enumerate([0, 0, 1, 1, 1, 1, 2, 2, 1, 1]):
        link.stage = Stage(stage)
        (batch,) = learn(source, 1, version)
        kinds += "f" if batch.weight is None else "d"
    assert kinds == "fffdfdfffd"
    assert helped == [
        ("rollout_replay", True, "middle stage", 2),
        ("rollout_replay", False, "late stage", 6),
        ("rollout_replay", True, "middle stage", 8),
    ]


def test_what_a_server_refused_is_not_kept():
    source, link, _ = source_of()
    batches = learn(source, 6, learned=False)
    assert all(batch.weight is None for batch in batches)
    assert (link.counters.dropped, link.counters.used, link.counters.replayed) == (6 * T * B, 0, 0)


def test_what_is_too_stale_is_dropped_and_counted():
    source, link, _ = source_of(max_lag=3)
    learn(source, 1)
    (batch,) = learn(source, 1, start=100)
    assert batch.weight is None
    assert link.metrics[-1] == {"replay_stale_max": B, "replay_kept": 0}
    drawn = [batch for batch in learn(source, 40, start=101) if batch.weight is not None]
    assert len(drawn) >= 15
    lags = [
        version - batch.versions
        for version, batch in enumerate(learn(source, 20, 141), 141)
        if batch.weight is not None
    ]
    assert max(map(np.max, lags)) <= 3


@pytest.mark.parametrize("cut", [1, 4, 11])
def test_a_run_that_is_cut_learns_from_the_same_batches_as_one_that_is_not(cut):
    options = {"replay_ratio": 1.5, "negative_share": 0.3, "max_lag": 9}
    (whole, *_), (before, *_), (after, link, _) = (source_of(**options) for _ in range(3))
    wanted = [batch.reward.numpy().copy() for batch in learn(whole, 30)]
    got = [batch.reward.numpy().copy() for batch in learn(before, cut)]
    after.restore(through_a_file(before.state()))
    after._fresh._feed.number = before._fresh._feed.number
    got += [batch.reward.numpy().copy() for batch in learn(after, 30 - cut, start=cut)]
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(a, b)
    assert link.counters.replayed > 0


def test_rollouts_with_another_goal_keep_their_priorities_and_only_steps_to_it_count():
    source, link, _ = source_of(replay_ratio=1.0)
    learned, own = np.array([[True, True], [True, False], [True, False]]), np.array([True, False])
    source._hindsight = lambda rollout, rng: (rollout, learned, own)
    (fresh,) = learn(source, 1)
    priorities = source._memory._memory._priorities.weights.copy()
    drawn = source.get(1)
    assert (fresh.samples, drawn.samples) == (T * B, 4)
    np.testing.assert_array_equal(drawn.valid.numpy(), learned)
    slots = source._drawn.keys  # the memory has room left
    source.feedback(np.array([7.0, 9.0], np.float32), True)
    assert link.counters.replayed == 4
    after = source._memory._memory._priorities.weights
    assert after[slots[0]] == pytest.approx((7.0 + 0.01) ** 0.6)
    assert slots[0] == slots[1] or after[slots[1]] == priorities[slots[1]]

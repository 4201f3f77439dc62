"""The contract of environments: resets, truncation, rewards, spaces, seeds and errors."""

import time

import gymnasium as gym
import numpy as np
import pytest

from hpcddrl.config import Env
from hpcddrl.envs.environments import Environments
from hpcddrl.envs.make import games, is_atari, make, probe, register
from hpcddrl.envs.rewards import raw
from hpcddrl.types import Continuous, Discrete, EnvSpec

atari = pytest.mark.atari
CATCH, CARTPOLE, PONG, BREAKOUT = "hpcddrl/Catch-v0", "CartPole-v1", "ALE/Pong-v5", "ALE/Breakout-v5"


class Scripted(gym.Env):
    """Shows how many steps it has made and ends as told; ``echo`` shows the action instead."""

    def __init__(self, length=5, truncates=False, reward=5.0, shape=(3,), dtype="float32", actions=None, echo=False):
        self.observation_space = gym.spaces.Box(-1000, 1000, shape, dtype) if dtype != "uint8" else pixels(shape)
        self.action_space = actions or gym.spaces.Discrete(2)
        self.length, self.truncates, self.reward, self.echo = length, truncates, reward, echo
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.show(0), {}

    def step(self, action):
        self.steps += 1
        ends = self.steps == self.length
        return self.show(action), self.reward, ends and not self.truncates, ends and self.truncates, {}

    def show(self, action):
        space = self.observation_space
        if self.echo:
            return np.broadcast_to(action, space.shape).astype(space.dtype)
        return (np.arange(np.prod(space.shape)).reshape(space.shape) + 10 * self.steps).astype(space.dtype)


class Unbuildable(gym.Env):
    def __init__(self):
        raise OSError("no licence")


def pixels(shape):
    return gym.spaces.Box(0, 255, shape, np.uint8)


SCRIPTED = f"{__name__}:Scripted"


def environments(name, count=2, seeds=None, discount=0.99, options=None, **fields):
    fields.setdefault("reward", "raw")
    return make(Env(id=name, options=options or {}, **fields), count, seeds or list(range(count)), discount)


def random_actions(envs, rng):
    action = envs.spec.action
    if isinstance(action, Discrete):
        return rng.integers(action.num_actions, size=envs.num_envs)
    return rng.uniform(-1, 1, (envs.num_envs, action.dim)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "options", "steps"),
    [
        pytest.param(CATCH, {}, 60, id="catch"),
        pytest.param(CARTPOLE, {}, 150, id="cartpole"),
        pytest.param(SCRIPTED, {"truncates": True}, 30, id="truncated"),
        pytest.param(SCRIPTED, {"length": 1}, 10, id="one-step-episodes"),
        pytest.param(PONG, {}, 1100, id="pong", marks=atari),
    ],
)
def test_resets_are_flagged_and_returns_and_lengths_are_those_of_the_rewards_seen(name, options, steps):
    envs, rng = environments(name, 3, options=options), np.random.default_rng(0)
    frame = envs.reset()
    assert frame.shape == (3, *envs.spec.frame_shape)
    assert frame.dtype == envs.spec.frame_dtype
    ended, returns, lengths, episodes = np.zeros(3, bool), np.zeros(3), np.zeros(3, int), 0
    for _ in range(steps):
        step = envs.step(random_actions(envs, rng))
        assert step.frame.shape == frame.shape
        assert step.frame.dtype == frame.dtype
        assert (step.reward.dtype, step.discount.dtype) == (np.float32, np.float32)
        np.testing.assert_array_equal(step.first, ended)  # the step after an end resets, and no other
        assert not step.reward[step.first].any()
        assert (step.discount[step.first] == 1).all()
        returns += step.reward
        lengths += ~step.first
        ended = step.episode_length > 0
        np.testing.assert_array_equal(np.isnan(step.episode_return), ~ended)
        np.testing.assert_allclose(step.episode_return[ended], returns[ended])
        np.testing.assert_array_equal(step.episode_length[ended], lengths[ended])
        returns[ended], lengths[ended] = 0, 0
        episodes += int(ended.sum())
    assert episodes >= 3
    envs.close()


@pytest.mark.parametrize("name", [CATCH, CARTPOLE])
def test_the_stream_is_that_of_the_environment_reset_by_hand_with_its_final_observations(name):
    seeds = [11, 12]
    envs, rng = environments(name, 2, seeds), np.random.default_rng(1)
    register()
    plain = [gym.make(name, disable_env_checker=True) for _ in seeds]
    first = [env.reset(seed=seed)[0] for env, seed in zip(plain, seeds, strict=True)]
    np.testing.assert_array_equal(envs.reset(), first)
    ended = [False, False]
    for _ in range(60):
        actions = random_actions(envs, rng)
        step = envs.step(actions)
        for i, env in enumerate(plain):
            if ended[i]:
                expected, reward, terminated, ended[i] = env.reset()[0], 0.0, False, False
            else:
                expected, reward, terminated, truncated, _ = env.step(actions[i])
                ended[i] = terminated or truncated
            np.testing.assert_array_equal(step.frame[i], expected)
            assert step.reward[i] == reward
            assert step.discount[i] == 1 - terminated


def test_catch_lasts_13_steps_and_ends_by_termination():
    envs = environments(CATCH)
    envs.reset()
    for _ in range(12):
        step = envs.step(np.array([0, 2]))
        assert (step.discount == 1).all()
        assert not step.reward.any()
    step = envs.step(np.array([0, 2]))
    assert step.episode_length.tolist() == [13, 13]
    assert (step.discount == 0).all()
    assert (np.abs(step.reward) == 1).all()
    assert (step.frame[:, -1].max(axis=1) == 255).all(), "the final observation shows the landed ball"
    step = envs.step(np.array([0, 2]))
    assert step.first.all()
    assert (step.frame[:, 0].max(axis=1) == 255).all(), "the next one a ball at the top"


def test_cartpole_truncated_at_500_steps_keeps_its_discount_and_shows_its_final_observation():
    envs = environments(CARTPOLE)
    frame = envs.reset()
    for _ in range(500):
        balance = (frame @ np.array([0.1, 0.5, 3.0, 1.0]) > 0).astype(np.int64)
        step = envs.step(balance)
        frame = step.frame
        assert (step.discount == 1).all()
        assert not step.first.any()
    assert step.episode_length.tolist() == [500, 500]
    assert step.episode_return.tolist() == [500.0, 500.0]
    final = step.frame
    step = envs.step(balance)
    assert step.first.all()
    assert (np.abs(step.frame) <= 0.05).all(), "a start"
    assert not np.allclose(step.frame, final)


@pytest.mark.parametrize("truncates", [False, True])
def test_only_a_terminated_step_has_discount_zero(truncates):
    envs = environments(SCRIPTED, options={"truncates": truncates, "length": 3})
    envs.reset()
    discounts = [float(envs.step(np.zeros(2, int)).discount[0]) for _ in range(8)]
    assert discounts == ([1.0] * 8 if truncates else [1, 1, 0, 1, 1, 1, 0, 1])


class RewardsItsResets(gym.vector.VectorEnv):
    """A vector environment whose episodes last two steps, and which repeats the last reward when it resets."""

    num_envs = 1

    def __init__(self):
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        return np.zeros((1, 1), np.float32), {}

    def step(self, actions):
        self.steps += 1
        return np.zeros((1, 1), np.float32), np.full(1, 3.0), np.full(1, self.steps % 3 == 2), np.full(1, False), {}


def test_a_reward_that_comes_with_a_reset_belongs_to_no_episode():
    spec = EnvSpec((1,), np.dtype(np.float32), 1, Discrete(2), 1)
    envs = Environments(RewardsItsResets(), spec, [0], raw)
    envs.reset()
    steps = [envs.step(np.zeros(1, int)) for _ in range(6)]
    assert [float(step.reward[0]) for step in steps] == [3, 3, 0, 3, 3, 0]
    assert [float(steps[i].episode_return[0]) for i in (1, 4)] == [6, 6]


# --- rewards


def test_returns_are_unclipped_while_rewards_are_clipped():
    envs = environments(SCRIPTED, reward="clip", options={"reward": -7.0})
    envs.reset()
    steps = [envs.step(np.zeros(2, int)) for _ in range(5)]
    assert [float(s.reward[0]) for s in steps] == [-1.0] * 5
    assert steps[-1].episode_return.tolist() == [-35.0, -35.0]


def test_returns_are_unscaled_while_rewards_are_normalised():
    envs = environments(SCRIPTED, reward="auto", options={"reward": 100.0})
    envs.reset()
    steps = [envs.step(np.zeros(2, int)) for _ in range(11)]
    assert 0 < abs(steps[-1].reward[0]) <= 10
    assert steps[4].episode_return.tolist() == [500.0, 500.0]


@atari
def test_atari_rewards_are_clipped_by_default_and_frames_skipped():
    name, actions = "ALE/MsPacman-v5", np.random.default_rng(3).integers(9, size=(150, 2))
    rewards = {}
    for kind in ("raw", "auto"):
        envs = environments(name, reward=kind)
        assert envs.spec.frame_shape == (84, 84)
        assert envs.spec.frame_dtype == np.uint8
        assert (envs.spec.frame_stack, envs.spec.frame_skip) == (4, 4)
        envs.reset()
        rewards[kind] = np.array([envs.step(a).reward for a in actions])
        envs.close()
    assert rewards["raw"].max() >= 10
    np.testing.assert_array_equal(rewards["auto"], np.clip(rewards["raw"], -1, 1))


@atari
def test_a_lost_life_ends_learning_but_not_the_game():
    """Firing without moving loses Breakout's five lives one by one."""
    zeros = {}
    for option in (False, True):
        envs = environments(BREAKOUT, 1, [5], life_loss_terminates=option)
        envs.reset()
        steps = []
        while not steps or not steps[-1].episode_length[0]:
            steps.append(envs.step(np.ones(1, np.int64)))
            assert len(steps) < 1000
        zeros[option] = [t for t, step in enumerate(steps) if step.discount[0] == 0]
        assert steps[-1].episode_length[0] == len(steps)
        assert not any(step.first[0] for step in steps)
        after = envs.step(np.ones(1, np.int64))
        assert after.first[0]
        assert after.discount[0] == 1, "the next game's lives are no loss"
        envs.close()
    assert len(zeros[False]) == 1
    assert len(zeros[True]) == 5
    assert zeros[True][-1] == zeros[False][0]


# --- spaces


def test_actions_in_a_box_are_scaled_from_minus_1_to_1_and_cut_off_there():
    low, high = np.array([-2, 0], np.float32), np.array([4, 10], np.float32)
    box = gym.spaces.Box(low, high)
    envs = environments(SCRIPTED, 5, options={"actions": box, "shape": (2,), "echo": True})
    assert isinstance(envs.spec.action, Continuous)
    assert envs.spec.action.dim == 2
    np.testing.assert_array_equal(envs.spec.action.low, low)
    np.testing.assert_array_equal(envs.spec.action.high, high)
    envs.reset()
    sent = np.array([[-1, -1], [1, 1], [0, 0], [-9, 9], [0.5, -0.5]], np.float32)
    np.testing.assert_allclose(envs.step(sent).frame, [[-2, 0], [4, 10], [1, 5], [-2, 10], [2.5, 2.5]], atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((6, 5, 3), (3, 6, 5)), ((3, 6, 5), (3, 6, 5)), ((6, 5, 1), (1, 6, 5)), ((6, 5), (6, 5))],
)
def test_images_have_their_channels_moved_to_the_front(shape, expected):
    envs = environments(SCRIPTED, options={"shape": shape, "dtype": "uint8"})
    assert envs.spec.frame_shape == expected
    assert envs.spec.frame_dtype == np.uint8
    shown = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    moved = np.moveaxis(shown, -1, 0) if expected != shape else shown
    np.testing.assert_array_equal(envs.reset(), [moved, moved])
    np.testing.assert_array_equal(envs.step(np.zeros(2, int)).frame, [moved + 10, moved + 10])


@pytest.mark.parametrize(("dtype", "shape"), [("float64", (4,)), ("int64", (4,)), ("uint8", (4,)), ("float32", (4, 4))])
def test_whatever_is_no_uint8_image_is_shown_as_float32(dtype, shape):
    envs = environments(SCRIPTED, options={"shape": shape, "dtype": dtype})
    assert envs.spec.frame_dtype == np.float32
    assert envs.reset().dtype == np.float32
    assert envs.step(np.zeros(2, int)).frame.dtype == np.float32


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"actions": gym.spaces.MultiDiscrete([2, 3])}, "actions MultiDiscrete"),
        ({"actions": gym.spaces.Discrete(3, start=1)}, "actions Discrete"),
        ({"actions": gym.spaces.Box(-np.inf, np.inf, (2,))}, "actions Box"),
        ({"actions": gym.spaces.Box(0, 1, (2, 2))}, "actions Box"),
        ({"shape": (2, 2, 2, 2)}, "observations Box"),
    ],
)
def test_unsupported_spaces_are_an_error_that_names_the_space(options, complaint):
    with pytest.raises(ValueError, match=rf"^env.id = '{SCRIPTED}': {complaint}.* not supported; use "):
        environments(SCRIPTED, options=options)


def test_observations_that_are_no_box_are_an_error():
    with pytest.raises(ValueError, match=r"^env.id = 'Taxi-v4': observations Discrete\(500\) are not supported"):
        environments("Taxi-v4")


@pytest.mark.parametrize(
    ("name", "stack", "depth"), [(CATCH, None, 1), (CATCH, 3, 3), pytest.param(PONG, None, 4, marks=atari)]
)
def test_frame_stack_defaults_to_4_for_atari_and_1_elsewhere(name, stack, depth):
    spec = probe(Env(id=name, frame_stack=stack))
    assert spec.frame_stack == depth
    assert spec.frame_skip == (4 if is_atari(name) else 1)


# --- seeds


def play(name, seeds, steps=30):
    envs, rng = environments(name, len(seeds), seeds), np.random.default_rng(2)
    frames = [envs.reset()] + [envs.step(random_actions(envs, rng)).frame for _ in range(steps)]
    again = envs.reset()
    envs.close()
    return np.array(frames), again


@pytest.mark.parametrize(
    ("name", "count"),
    [(CATCH, 6), (CARTPOLE, 6), pytest.param(PONG, 2, marks=atari)],
    ids=["catch", "cartpole", "pong"],
)
def test_seeds_reproduce_and_differ(name, count):
    seeds = list(range(40, 40 + count))
    frames, again = play(name, seeds)
    np.testing.assert_array_equal(play(name, seeds)[0], frames)
    np.testing.assert_array_equal(again, frames[0])
    others, _ = play(name, list(range(60, 60 + count)))
    assert (others != frames).any()


def test_each_environment_has_its_own_seed():
    frames, _ = play(CARTPOLE, [3, 4, 3])
    np.testing.assert_array_equal(frames[0, 0], frames[0, 2])
    assert (frames[0, 0] != frames[0, 1]).any()


# --- errors


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("CartPol-v1", r"no such environment; nearest: CartPole-v1"),
        pytest.param("ALE/Pnog-v5", r"no such environment; nearest: ALE/Pong-v5", marks=atari),
        ("hpcddrl/Cat-v0", r"no such environment; nearest: hpcddrl/Catch-v0"),
        ("no_such_module:Env", r"cannot be imported: ModuleNotFoundError: .*no_such_module.*PYTHONPATH"),
        ("gymnasium:NoSuchClass", r"cannot be imported: AttributeError: .*NoSuchClass"),
        (f"{__name__}:Unbuildable", r"cannot be made: OSError: no licence"),
    ],
)
def test_an_environment_that_cannot_be_had_is_one_line_that_names_it(name, complaint):
    with pytest.raises(ValueError, match=rf"^env.id = '{name}': {complaint}") as caught:
        environments(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [CARTPOLE, SCRIPTED, pytest.param(PONG, marks=atari)])
def test_an_option_that_the_environment_does_not_take_is_an_error(name):
    with pytest.raises(ValueError, match=r"^env\..*unexpected keyword argument 'no_such'"):
        environments(name, options={"no_such": 1})


def test_an_exception_carries_the_environments_index_and_seed():
    envs = environments("hpcddrl/Faulty-v0", 3, [10, 11, 12], options={"at": 4, "only_seed": 11})
    envs.reset()
    for _ in range(3):
        envs.step(np.ones(3, np.int64))
    with pytest.raises(RuntimeError, match="raised on demand at step 4") as caught:
        envs.step(np.ones(3, np.int64))
    assert caught.value.__notes__ == ["environment 1 of this rank, seed 11"]


def test_a_module_and_class_takes_the_options_as_arguments():
    envs = environments(SCRIPTED, options={"length": 2, "shape": (7,)})
    assert envs.spec.frame_shape == (7,)
    envs.reset()
    assert [int(envs.step(np.zeros(2, int)).episode_length[0]) for _ in range(3)] == [0, 2, 0]


def test_one_id_is_taken_as_it_is():
    env = Env(id=PONG, options={"repeat_action_probability": 0.5})
    assert env.ids == (PONG,)
    assert games(env) == (env,)


def test_several_ids_are_so_many_environments():
    env = Env(id=f"{CATCH}, {CARTPOLE} ,module:Class", num_envs=3)
    assert env.ids == (CATCH, CARTPOLE, "module:Class")
    made = games(env)
    assert [game.id for game in made] == [CATCH, CARTPOLE, "module:Class"]
    assert all(game.num_envs == 3 and game.options == {} for game in made)


@atari
def test_several_atari_games_all_take_the_full_set_of_actions():
    env = Env(id=f"{PONG},{BREAKOUT}")
    assert [game.options for game in games(env)] == [{"full_action_space": True}] * 2
    assert env.options == {}
    assert probe(env).action == Discrete(18)
    assert probe(Env(id=PONG)).action == Discrete(6)


@pytest.mark.parametrize(
    ("ids", "options"),
    [
        (f"{CATCH},{CARTPOLE}", {}),
        pytest.param(f"{PONG},{BREAKOUT}", {"full_action_space": False}, marks=atari),  # 6 against 4
    ],
)
def test_environments_that_differ_are_one_line_that_names_them(ids, options):
    with pytest.raises(ValueError, match="does not show and take the same as") as error:
        probe(Env(id=ids, options=options))
    first, second = ids.split(",")
    assert str(error.value).startswith(f"env.id = {ids!r}: {second} does not show and take the same as {first} ")
    assert "\n" not in str(error.value)


# Sleep


def test_sleep_takes_time_and_no_processor_and_shows_what_atari_shows():
    envs = environments("hpcddrl/Sleep-v0", 1, options={"sleep_s": 0.01, "episode_length": 5}, frame_stack=4)
    assert envs.spec.frame_shape == (84, 84)
    assert envs.spec.observation_shape == (4, 84, 84)
    assert envs.spec.frame_dtype == np.uint8
    envs.reset()
    wall, cpu = time.perf_counter(), time.process_time()
    ends = [int(envs.step(np.zeros(1, np.int64)).episode_length[0]) for _ in range(11)]
    assert ends == [0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 5]
    assert time.perf_counter() - wall >= 10 * 0.01  # the step that only resets sleeps not
    assert time.process_time() - cpu < 0.05


def test_sleep_cannot_take_less_than_no_time():
    with pytest.raises(ValueError, match=r"env.options.sleep_s = -1: must be 0 or more"):
        environments("hpcddrl/Sleep-v0", 1, options={"sleep_s": -1})

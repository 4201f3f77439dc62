"""The configuration: JSON and back, settings from the command line, and contradictions."""

import dataclasses
import json

import pytest

from hpcddrl.config import SCHEMA, Adam, CentralActing, Config, Ensemble, ParameterServer
from hpcddrl.recipes import DEFAULT, RECIPES
from hpcddrl.settings import dump, group_config, load, override

NAMES = sorted(RECIPES)


def config():
    return Config(recipe="test")


def complaint(settings, start=None):
    """Return the one line that these settings are rejected with."""
    with pytest.raises(ValueError, match=r".") as caught:
        override(start or config(), settings)
    assert type(caught.value) is ValueError
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- recipes and JSON


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_comes_back_from_json(name):
    recipe = RECIPES[name]()
    text = json.dumps(dump(recipe))
    assert load(json.loads(text)) == recipe
    assert override(recipe, []) == recipe


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_bears_its_name_and_its_docstring_is_a_page(name):
    recipe = RECIPES[name]
    assert recipe.__name__ == recipe().recipe == name
    assert recipe() == recipe()
    assert len(recipe.__doc__.splitlines()) > 3


def test_the_default_recipe_exists():
    assert DEFAULT in RECIPES


@pytest.mark.parametrize("name", NAMES)
def test_every_field_of_every_recipe_can_be_set_to_what_it_is(name):
    """So every field is reachable by --set, and no value is read back as another."""
    recipe = RECIPES[name]()

    def leaves(data, path=""):
        for key, value in data.items():
            where = f"{path}.{key}".lstrip(".")
            if isinstance(value, dict) and value:
                yield from leaves(value, where)
            else:
                yield f"{where}={json.dumps(value)}"

    settings = [s for s in leaves(dump(recipe)) if not s.partition("=")[0].endswith("kind")]
    assert len(settings) > 40
    assert override(recipe, settings) == recipe


def test_configurations_are_frozen_at_every_depth():
    frozen = config()
    for part in (frozen, frozen.env, frozen.algorithm, frozen.optimization.method, frozen.coupling):
        name = dataclasses.fields(part)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, name, getattr(part, name))


def test_two_configurations_share_nothing_that_can_change():
    one, other = config(), config()
    one.env.options["x"] = 1
    assert other.env.options == {}


# --- settings


@pytest.mark.parametrize(
    ("setting", "read"),
    [
        ("env.num_envs=8", lambda c: c.env.num_envs == 8),
        ("env.id=CartPole-v1", lambda c: c.env.id == "CartPole-v1"),
        ("env.life_loss_terminates=true", lambda c: c.env.life_loss_terminates is True),
        ("deterministic=True", lambda c: c.deterministic is True),
        ("budget.frames=4e6", lambda c: c.budget.frames == 4e6),
        ("budget.frames=none", lambda c: c.budget.frames is None),
        ("algorithm.correction=none", lambda c: c.algorithm.correction == "none"),
        ("optimization.max_gradient_norm=null", lambda c: c.optimization.max_gradient_norm is None),
        ("env.options.max_episode_steps=7", lambda c: c.env.options == {"max_episode_steps": 7}),
        ('env.options={"a": [1, 2]}', lambda c: c.env.options == {"a": [1, 2]}),
        (" seed = 3 ", lambda c: c.seed == 3),
        ("coupling=ensemble", lambda c: c.coupling == Ensemble()),
        ("optimization.method=adam", lambda c: c.optimization.method == Adam()),
        ("acting=central", lambda c: c.acting == CentralActing()),
        ('coupling={"kind": "ensemble", "beta": 0.5}', lambda c: c.coupling == Ensemble(beta=0.5)),
    ],
)
def test_a_setting_changes_its_field(setting, read):
    changed = override(config(), [setting])
    assert read(changed)
    assert changed != config()


def test_settings_apply_in_order_and_a_named_answer_takes_its_fields_afterwards():
    changed = override(config(), ["seed=1", "coupling=ensemble", "coupling.beta=0.5", "seed=2"])
    assert changed.seed == 2
    assert changed.coupling == Ensemble(beta=0.5)
    assert override(changed, ["coupling=ensemble"]).coupling == Ensemble()


@pytest.mark.parametrize("order", [1, -1])
def test_axes_must_agree_only_when_all_settings_are_in(order):
    settings = ["update=server", "topology.servers=1"][::order]
    changed = override(config(), settings)
    assert changed.update == ParameterServer()
    assert changed.topology.servers == 1


def test_a_setting_leaves_the_configuration_it_starts_from_alone():
    start = config()
    override(start, ["env.options.a=1", "seed=5"])
    assert start == config()


@pytest.mark.parametrize(
    ("setting", "nearest"),
    [
        ("env.num_env=8", "env.num_envs"),
        ("algorithm.unroll=8", "algorithm.unroll_length"),
        ("optimization.lerning_rate=1", "optimization.learning_rate"),
        ("budgt.frames=1", "budget"),
        ("sed=1", "seed"),
        ("coupling.beta=1", "coupling.kind"),
        ("zzz=1", "acting, algorithm"),
    ],
)
def test_an_unknown_field_names_the_nearest(setting, nearest):
    line = complaint([setting])
    assert line.startswith(f"--set {setting.split('=')[0].split('.frames')[0]}: no such option; nearest: ")
    assert nearest in line.partition("nearest: ")[2]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["env.num_envs=0"], "env.num_envs = 0: must be greater than or equal to 1"),
        (["env.num_envs=x"], "env.num_envs = 'x': must be a valid integer"),
        (["algorithm.discount=1.5"], "algorithm.discount = 1.5: must be less than or equal to 1"),
        (["algorithm.correction=foo"], "algorithm.correction = 'foo': must be 'none', 'eps', 'ratio' or 'vtrace'"),
        (["optimization.learning_rate=nan"], "optimization.learning_rate = 'nan': must be a finite number"),
        (["budget.seconds=inf"], "budget.seconds = 'inf': must be a finite number"),
        (["coupling=ensemble", "coupling.beta=-1"], "coupling.beta = -1: must be greater than or equal to 0"),
        (
            ["coupling=ensemble", "coupling.mixing.temperature=0"],
            "coupling.mixing.temperature = 0: must be greater than 0",
        ),
        (
            ["coupling=ensemble", "coupling.topology=star"],
            "coupling.topology = 'star': must be 'all_to_all', 'ring' or 'random_pairs'",
        ),
        (
            ["coupling=ensemble", "coupling.schedule=plateau", "coupling.schedule.gain=2"],
            "coupling.schedule.gain = 2: must be less than or equal to 1",
        ),
        (["compression=channels", "compression.keep=1"], "compression.keep = 1: must be less than 1"),
        (
            ["compression=whole", "compression.format=fixed_point", "compression.format.most_bits=40"],
            "compression.format.most_bits = 40: must be less than or equal to 16",
        ),
        (["acting=central", "acting.minimum=0"], "acting.minimum = 0: must be greater than or equal to 1"),
        (["optimization.method.decay=2"], "optimization.method.decay = 2: must be less than or equal to 1"),
        (["env=3"], "env = 3: must be"),
        (["schema=abc"], "schema = 'abc': must be a valid integer"),
    ],
)
def test_a_bad_value_names_field_value_and_rule(settings, expected):
    assert complaint(settings).startswith(expected)


@pytest.mark.parametrize("axis", ["update", "coupling", "acting", "optimization.method"])
def test_an_unknown_kind_names_those_there_are(axis):
    line = complaint([f"{axis}=foo"])
    assert line.startswith(f"{axis} = 'foo': must be ")
    assert " or " in line


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("seed", "--set seed: not of the form field=value"),
        ("env.id.foo=1", "--set env.id.foo: env.id is a single value"),
        ("env.options.a.b=1", "--set env.options.a: no such option; nearest: none"),
        ("=1", "--set : no such option"),
    ],
)
def test_a_malformed_setting_is_a_complaint(setting, expected):
    assert complaint([setting]).startswith(expected)


# --- contradictions

Q = ["algorithm=q_learning", "experience=replay"]
SERVER = ["update=server", "topology.servers=1"]


@pytest.mark.parametrize(
    ("settings", "fields"),
    [
        (["update=server"], ["topology.servers = 0", "update.kind = 'server'"]),
        (["topology.servers=1"], ["topology.servers = 1", "update.kind = 'local'"]),
        (["topology.learners_per_group=2"], ["topology.learners_per_group = 2", "update=allreduce"]),
        (["algorithm=q_learning"], ["algorithm.kind = 'q_learning'", "experience=replay"]),
        (["experience=replay"], ["algorithm.kind = 'actor_critic'", "experience.kind = 'replay'"]),
        (
            [*Q, "coupling=ensemble", "coupling.schedule=plateau"],
            ["coupling.schedule.kind = 'plateau'", "'q_learning'", "coupling.schedule=warmup"],
        ),
        (
            ["coupling=ensemble", "coupling.topology=ring", "topology.groups=2"],
            ["coupling.topology = 'ring'", "topology.groups = 2", "all_to_all"],
        ),
        (
            ["coupling=ensemble", "coupling.topology=random_pairs", "topology.groups=2"],
            ["coupling.topology = 'random_pairs'", "topology.groups = 2"],
        ),
        (
            ["env.id=CartPole-v1", "coupling=ensemble", "coupling.mixing=best_group"],
            ["coupling.mixing.kind = 'best_group'", "env.reward = 'auto'", "env.reward=raw"],
        ),
        (
            ["env.id=CartPole-v1", "coupling=population"],
            ["coupling.kind = 'population'", "env.reward = 'auto'", "env.reward=raw"],
        ),
        ([*Q, "coupling=population"], ["coupling.kind = 'population'", "'q_learning'", "coupling=ensemble"]),
        (
            ["coupling=population", "update=server", "topology.servers=1"],
            ["coupling.kind = 'population'", "update.kind = 'server'"],
        ),
        (
            ["coupling=averaging", "update=server", "topology.servers=1"],
            ["coupling.kind = 'averaging'", "update.kind = 'server'", "coupling=uncoupled"],
        ),
        (
            ["coupling=ensemble", "coupling.schedule=cyclic", "coupling.schedule.updates=20"],
            ["coupling.schedule.updates = 20", "coupling.exchange_every = 20", "coupling.schedule=constant"],
        ),
        (
            ["coupling=ensemble", "coupling.max_age=20"],
            ["coupling.max_age = 20", "coupling.exchange_every = 20", "set more"],
        ),
        ([*Q, "coupling=teacher"], ["coupling.kind = 'teacher'", "'q_learning'"]),
        ([*Q, "experience.learning_starts=200000"], ["learning_starts = 200000", "capacity = 100000"]),
        ([*Q, "experience.batch_size=6000"], ["batch_size = 6000", "learning_starts = 5000"]),
        ([*Q, "topology.replays_per_group=1", "acting=central"], ["replays_per_group = 1", "'central'"]),
        ([*Q, "topology.replays_per_group=1", "topology.actors_per_group=0"], ["replays_per_group = 1", "actors"]),
        ([*Q, "topology.replays_per_group=1", "deterministic=true"], ["deterministic = True", "replays_per_group"]),
        (["topology.replays_per_group=1"], ["topology.replays_per_group = 1", "experience=replay"]),
        (["acting=central", "acting.minimum=1", "acting.reuse_forward=true"], ["reuse_forward", "minimum=all"]),
        (["acting=central", "acting.reuse_forward=true", "algorithm.surrogate=clipped"], ["reuse_forward", "clipped"]),
        ([*Q, "deterministic=true"], ["deterministic = True", "topology.actors_per_group=0"]),
        (
            ["algorithm.surrogate=clipped", "deterministic=true"],
            ["deterministic = True", "algorithm.surrogate.kind = 'clipped'", "topology.actors_per_group=0"],
        ),
        ([*Q, "acting=central", "algorithm.exploration=spread"], ["exploration.kind = 'spread'", "acting=local"]),
        (
            ["acting=central", "acting.minimum=1", "topology.actors_per_group=3", "algorithm.rollouts_per_batch=4"],
            ["algorithm.rollouts_per_batch = 4", "3 actors"],
        ),
        (["algorithm.surrogate=clipped", "env.num_envs=3"], ["surrogate.minibatches = 4", "env.num_envs = 3"]),
        (
            ["algorithm.surrogate=clipped", "env.num_envs=1", "acting=central", "topology.actors_per_group=3"],
            ["surrogate.minibatches = 4", "3 rollouts"],
        ),
        (["algorithm.rollouts_per_batch=ready"], ["rollouts_per_batch = 'ready'", "acting=central"]),
        (["update=allreduce", "topology.learners_per_group=2", "acting=central"], ["acting.kind = 'central'"]),
        (["optimization.decay=linear", "budget.frames=none"], ["optimization.decay", "--frames"]),
        (["deterministic=true", "budget.frames=none"], ["deterministic = True", "--frames"]),
        (["deterministic=true", "acting=central", "acting.minimum=2"], ["deterministic = True", "acting.minimum = 2"]),
        (
            ["compression=whole", "acting=central", "acting.reuse_forward=true"],
            ["compression.kind = 'whole'", "acting.reuse_forward"],
        ),
        (
            [
                *("algorithm=q_learning", "experience=replay", "compression=student"),
                "compression.distillation.entropy_coefficient=0.01",
            ],
            ["compression.distillation.entropy_coefficient = 0.01", "algorithm.kind = 'q_learning'", "set it to 0"],
        ),
        (["compression=auto", "deterministic=true"], ["deterministic = True", "compression.kind = 'auto'"]),
        (
            ["compression=whole", "compression.trigger=share", "deterministic=true"],
            ["deterministic = True", "compression.trigger"],
        ),
        (
            ["compression=student", "compression.distillation.beside=true", "deterministic=true"],
            ["deterministic = True", "compression.distillation.beside"],
        ),
        (
            ["stages.early=pretext"],
            ["stages.early.ends.kind = 'stage'", "stages.detector.kind = 'none'", "stages.early.ends=plateau"],
        ),
        (
            [*Q, "algorithm.n_step=3", "stages.early=pretext", "stages.early.task=next_frame"],
            ["stages.early.task.kind = 'next_frame'", "algorithm.n_step = 3", "set algorithm.n_step=1"],
        ),
        (
            ["stages.early=pretext", "stages.early.ends=frames", "stages.early.alone_frames=2e6"],
            ["stages.early.alone_frames = 2e+06", "stages.early.ends.frames = 1e+06"],
        ),
        (["stages.middle=replay"], ["stages.middle.kind = 'replay'", "stages.detector.kind = 'none'"]),
        (
            ["stages.middle=replay", "stages.detector=detected", "algorithm.correction=ratio"],
            ["stages.middle.kind = 'replay'", "algorithm.correction = 'ratio'", "set algorithm.correction=vtrace"],
        ),
        (
            ["stages.middle=replay", "stages.detector=detected", "algorithm.surrogate=clipped"],
            ["stages.middle.kind = 'replay'", "algorithm.surrogate.kind = 'clipped'"],
        ),
        (
            ["stages.middle=replay", "stages.detector=detected", "stages.middle.held_by=server"],
            ["stages.middle.held_by = 'server' with topology.servers = 0", "update=server"],
        ),
        ([*Q, "stages.middle=replay", "stages.detector=detected"], ["stages.middle.kind", "'q_learning'"]),
        ([*SERVER, "stages.late=ensemble"], ["stages.late.kind = 'ensemble'", "stages.detector.kind = 'none'"]),
        (
            ["stages.detector=detected", "stages.late=ensemble"],
            ["stages.late.kind = 'ensemble' with update.kind = 'local'", "update=server"],
        ),
        (
            [*SERVER, "stages.detector=detected", "stages.late=ensemble", "update.mode=synchronous"],
            ["update.mode = 'synchronous'", "cannot go on apart", "update.mode=asynchronous"],
        ),
        (
            [*SERVER, *Q, "stages.detector=detected", "stages.late=ensemble"],
            ["stages.late.kind = 'ensemble' with algorithm.kind = 'q_learning'"],
        ),
        (
            [*SERVER, "stages.detector=detected", "stages.late=ensemble", "coupling=ensemble"],
            ["stages.late.kind = 'ensemble' with coupling.kind = 'ensemble'", "coupling=uncoupled"],
        ),
        (
            [
                *SERVER,
                *("topology.groups=2", "stages.detector=detected", "stages.late=ensemble", "stages.late.topology=ring"),
            ],
            ["stages.late.topology = 'ring' with topology.groups = 2", "stages.late.topology=all_to_all"],
        ),
        (["topology.split=auto", "deterministic=true"], ["topology.split = 'auto'", "topology.split=given"]),
        (["topology.split=auto", "update=local"], ["topology.split = 'auto'", "update.kind = 'local'"]),
        (
            ["deterministic=true", "stages.detector=detected"],
            ["deterministic = True", "stages.detector.kind", "by_frames"],
        ),
        (
            [*SERVER, "deterministic=true", "stages.detector=by_frames", "stages.late=ensemble"],
            ["deterministic = True with stages.late.kind = 'ensemble'", "set stages.late=none"],
        ),
        (
            ["deterministic=true", "stages.detector=by_frames", "stages.middle=replay", "algorithm.correction=vtrace"],
            ["deterministic = True with stages.middle.kind = 'replay'", "topology.actors_per_group=0"],
        ),
        (["stages.detector=by_frames", "stages.detector.late_from=5"], ["stages.detector.middle_from = 1000000.0"]),
        (
            ['stages.detector={"kind": "by_return", "middle_above": 5, "late_above": 5}'],
            ["stages.detector.middle_above = 5", "stages.detector.late_above = 5"],
        ),
        (["stages.detector=by_return"], ["stages.detector.middle_above: Field required"]),
        (
            ["compression=student", "compression.distillation.trigger=share", "deterministic=true"],
            ["deterministic = True", "compression.distillation.trigger"],
        ),
    ],
)
def test_contradictions_are_rejected_in_one_line_that_names_the_fields(settings, fields):
    line = complaint(settings)
    for field in fields:
        assert field in line


@pytest.mark.parametrize(
    "settings",
    [
        ["env.num_envs=4"],
        ["env.num_envs=1", "algorithm.surrogate.minibatches=1"],
        ["env.num_envs=2", "algorithm.rollouts_per_batch=2"],
        ["env.num_envs=1", "acting=central"],  # with as many actors as the ranks make
        ["env.num_envs=1", "acting=central", "topology.actors_per_group=4"],
    ],
)
def test_minibatches_may_be_as_many_as_a_batch_has_environments(settings):
    made = override(config(), ["algorithm.surrogate=clipped", *settings])
    assert made.algorithm.surrogate.kind == "clipped"


def test_contradictions_are_rejected_in_code_and_in_files_too():
    with pytest.raises(ValueError, match=r"topology\.servers"):
        Config(recipe="test", update=ParameterServer())
    data = dump(config())
    data["update"] = {"kind": "server"}
    with pytest.raises(ValueError, match=r"^topology\.servers = 0"):
        load(data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"recipe": "x", "schema": SCHEMA + 1}, f"schema = {SCHEMA + 1}: newer than this program's {SCHEMA}"),
        ({"recipe": "x", "foo": 1}, "foo = 1: Unexpected"),
        ({"recipe": "x", "env": {"foo": 1}}, "env.foo = 1: Unexpected"),
        ({}, "recipe: Field required"),
        ([], "config = []: must be"),
        (None, "config = None: must be"),
    ],
)
def test_a_file_that_is_no_configuration_is_one_line(data, expected):
    with pytest.raises(ValueError, match=r".") as caught:
        load(data)
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


# --- groups that differ


def test_groups_take_their_settings_in_turn_and_share_all_else():
    settings = ["seed=7", "group_settings.1.network.width=0.5", "group_settings.1.algorithm.correction=none"]
    changed = override(config(), settings)
    assert changed.group_settings == ((), ("network.width=0.5", "algorithm.correction=none"))
    for group in range(4):
        own = group_config(changed, group)
        assert own.network.width == (0.5 if group % 2 else 1.0)
        assert own.algorithm.correction == ("none" if group % 2 else "vtrace")
        assert own.seed == 7
        assert own.group_settings == ()
    assert load(json.loads(json.dumps(dump(changed)))) == changed
    assert group_config(config(), 3) == config()


def test_groups_may_learn_by_other_algorithms():
    changed = override(config(), ['group_settings=[[],["algorithm=q_learning","experience=replay"]]'])
    assert [group_config(changed, group).algorithm.kind for group in range(3)] == [
        "actor_critic",
        "q_learning",
        "actor_critic",
    ]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["group_settings.1.env.id=CartPole-v1"], "group_settings.1 = 'env.id=CartPole-v1': groups cannot differ"),
        (["group_settings.0.topology.groups=2"], "group_settings.0 = 'topology.groups=2': groups cannot differ"),
        (
            ["group_settings.0.network.with=2"],
            "group_settings.0: --set network.with: no such option; nearest: ",
        ),
        (["group_settings.2.network.width=-1"], "group_settings.2: network.width = -1: must be greater than 0"),
        (["group_settings.0.experience=replay"], "group_settings.0: algorithm.kind = 'actor_critic'"),
        (
            ["update=server", "topology.servers=1", "group_settings.0.network.width=2"],
            "group_settings with topology.servers = 1",
        ),
    ],
)
def test_wrong_settings_of_a_group_are_one_line_that_names_it(settings, expected):
    assert complaint(settings).startswith(expected)

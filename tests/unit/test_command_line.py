"""The command line without a job: what it prints, and one line with exit code 2 for what a user got wrong."""

import json

import pytest

from hpcddrl import __version__
from hpcddrl.logs.run_dir import RunDirectory
from hpcddrl.recipes import DEFAULT, RECIPES
from hpcddrl.settings import load


@pytest.fixture
def shown(command):
    """Return a function that gives the configuration that arguments resolve to."""

    def show(*arguments):
        code, out, err = command(*arguments, "--show-config")
        assert (code, err) == (0, "")
        return load(json.loads(out))

    return show


# --- what works


def test_list_names_every_recipe_and_the_default(command):
    code, out, err = command("list")
    assert (code, err) == (0, "")
    for name in RECIPES:
        assert name in out.replace("\n", "")
    assert "(default)" in out


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_ranks_prints_the_layouts_that_work(command, name):
    code, out, err = command("ranks", name, "--most", 5)
    assert (code, err) == (0, "")
    counts = [int(line.split()[1]) for line in out.splitlines() if line.startswith("│")]
    smallest = {
        "a3c": 2,
        "staged": 2,
        "ddql": 2,
        "ensemble_hetero": 2,
        "group_ensemble": 2,
        "apex": 3,
        "nnc_apex": 3,
        "gorila": 3,
    }.get(name, 1)
    assert counts == list(range(smallest, 6))


def test_ranks_takes_settings(command):
    code, out, _ = command("ranks", "impala", "--set", "topology.learners_per_group=2", "--most", 4)
    assert code == 0
    assert [line.split()[1] for line in out.splitlines() if line.startswith("│")] == ["2", "3", "4"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["-h"],
        ["run", "--help"],
        ["evaluate", "-h"],
        ["ranks", "--help"],
        ["plan", "-h"],
        ["report", "-h"],
        ["simulate", "-h"],
        ["amdahl", "-h"],
        ["submit", "-h"],
        ["efficiency", "-h"],
        ["watch", "-h"],
        ["tensorboard", "-h"],
        ["doctor", "-h"],
    ],
)
def test_help_is_printed(command, arguments):
    code, out, err = command(*arguments)
    assert (code, err) == (0, "")
    assert "Usage:" in out
    assert "\\b" not in out


def test_help_shows_each_example_on_a_line_of_its_own(command):
    for name in ("run", "plan", "ranks", "report", "simulate", "submit", "watch", "tensorboard", "doctor"):
        lines = [line.strip() for line in command(name, "--help")[1].splitlines()]
        examples = [line for line in lines if "python -m hpcddrl" in line and not line.startswith("Usage")]
        assert len(examples) == 3
        assert all(line.count("hpcddrl") <= 2 for line in examples)


def test_version(command):
    code, out, _ = command("--version")
    assert code == 0
    assert __version__ in out


@pytest.mark.parametrize("arguments", [[], ["run"]])
def test_without_a_recipe_the_default_is_run(shown, arguments):
    assert shown(*arguments) == RECIPES[DEFAULT]()


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_show_config_prints_the_recipe(shown, name):
    assert shown("run", name) == RECIPES[name]()


def test_options_reach_their_fields(shown):
    config = shown(
        *("run", "impala", "--env", "CartPole-v1", "--frames", "4e6", "--seconds", 600, "--target-return", 18),
        *(
            "--seed",
            3,
            "--set",
            "algorithm.unroll_length=32",
            "--deterministic",
            "--trace",
            "--evaluate-every",
            "1e5",
            "--tensorboard",
        ),
    )
    assert config.env.id == "CartPole-v1"
    assert (config.budget.frames, config.budget.seconds, config.budget.target_return) == (4e6, 600, 18)
    assert (config.seed, config.algorithm.unroll_length, config.deterministic) == (3, 32, True)
    assert config.logging.trace
    assert config.logging.tensorboard
    assert config.evaluation.every_frames == 1e5


def test_options_without_a_recipe_go_to_the_default(shown):
    config = shown("--seed", 5)
    assert (config.recipe, config.seed) == (DEFAULT, 5)


@pytest.mark.parametrize("option", ["--seconds", "--target-return"])
def test_another_end_takes_the_place_of_the_default_budget_of_frames(shown, option):
    assert shown("run", "impala").budget.frames == 40e6
    assert shown("run", "impala", option, 10).budget.frames is None
    assert shown("run", "impala", option, 10, "--frames", 1e6).budget.frames == 1e6
    assert shown("run", "impala", option, 10, "--set", "budget.frames=1e6").budget.frames == 1e6


def test_a_setting_wins_over_the_recipe_and_axes_may_be_set_together(shown):
    config = shown("run", "impala", "--set", "update=server", "--set", "topology.servers=1")
    assert (config.update.kind, config.topology.servers) == ("server", 1)


def test_resume_takes_the_runs_own_configuration(shown, tmp_path):
    expected = shown("run", "impala", "--seed", 4, "--env", "CartPole-v1")
    RunDirectory(tmp_path / "run").create(expected)
    assert shown("run", "--resume", tmp_path / "run") == expected
    assert shown("run", "impala", "--resume", tmp_path / "run") == expected


# --- what a user gets wrong


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "impalla"], "recipe 'impalla': there is none; nearest: impala"),
        (["run", "zzz"], "recipe 'zzz': there is none; nearest: group_ensemble, dqn"),
        (["ranks", "impalla"], "recipe 'impalla': there is none; nearest: impala"),
        (["rnu"], "no such command 'rnu'; nearest: run"),
        (["zzz"], "no such command 'zzz'; nearest: amdahl, doctor, efficiency, evaluate"),
        (["run", "--framse", "4"], "No such option"),
        (["--framse", "4"], "No such option"),
        (["run", "--frames", "many"], "'many' is not a valid float"),
        (["run", "--seed", "1.5"], "'1.5' is not a valid integer"),
        (["run", "--frames", "nan"], "budget.frames = 'nan': must be a finite number"),
        (["run", "--frames", "-1"], "budget.frames = -1.0: must be greater than 0"),
        (["run", "--seed", "-1"], "seed = -1: must be greater than or equal to 0"),
        (["run", "impala", "--set", "env.num_env=8"], "env.num_env: no such option; nearest: env.num_envs"),
        (["run", "impala", "--set", "env.num_envs=0"], "env.num_envs = 0: must be greater than or equal to 1"),
        (
            ["run", "impala", "--set", "coupling=foo"],
            "coupling = 'foo': must be 'uncoupled' or 'ensemble' or",
        ),
        (["run", "impala", "--set", "seed"], "not of the form field=value"),
        (["run", "impala", "--set", "update=server"], "topology.servers = 0 with update.kind = 'server'"),
        (["run", "--set"], "requires an argument"),
        (["run", "impala", "paac"], "unexpected extra argument"),
        (["run", "--resume", "no/such/run"], "no run here"),
        (["evaluate"], "Missing argument 'RUN'"),
        (["evaluate", "no/such/run"], "no run here"),
        (["evaluate", ".", "--episodes", "0"], "0 is not in the range"),
        (["list", "extra"], "unexpected extra argument"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(command, arguments, expected):
    code, out, err = command(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("hpcddrl: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert expected in err
    assert "Traceback" not in err


def test_a_usage_error_says_where_the_help_is(command):
    assert command("run", "--framse", 4)[2].rstrip().endswith("(see python -m hpcddrl run --help)")
    assert command("rnu")[2].rstrip().endswith("(see python -m hpcddrl --help)")


def test_a_resumed_run_is_neither_renamed_nor_moved(command, shown, tmp_path):
    RunDirectory(tmp_path / "run").create(shown("run", "impala"))
    code, _, err = command("run", "--resume", tmp_path / "run", "--out", tmp_path / "other")
    assert code == 2
    assert "--out" in err
    code, _, err = command("run", "paac", "--resume", tmp_path / "run")
    assert code == 2
    assert "is a run of impala" in err


def test_evaluating_a_run_without_checkpoints_is_a_mistake_too(command, shown, tmp_path):
    RunDirectory(tmp_path / "run").create(shown("run", "impala"))
    code, _, err = command("evaluate", tmp_path / "run")
    assert code == 2
    assert "no checkpoints" in err
    assert err.count("\n") == 1

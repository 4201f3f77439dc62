"""Every recipe, on every one of 1, 2, 4 and 8 ranks that it takes: two deterministic runs end with the same weights."""

import hashlib

import pytest
from launch import hpcddrl, settings

from hpcddrl.logs import checkpoint
from hpcddrl.recipes import RECIPES
from hpcddrl.runtime.checks import fitted
from hpcddrl.settings import override

pytestmark = [pytest.mark.mpi, pytest.mark.slow, pytest.mark.timeout(600)]

CATCH = "hpcddrl/Catch-v0"
RANKS = (1, 2, 4, 8)
TEACHER = "the directory of a run"
LIMIT_S = 240.0

SMALL = settings(env__num_envs=4)
SOON = settings(experience__learning_starts=300, experience__capacity=2000, experience__batch_size=32)
LOCKSTEP = settings(acting__minimum="all", algorithm__rollouts_per_batch=1)  # not whoever is ready
INLINE = settings(topology__replays_per_group=0, topology__actors_per_group=0)
EVERY = settings(compression__distillation__trigger="every")
OFTEN = settings(coupling__exchange_every=3)
STAGES = settings(
    stages__detector="by_frames",
    stages__detector__middle_from=500,
    stages__early__ends="frames",
    stages__late="none",  # workers that are apart for a while come back in the order that the clock says
    env__frame_stack=2,
)
MORE = {  # what a recipe needs to be deterministic, and to learn within some thousand frames
    "group_ensemble": OFTEN,
    "ensemble_hetero": [*OFTEN, *settings(topology__actors_per_group=0)],
    "dqn": SOON,
    "gorila": SOON,
    "ddql": SOON,
    "ga3c": LOCKSTEP,
    "ga3c_faithful": LOCKSTEP,
    "elf": LOCKSTEP,
    "apex": [*SOON, *INLINE],
    "kickstart": settings(coupling__run=TEACHER),
    "nnc_ga3c": [*LOCKSTEP, *EVERY],
    "nnc_impala": EVERY,
    "nnc_apex": [*SOON, *INLINE, *EVERY],
    "staged": STAGES,
}


def options_of(recipe):
    return [*SMALL, *MORE.get(recipe, [])]


def takes(recipe, ranks):
    """Say whether so many ranks can be laid out, and may be deterministic."""
    given = [value for value in options_of(recipe) if value != "--set"]
    try:
        fitted(override(RECIPES[recipe](), [*given, "deterministic=true"]), ranks)
    except ValueError as error:
        if f"{ranks} ranks cannot be laid out" not in str(error):
            raise
        return False
    return True


CASES = [(recipe, ranks) for recipe in RECIPES for ranks in RANKS if takes(recipe, ranks)]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """Return the directory of a run that has learned a little."""
    folder = tmp_path_factory.mktemp("teacher")
    done = hpcddrl(2, "run", "impala", "--env", CATCH, "--frames", "3000", "--out", folder / "run", cwd=folder)
    assert done.rc == 0, done.text
    return folder / "run"


def digests(out):
    """Return a hash of every owner's last weights, with their version."""
    found = {}
    for owner in sorted((out / "checkpoints").iterdir()):
        state, whole = checkpoint.newest(owner), hashlib.sha256()
        for name, tensor in state.network.items():
            whole.update(name.encode() + tensor.numpy().tobytes())
        assert state.version > 2, f"{owner.name} has hardly learned"
        found[owner.name] = (state.version, whole.hexdigest())
    return found


def test_every_recipe_is_here():
    assert {recipe for recipe, _ in CASES} == set(RECIPES)


@pytest.mark.parametrize(("recipe", "ranks"), CASES, ids=[f"{recipe}-{ranks}" for recipe, ranks in CASES])
def test_two_runs_end_with_the_same_weights(recipe, ranks, request, tmp_path):
    options = options_of(recipe)
    if recipe == "kickstart":
        run = str(request.getfixturevalue("teacher"))
        options = [option.replace(TEACHER, run) for option in options]
    found = []
    for name in "ab":
        arguments = ["--env", CATCH, "--deterministic", "--frames", str(700 * (ranks + 1)), "--out", tmp_path / name]
        done = hpcddrl(ranks, "run", recipe, *arguments, *options, cwd=tmp_path, limit_s=LIMIT_S)
        assert done.rc == 0, done.text
        found.append(digests(tmp_path / name))
    assert found[0]
    assert found[0] == found[1]

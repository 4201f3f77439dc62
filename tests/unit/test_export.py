"""What comes out of a run: files that stand by themselves, and the network that learned from the ensemble."""

import json

import numpy as np
import pytest
import torch

from hpcddrl.config import Config, Ensemble, Env, Network, SoftmaxMixing
from hpcddrl.logs.checkpoint import Checkpoint
from hpcddrl.logs.checkpoint import write as save
from hpcddrl.logs.run_dir import RunDirectory
from hpcddrl.networks.make import make_network
from hpcddrl.rl.ensemble import no_moments
from hpcddrl.rl.policies import policy_for
from hpcddrl.runtime.distillation import distil, moments_of
from hpcddrl.runtime.export import ensemble_of, groups_of, read, spec_of, write, write_onnx
from hpcddrl.runtime.outcome import outcome
from hpcddrl.settings import dump, group_config

CONFIG = Config(
    recipe="group_ensemble",
    env=Env(id="hpcddrl/Catch-v0"),
    coupling=Ensemble(mixing=SoftmaxMixing(temperature=0.5)),
    network=Network(torso="mlp", width=0.2),
    group_settings=(("network.width=0.2",), ("network.width=0.3",), ("algorithm=q_learning", "experience=replay")),
)
SPEC = spec_of(CONFIG)
POLICY = policy_for(SPEC.action)


def trained(config, group):
    """Stands for a group's network: with a taste of its own for actions."""
    own = group_config(config, group)
    network = make_network(own.network, own.algorithm, SPEC, seed=group)
    head = network.policy if hasattr(network, "policy") else network.advantage
    with torch.no_grad():
        head.weight.add_(torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(group)) * 0.3)
    return network


def make_run(path, config=CONFIG, groups=3):
    run = RunDirectory(path)
    run.create(config)
    for group in range(groups):
        state = Checkpoint(5, 100, trained(config, group).state_dict(), {}, json.dumps(dump(config)))
        save(run.checkpoints(f"group-{group:04d}"), state, keep=3)
    return run


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def observations(count):
    shape = (count, *SPEC.observation_shape)
    seen = np.random.default_rng(0).random(shape).astype(np.float32)
    return torch.from_numpy((255 * seen).astype(np.uint8) if SPEC.frame_dtype == np.uint8 else seen)


def slow_ensemble(seen):
    """π_ens and V_ens of each observation, from the groups' networks one by one."""
    mixed, values = [], []
    for observation in seen:
        outputs = [trained(CONFIG, group)(observation[None]) for group in range(3)]
        powers = [float(torch.exp(o.value[0] / 0.5)) for o in outputs]
        c = [power / sum(powers) for power in powers]
        policies = [outputs[0].policy, outputs[1].policy, outputs[2].policy / CONFIG.coupling.q_temperature]
        mixed.append(sum(w * p[0].softmax(-1) for w, p in zip(c, policies, strict=True)))
        values.append(sum(w * o.value[0] for w, o in zip(c, outputs, strict=True)))
    return torch.stack(mixed), torch.stack(values)


def test_the_ensemble_of_a_run_is_its_groups_mixture_q_learning_too(run):
    network = ensemble_of(CONFIG, groups_of(run, SPEC), SPEC, no_moments(3), [0.0, 1.0, 2.0])
    seen = observations(5)
    with torch.no_grad():
        policy, value = network(seen)
        expected, expected_value = slow_ensemble(seen)
    torch.testing.assert_close(policy.softmax(-1), expected)
    torch.testing.assert_close(value, expected_value)


def test_a_written_file_answers_alike_in_plain_torch_for_any_number_of_observations(run, tmp_path):
    network = ensemble_of(CONFIG, groups_of(run, SPEC), SPEC, no_moments(3), [0.0, 1.0, 2.0])
    write(network, SPEC, CONFIG, "ensemble", tmp_path / "new" / "e.pt2")
    plain = torch.export.load(tmp_path / "new" / "e.pt2").module()
    config, acting = read(tmp_path / "new" / "e.pt2")
    assert config == CONFIG
    for count in (1, 2, 7):
        seen = observations(count)
        with torch.no_grad():
            for found, wanted in zip(plain(seen), network(seen), strict=True):
                torch.testing.assert_close(found, wanted)
            torch.testing.assert_close(acting(seen).policy, network(seen)[0])


def test_onnx_answers_alike(run, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    network = groups_of(run, SPEC)[0].network
    write_onnx(network, SPEC, tmp_path / "best.onnx")
    session = runtime.InferenceSession(tmp_path / "best.onnx")
    for count in (1, 5):
        seen = observations(count)
        found = session.run(["policy", "value"], {"observation": seen.numpy()})
        with torch.no_grad():
            for ours, wanted in zip(found, network(seen), strict=True):
                np.testing.assert_allclose(ours, wanted, atol=1e-4)


def test_without_onnx_it_says_what_to_install(run, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match=r"--onnx: .*hpcddrl\[export\]"):
        write_onnx(groups_of(run, SPEC)[0].network, SPEC, tmp_path / "x.onnx")


def test_the_best_group_is_the_one_with_the_greatest_return(run):
    found = outcome(run, "best", episodes=10, updates=1, seed=5)
    assert [line.name for line in found.others] == [f"group-{g:04d} version 5" for g in range(3)]
    assert found.chosen.mean == max(line.mean for line in found.others)
    best = [line.mean for line in found.others].index(found.chosen.mean)
    seen = observations(3)
    with torch.no_grad():
        torch.testing.assert_close(found.network(seen)[1], trained(CONFIG, best)(seen).value)


def test_a_student_becomes_what_the_ensemble_is(run):
    groups = groups_of(run, SPEC)
    teacher = ensemble_of(CONFIG, groups, SPEC, no_moments(3), [0.0, 1.0, 2.0])
    student = groups[0].network
    kept = [p.clone() for p in groups[1].network.parameters()]
    divergences = distil(teacher, student, POLICY, CONFIG, updates=60, seed=3, learning_rate=3e-3)
    assert len(divergences) == 60
    assert np.mean(divergences[-10:]) < 0.3 * np.mean(divergences[:3])
    assert all(torch.equal(p, before) for p, before in zip(groups[1].network.parameters(), kept, strict=True))


def test_moments_are_of_states_that_all_groups_come_to(run):
    moments = moments_of(CONFIG, groups_of(run, SPEC), POLICY, batches=2, seed=3)
    assert moments.batches.tolist() == [6.0, 6.0, 6.0]
    assert (moments.variance > 0).all()


def test_what_cannot_be_exported_is_said_in_one_line(tmp_path, command):
    alone = make_run(tmp_path / "alone", groups=1)
    code, _, err = command("export", alone.path, "--what", "ensemble", "--episodes", 1)
    assert (code, err.count("\n")) == (2, 1)
    assert "one network alone; take --what best" in err
    empty = make_run(tmp_path / "empty", groups=0)
    assert "no checkpoints to export" in command("export", empty.path, "--what", "best")[2]
    (tmp_path / "x.pt2").write_text("no network")
    assert "not a file that export has written" in command("evaluate", tmp_path / "x.pt2")[2]
    assert "exists; choose another" in command("export", alone.path, "--what", "best", "--out", tmp_path / "x.pt2")[2]


def test_a_run_is_exported_and_the_file_evaluated_from_the_command_line(run, command):
    code, out, _ = command("export", run.path, "--what", "best", "--episodes", 4)
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == 5
    assert lines[3] in lines[:3]
    path = run.path / "exports" / "best.pt2"
    assert lines[4] == f"written to {path}, {path.stat().st_size:,} bytes"
    code, played, _ = command("evaluate", path, "--episodes", 4)
    assert code == 0
    score = lines[3].partition("return ")[2].partition(",")[0]
    assert played.startswith(f"best.pt2: return {score}"[:-1].partition(" [")[0])

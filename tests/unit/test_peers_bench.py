"""The comparison with other systems: what is run, how it is read, watched and drawn. No network, no peer installed."""

import ast
import json
import shlex
import subprocess
import sys

import pytest

from benchmarks import flow, rows
from benchmarks.peers import __main__ as peers
from benchmarks.peers import configurations, installs, table
from benchmarks.peers.watch import watch
from hpcddrl.logs.measured import Measured

CODE = "c0de000000"
SETTING = configurations.Setting("4 × CPU", "ALE/Pong-v5", "4", "60", "1")
ORDER = configurations.turns(list(installs.PEERS), 4)
PEER = next(t for t in ORDER if t.configuration.system == "sample-factory")


def missing(there, order, setting, code):
    """Return the turns without a row."""
    return flow.absent(there, peers.keys_of(order, setting, code))


def row(turn, code=CODE, **more):
    return dict.fromkeys(peers.COLUMNS, "") | peers.key_of(turn, SETTING, code) | {"trained_per_s": "100"} | more


@pytest.fixture
def table_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "ROOT", tmp_path)
    for module in (peers, flow):
        monkeypatch.setattr(module, "code_key", lambda: CODE)
    monkeypatch.setattr(peers, "machine", lambda: SETTING.machine)
    monkeypatch.setattr(peers.os, "sched_getaffinity", lambda _: range(4))
    return tmp_path


# What is run


def test_ours_stands_before_every_peers_and_no_turn_twice():
    systems = [turn.configuration.system for turn in ORDER]
    assert set(systems[::2]) == {configurations.OURS}
    assert configurations.OURS not in systems[1::2]
    assert len(set(ORDER)) == len(ORDER)
    pairs = {(o.configuration.name, p.configuration.system) for o, p in zip(ORDER[::2], ORDER[1::2], strict=True)}
    assert pairs == {(own.name, peer) for own in configurations.ours() for peer in installs.PEERS}


@pytest.mark.parametrize("cores", [1, 2, 4, 64])
def test_configurations_differ_and_fit_the_cores(cores):
    tried = [*configurations.sample_factory(cores), *configurations.stable_baselines3(cores)]
    assert len({c.name for c in tried}) == len({c.options for c in tried}) == len(tried)
    for c in configurations.sample_factory(cores):
        given = dict(option.removeprefix("--").split("=") for option in c.options)
        workers, envs = int(given["num_workers"]), int(given["num_envs_per_worker"])
        assert int(given["batch_size"]) <= workers * envs * int(given["rollout"])
        assert int(given["batch_size"]) % int(given["rollout"]) == 0
        assert envs % int(given["worker_num_splits"]) == 0


def test_the_learner_runs_as_it_comes_and_lifted():
    threads = [any("learner_threads" in o for o in c.options) for c in configurations.sample_factory(4)]
    assert True in threads
    assert threads.count(False) == 1


def test_our_command_is_exact(tmp_path):
    what = configurations.ours()[1]
    assert configurations.command(what, SETTING, tmp_path) == [
        *("mpirun", "-n", "4", sys.executable, "-m", "hpcddrl", "run", "impala", "--env", "ALE/Pong-v5"),
        *("--seconds", "60", "--seed", "1", "--out", str(tmp_path)),
        *("--set", "network.torso=nature", "--set", "env.fire_reset=false"),
        *("--set", "topology.split=auto", "--set", "update.overlap=true", "--set", "update.backend=mpi"),
        *("--set", "precision=fp32", "--set", "algorithm.unroll_length=5"),
    ]


def options_of(runner):
    """Return the options that a runner's own parser takes and those that must be given."""
    found, required = set(), set()
    for node in ast.walk(ast.parse((installs.RUNNERS / runner).read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
            found.add(node.args[0].value)
            if any(k.arg == "required" for k in node.keywords):
                required.add(node.args[0].value)
    return found, required


@pytest.mark.parametrize("name", installs.PEERS)
def test_a_peers_command_gives_its_runner_what_it_takes(name, tmp_path):
    found, required = options_of(installs.PEERS[name].runner)
    for turn in ORDER:
        if turn.configuration.system != name:
            continue
        python, script, *rest = configurations.command(turn.configuration, SETTING, tmp_path / "told.json")
        assert python == str(installs.PEERS[name].folder / "bin" / "python")
        assert script == str(installs.RUNNERS / installs.PEERS[name].runner)
        given = {part.partition("=")[0] for part in rest if part.startswith("--")}
        assert required <= given
        if name == "stable-baselines3":  # Sample Factory's own parser takes the others
            assert given <= found


def test_runners_import_nothing_of_the_project():
    for path in installs.RUNNERS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not [n for n in names if n.split(".")[0] in ("hpcddrl", "benchmarks", "pydantic", "click")], path


# Environments of their own


def test_torch_is_asked_for_in_every_call_of_pip_and_first_alone():
    peer = installs.PEERS["sample-factory"]
    make, first, second = installs.install_commands(peer, "torch==9+cpu", "https://index")
    assert make[-1] == str(peer.folder)
    assert first[-1] == "torch==9+cpu"
    assert second[-len(peer.packages) - 1 :] == ["torch==9+cpu", *peer.packages]
    assert all(shlex.join(c).count("--extra-index-url https://index") == 1 for c in (first, second))
    assert "--extra-index-url" not in shlex.join(installs.install_commands(peer, "torch", "")[1])


def test_every_package_is_pinned_and_the_folder_ignored_by_git():
    for peer in installs.PEERS.values():
        assert all(package.count("==") == 1 for package in peer.packages)
        done = subprocess.run(["git", "check-ignore", "-q", f"{peer.folder.name}/"], cwd=rows.ROOT)
        assert done.returncode == 0
        assert peer.version


def test_an_environment_is_made_once_and_again_for_other_packages(tmp_path, monkeypatch):
    monkeypatch.setattr(installs, "ROOT", tmp_path)
    peer, calls = installs.PEERS["sample-factory"], []
    peer.folder.mkdir()
    monkeypatch.setattr(installs.subprocess, "run", lambda command, check: calls.append(command))
    installs.install(peer, "torch==1", "")
    assert len(calls) == 3
    installs.install(peer, "torch==1", "")
    assert len(calls) == 3
    installs.install(peer, "torch==2", "")
    assert len(calls) == 6


# Rows


def test_a_row_is_of_its_configuration_setting_and_version():
    assert missing([], [PEER], SETTING, CODE) == [PEER]
    assert missing([row(PEER)], [PEER], SETTING, CODE) == []
    assert missing([row(PEER)], [PEER], SETTING, "0ther00000") == []  # a peer's row outlives our code
    assert missing([row(PEER, code="9.9")], [PEER], SETTING, CODE) == []
    assert missing([row(PEER) | {"code": "9.9"}], [PEER], SETTING, CODE) == [PEER]
    assert missing([row(PEER) | {"options": "--other"}], [PEER], SETTING, CODE) == [PEER]
    for field in SETTING._fields:
        assert missing([row(PEER)], [PEER], SETTING._replace(**{field: "7"}), CODE) == [PEER], field


def test_ours_is_missing_again_once_the_code_changed():
    first, second = ORDER[0], ORDER[2]
    assert first.configuration == second.configuration
    assert missing([row(first)], [first, second], SETTING, CODE) == [second]
    assert missing([row(first)], [first], SETTING, "0ther00000") == [first]


def test_rates_are_of_the_samples_trained(tmp_path, monkeypatch):
    told = tmp_path / "told.json"
    told.write_text(json.dumps({"trained": 3000, "seconds": 20.0, "updates": 30}))
    read = peers.rates("sample-factory", told)
    assert (read["trained_per_s"], read["frames_per_s"], read["updates"]) == ("150", "600", "30")
    counts = {"trained": 450.0, "env_steps": 500.0, "updates": 9.0}
    learner = Measured(0, "learner", 3.0, 3.0, 0.0, {}, {}, {}, counts, {}, {}, 0.0)
    monkeypatch.setattr(peers, "read_measured", lambda run: (learner, learner))
    read = peers.rates(configurations.OURS, tmp_path)
    assert (read["trained_per_s"], read["frames_per_s"], read["updates"]) == ("300", "1333", "9")


def test_a_runs_clock_starts_after_the_first_update(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(installs.RUNNERS))
    import report

    now = iter([100.0, 110.0, 115.0])
    monkeypatch.setattr(report.time, "monotonic", lambda: next(now))
    trained = report.Trained(12)
    assert [trained.note(n) for n in (64, 128, 192)] == [False, False, True]
    trained.write(tmp_path / "told")
    assert json.loads((tmp_path / "told").read_text()) == {"trained": 128, "seconds": 15.0, "updates": 2}
    with pytest.raises(SystemExit, match="not one update"):
        report.Trained(1).write(tmp_path / "none")


def test_a_dry_run_prints_what_is_missing_and_writes_nothing(table_folder, capsys):
    rows.add_row(table_folder / "peers.csv", peers.COLUMNS, row(PEER))
    before = sorted(table_folder.iterdir())
    same = ["--into", str(table_folder), "--seconds", SETTING.seconds]
    assert peers.main([*same, "--dry-run"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(ORDER) - 1
    assert peers.main([*same, "--missing"]) == 0
    assert f"1 of {len(ORDER)} rows are there" in capsys.readouterr().out
    assert sorted(table_folder.iterdir()) == before


def test_changed_files_and_unknown_peers_are_refused(table_folder, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="2"):
        peers.main(["--peers", "stable-baseline"])
    assert "no peer stable-baseline;" in capsys.readouterr().err
    monkeypatch.setattr(flow, "code_key", lambda: CODE + rows.CHANGED)
    assert peers.main(["--into", str(table_folder)]) == flow.REFUSED
    assert not list(table_folder.iterdir())


def test_a_failed_run_is_said_and_the_others_make_rows(table_folder, monkeypatch, capsys):
    told = json.dumps({"trained": 600, "seconds": 6.0, "updates": 3})

    def line(what, setting, out):
        if what.system == configurations.OURS:
            return [sys.executable, "-c", "print('why it failed'); exit(3)"]
        return [sys.executable, "-c", f"open({str(table_folder / out)!r}, 'w').write({told!r})"]

    monkeypatch.setattr(peers, "command", line)
    assert flow.carry_out(peers.tasks_of(ORDER[:2], SETTING, table_folder), dirty=False) == flow.FAILED
    assert capsys.readouterr().out.count("why it failed") == 1
    (made,) = rows.read_rows(table_folder / "peers.csv")
    assert made["trained_per_s"] == "100"
    assert missing([made], ORDER[:2], SETTING, CODE) == [ORDER[0]]
    assert PEER.configuration.name in (table_folder / "peers.md").read_text()


# Watching


def test_memory_and_processor_time_are_of_the_whole_tree(tmp_path):
    child = "import time; held = b'x' * (80 * 2**20)\nwhile time.process_time() < 0.8: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    used = watch([sys.executable, "-c", parent], tmp_path / "log", 60, every_s=0.1)
    assert used.ended_well
    assert 80 * 2**20 < used.peak_bytes < 200 * 2**20
    assert 0.4 < used.cpu_s < 1.5


def test_a_late_run_is_ended_with_its_tree(tmp_path):
    child = "import os, time; print(os.getpid(), flush=True); time.sleep(100)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    used = watch([sys.executable, "-c", parent], tmp_path / "log", 1.0, every_s=0.1)
    assert not used.ended_well
    assert "ended" in (tmp_path / "log").read_text()
    pid = (tmp_path / "log").read_text().split()[0]
    assert not peers.Path(f"/proc/{pid}").exists()


# The table


def test_the_best_of_a_peer_stands_beside_ours():
    a, b = (t for t in ORDER if t.configuration.name in [c.name for c in configurations.sample_factory(4)[1:3]])
    auto = [t for t in ORDER if t.configuration == configurations.ours()[0]][:3]
    found = [row(t, trained_per_s=rate) for t, rate in zip(auto, ("900", "300", "400"), strict=True)]
    found += [row(a, trained_per_s="100"), row(b, trained_per_s="200")]
    chosen = table.best(found)
    assert [(r["configuration"], rate) for r, rate in chosen] == [
        (auto[0].configuration.name, 400),
        (b.configuration.name, 200),
    ]
    text = table.document(found, SETTING, [CODE, "2.1.1"])
    assert f"| sample-factory | {b.configuration.name} | 200 | 2.00 |" in text
    assert a.configuration.name in text  # all that were tried are listed
    assert a.configuration.name not in table.document(found, SETTING, [CODE])


def test_as_it_comes_has_a_line_of_its_own():
    lifted = next(t for t in ORDER if "4 learner threads" in t.configuration.name)
    assert len(table.best([row(PEER), row(lifted, trained_per_s="200")])) == 2
    assert "as it comes" in PEER.configuration.name


def test_an_empty_table_says_so():
    assert "No row yet." in table.document([], SETTING, [CODE])

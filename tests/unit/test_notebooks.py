"""The notebooks: committed without output, run from top to bottom, pictures kept."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from written_runs import config_of, write_run

import analysis.__main__ as command
from analysis.__main__ import NOTEBOOKS
from hpcddrl.config.compression import Student

ROOT = Path(__file__).parents[2]
FEWEST = 2  # figures of a notebook


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs with and without compression, servers, replays and exchange, on two games, one cut off at its start."""
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "plain", config_of(ranks=3), rows=3)
    write_run(folder / "student", config_of(ranks=5, compression=Student()), rows=3)
    write_run(folder / "servers", config_of("a3c"), rows=3)
    write_run(folder / "replays", config_of("apex", 4, "CartPole-v1"), rows=3)
    write_run(folder / "groups", config_of("group_ensemble", 4), rows=3)
    write_run(folder / "empty", rows=0, end=False)
    return folder


def cells(name):
    """Return the code of a notebook's cells, without what only IPython knows, and the tags of each."""
    for cell in json.loads(NOTEBOOKS[name].read_text())["cells"]:
        if cell["cell_type"] == "code":
            lines = [line for line in cell["source"] if not line.startswith("%")]
            yield "".join(lines), cell["metadata"].get("tags", ())


def drawn(name, parameters):
    """Run a notebook here, without a kernel; return what it shows."""
    shown = []
    space = {}
    for code, tags in cells(name):
        *statements, last = ast.parse(code).body
        if isinstance(last, ast.Expr) and not (isinstance(last.value, ast.Call) and _named(last.value) == "print"):
            exec(compile(ast.Module(statements, []), name, "exec"), space)
            shown.append(eval(compile(ast.Expression(last.value), name, "eval"), space))
        else:
            exec(compile(code, name, "exec"), space)
        space |= parameters if "parameters" in tags else {}
        if "display" in space:
            space["display"] = lambda *what: shown.extend(what)
    return shown


def _named(call):
    return getattr(call.func, "id", "")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_has_no_output_and_takes_runs(name):
    notebook = json.loads(NOTEBOOKS[name].read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert notebook["cells"][0]["source"][0].startswith("# ")
    assert notebook["cells"][0]["source"][0].rstrip().endswith("?"), "one question each"
    tagged = [cell for cell in code if "parameters" in cell["metadata"].get("tags", ())]
    assert len(tagged) == 1
    assert tagged[0]["source"][0].startswith('runs = ["runs"]')


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_answers_for_any_runs(name, folder):
    for runs in (["plain", "student", "servers", "replays", "groups", "empty"], ["empty"]):
        shown = drawn(name, {"runs": [str(folder / run) for run in runs]})
        assert sum(isinstance(what, Figure) for what in shown) >= FEWEST


def test_a_simulation_is_drawn_beside_the_runs(folder, tmp_path):
    path = tmp_path / "simulation.json"
    path.write_text(json.dumps({"jobs": [{"ranks": 64, "frames_per_s": 5000.0, "lag": None}]}))
    figure, *_ = (
        f for f in drawn("scaling", {"runs": [str(folder)], "simulation": str(path)}) if isinstance(f, Figure)
    )
    assert "simulated" in figure.axes[0].get_legend_handles_labels()[1]


def make(*arguments, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", "analysis", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=250
    )


def test_the_command_runs_a_notebook_in_its_kernel_and_keeps_the_pictures(folder, tmp_path):
    done = make(folder / "groups", folder / "plain", "--out", tmp_path / "out", "--only", "groups")
    assert done.returncode == 0, done.stderr
    assert "groups: 4 figures" in done.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *(f"groups-{i}.png" for i in range(1, 5)),
        "groups.ipynb",
    ]
    for path in (tmp_path / "out").glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
    kept = json.loads((tmp_path / "out" / "groups.ipynb").read_text())
    assert any("injected-parameters" in cell["metadata"].get("tags", ()) for cell in kept["cells"])


@pytest.mark.slow  # a kernel for each
def test_all_notebooks_run_in_their_kernels(folder, tmp_path):
    done = make(folder, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.stem for path in (tmp_path / "out").glob("*.ipynb")} == set(NOTEBOOKS)


def test_a_failing_notebook_is_named_and_the_others_run(folder, tmp_path, monkeypatch, capsys):
    from nbclient.exceptions import CellExecutionError

    def execute(name, out, parameters):
        if name == "groups":
            raise CellExecutionError("…", "KeyError", "'weight'")
        return []

    monkeypatch.setattr(command, "execute", execute)
    assert command.main([str(folder), "--out", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "groups: failed in a cell: KeyError: 'weight'" in printed
    assert "time: 0 figures" in printed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere",), "nowhere: no such directory"),
        ((str(ROOT / "jobs"),), "no run in this directory"),
        (("{folder}", "--simulation", "no.json"), "--simulation no.json: no such file"),
    ],
)
def test_what_is_no_run_is_one_line(arguments, said, folder, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main([argument.format(folder=folder) for argument in arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err

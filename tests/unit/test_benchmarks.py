"""The benchmarks' rows and tables, without running any."""

import json
import shlex
import subprocess
import sys

import pandas as pd
import pytest
from written_runs import config_of, write_run

from benchmarks import curves, flow, frameworks, jobs, report, rows
from hpcddrl.recipes import RECIPES

CODE, BEFORE = "c0de000000", "01d0000000"
SETTING = report.Setting("4 × CPU", "ALE/Pong-v5", "nature", "4", "600", "1")


def row(recipe, code=CODE, setting=SETTING, date="2026-01-01T00:00:00Z", **more):
    return dict.fromkeys(frameworks.COLUMNS, "") | frameworks.key_of(recipe, setting, code) | {"date": date} | more


def missing(there, recipes, code):
    """Return the recipes without a row."""
    return flow.absent(there, {recipe: frameworks.key_of(recipe, SETTING, code) for recipe in recipes})


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """A table in an empty folder, on committed code."""
    for module in (frameworks, jobs, rows):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    for module in (frameworks, jobs, flow):
        monkeypatch.setattr(module, "code_key", lambda: CODE)
    return frameworks.Bench(SETTING, tmp_path, None)


def finished_run(folder, recipe, ended, **changes):
    """Write what a finished run leaves behind, as far as teachers are chosen by it."""
    folder.mkdir(parents=True)
    config = {"env": {"id": SETTING.env}, "algorithm": {"kind": "actor_critic"}, "coupling": {"kind": "uncoupled"}}
    (folder / "config.json").write_text(json.dumps({"recipe": recipe, **config, **changes}))
    (folder / "summary.json").write_text(json.dumps({"exit_reason": "seconds", "ended": ended}))
    return folder


# Rows


def test_rows_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "rows.csv"
    assert rows.read_rows(path) == []
    first, second = row("impala", note="a, b | c"), row("a3c", curve="1:2 3:4")
    assert rows.add_row(path, frameworks.COLUMNS, first) == [first]
    assert rows.add_row(path, frameworks.COLUMNS, second) == rows.read_rows(path) == [first, second]
    assert [p.name for p in tmp_path.iterdir()] == ["rows.csv"]


def test_a_column_that_came_later_is_empty_in_older_rows(tmp_path):
    path = tmp_path / "rows.csv"
    rows.add_row(path, ("recipe",), {"recipe": "impala"})
    assert rows.add_row(path, ("recipe", "load"), {"recipe": "a3c", "load": "1"})[1]["load"] == "1"
    assert rows.read_rows(path)[0] == {"recipe": "impala", "load": ""}


def test_a_row_is_there_only_if_all_of_its_key_is():
    there = [row("impala")]
    assert rows.has_row(there, frameworks.key_of("impala", SETTING, CODE))
    assert not rows.has_row(there, frameworks.key_of("a3c", SETTING, CODE))
    assert not rows.has_row(there, frameworks.key_of("impala", SETTING, BEFORE))
    for field in SETTING._fields:
        assert not rows.has_row(there, frameworks.key_of("impala", SETTING._replace(**{field: "7"}), CODE)), field


def test_a_row_of_changed_files_never_counts():
    changed = CODE + rows.CHANGED
    assert missing([row("impala", changed)], ["impala"], CODE) == ["impala"]
    assert missing([row("impala", changed)], ["impala"], changed) == ["impala"]


def test_with_changed_files_all_that_depends_on_them_is_redone_if_they_may_run(monkeypatch):
    keys = {"ours": {"what": "x", "code": CODE}, "anothers": {"what": "x", "code": "2.1"}}
    there = list(keys.values())
    monkeypatch.setattr(flow, "code_key", lambda: CODE + rows.CHANGED)
    assert flow.absent(there, keys) == []
    assert flow.absent(there, keys, dirty=True) == ["ours"]
    monkeypatch.setattr(flow, "code_key", lambda: CODE)
    assert flow.absent(there, keys, dirty=True) == []


def test_the_code_is_known_by_its_folder_alone(tmp_path, monkeypatch):
    def git(*arguments):
        user = ("-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *user, *arguments], cwd=tmp_path, check=True, capture_output=True)

    def commit(name, text):
        (tmp_path / name).write_text(text)
        git("add", ".")
        git("commit", "-m", name)
        return rows.code_key()

    monkeypatch.setattr(rows, "ROOT", tmp_path)
    (tmp_path / "hpcddrl").mkdir()
    git("init")
    first = commit("hpcddrl/a.py", "1")
    assert commit("README.md", "words") == first
    (tmp_path / "note").write_text("beside it")
    assert rows.code_key() == first
    (tmp_path / "hpcddrl/new.py").write_text("untracked, yet it may be imported")
    assert rows.code_key() == first + rows.CHANGED
    assert commit("hpcddrl/a.py", "2") not in (first, first + rows.CHANGED)


def test_without_git_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(SystemExit, match="git's tree of hpcddrl/"):
        rows.code_key()


# What is missing, and the commands


def test_missing_are_the_recipes_without_a_row():
    there = [row("impala"), row("a3c", BEFORE)]
    assert missing(there, ["impala", "a3c", "paac"], CODE) == ["a3c", "paac"]


def test_every_recipe_is_laid_out_on_at_most_the_ranks_given():
    for recipe in RECIPES:
        what = frameworks.lay_out(recipe, 4)
        assert 1 <= what.ranks <= 4
        note = frameworks.layout(what, SETTING)
        assert note.startswith(" / ".join(map(str, what.counts)))
        assert (f"({what.ranks} of 4 ranks)" in note) == (what.ranks < 4)


def test_a_recipe_too_large_is_said_and_left_out():
    bench = frameworks.Bench(SETTING._replace(ranks="1"), rows.ROOT / "nowhere", None)
    tasks, complaints = bench.plan(["a3c", "impala"])
    assert [t.recipe for t in tasks] == ["impala"]
    assert complaints == ["a3c: can't be laid out on 1 ranks or fewer"]


def test_commands_are_exact(bench):
    tasks, _ = bench.plan(["a3c", "paac"])
    parts = shlex.split(bench.commands(tasks)[0])
    out = parts[parts.index("--out") + 1]
    assert out.startswith("runs/bench-frameworks/a3c-ALE-Pong-v5-nature-")
    expected = f"mpirun -n 4 {sys.executable} -m hpcddrl run a3c --env ALE/Pong-v5 --seconds 600 --seed 1 --out {out}"
    assert parts == [*shlex.split(expected), "--set", "network.torso=nature"]


def test_a_dry_run_prints_what_is_missing_and_writes_nothing(tmp_path, monkeypatch, capsys):
    for module in (frameworks, rows):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(flow, "code_key", lambda: CODE)
    monkeypatch.setattr(frameworks, "machine", lambda: SETTING.machine)
    rows.add_row(tmp_path / "frameworks.csv", frameworks.COLUMNS, row("impala"))
    before = sorted(tmp_path.iterdir())
    arguments = ["--recipes", "impala,a3c", "--into", str(tmp_path)]
    assert frameworks.main([*arguments, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [" run a3c " in line for line in lines] == [True]
    assert frameworks.main([*arguments, "--missing"]) == 0
    assert "1 of 2 rows are there; missing: a3c" in capsys.readouterr().out
    assert sorted(tmp_path.iterdir()) == before


def test_changed_files_are_refused_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(flow, "code_key", lambda: CODE + rows.CHANGED)
    assert frameworks.main(["--into", str(tmp_path)]) == flow.REFUSED
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_an_unknown_recipe_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        frameworks.main(["--recipes", "impalla"])
    assert "no recipe impalla" in capsys.readouterr().err


def test_the_newest_finished_actor_critic_run_teaches(tmp_path):
    assert frameworks.newest_teacher(tmp_path, SETTING.env) is None
    finished_run(tmp_path / "1", "impala", "2026-01-01T00:00:00Z")
    newest = finished_run(tmp_path / "0", "a3c", "2026-01-02T00:00:00Z")
    finished_run(tmp_path / "2", "dqn", "2026-01-03T00:00:00Z", algorithm={"kind": "q_learning"})
    finished_run(tmp_path / "3", "taught", "2026-01-03T00:00:00Z", coupling={"kind": "teacher"})
    finished_run(tmp_path / "4", "impala", "2026-01-03T00:00:00Z", env={"id": "another"})
    (tmp_path / "5").mkdir()  # still runs
    assert frameworks.newest_teacher(tmp_path, SETTING.env) == newest


def test_who_wants_a_teacher_comes_last_and_waits_for_one(bench, tmp_path):
    impala, dqn = frameworks.lay_out("impala", 4), frameworks.lay_out("dqn", 4)
    taught = impala._replace(recipe="taught", wants_teacher=True, gives_teacher=False)
    assert bench.teacher_for(impala) is None
    with pytest.raises(frameworks.CannotRunError, match=r"^taught: skipped, .*--teacher DIR$"):
        bench.teacher_for(taught, [dqn])
    assert "coupling.run=TEACHER" in bench.commands([impala, taught])[-1]
    run = finished_run(tmp_path / frameworks.RUNS / "one", "impala", "2026-01-01T00:00:00Z")
    assert bench.teacher_for(taught) == run.relative_to(tmp_path)
    assert f"--set coupling.run={run.relative_to(tmp_path)}" in bench.commands([taught])[0]


def test_a_failed_run_is_said_and_the_others_go_on(bench, monkeypatch, capsys):
    monkeypatch.setattr(frameworks, "command", lambda *_: [sys.executable, "-c", "print('why it failed'); exit(3)"])
    tasks, _ = bench.plan(["impala", "a3c"])
    assert flow.carry_out(bench.tasks(tasks), dirty=False) == flow.FAILED
    printed = capsys.readouterr().out
    assert printed.count("why it failed") == 2
    assert "[2/2, ETA 0:10:15] a3c" in printed
    assert not bench.csv.exists()


def test_a_run_past_its_limit_is_ended(bench, tmp_path):
    log = tmp_path / "log"
    with pytest.raises(RuntimeError, match=f"ended\nall it printed: {log}"):
        jobs.launch([sys.executable, "-c", "import time; time.sleep(60)"], log, 0.2)


def test_of_jobs_side_by_side_each_is_told_how_it_ended(tmp_path):
    lines = {"well": "print('fine')", "late": "import time; time.sleep(60)", "ill": "print('why'); exit(3)"}
    several = [jobs.Job([sys.executable, "-c", line], tmp_path / name) for name, line in lines.items()]
    well, late, ill = jobs.launch_all(several, 2.0)
    assert well == ""
    assert "ended" in late
    assert ill == f"why\nall it printed: {tmp_path / 'ill'}"


def test_a_jobs_environment_is_this_ones_but_for_what_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("THERE", "1")
    monkeypatch.setenv("GONE", "1")
    line = [sys.executable, "-c", "import os; print([os.environ.get(k) for k in ('THERE', 'GONE', 'NEW')])"]
    jobs.launch(line, tmp_path / "log", 10.0, GONE=None, NEW="2")
    assert (tmp_path / "log").read_text() == "['1', None, '2']\n"


# The course of all benchmarks


def test_tasks_are_carried_out_one_after_the_other_with_their_etas(monkeypatch, capsys):
    clock = iter([0.0, 20.0, 20.0, 20.0, 20.0])  # the first takes twice as long as it was thought to
    monkeypatch.setattr(flow.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(flow, "code_key", lambda: CODE)

    def broken():
        raise ValueError("why")

    def refuses():
        raise flow.CannotRunError("not now")

    tasks = [flow.Task("one", 10.0, lambda: "good"), flow.Task("two", 5.0, broken), flow.Task("three", 7.0, refuses)]
    assert flow.carry_out(tasks, dirty=False) == flow.FAILED
    assert capsys.readouterr().out.splitlines() == [
        "[1/3, ETA 0:00:22] one: good",
        "[2/3, ETA 0:00:24] two: failed",
        "why",
        "[3/3, ETA 0:00:14] three: not now",
    ]


def test_files_that_change_meanwhile_stop_it(monkeypatch, capsys):
    codes = iter([CODE, CODE + rows.CHANGED])
    monkeypatch.setattr(flow, "code_key", lambda: next(codes))
    tasks = [flow.Task(name, 1.0, lambda: "good") for name in ("one", "two")]
    assert flow.carry_out(tasks, dirty=False) == flow.REFUSED
    printed = capsys.readouterr()
    assert "two" not in printed.out
    assert "was changed meanwhile" in printed.err


# The table


def table(found, recipes=("impala", "a3c", "paac"), code=CODE, setting=SETTING):
    return report.document(found, setting, code, recipes, "this machine")


def line_of(text, recipe):
    return next(line for line in text.splitlines() if line.startswith(f"| {recipe} |"))


def test_an_empty_table_says_what_to_do():
    text = table([])
    assert "To be redone (no row yet): impala, a3c, paac" in text
    assert "this machine" in text
    assert "|---|" not in text


def test_older_rows_stay_and_are_marked():
    text = table([row("impala"), row("a3c", BEFORE), row("paac", CODE + "+")])
    assert f"{CODE} |" in line_of(text, "impala")
    assert f"{BEFORE} (older)" in line_of(text, "a3c")
    assert f"{CODE}+ (not committed)" in line_of(text, "paac")
    assert "To be redone (row of other code): a3c, paac" in text
    assert "no row yet" not in text


def test_a_recipes_row_is_the_newest_but_this_codes_first():
    one, two = row("impala", BEFORE, date="2026-01-01"), row("impala", "0ther00000", date="2026-01-02")
    here, later = row("impala", date="2026-01-01"), row("impala", BEFORE, date="2026-01-09")
    assert report.state([two, one], SETTING, CODE, ["impala"]).rows == [two]
    assert report.state([later, here, two], SETTING, CODE, ["impala"]) == report.State([here], [], [])


def test_each_setting_has_its_own_section():
    other = SETTING._replace(env="ALE/Breakout-v5")
    text = table([row("impala", setting=other)])
    assert text.index(f"## {SETTING}") < text.index(f"## {other}")
    assert text.count("| impala |") == 1


def test_rows_of_unlike_software_say_which():
    text = table([row("impala", about="torch 1"), row("a3c", about="torch 2")])
    assert "- impala: torch 1" in text
    assert "- a3c: torch 2" in text


def test_drawing_says_why_there_is_no_picture(bench):
    assert bench.draw() == "no new picture: no curve yet"
    assert "![" not in bench.csv.with_suffix(".md").read_text()
    bench.csv.with_suffix(".png").touch()
    bench.draw()
    assert "it may be older" in bench.csv.with_suffix(".md").read_text()
    bench.rows = [row("impala", curve="1:2 2:3")]
    assert bench.draw() == ""
    assert "it may be older" not in bench.csv.with_suffix(".md").read_text()
    assert bench.csv.with_suffix(".png").stat().st_size > 1000


# Curves


def test_a_curve_is_over_seconds_and_of_all_ranks():
    episodes = pd.DataFrame({"seconds": [5.0, 15.0, 5.0, 15.0], "return": [0.0, 10.0, 1.0, 11.0]})
    found = curves.curve_of(episodes, 20.0)
    curve = dict(found)
    assert len(curve) == 46  # nothing before the first episodes ended, at 5 s
    assert curve[5.0] == 0.5
    assert curve[20.0] == 5.5
    assert curves.from_text(curves.to_text(found))[-1] == (20.0, 5.5)


def test_a_row_is_read_from_a_finished_runs_files(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(frameworks, "ROOT", tmp_path)
    run = write_run(tmp_path / "a3c", config_of("a3c", ranks=3))
    summary = {"frames": 3e4, "wall_s": 10.0, "predictions_per_s": 1.0, "trained_samples_per_s": 2.0, "lag_mean": None}
    summary |= {"return_mean": 1.0, "return_best": 2.0, "updates": 5, "peak_rss_bytes": {"learner": 2**20}}
    (run / "summary.json").write_text(json.dumps(summary | {"ended": "2026-01-01T00:00:00Z", "exit_reason": "seconds"}))
    found = frameworks.row_of(frameworks.lay_out("a3c", 3), SETTING, run.relative_to(tmp_path), ["x"], "")
    assert (found["frames_per_s"], found["lag"], found["staleness"]) == ("3000", "", "1.5")
    assert found["curve"] == "", "its learners finished no episode"


def test_pictures_mark_older_rows():
    found = [row("impala", curve="1:2"), row("a3c", BEFORE, curve="1:2"), row("paac")]
    (panel,) = report.panels(found, SETTING, CODE, ["impala", "a3c", "paac"])
    assert list(panel.curves) == ["impala", "a3c (older)"]

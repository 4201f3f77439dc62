"""Studies of arms over seeds: their mathematics against numbers worked out by hand, and what is run, without a run."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from written_runs import config_of, write_run

from benchmarks import ensemble, flow, groups, jobs, nnc, rows, staged
from benchmarks.arms import document, harness, outcome, sections, tables
from benchmarks.arms.scoring import GROUPS, ONE_MODEL
from benchmarks.arms.study import Arm, Circumstances, Game, Run, Study, runs_of, shares_of, waves_of
from hpcddrl.envs.make import make
from hpcddrl.logs.measured import Measured
from hpcddrl.logs.timing import Phase
from hpcddrl.recipes import RECIPES
from hpcddrl.runtime.checks import fitted
from hpcddrl.settings import override

CODE, BEFORE = "c0de000000", "01d0000000"
AROUND = Circumstances("4 × CPU", "1")
BASE, MORE = Arm("base", "impala", 3), Arm("more", "impala", 3, ("network.width=2",), against="base")
CATCH = Game("Catch", "hpcddrl/Catch-v0", 60, (0.5,), (-1.0, 1.0), seeds=(1, 2))
POLE = Game("Pole", "CartPole-v1", 60, (100.0,), (0.0, 500.0), seeds=(1, 2))
ONCE = Game("Once", "ALE/Pong-v5", 600, (0.0,), (-21.0, 21.0), seeds=(1,), arms=("base",))
STUDY = Study("study", "A study", "What for.", (BASE, MORE), (CATCH, POLE, ONCE), ("peers",), GROUPS)


def row(arm, game=CATCH, seed=1, code=CODE, around=AROUND, **more):
    """Return a row as the CSV file has it, in which nothing of note happened."""
    plain = {"final": "0", "best_group": "0", "groups": "0:0", "reached": f"{game.targets[0]}::", "date": "2026-01-01"}
    plain |= {
        "frames": "1000",
        "wall_s": "61",
        "frames_per_s": "10",
        "predictions_per_s": "10",
        "trained_per_s": "10",
        "run": "x",
    }
    plain |= {"phases": "learner.gradient:6 learner.wait:4", "load": "0.1", "others": "0.0", "command": "mpirun"}
    return dict.fromkeys(harness.COLUMNS, "") | Run(arm, game, seed).key(around, code) | plain | more


def section(found, game=CATCH, study=STUDY):
    return next(s for s in sections.sections_of(study, found, CODE) if s.game.name == game.name)


def cells(lines, first):
    """Return the cells of a Markdown table's row that begins so."""
    (line,) = [line for line in lines if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in line.strip("|").split(" | ")]


# What came of a run


def test_a_runs_course_is_the_mean_and_the_best_of_its_groups():
    progress = pd.DataFrame({"group": [0, 1, -1], "seconds": [10.0, 10.0, 5.0], "job_frames": [100.0, 100.0, 50.0]})
    episodes = pd.DataFrame({"group": [0, 0, 1, 1], "seconds": [1.0, 6.0, 3.0, 8.0], "return": [1.0, 3.0, 0.0, 10.0]})
    course = outcome.course_of(episodes, progress, 10.0, 5)
    assert course.seconds.tolist() == [2, 4, 6, 8, 10]
    assert course.frames.tolist() == [50, 50, 60, 80, 100]
    assert np.isnan(course.mean[0])  # the second group has finished nothing yet
    assert course.mean[1:].tolist() == [0.5, 1.0, 3.5, 3.5]
    assert course.best[1:].tolist() == [1.0, 2.0, 5.0, 5.0]
    assert outcome.last_returns(episodes, [0, 1, 2])[:2] == [2.0, 5.0]
    assert np.isnan(outcome.last_returns(episodes, [0, 1, 2])[2])


def test_a_return_is_reached_once_every_group_has_played_enough():
    at, games = np.arange(1.0, 6.0), np.array([[10, 24, 25, 30, 40], [30, 30, 30, 30, 40]])
    course = outcome.Course(at, 100 * at, np.array([[5.0, 5, 1, 3, 9], [5.0, 5, 1, 3, 9]]), games)
    assert outcome.reached(course, 3.0) == (400.0, 4.0)
    assert outcome.reached(course, 1.0) == (300.0, 3.0)
    assert np.isnan(outcome.reached(course, 10.0)).all()


def test_seconds_are_those_of_one_rank_of_a_role():
    timing = pd.DataFrame({"role": ["actor", "actor", "actor", "learner"], "segment": 1, "rank": [1, 1, 2, 0]})
    timing = timing.assign(env=[1.0, 2.0, 5.0, 0.0], gradient=[0.0, 0.0, 0.0, 7.0])
    assert outcome.phases_of(timing) == {"actor.env": 4.0, "learner.gradient": 7.0}


def test_scores_are_read_as_export_prints_them():
    printed = (
        "group-0000 version 142: return -0.40 [-0.73, -0.07], 242,948 weights\n"
        "ensemble: return 0.07 [-0.27, 0.40], 485,896 weights\n"
        "distilled: return 10.00 [9.00, 10.33], 242,948 weights\n"
        "written to runs/x/exports/distilled.pt2, 1,009,807 bytes\n"
    )
    assert outcome.scores_of(printed) == {"group-0000": -0.4, "ensemble": 0.07, "distilled": 10.0}
    printed = (
        "server-0000 version 317 (17,120 frames): return -0.80 [-1.00, -0.40], 3.1% of human [2.0%, 4.0%]\n"
        "over 10 episodes of hpcddrl/Catch-v0, greedy, seeds from 2000000000\n"
    )
    assert outcome.scores_of(printed) == {"server-0000": -0.8}


# The tables


def of_seeds(arm, column, values, **more):
    return [row(arm, seed=seed, **{column: f"{value:g}"}, **more) for seed, value in enumerate(values, 1)]


def test_each_arm_is_set_beside_the_first_and_a_null_is_called_one():
    found = of_seeds(BASE, "final", [1, 2, 3, 4]) + of_seeds(MORE, "final", [11, 12, 13, 14])
    lines = tables.returns(STUDY, section(found))
    assert cells(lines, "base")[:2] == ["base", "4"]
    assert cells(lines, "base")[2].startswith("2.5 [")
    assert cells(lines, "more")[3].startswith("to base: +10 [+")
    assert tables.NULL not in "".join(lines)
    alike = of_seeds(BASE, "final", [1, 2, 3, 4]) + of_seeds(MORE, "final", [1, 3, 2, 4])
    against = cells(tables.returns(STUDY, section(alike)), "more")[3]
    assert against.startswith("to base: +0 [-")
    assert against.endswith("no difference seen, the interval contains 0")


def test_one_seed_has_a_difference_and_no_interval():
    assert tables.difference([np.array([1.0])], [np.array([0.0])]) == "+1 (one seed: no interval)"
    assert tables.difference([np.array([0.1 + 0.2])], [np.array([0.3])]).startswith("+0 ")
    assert tables.difference([np.array([])], [np.array([0.3])]) == ""


def test_a_run_whose_group_finished_no_game_has_no_return_and_counts_for_none():
    found = [*of_seeds(BASE, "final", [1, 2]), row(BASE, seed=3, final="", best_group="", groups="0:nan")]
    assert cells(tables.returns(STUDY, section(found)), "base")[1:3] == ["3", "1.5 [1, 2]"]


def test_the_best_group_stands_beside_where_there_are_several():
    found = [
        row(BASE, groups="0:1 1:3", final="2", best_group="3"),
        row(MORE, groups="0:5 1:9", final="7", best_group="9"),
    ]
    assert cells(tables.returns(STUDY, section(found)), "more")[2:] == [
        "7", "to base: +5 (one seed: no interval)", "9", "to base: +6 (one seed: no interval)"
    ]  # fmt: skip


def test_time_to_a_return_is_a_ratio_only_if_all_got_there():
    times = {"base": ("100:10", "200:20"), "more": ("50:8", "100:16")}
    found = [row(arm, seed=seed, reached=f"0.5:{times[arm.name][seed - 1]}") for arm in (BASE, MORE) for seed in (1, 2)]
    lines = tables.passages(STUDY, section(found))
    assert cells(lines, "0.5 | more")[2:4] == ["2 of 2", "75 [50, 100]"]
    assert cells(lines, "0.5 | more")[4].startswith("to base: 0.50 [0.25, 1.00]")
    assert cells(lines, "0.5 | more")[4].endswith("no difference seen, the interval contains 1")
    assert cells(lines, "0.5 | more")[6].startswith("to base: 0.80 [0.40, 1.60]")
    found[3] = row(MORE, seed=2, reached="0.5::", frames="1000")
    late = cells(tables.passages(STUDY, section(found)), "0.5 | more")
    assert late[2:5] == ["1 of 2", "≥ 525 [50, 1k]", "–"]
    assert late[5].startswith("≥ 34.5 [8, 61]")


def test_a_row_that_was_never_asked_about_a_target_says_nothing_of_it():
    found = [row(BASE, reached="0.5:100:10"), row(BASE, seed=2, reached="0.9:1:1")]
    assert cells(tables.passages(STUDY, section(found)), "0.5 | base")[2:4] == ["1 of 1", "100"]
    assert tables.passages(STUDY, section(found[1:])) == []


def test_groups_are_counted_above_their_own_twins():
    found = [row(BASE, groups="0:1 1:5"), row(BASE, seed=2, groups="0:2 1:2")]
    found += [row(MORE, groups="0:2 1:4"), row(MORE, seed=2, groups="0:3 1:3"), row(MORE, seed=3, groups="0:9 1:9")]
    assert cells(tables.twins(STUDY, section(found)), "more") == ["more", "base", "3 of 4", "0.75 [0.50, 1.00]"]


def test_networks_are_scored_beside_the_groups_they_are_of():
    found = [row(BASE, scores="group-0000:1 group-0001:3 ensemble:4 distilled:3.5"), row(MORE)]
    lines = tables.scores(STUDY, section(found))
    assert cells(lines, "base") == ["base", "2", "3", "4", "3.5", "+2 (one seed: no interval)"]
    assert "more" not in "".join(lines)  # was not scored


def test_a_servers_network_is_scored_beside_that_of_the_other_arm():
    study = STUDY._replace(scoring=ONE_MODEL)
    found = of_seeds(BASE, "final", [9, 9]) + of_seeds(MORE, "final", [0, 0]) + [row(MORE, seed=3)]
    for one, scores in zip(found, ("1 2", "3 4", "11 22", "13 24", ""), strict=False):
        one["scores"] = outcome.to_text(dict(zip(("sampled", "greedy"), map(float, scores.split()), strict=False)))
    lines = study.scoring.table(study, section(found, study=study))
    assert cells(lines, "arm") == ["arm", "seeds", "score, sampled", "difference", "score, greedy", "difference"]
    assert cells(lines, "base")[1:] == ["2", "2 [1, 3]", "–", "3 [2, 4]", "–"]
    assert cells(lines, "more")[1:3] == ["2", "12 [11, 13]"]
    assert cells(lines, "more")[3].startswith("to base: +10 [+8, +12]")
    assert cells(lines, "more")[5].startswith("to base: +20 [+18, +22]")
    page = document.document(study, found, CODE)
    assert "\nwhich `python -m hpcddrl evaluate` plays after the run" in page
    assert all(line in page for line in lines)


def test_costs_are_rates_seconds_of_helpers_and_shares_of_time():
    found = [
        row(MORE, seed=1, frames_per_s="10", phases="learner.gradient:6 learner.peers:4 actor.env:10"),
        row(MORE, seed=2, frames_per_s="30", phases="learner.gradient:20 learner.wait:20 actor.env:40"),
    ]
    found_cells = cells(tables.costs(STUDY, section(found)), "more")
    assert found_cells[1] == "20 [10, 30]"
    assert found_cells[5] == "2.0"
    assert found_cells[6] == "learner: gradient 55%, wait 25%, peers 20%; actor: env 100%"


def test_games_are_put_together_by_their_scales():
    found = of_seeds(BASE, "final", [-1, 0], game=CATCH) + of_seeds(BASE, "final", [0, 250], game=POLE)
    found += of_seeds(MORE, "final", [1, 1], game=CATCH) + of_seeds(MORE, "final", [500, 500], game=POLE)
    lines = tables.together(STUDY, sections.sections_of(STUDY, found, CODE))
    assert cells(lines, "base")[1].startswith("0.25 [")  # of 0, 0, ½ and ½, a quarter cut off at either end
    assert cells(lines, "more")[1:] == ["1.00 [1.00, 1.00]", "to base: +0.75 [+0.5, +1]"]
    one_game = [r for r in found if r["game"] == "Catch"]
    assert tables.together(STUDY, sections.sections_of(STUDY, one_game, CODE)) == []


# Which rows


def test_a_seeds_row_is_the_newest_but_this_codes_first_and_of_the_arm_as_it_is_now():
    kept, later = row(BASE, date="2026-01-01"), row(BASE, code=BEFORE, date="2026-01-09")
    other = row(BASE._replace(settings=("network.width=3",)), seed=2, date="2026-01-09")
    (found,) = sections.sections_of(STUDY, [later, kept, other], CODE)
    assert found.rows == {"base": [kept]}


def test_what_is_older_or_still_to_be_made_is_said():
    found = [row(BASE), row(BASE, seed=2, code=BEFORE), row(MORE, code=CODE + "+", note="not scored, see log")]
    text = document.document(STUDY, found, CODE)
    assert "- No row yet: more 2" in text
    assert "- Of older code: base 2" in text
    assert "- Of files that no commit has: more 1" in text
    assert "- more 1: not scored, see log" in text
    assert "## Catch, 60 s" in text
    assert "Pole" not in text
    assert "No row yet." in document.document(STUDY, [], CODE)


def test_other_times_and_circumstances_have_their_own_sections():
    shorter = CATCH._replace(seconds=5)
    found = [row(BASE), row(BASE, shorter), row(BASE, around=Circumstances("4 × CPU", "2"))]
    text = document.document(STUDY, found, CODE)
    assert text.count("## Catch, 60 s") == 2
    assert text.count("## Catch, 5 s") == 1
    assert "2 runs at a time on equal shares" in text


def test_a_seeds_arms_are_of_one_machine_that_with_most_of_them():
    there, here = Circumstances("9 × CPU", "1"), AROUND
    found = [row(BASE), row(MORE), row(BASE, around=there, date="2026-02-02")]
    found += [row(BASE, seed=2, around=there), row(MORE, seed=2, around=there), row(MORE, seed=2, around=here)]
    (one,) = sections.sections_of(STUDY, found, CODE)
    assert [[r["machine"] for r in one.of(arm)] for arm in (BASE, MORE)] == [["4 × CPU", "9 × CPU"]] * 2
    assert "hpcddrl/Catch-v0; seeds 1 on 4 × CPU; seeds 2 on 9 × CPU." in document.document(STUDY, found, CODE)


# What is run


def test_arms_games_and_seeds_take_turns():
    order = [(run.seed, run.game.name, run.arm.name) for run in runs_of(STUDY, STUDY.games, ["base", "more"])]
    assert order[:5] == [
        (1, "Catch", "base"), (1, "Catch", "more"), (1, "Pole", "base"), (1, "Pole", "more"), (1, "Once", "base")
    ]  # fmt: skip
    assert len(order) == 9
    assert runs_of(STUDY, (ONCE,), ["more"]) == []


def test_runs_side_by_side_take_the_same_time_and_share_the_processors():
    runs = runs_of(STUDY, STUDY.games, ["base", "more"])
    assert [len(wave) for wave in waves_of(runs, 2)] == [2, 2, 1, 2, 2]
    assert [len(wave) for wave in waves_of(runs, 1)] == [1] * 9
    assert shares_of([0, 1, 2, 3, 8], 2) == [[0, 1], [2, 3]]
    with pytest.raises(ValueError, match="--side-by-side 6: there are 5"):
        shares_of([0, 1, 2, 3, 8], 6)


def test_commands_are_exact(tmp_path):
    game = CATCH._replace(settings=("env.reward=clip",))
    assert Run(MORE, game, 7).command(tmp_path) == [
        *("mpirun", "-n", "3", sys.executable, "-m", "hpcddrl", "run", "impala", "--env", "hpcddrl/Catch-v0"),
        *("--seconds", "60", "--seed", "7", "--out", str(tmp_path)),
        *("--set", "env.reward=clip", "--set", "network.width=2"),
    ]


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Answer for the machine: runs end at once, those of the arm `more` fail on CartPole; return the command lines."""
    lines = []
    for module in (jobs, flow):
        monkeypatch.setattr(module, "code_key", lambda: CODE)
    monkeypatch.setattr(harness, "machine", lambda: AROUND.machine)
    monkeypatch.setattr(harness, "ROOT", tmp_path)
    monkeypatch.setattr(harness.os, "sched_getaffinity", lambda _: range(4))
    monkeypatch.setattr(harness, "stamp", lambda: str(len(lines)))

    def launch_all(several, limit_s):
        return [launch(list(job.line), job.log) for job in several]

    def launch(line, log):
        lines.append(line)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("group-0000 version 1: return 1.00 [1\nensemble: return 2.00 [1\ndistilled: return 3.00 [1\n")
        if "export" in line:
            return ""
        if "CartPole-v1" in line and "network.width=2" in line:
            return "why it failed"
        run = write_run(tmp_path / line[line.index("--out") + 1], config_of(ranks=3), rows=3)
        summary = {"frames": 600, "wall_s": 3.0, "predictions_per_s": 1.0, "trained_samples_per_s": 2.0}
        (run / "summary.json").write_text(
            json.dumps(summary | {"lag_mean": None, "updates": 5, "ended": "", "exit_reason": ""})
        )
        return ""

    monkeypatch.setattr(harness, "launch_all", launch_all)
    return lines


def test_rows_are_added_as_runs_end_and_made_once(bench, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(harness, "learning_curves", lambda *_, **__: Figure())  # takes a second each
    arguments = ["--games", "Catch,Pole", "--seeds", "1", "--into", str(tmp_path)]
    assert harness.main(STUDY, "Text.", [*arguments, "--missing"]) == flow.DONE
    assert "0 of 4 rows are there; missing: base on Catch seed 1; more on Catch seed 1;" in capsys.readouterr().out
    assert not bench
    assert harness.main(STUDY, "Text.", arguments) == flow.FAILED
    printed = capsys.readouterr().out
    assert "[4/4, ETA " in printed
    assert "more on Pole seed 1: failed\nwhy it failed" in printed
    made = rows.read_rows(tmp_path / "study.csv")
    assert [(r["arm"], r["game"], r["code"]) for r in made] == [
        ("base", "Catch", CODE), ("more", "Catch", CODE), ("base", "Pole", CODE)
    ]  # fmt: skip
    assert (made[0]["final"], made[0]["frames_per_s"], made[0]["lag"]) == ("2", "200", "")
    assert outcome.from_text(made[0]["phases"])["learner.gradient"] == pytest.approx(1.8)
    assert outcome.from_text(made[0]["scores"]) == {"group-0000": 1.0, "ensemble": 2.0, "distilled": 3.0}
    assert outcome.points_of(made[0])["frames"].iloc[-1] == 600
    assert "![" in (tmp_path / "study.md").read_text()
    bench.clear()
    harness.main(STUDY, "Text.", arguments)
    assert [line[2] for line in bench] == ["3"]  # the one that failed, again
    harness.main(STUDY, "Text.", [*arguments, "--seconds", "5", "--missing"])
    assert "0 of 4 rows are there" in capsys.readouterr().out


def test_each_way_of_scoring_has_its_number_and_one_that_fails_is_noted(bench, tmp_path, monkeypatch):
    plays = harness.launch_all

    def launch_all(several, limit_s):
        evaluated = "evaluate" in several[0].line
        found = [""] if evaluated else plays(several, limit_s)
        if evaluated:
            bench.append(several[0].line)
            several[0].log.write_text("server-0000 version 4 (1,000 frames): return 0.25 [0.10, 0.50]\n")
        return ["it failed"] if "--sampled" in several[0].line else found

    monkeypatch.setattr(harness, "launch_all", launch_all)
    study = STUDY._replace(scoring=ONE_MODEL)
    arguments = ["--games", "Catch", "--arms", "base", "--seeds", "1", "--into", str(tmp_path)]
    assert harness.main(study, "Text.", arguments) == flow.DONE
    out = bench[0][bench[0].index("--out") + 1]
    assert [line[3:] for line in bench[1:]] == [
        ["evaluate", "--sampled", out, "--episodes", "30"],
        ["evaluate", out, "--episodes", "30"],
    ]
    (made,) = rows.read_rows(tmp_path / "study.csv")
    assert (made["scores"], made["note"]) == ("greedy:0.25", f"not scored, see {out}.sampled.log")


def test_a_seed_that_another_machine_has_all_arms_of_is_not_made_again(bench, tmp_path, capsys):
    for arm, seed in ((BASE, 1), (MORE, 1), (BASE, 2)):
        rows.add_row(tmp_path / "study.csv", harness.COLUMNS, row(arm, seed=seed, around=Circumstances("9 × CPU", "1")))
    harness.main(STUDY, "Text.", ["--games", "Catch", "--missing", "--into", str(tmp_path)])
    assert "2 of 4 rows are there; missing: base on Catch seed 2; more on Catch seed 2 (" in capsys.readouterr().out


def test_side_by_side_each_run_has_its_processors_and_its_row(bench, tmp_path):
    arguments = ["--games", "Pole", "--seeds", "1", "--side-by-side", "2", "--into", str(tmp_path)]
    assert harness.main(STUDY, "Text.", arguments) == flow.FAILED
    assert [line[:4] for line in bench[:2]] == [["taskset", "-c", "0,1", "mpirun"], ["taskset", "-c", "2,3", "mpirun"]]
    (made,) = rows.read_rows(tmp_path / "study.csv")  # the other failed
    assert (made["arm"], made["side_by_side"]) == ("base", "2")
    assert not made["command"].startswith("taskset")
    assert (tmp_path / "study.png").stat().st_size > 10_000


def test_what_cannot_be_meant_is_refused(tmp_path, capsys):
    for arguments, said in (
        (["--games", "Catsch"], "--games: no Catsch; there are Catch, Pole, Once"),
        (["--arms", "best"], "--arms: no best; there are base, more"),
        (["--side-by-side", "100000"], "--side-by-side 100000: there are"),
        (["--side-by-side", "0"], "more than 0"),
        (["--seconds", "0"], "more than 0"),
        (["--seeds", "one"], "invalid literal"),
    ):
        with pytest.raises(SystemExit, match="2"):
            harness.main(STUDY, "Text.", [*arguments, "--into", str(tmp_path)])
        assert said in capsys.readouterr().err


def test_a_game_whose_package_is_not_installed_is_left_out_and_said(bench, tmp_path, capsys):
    study = STUDY._replace(games=(CATCH, POLE._replace(needs="no_such_package")))
    assert harness.main(study, "Text.", ["--into", str(tmp_path), "--missing"]) == flow.DONE
    printed = capsys.readouterr().out
    assert "# Pole is left out, no package no_such_package: python -m pip install" in printed
    assert "0 of 4 rows are there" in printed


@pytest.mark.parametrize("study", [ensemble.STUDY, nnc.STUDY, staged.STUDY], ids=lambda study: study.name)
def test_every_run_of_a_study_is_a_configuration_that_fits_its_ranks(study):
    if unknown := {arm.recipe for arm in study.arms} - RECIPES.keys():
        pytest.skip(f"this version has no recipe {', '.join(unknown)}")
    for run in {run._replace(seed=1) for run in runs_of(study, study.games, [arm.name for arm in study.arms])}:
        config = override(RECIPES[run.arm.recipe](), [f"env.id={run.game.env}", *run.settings])
        assert fitted(config, run.arm.ranks).topology.groups


@pytest.mark.parametrize("study", [ensemble.STUDY, nnc.STUDY, staged.STUDY], ids=lambda study: study.name)
def test_a_studys_names_can_be_typed_and_mean_one_thing_each(study):
    arms = [arm.name for arm in study.arms]
    assert len(set(arms)) == len({(arm.recipe, arm.ranks, arm.settings) for arm in study.arms}) == len(arms)
    assert len({game.name for game in study.games}) == len(study.games)
    for name in (*arms, *(game.name for game in study.games)):
        assert "," not in name
    for arm in study.arms:
        assert arm.against in ("", *arms)
        assert arm.against != arm.name
    for game in study.games:
        assert set(game.arms) <= set(arms)
        assert all(game.scale[0] < target < game.scale[1] for target in game.targets)
    assert set(study.helpers) <= {*Phase, "pretext"}


# What a study adds


def test_negative_rewards_are_drawn_more_often_only_where_a_game_has_some():
    """Elsewhere the arm is the replay's own."""
    for game in staged.STUDY.games:
        if not game.arms or "negative reward" in game.arms:
            if game.needs:
                pytest.importorskip(game.needs)
            config = override(RECIPES["staged"](), [f"env.id={game.env}", *game.settings])
            envs = make(config.env, 4, range(4), discount=1.0, threads=1)
            envs.reset()
            rewards = [envs.step(np.full(4, t % 2)).reward for t in range(100)]
            envs.close()
            assert np.min(rewards) < 0, game.name


def aims(*found):
    game = ensemble.STUDY.games[0]
    return ensemble.aims(ensemble.STUDY, section([more(game) for more in found], game, ensemble.STUDY))


def ended(name, seed, groups, reached):
    """Return what makes a row of an arm of the ensemble's study, for a game of it."""
    arm = next(arm for arm in ensemble.STUDY.arms if arm.name == name)
    return lambda game: row(arm, game, seed, groups=groups, reached=reached)


def test_what_exchange_was_to_reach_stands_beside_what_it_did():
    alone = [ended("alone", seed, "0:1 1:2", "0:1000:10 0.5:2000:20") for seed in (1, 2)]
    lines = aims(*alone, *(ended("exchange", seed, "0:2 1:3", "0:700:10 0.5:1500:20") for seed in (1, 2)))
    assert cells(lines, "every group ends above its own twin")[1:] == ["4 of 4", "yes"]
    assert cells(lines, "25% fewer frames to a return of 0")[1:] == ["0.70 [0.70, 0.70] of those alone", "yes"]
    assert cells(lines, "25% fewer frames to a return of 0.5")[2] == "yes", "it is the aim exactly"
    lines = aims(*alone, *(ended("exchange", seed, "0:2 1:1", "0:900:10 0.5::") for seed in (1, 2)))
    assert cells(lines, "every group ends above its own twin")[1:] == ["2 of 4", "no"]
    assert cells(lines, "25% fewer frames to a return of 0")[2] == "no"
    assert cells(lines, "25% fewer frames to a return of 0.5")[1:] == [
        "0 of 2 seeds got there, 2 of 2 alone",
        "cannot be said",
    ]
    assert aims(*alone) == []
    once = aims(alone[0], ended("exchange", 1, "0:2 1:3", "0:100:10 0.5:100:20"))
    assert cells(once, "25% fewer frames to a return of 0")[1:] == ["0.10 of those alone", "cannot be said"]


def test_a_factor_on_predictions_stands_beside_amdahls_law():
    plain, small = (next(arm for arm in nnc.STUDY.arms if arm.name == name) for name in ("impala", "impala nnc"))
    game = nnc.STUDY.games[0]
    found = [
        row(plain, game, phases="actor.act:40 actor.env:60 learner.act:1 learner.gradient:99", predictions_per_s="100"),
        row(small, game, phases="actor.act:25 actor.env:75 learner.gradient:100", predictions_per_s="125"),
    ]
    lines = nnc.amdahl(nnc.STUDY, section(found, game, nnc.STUDY))
    # 0.4 s of 100 predictions against 0.2 s: twice as fast, so 1 / (0.6 + 0.4 / 2) = 1.25, and 1 / 0.6 at most
    assert cells(lines, "impala nnc") == ["impala nnc", "impala", "40%", "2.00", "1.25", "1.67", "1.25", "100%"]
    assert nnc.amdahl(nnc.STUDY, section(found[:1], game, nnc.STUDY)) == []


def arms_of_nnc(*names):
    return [next(arm for arm in nnc.STUDY.arms if arm.name == name) for name in names]


def test_time_saved_stands_beside_the_laws_target_by_target():
    game = nnc.STUDY.games[0]
    plain, small = arms_of_nnc("ga3c", "ga3c nnc")
    acting = "learner.act:{} learner.gradient:{} actor.env:100"
    found = [
        row(plain, game, phases=acting.format(50, 50), predictions_per_s="120", reached="0:1:40 0.8:1:100"),
        row(small, game, phases=acting.format(25, 75), predictions_per_s="150", reached="0:1:32 0.8:1:"),
    ]
    # 50 s of 120 predictions against 25 s of 150: 2.5 times as fast, 1 / (0.5 + 0.5 / 2.5) = 1.43, 30 % less time
    at = section(found, game, nnc.STUDY)
    assert cells(nnc.amdahl(nnc.STUDY, at), "ga3c nnc")[1:6] == ["ga3c", "50%", "2.50", "1.43", "2.00"]
    lines = nnc.saved(nnc.STUDY, at)
    assert cells(lines, "0")[1:] == ["ga3c nnc", "ga3c", "50%", "30%", "20%", "67%"]
    assert len(lines) == 3, "what was not reached has no row"


def test_corrections_are_told_in_the_order_of_what_they_reach_and_nulls_are_called_so():
    game = next(game for game in nnc.STUDY.games if game.name.endswith("still actors"))
    vtrace, ratio, none = arms_of_nnc("still vtrace", "still ratio", "still none")
    finals = {vtrace: ("0.9", "0.8"), ratio: ("0.2", "0.1"), none: ("0.2", "0.0")}
    found = [row(arm, game, seed, final=final) for arm, two in finals.items() for seed, final in enumerate(two, 1)]
    lines = nnc.order(nnc.STUDY, section(found, game, nnc.STUDY))
    assert [line.split(" | ")[0] for line in lines[4:]] == ["| still vtrace", "| still ratio", "| still none"]
    assert cells(lines, "still vtrace")[2].startswith("over still ratio: +0.7 [")
    assert tables.NULL in cells(lines, "still ratio")[2]
    assert nnc.order(nnc.STUDY, section(found[:2], game, nnc.STUDY)) == []


def test_compressors_are_tried_on_what_was_learned_and_stand_on_the_page(tmp_path, monkeypatch, capsys):
    game, (plain,) = nnc.STUDY.games[0], arms_of_nnc("impala")
    run = "runs/bench-nnc/a-run"
    (tmp_path / run).mkdir(parents=True)
    tried, only = [], ["--into", str(tmp_path), "--games", game.name, "--arms", "impala", "--seeds", "1", "--missing"]
    monkeypatch.setattr(nnc, "ROOT", tmp_path)
    monkeypatch.setattr(nnc.compressors, "main", lambda arguments: tried.append(arguments) or flow.DONE)
    assert nnc.main(only) == flow.DONE
    assert (tried, "no run of impala on Catch nature to try them on" in capsys.readouterr().out) == ([], True)
    around = Circumstances(rows.machine(), "1")
    rows.add_row(tmp_path / "nnc.csv", harness.COLUMNS, row(plain, game, around=around, run=run))
    assert nnc.main(only) == flow.DONE
    assert tried == [["--into", str(tmp_path), "--missing", "--torso", "--teacher", run]]
    made = dict.fromkeys(nnc.compressors.COLUMNS, "1") | {"compressor": "binary", "teacher": run, "kl": "0.25"}
    rows.add_row(tmp_path / "compressors.csv", nnc.compressors.COLUMNS, made)
    harness.draw(nnc.STUDY, tmp_path)
    assert "0.25" in cells((tmp_path / "nnc.md").read_text().splitlines(), "binary")


def test_compressors_are_tried_on_the_newest_run_of_the_games_own_length_and_no_older_one_is_shown(tmp_path):
    game, (plain,) = nnc.STUDY.games[0], arms_of_nnc("impala")
    around, longer = Circumstances(rows.machine(), "1"), game._replace(seconds=2 * game.seconds)
    for its, seed, day in ((game, 1, 3), (game, 2, 5), (game, 3, 4), (longer, 1, 9)):
        made = row(plain, its, seed, around=around, run=f"runs/of-day-{day}", date=f"2026-01-0{day}")
        rows.add_row(tmp_path / "nnc.csv", harness.COLUMNS, made)
    assert nnc.teachers(tmp_path, [game.name], lambda run: True) == {game.name: "runs/of-day-5"}
    assert nnc.teachers(tmp_path, [game.name], lambda run: run.endswith("3")) == {game.name: "runs/of-day-3"}
    assert nnc.teachers(tmp_path, [], lambda run: True) == {}
    for day in (3, 4):
        made = dict.fromkeys(nnc.compressors.COLUMNS, "1") | {"compressor": "binary", "teacher": f"runs/of-day-{day}"}
        rows.add_row(tmp_path / "compressors.csv", nnc.compressors.COLUMNS, made)
    text = "\n".join(nnc.appendix(tmp_path))
    assert "runs/of-day-4" in text, "the newest that they were tried on"
    assert "runs/of-day-3" not in text


# Many groups


def learner(rank, **more):
    seconds = dict.fromkeys(Phase, 0.0) | {Phase.ENV: 9.0, Phase.EXCHANGE: 0.1 * (rank + 1), Phase.PEERS: 0.5}
    plain = {"rank": rank, "role": "learner", "wall_s": 10.0, "cpu_s": 1.0, "wait_cpu_s": 0.0, "seconds": seconds}
    plain |= {"events": {}, "squares": {}, "counts": {"updates": 40.0}, "lag": 0.0}
    return Measured(**plain | {"messages": {"exchange": 4.0}, "nbytes": {"exchange": 400.0}} | more)


def test_a_round_of_exchanges_sends_what_is_counted_beside_what_is_planned():
    measured = (learner(0), learner(4, messages={"exchange": 2.0}, nbytes={"exchange": 200.0}))
    row = groups.values_of(measured, groups.Sent(1.0, 100.0), every=20)
    assert row["messages"] == "1.500 (1.000)"  # six in four rounds
    assert row["bytes"] == "100 (100)"
    assert row["kb_per_s"] == "0.03"
    assert row["updates_per_s"] == "4.00"
    assert (row["exchange"], row["peers"]) == ("3.00% (5.00%)", "5.00% (5.00%)")
    assert row["over"] == "1 of 2"


@pytest.mark.parametrize(
    ("topology", "count", "messages"),
    [("random_pairs", 8, 1.0), ("random_pairs", 7, 6 / 7), ("ring", 8, 1), ("all_to_all", 8, 7)],
)
def test_the_plan_knows_what_a_topology_sends(topology, count, messages):
    key = {"groups": str(count), "topology": topology, "max_peers": "2", "sleep_ms": "5", "seconds": "60"}
    planned = groups.planned(key)
    assert planned.messages == pytest.approx(messages)
    assert planned.nbytes > 4 * 40_000  # float32 weights of the narrow network

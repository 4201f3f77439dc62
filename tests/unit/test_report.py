"""The report: its page in a browser, its numbers by hand, its findings each on a run that has what they name."""

import ast
import base64
import html
import html.parser
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from written_runs import CATCH, config_of, write_run

from hpcddrl.commands.reporting import rules
from hpcddrl.commands.reporting.findings import differing, findings
from hpcddrl.commands.reporting.jobs import messages, roles
from hpcddrl.commands.reporting.numbers import numbers
from hpcddrl.commands.reporting.page import page
from hpcddrl.figures.settings import flat
from hpcddrl.logs.read import only, read_runs
from hpcddrl.pretext.pictures import write_png
from hpcddrl.recipes import RECIPES
from hpcddrl.settings import dump

MOST = 10e6  # bytes of a page
DETAILED, TOGETHER, EACH = 2, 4, 11  # runs with pictures; pictures of the comparison, and of each of them


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three recipes with two seeds each, on two environments."""
    folder = tmp_path_factory.mktemp("runs")
    for recipe, env, ranks in (("impala", CATCH, 4), ("a3c", CATCH, 3), ("apex", "CartPole-v1", 4)):
        for seed in (1, 2):
            write_run(folder / f"{recipe}-{seed}", config_of(recipe, ranks, env, seed=seed), rows=5, evaluated=float)
    return folder


@pytest.fixture(scope="module")
def runs(folder):
    return read_runs([folder])


@pytest.fixture(scope="module")
def comparison(runs, tmp_path_factory):
    """The page of all of them, with pictures of two: each takes seconds."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hpcddrl.commands.reporting.page.DETAILED", DETAILED)
        path.write_text(page(runs))
    return path


@pytest.fixture
def page_of(command, tmp_path):
    """Return a function that writes a report of a path and gives its words, and what was printed to standard error."""

    def write(path):
        code, out, err = command("report", path, "--out", tmp_path / "report.html")
        assert (code, out.count("\n")) == (0, 1)
        return words_of(tmp_path / "report.html"), err

    return write


class Tags(html.parser.HTMLParser):
    """Collects ids and addresses, and checks that tags close."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.addresses, self.open, self.words = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.addresses += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data.strip())


def words_of(path):
    return " ".join(filter(None, Tags(path.read_text()).words))


# --- the page


def test_a_comparison_is_one_small_page_that_needs_nothing_else(comparison):
    size = comparison.stat().st_size
    assert size * 8 / DETAILED < MOST, "with pictures of eight runs too"
    tags = Tags(comparison.read_text())
    assert len(set(tags.ids)) == len(tags.ids)
    assert len([a for a in tags.addresses if a.startswith("data:image/svg+xml")]) == TOGETHER + DETAILED * EACH
    assert all(a.startswith(("data:", "#")) for a in tags.addresses)
    assert {a[1:] for a in tags.addresses if a.startswith("#")} <= set(tags.ids)


def test_a_comparison_says_what_ran_how_it_ended_and_what_differs(comparison):
    words = words_of(comparison)
    for said in (
        *("6 runs of 3 settings", "impala-1", "apex-2", "the runs are of different environments"),
        *("CartPole-v1", "Differences of configuration", "algorithm.kind actor_critic q_learning actor_critic"),
        *("gradient learner → server", "sample replay → learner", "rollout actor → replay"),
        *("server-0000 while it ran, greedy 25 500 10 5 4 to 6 –", "Evaluations beside the training"),
        *("the replay rank is saturated", "the learner is starved", "Only the first 2 runs have pictures"),
    ):
        assert said in words, said


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no executable `chromium` (Debian: apt install chromium)")
def test_a_browser_shows_the_page_without_errors_or_requests(comparison, tmp_path):
    seen = in_browser(comparison.read_text(), tmp_path)
    assert seen == {"errors": [], "requests": [], "images": TOGETHER + DETAILED * EACH, "broken": 0, "wide": False}
    bad = "<img src='http://localhost:9/a.png'><div style='width:2000px'>x</div><script>console.error('no')</script>"
    caught = in_browser(f"<main>{bad}</main>", tmp_path)
    assert caught["requests"] == ["http://localhost:9/a.png"]
    assert (caught["broken"], caught["wide"]) == (1, True)
    assert any("no" in line for line in caught["errors"]), "what this test looks for is found where it is"


WATCH = """<script>addEventListener('load', () => {
  const images = [...document.images], asked = performance.getEntriesByType('resource').map(e => e.name);
  const seen = {requests: asked.filter(a => !a.startsWith('data:')), images: images.length,
    broken: images.filter(i => !i.naturalWidth).length, wide: document.documentElement.scrollWidth > innerWidth};
  document.documentElement.setAttribute('data-seen', JSON.stringify(seen)); })</script>"""


def in_browser(text, folder):
    """Open a page in a browser at 1280 pixels and return what it complains of, asks for and shows."""
    page = folder / "page.html"
    page.write_text(text + WATCH)
    line = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1280,900", "--no-first-run"]
    line += ["--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"]
    line += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=20000", "--dump-dom", page.as_uri()]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    found = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert found, done.stderr
    errors = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return {"errors": errors} | json.loads(html.unescape(found[1]))


def test_a_page_of_one_run_and_of_broken_ones(page_of, tmp_path):
    run = write_run(tmp_path / "broken", config_of(ranks=4, env="nowhere:Env"), rows=3, returns=None)
    file = run / "segments" / "0001" / "rank-0002.h5"
    os.truncate(file, file.stat().st_size // 2)
    words, err = page_of(run)
    assert "rank 2: rank-0002.h5 cannot be read and is left out" in err
    assert "impala on nowhere:Env" in words
    assert "no episode has finished" in words
    assert "1 part of the run could not be read" in words
    assert (
        "Who gets which messages cannot be said here, since this job cannot be planned: env.id = 'nowhere:Env'" in words
    )


def test_a_page_says_which_stages_there_were_and_shows_the_pretext_task(page_of, tmp_path):
    told = [
        {"time": 2.0, "stage": 1, "version": 21, "reason": "left the band of <random> play"},
        {"time": 4.0, "stage": 2, "version": 43, "reason": "on a plateau"},
    ]
    run = write_run(tmp_path / "told", config_of(ranks=3), rows=6, stages=told)
    (run / "pretext").mkdir()
    picture = run / "pretext" / "group-0000.png"
    write_png(picture, [torch.zeros(2, 1, 4, 4)], ["frame"])
    words, err = page_of(run)
    assert not err
    assert "middle 400 0:00:02 21 left the band of <random> play" in words
    assert "late 800 0:00:04 43 on a plateau" in words
    assert words.count("on a plateau") == 1, "once for all ranks"
    assert "Rows: frame. Of group-0000" in words
    assert base64.b64encode(picture.read_bytes()).decode() in (tmp_path / "report.html").read_text()


def test_a_run_of_one_rank_before_its_first_row_has_a_page(page_of, tmp_path):
    run = write_run(tmp_path / "new", config_of("paac", ranks=1), rows=0, end=False)
    words, _ = page_of(run)
    assert "the run is still going on" in words
    assert "One rank alone sends no messages" in words


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["report"], "Missing argument 'RUN...'"),
        (["report", "no/such"], "no/such: no such directory; give a run's, or a folder of runs"),
        (["report", "RUN", "--out", "no/such/page.html"], "--out no/such/page.html: cannot be written"),
    ],
)
def test_a_mistake_is_one_line(command, tmp_path, arguments, expected):
    if "RUN" in arguments:
        write_run(tmp_path / "run", config_of("paac", ranks=1), rows=0)
    code, out, err = command(*(tmp_path / "run" if a == "RUN" else a for a in arguments))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert expected in err


def test_a_missing_package_is_named_with_what_to_install(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.delitem(sys.modules, "hpcddrl.commands.reporting.page", raising=False)
    code, _, err = command("report", ".")
    assert (code, err) == (
        2,
        "hpcddrl: report: the package 'jinja2' is missing; python -m pip install 'hpcddrl[report]'\n",
    )


# --- numbers


def test_the_numbers_of_a_run_by_hand(runs):
    n = numbers(only(runs, "impala-1"))
    assert (n.seconds, n.frames, n.frames_per_s, n.predictions_per_s, n.trained_per_s) == (5, 1500, 300, 300, 50)
    assert (n.updates, n.episodes, n.return_mean, n.return_best, n.lag, n.memory) == (25, 15, 3, 5, 2, 1e8 + 5)
    servers = numbers(only(runs, "a3c-1"))
    assert (servers.updates, servers.staleness) == (50, 1.5)


def test_messages_have_measured_rates_and_the_plans_ends(runs):
    run = only(runs, "impala-1")
    table = messages(run, run.configs["impala-1"]).set_index("kind")
    assert table.loc["rollout", ["sender", "receiver", "bytes_per_s", "messages_per_s"]].tolist() == [
        *("actor", "learner", 6000, 6)
    ]
    assert table.loc["weights", ["sender", "receiver", "bytes_per_s"]].tolist() == ["learner", "actor", 4000]
    assert table.loc["pull", "bytes_per_s"] == 0, "in no log of these runs"
    assert table["planned_per_s"].gt(0).all()
    assert "status" not in table.index


def test_roles_are_those_of_the_newest_segment(runs):
    table = roles(only(runs, "a3c-1")).set_index("role")
    assert table.loc["server", ["count", "groups", "ranks"]].tolist() == [1, 0, "0"]
    assert table.loc["learner", ["count", "groups", "ranks"]].tolist() == [2, 2, "1-2"]


# --- findings


def changed(run, table, role=None, **columns):
    """Return a run with some columns of a table replaced (for one role)."""
    mine = run.tables[table].copy()
    rows = mine["role"].eq(role) if role else mine["role"].notna()
    for column, value in columns.items():
        mine.loc[rows, column] = value
    return run._replace(tables={**run.tables, table: mine})


def configured(run, axis, **fields):
    (name, config), *_ = run.configs.items()
    return run._replace(configs={name: {**config, axis: {**config[axis], **fields}}})


CASES = {  # finding: the run of the comparison, and what makes it have that
    "no episode has finished": (
        "impala",
        lambda r: r._replace(tables={**r.tables, "episodes": r.tables["episodes"][:0]}),
    ),
    "no update was made": ("impala", lambda r: changed(r, "progress", updates=0.0)),
    "the loss is not finite": ("impala", lambda r: changed(r, "learning", loss=float("inf"))),
    "the loss is not finite ": ("apex", lambda r: changed(r, "learning", loss=float("nan"))),
    "the policy hardly explores any more": ("impala", lambda r: changed(r, "learning", entropy=1e-6)),
    "the learner is starved": ("impala", lambda r: r),
    "learners wait for the servers": ("a3c", lambda r: r),
    "actors wait for the learner": (
        "impala",
        lambda r: changed(changed(r, "timing", "actor", env=0.1, act=0.1, wait=0.8), "timing", "learner", wait=0.1),
    ),
    "learners and actors wait for each other": ("impala", lambda r: changed(r, "timing", "actor", env=0.1, wait=0.6)),
    "the replay rank is saturated": ("apex", lambda r: r),
    "the server rank is saturated": ("a3c", lambda r: changed(r, "timing", "server", update=0.95, wait=0.05)),
    "cores are short on host HOST": ("impala", lambda r: changed(r, "timing", cpu=0.2)),
    "waiting burns processor time": ("impala", lambda r: changed(r, "waiting", cpu=0.2)),
    "data are older than the weights, and nothing corrects for it": (
        "impala",
        lambda r: configured(r, "algorithm", correction="none"),
    ),
    "lag over 10 updates": ("impala", lambda r: changed(r, "learning", lag_mean=11.0)),
    "gradients are staler than there are learners": ("a3c", lambda r: changed(r, "staleness", staleness=3.0)),
    "30% of the samples were never learned from": ("impala", lambda r: changed(r, "progress", "actor", dropped=150.0)),
    "servers refused 20% of the gradients": ("a3c", lambda r: changed(r, "learning", "server", refused_stale=5.0)),
    "40% of the exchanges between groups were passed over": (
        "impala",
        lambda r: changed(configured(r, "topology", groups=2), "exchange", skipped=2.0),
    ),
    "much time goes into phase log": ("impala", lambda r: changed(r, "timing", log=0.1)),
    "much time goes into phase checkpoint": ("impala", lambda r: changed(r, "timing", checkpoint=0.1)),
    "actor rank 1 lags behind the others": ("impala", lambda r: slowed(r, 1)),
    "the program was changed and not committed": ("impala", lambda r: r._replace(ranks=r.ranks.assign(git_dirty=True))),
    "the run was cut off": ("impala", lambda r: r._replace(runs=r.runs.assign(state="cut off"))),
}
NUMBERS = {
    "the learner is starved": "learners wait 40% of the time, actors wait 20% of the time",
    "cores are short on host HOST": "4 ranks computed for 15 s and got 4 s of processor time (27%)",
    "30% of the samples were never learned from": "450 of 1,500 produced",
    "servers refused 20% of the gradients": "5 for their age, 0 for their loss, and applied 20",
    "lag over 10 updates": "11 in the mean, 4 at most; 10% of the importance ratios were clipped",
    "actor rank 1 lags behind the others": "50 env steps, the median actor 500; it is on HOST",
}


def slowed(run, rank):
    progress = run.tables["progress"].copy()
    progress.loc[progress["rank"] == rank, "env_steps"] /= 10
    return run._replace(tables={**run.tables, "progress": progress})


@pytest.mark.parametrize("title", CASES)
def test_a_finding_is_made_where_there_is_cause_with_its_numbers(runs, title):
    recipe, change = CASES[title]
    title = title.strip()
    plain = only(runs, f"{recipe}-1")
    host = plain.ranks["host"].iloc[0]
    found = {finding.title: finding for finding in findings(change(plain))}
    assert title.replace("HOST", host) in found
    finding = found[title.replace("HOST", host)]
    assert finding.evidence
    assert finding.remedy
    assert NUMBERS.get(title, "").replace("HOST", host) in finding.evidence
    if change(plain) is not plain:
        assert finding.title not in {finding.title for finding in findings(plain)}


def test_every_rule_is_among_the_cases():
    made = ast.walk(ast.parse(Path(rules.__file__).read_text()))
    calls = [node for node in made if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding"]
    said = "".join(CASES)
    unseen = [
        part
        for call in calls
        for part in (text.value for text in ast.walk(call.args[1]) if isinstance(text, ast.Constant))
        if isinstance(part, str) and len(part) > 12 and part not in said and "could not be read" not in part
    ]
    assert len(calls) > 20
    assert unseen == ["the run is still going on"], "tested with its page, as is what could not be read"


def test_remedies_name_options_that_there_are():
    known = {name for recipe in RECIPES.values() for name in flat(dump(recipe()))}
    known |= {name.rsplit(".", 1)[0] for name in known}
    servers = replace(RECIPES["a3c"]().update, max_staleness=1)
    known |= {f"update.{name}" for name in vars(servers)} | {"acting.minimum", "env.options"}
    axes = "algorithm|acting|coupling|env|experience|logging|optimization|topology|update"
    named = set(re.findall(rf"\b(?:{axes})\.[a-z_]+", Path(rules.__file__).read_text())) - {"env.get"}
    assert len(named) > 12
    assert named - known == set()


def test_a_comparison_says_what_makes_it_unfair(runs):
    found = {finding.title: finding.evidence for finding in differing(runs)}
    assert found == {
        "the runs are of different environments": f"CartPole-v1, {CATCH}",
        "the runs had different numbers of ranks": "3, 4",
    }
    ranks = runs.ranks.copy()
    ranks.loc[ranks["run"] == "a3c-1", ["host", "git_commit"]] = ["another", "0123456789abcdef"]
    found = {finding.title: finding.evidence for finding in differing(runs._replace(ranks=ranks))}
    assert "0123456789" in found["the runs are of different versions of the program"]
    assert "another" in found["the runs were made on different hosts"]

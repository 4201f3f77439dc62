"""The documentation: it builds without a warning, and what its pages and the README name is there."""

import ast
import contextlib
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hpcddrl.comm.placement import fit
from hpcddrl.commands.cli import cli
from hpcddrl.recipes import RECIPES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, *sorted(DOCS.glob("*.md"))]
TARGETS = re.compile(r"^([\w-]+):", re.MULTILINE)


def least_ranks(config):
    """Return the smallest number of ranks that a configuration can be laid out on."""
    for ranks in range(1, 10):
        with contextlib.suppress(ValueError):
            fit(config.topology, ranks)
            return ranks
    raise AssertionError(f"{config.recipe} needs ten ranks or more")


def named(pattern):
    """Return (page, text) of everything in the pages that a pattern finds."""
    return [(page.name, found) for page in PAGES for found in re.findall(pattern, page.read_text())]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the pages; any warning, such as a link that leads nowhere, is an error."""
    out = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", out / "trees", DOCS, out / "html"]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return out / "html"


def test_the_pages_build_and_every_internal_link_leads_somewhere(site):
    text = (site / "concepts.html").read_text()
    assert 'href="generated/mathematics.html#hpcddrl-rl-stages"' in text
    assert 'id="hpcddrl-rl-stages"' in (site / "generated" / "mathematics.html").read_text()


def test_every_recipe_has_a_page_with_its_docstring_and_settings(site):
    for name, recipe in RECIPES.items():
        text = (site / "generated" / "recipes" / f"{name}.html").read_text()
        assert "What it sets" in text
        diagram = [line for line in recipe.__doc__.splitlines() if "-->" in line]
        assert not diagram or "--&gt;" in text, "drawn, and not flowed into the text"


def test_generated_pages_say_what_the_code_says(site):
    commands = (site / "generated" / "commands.html").read_text()
    assert all(f'id="{name}"' in commands for name in cli.commands)
    files = (site / "generated" / "files.html").read_text()
    assert "KL(learner ‖ what acts)" in files
    options = (site / "generated" / "options.html").read_text()
    assert "Environments of one rank, stepped together." in options


def test_null_results_are_read_from_the_rows(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    pages = importlib.import_module("pages")
    header = "recipe,env,torso,ranks,seconds,frames,return_mean,machine,date,code"
    rows = [
        "a,ALE/Pong-v5,nips,4,60,1000,-20.5,m,2,c",
        "b,ALE/Pong-v5,nips,4,60,1000,15,m,2,c",
        "b,ALE/Pong-v5,nips,4,60,1000,-21,m,1,c",
        "c,Other-v0,mlp,1,1,1,0,m,1,c",
    ]
    (tmp_path / "frameworks.csv").write_text("\n".join([header, *rows]) + "\n")
    text = pages.measured_page(tmp_path)
    assert "Of 3 recipes" in text
    assert "1 ended" in text
    assert "| a | ALE/Pong-v5 |" in text
    assert "| b |" not in text
    assert "Of 0 rows" in text


def test_pages_need_nothing_from_the_network(site):
    pattern = re.compile(r"<(?:script|link|img)[^>]*(?:src|href)=\"(https?:)?//")
    assert [page.name for page in site.rglob("*.html") if pattern.search(page.read_text())] == []


@pytest.mark.parametrize("target", re.findall(r"\]\((?!https?:)([^)]+)\)", README.read_text()))
def test_a_link_of_the_readme_leads_somewhere(target):
    path, _, anchor = target.partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(), re.MULTILINE)
    assert not anchor or anchor in {heading.lower().replace(" ", "-") for heading in headings}


def test_the_readme_has_a_row_for_every_recipe_with_the_least_ranks_it_fits():
    rows = re.findall(r"^\| `(\w+)` \|.*\| (\d+) ranks? \|$", README.read_text(), re.MULTILINE)
    assert {name: int(ranks) for name, ranks in rows} == {name: least_ranks(RECIPES[name]()) for name in RECIPES}


@pytest.mark.parametrize(("page", "name"), named(r"`(hpcddrl(?:\.\w+)+)`"))
def test_what_a_page_names_in_the_code_is_there(page, name):
    module, _, last = name.rpartition(".")
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        assert hasattr(importlib.import_module(module), last), page


@pytest.mark.parametrize(
    ("page", "path"), named(r"`((?:tests|hpcddrl|analysis|jobs|docs|benchmarks)/[\w/.]+)(?:::\w+)?`")
)
def test_a_file_that_a_page_names_is_there(page, path):
    made_by_benchmarks = path.startswith("benchmarks/")
    assert made_by_benchmarks or (ROOT / path).exists(), page


@pytest.mark.parametrize(("page", "test"), named(r"`(tests/[\w/]+\.py::\w+)`"))
def test_a_test_that_a_page_names_is_there(page, test):
    path, _, name = test.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, page


def test_commands_recipes_and_targets_that_pages_name_are_there():
    commands = {found for _, found in named(r"python -m hpcddrl ([a-z]+)")}
    assert commands <= set(cli.commands)
    recipes = {found for _, found in named(r"python -m hpcddrl (?:run|ranks|plan) ([a-z]\w+)")}
    assert recipes <= set(RECIPES)
    targets = {found for _, found in named(r"`make ([a-z-]+)")}
    assert targets <= set(TARGETS.findall((ROOT / "Makefile").read_text()))

"""What may import what, and where the names of frameworks may stand: the table of CONTRIBUTING.md."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hpcddrl
from hpcddrl.recipes import RECIPES

ROOT = Path(hpcddrl.__file__).parent
LAYERS = [
    {"__init__", "types", "config"},
    {"settings"},
    {"rl", "networks", "envs", "replay", "comm", "logs", "recipes"},
    {"compressors", "pretext", "figures", "simulation"},
    {"algorithms"},
    {"roles"},
    {"runtime"},
    {"commands"},
    {"__main__"},  # it calls the commands, and nothing imports it
]
LAYER = {part: i for i, parts in enumerate(LAYERS) for part in parts}
FENCES = {
    "mpi4py": {"comm", "runtime"},
    "horovod": {"comm"},
    "h5py": {"logs"},
    "gymnasium": {"envs"},
    "ale_py": {"envs"},
}
FRAMEWORKS = {"dqn", "gorila", "ddql", "a3c", "ga3c", "paac", "elf", "impala", "apex", "nnc", "staged", *RECIPES}
MODULES = sorted(ROOT.rglob("*.py"))


def name_of(path):
    """Return the parts of a module's name below the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts


def part_of(path):
    return name_of(path)[0]


def imports(path, source=None):
    """Return (line, absolute dotted name) of every import, wherever it stands."""
    package = ("hpcddrl", *path.relative_to(ROOT).parent.parts)
    found = []
    for node in ast.walk(ast.parse(source or path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            found += [(node.lineno, f"{module}.{alias.name}") for alias in node.names]
    return found


def wrong_layers(path, source=None):
    """Return a line for each import of another part that stands as high or higher."""
    own = part_of(path)
    wrong = []
    for line, name in imports(path, source):
        top, *rest = name.split(".")
        if top != "hpcddrl":
            continue
        target = rest[0] if rest and rest[0] in LAYER else "__init__"
        if target != own and LAYER[target] >= LAYER[own]:
            wrong.append(f"{path.relative_to(ROOT.parent)}:{line}: {own} imports {name}")
    return wrong


def test_every_module_belongs_to_a_layer():
    assert {part_of(path) for path in MODULES} <= set(LAYER)


def test_imports_point_downward_only():
    assert [line for path in MODULES for line in wrong_layers(path)] == []


@pytest.mark.parametrize(
    ("module", "source", "allowed"),
    [
        ("rl/returns.py", "from hpcddrl.types import Batch", True),
        ("rl/returns.py", "import hpcddrl.networks.torsos", False),
        ("rl/returns.py", "from hpcddrl import networks", False),
        ("rl/returns.py", "from .. import logs", False),
        ("rl/returns.py", "from . import losses", True),
        ("rl/returns.py", "from hpcddrl import __version__", True),
        ("rl/returns.py", "def f():\n    from hpcddrl.roles import actor", False),
        ("rl/returns.py", "if TYPE_CHECKING:\n    from hpcddrl.comm.channel import Tag", False),
        ("config.py", "from hpcddrl.types import Batch", False),
        ("roles/actor.py", "from hpcddrl.comm.channel import Tag", True),
        ("roles/actor.py", "from hpcddrl.runtime.build import build", False),
        ("commands/cli.py", "import hpcddrl.__main__", False),
    ],
)
def test_the_rule_itself(module, source, allowed):
    assert (wrong_layers(ROOT / module, source) == []) is allowed


@pytest.mark.parametrize("package", sorted(FENCES))
def test_a_fenced_package_is_imported_in_its_parts_alone(package):
    wrong = [
        f"{path.relative_to(ROOT.parent)}:{line}: imports {name}"
        for path in MODULES
        if part_of(path) not in FENCES[package]
        for line, name in imports(path)
        if name.split(".")[0] == package
    ]
    assert wrong == []


def words(text):
    """Split identifiers and strings into words: camelCase, snake_case and everything else between letters."""
    text = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z0-9])(?=[A-Z][a-z])", " ", text)
    return {*re.findall(r"[a-z0-9]+", text.lower()), *re.findall(r"[a-z0-9_]+", text.lower())}


def documentation(tree):
    """Return the nodes of strings that only people read: docstrings, fields' docstrings, help texts."""
    read = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            read.add(node.value)
        if isinstance(node, ast.keyword) and node.arg in ("help", "epilog", "short_help"):
            read.update(ast.walk(node.value))
    return read


def names(tree):
    """Return (line, text) of every identifier and every string that the program works with."""
    skipped = documentation(tree)
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        for field in ("id", "attr", "name", "arg", "module", "asname"):
            if isinstance(text := getattr(node, field, None), str):
                yield line, text
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in skipped:
            yield line, node.value


def frameworks_named(source):
    return [(line, text) for line, text in names(ast.parse(source)) if words(text) & FRAMEWORKS]


def test_names_of_frameworks_stand_in_recipes_only():
    wrong = [
        f"{path.relative_to(ROOT.parent)}:{line}: {text!r}"
        for path in MODULES
        if part_of(path) != "recipes"
        for line, text in frameworks_named(path.read_text())
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("if config.recipe == 'impala': pass", True),
        ("class GA3CLearner: pass", True),
        ("def a3c_update(): pass", True),
        ("from hpcddrl.recipes.paac import paac", True),
        ("x = f'{y} as Ape-X and apex do'", True),
        ("f(elf=1)", True),
        ("self.shelf = 'itself'", False),
        ('"""As IMPALA does."""', False),
        ("class A:\n    x: int = 1\n    '''As in A3C.'''", False),
        ("option('--x', help='As PAAC does.')", False),
        ("x = 1  # GA3C's", False),
    ],
)
def test_the_rule_about_names_itself(source, named):
    assert bool(frameworks_named(source)) is named


MATHEMATICS = ["config", "types", "rl.returns", "rl.losses", "rl.policies", "rl.ensemble", "networks.policy_value"]
MATHEMATICS += ["networks.precision", "envs.make", "recipes", "algorithms.actor_critic"]
MATHEMATICS += ["comm.messages", "comm.placement", "logs.rank_log", "logs.checkpoint", "logs.run_dir", "commands.cli"]
MATHEMATICS += ["runtime.checks", "runtime.parts", "runtime.plan", "runtime.footprint", "runtime.pace"]
MATHEMATICS += ["replay.replay", "logs.read", "commands.reporting.page"]
MATHEMATICS += ["commands.live.picture", "commands.live.board", "commands.doctor", "logs.timeline"]
MATHEMATICS += ["simulation.model", "logs.measured", "runtime.calibration"]


def test_the_mathematics_the_layouts_and_the_command_line_start_no_mpi():
    """Importing ``mpi4py.MPI`` initialises MPI: it must be left to those who communicate."""
    code = "import sys\n" + "".join(f"import hpcddrl.{module}\n" for module in MATHEMATICS)
    code += "sys.exit('mpi4py.MPI' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT.parent, timeout=120)
    assert done.returncode == 0

"""Run the notebooks on runs and keep what they draw.

    make figures RUNS="runs/a runs/b"
    python -m analysis runs/a runs/b --out figures --only groups staleness

Each notebook asks one question of the same runs. The folder gets every notebook with its output, and its figures as
PNG files. What runs lack (compression, servers, exchange) is said in a figure's place.
"""

from __future__ import annotations

import argparse
import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
NOTEBOOKS = {path.stem: path for path in sorted(HERE.glob("*.ipynb"))}
LIMIT_S = 600  # of one cell


def execute(name: str, out: Path, parameters: dict[str, Any]) -> list[Path]:
    """Run one notebook from top to bottom; return the pictures that it drew, in order.

    Args:
        name: of the notebook.
        out: folder for it and its pictures.
        parameters: for its tagged cell; those that it does not have are left out.

    Raises:
        CellExecutionError: of nbclient: a cell failed; the notebook is written as far as it came.
    """
    import nbformat
    from nbclient import NotebookClient
    from papermill.inspection import inspect_notebook
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook
    from traitlets.config import Config

    known = inspect_notebook(str(NOTEBOOKS[name]))
    chosen = {key: value for key, value in parameters.items() if key in known}
    notebook = parameterize_notebook(load_notebook_node(str(NOTEBOOKS[name])), chosen)
    local = Config({"KernelManager": {"transport": "ipc"}})  # a kernel that no other machine or user can reach
    client = NotebookClient(notebook, timeout=LIMIT_S, resources={"metadata": {"path": HERE.parent}}, config=local)
    try:
        client.execute()
    finally:
        nbformat.write(notebook, out / f"{name}.ipynb")
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    images = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    paths = [out / f"{name}-{i}.png" for i in range(1, len(images) + 1)]
    for path, image in zip(paths, images, strict=True):
        path.write_bytes(base64.b64decode(image))
    return paths


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; return the exit code, 1 if a notebook failed."""
    parser = argparse.ArgumentParser(
        "python -m analysis", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="directories of runs, or folders of some")
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder for notebooks and pictures (figures)")
    parser.add_argument("--only", nargs="+", choices=NOTEBOOKS, default=list(NOTEBOOKS), help="notebooks (all)")
    parser.add_argument("--simulation", type=Path, help="simulation.json of simulate --out, for the notebook scaling")
    options = parser.parse_args(arguments)
    try:
        from nbclient.exceptions import CellExecutionError

        from hpcddrl.logs.read import find

        found = [run for path in options.runs for run in find(path)]
    except ModuleNotFoundError as error:
        parser.error(f"the package {error.name!r} is missing; python -m pip install -e .[analysis]")
    except ValueError as error:
        parser.error(str(error))
    if options.simulation is not None and not options.simulation.is_file():
        parser.error(f"--simulation {options.simulation}: no such file; simulate RUN --ranks … --out FOLDER writes one")
    options.out.mkdir(parents=True, exist_ok=True)
    parameters = {
        "runs": [str(run.resolve()) for run in dict.fromkeys(found)],
        "simulation": None if options.simulation is None else str(options.simulation.resolve()),
    }
    failed = 0
    for name in options.only:
        try:
            print(f"{name}: {len(execute(name, options.out, parameters))} figures", flush=True)
        except CellExecutionError as error:
            failed += 1
            print(
                f"{name}: failed in a cell: {error.ename}: {error.evalue} (see {options.out / name}.ipynb)", flush=True
            )
    print(f"open {options.out}")
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())

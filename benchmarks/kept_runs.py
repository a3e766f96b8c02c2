"""Finished runs of a table, kept in the repository: a file per row, a line per run, with all confusion matrices.

Another machine continues a table of many hours where this one stopped, and every figure of the page can be computed again.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from contseg.atomic import write_text
from contseg.digest import sha256
from contseg.evaluation.metrics import run_figures
from contseg.sweeps.cells import Cell
from contseg.sweeps.page import Result, Results, read_results


def recipe_digest(cell: Cell) -> str:
    """A digest of all keys that the files of a recipe and its overrides set, without the place of the data.

    Keys at their defaults are left out, so that a key of a later version does not change the digest of an older run.
    """
    content = cell.recipe.model_dump(mode="json", exclude_unset=True)
    content["data"].pop("path", None)
    return sha256(json.dumps(content, sort_keys=True))[:12]


def read_kept(folder: Path, cells: Iterable[Cell]) -> dict[tuple[str, str], Result]:
    """The kept results of cells; those of another recipe are skipped."""
    found = {}
    for cell in cells:
        line = _lines(folder / f"{cell.row}.jsonl").get(cell.name)
        if line is not None and line["recipe"] == recipe_digest(cell):
            values = {key: tuple(one) if isinstance(one, list) else one for key, one in line["result"].items()}
            found[cell.row, cell.name] = Result(**values)
    return found


def keep(folder: Path, cells: Iterable[Cell]) -> Results:
    """Add the finished runs of cells to the files; returns all kept results of the cells."""
    cells = list(cells)
    rows: dict[str, dict[str, dict]] = {}
    for (row, name), result in read_results(cells).items():
        (cell,) = [one for one in cells if (one.row, one.name) == (row, name)]
        matrices = [confusion.tolist() for confusion in cell.run.confusions()]
        line = {"run": name, "recipe": recipe_digest(cell), "result": asdict(result), "confusions": matrices}
        line["groups"], line["background"] = list(cell.run.groups()), cell.run.has_background()
        rows.setdefault(row, _lines(folder / f"{row}.jsonl"))[name] = line
    for row, lines in rows.items():
        folder.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{json.dumps(lines[name], separators=(',', ':'))}\n" for name in sorted(lines))
        write_text(folder / f"{row}.jsonl", text, shared=True)
    return read_kept(folder, cells)


def computed_again(path: Path) -> dict[str, tuple[dict[str, float | None], dict[str, float | None]]]:
    """For each run of a file, its kept figures, and the same from the confusion matrices, in percent."""
    found = {}
    for name, line in _lines(path).items():
        matrices = [np.array(matrix) for matrix in line["confusions"]]
        figures = run_figures(matrices, line["groups"], line["background"])
        kept = line["result"]["figures"]
        again = {key: None if (value := figures[key]) is None else 100 * float(value) for key in kept}
        found[name] = kept, again
    return found


def _lines(path: Path) -> dict[str, dict]:
    """The lines of a file by the name of their run."""
    if not path.is_file():
        return {}
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {line["run"]: line for line in lines}

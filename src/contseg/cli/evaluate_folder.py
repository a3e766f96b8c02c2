"""`contseg evaluate MODEL --data FOLDER`: any model on any labelled folder, classes matched by name."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from rich.text import Text

from contseg.cli.console import console, progress_bar
from contseg.cli.folder_options import OPTION, folder_options
from contseg.engine.run import Run
from contseg.errors import ContsegError, counted
from contseg.extension.evaluation import measure_folder
from contseg.recipes.build import make_scenario
from contseg.recipes.models import open_model
from contseg.recipes.read import read_run
from contseg.replaceable import require_replaceable, write_output
from contseg.report.table import percent
from contseg.scenarios.plan import make_plan
from contseg.settings import key_value

RESULT_MARK = '{\n "model": '
"""The beginning of every result."""


def evaluate_folder(model: Path, data: Path, overrides: Sequence[str], out: Path | None) -> None:
    """Measure a model on a folder, and print the IoU of each class; see `measure_folder`.

    Args:
        overrides: `evaluation.KEY=VALUE`, or `data.KEY=VALUE` as of `folder_options`.
        out: a JSON file for the result.

    Raises:
        ContsegError: see `open_model` and `measure_folder`; or an override is of neither kind.
    """
    changes: dict[str, Any] = {}
    options = folder_options([override for override in overrides if override.startswith("data.")])
    for override in overrides:
        key, value = key_value(override, "evaluation.flip=true")
        if key.startswith("data."):
            continue
        if not key.startswith("evaluation."):
            raise ContsegError(f"override '{override}': only evaluation.KEY=VALUE and data.KEY=VALUE can be set with --data")
        if key == "evaluation.undecided":
            raise ContsegError("evaluation.undecided: undecided pixels of a labelled folder are always misses; remove it")
        changes[key.removeprefix("evaluation.")] = value
    if out is not None:
        require_replaceable(out, RESULT_MARK, "--json")
    opened = open_model(model, device="cuda" if torch.cuda.is_available() else "cpu")
    inference = opened.inferring(changes) if changes else opened.inference
    with progress_bar("testing") as progress:
        found = measure_folder(
            opened.segmenter, opened.classes, data, inference=inference, options=options, progress=progress
        )
    table = Table(title=Text(f"{model} on {data}: {counted(found.images, 'image')}"))
    table.add_column("class", overflow="fold")
    table.add_column("IoU %", justify="right")
    for name, iou in found.iou.items():
        table.add_row(Text(name), percent(None if iou is None else 100 * iou))
    console.print(table)
    console.print(f"mean IoU {percent(None if found.mean is None else 100 * found.mean)}", highlight=False)
    notes = [*opened.notes, *found.notes]
    if inference.options.undecided == "ignored" and opened.segmenter.options.leaves_undecided:
        notes.append("undecided pixels are misses here; the run that the model comes from ignores them")
    for text in notes:
        console.print(f"note: {text}", highlight=False, soft_wrap=True)
    if out is not None:
        write_result(out, {"model": str(model), "data": str(data), **found.as_json()})


def write_result(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file, and print its path.

    Raises:
        ContsegError: the file exists and is no such result, or cannot be written.
    """
    write_output(path, json.dumps(content, indent=1) + "\n", RESULT_MARK, "--json")
    console.print(f"result: {path}", soft_wrap=True)


def is_data_of_run(run: Path, data: Path, overrides: Sequence[str]) -> bool:
    """Whether a folder has the dataset of a run, by the hash of its plan, with lists of its test images; it may have moved.

    Without such lists, or with other options of the dataset, a run is measured on all images of a folder, as other models
    are.
    """
    if not (run / "recipe.yaml").is_file() or any(override.startswith(OPTION) for override in overrides):
        return False
    recorded = Run(run).require().plan()
    try:
        scenario = make_scenario(read_run(run / "recipe.yaml", [f"data.path={str(data)!r}", *overrides]))
        return scenario.dataset.is_divided and recorded is not None and make_plan(scenario).hash == recorded["hash"]
    except ContsegError:
        return False

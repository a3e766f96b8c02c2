"""The page of a run, or of several runs side by side: one HTML file that needs nothing else."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader

from contseg.engine.run import Run
from contseg.errors import ContsegError, visible
from contseg.evaluation.metrics import class_forgetting, class_iou, domain_figures, run_figures, step_figures
from contseg.evaluation.remarks import run_remarks
from contseg.recipes.comparison import comparability, compare_run, notes_on, recorded_recipe
from contseg.recipes.published import COUNTED
from contseg.report import figures as draw
from contseg.report.plan_map import draw_plan
from contseg.report.pseudo_map import draw_pseudo_labels


def write_report(folders: Sequence[Path | str] | Path | str, out: Path | str) -> Path:
    """Write the page; everything on it is recomputed from the runs' folders.

    Args:
        folders: runs (or a single one), of which at least one step is finished; the first names the plan.

    Returns:
        `out`, absolute.

    Raises:
        ContsegError: a folder holds no run, or no finished step.
    """
    out = Path(out)
    folders = [folders] if isinstance(folders, (str, Path)) else folders
    runs = [Run(folder).require() for folder in folders]
    for run in runs:
        if not run.confusions():
            raise ContsegError(f"{run.folder}: no step is finished yet, so there is nothing to report")
    names = run_names(runs)
    environment = Environment(loader=PackageLoader("contseg.report"), autoescape=True, finalize=_shown)
    environment.filters["percent"] = lambda value: "–" if value is None else f"{100 * value:.1f}"
    environment.filters["figure"] = lambda value: "–" if value is None else f"{value:.1f}"
    environment.filters["signed"] = lambda value: "" if value is None else f" ({value:+.1f})"
    shown = {name: _facts(run) for name, run in zip(names, runs, strict=True)}
    page = environment.get_template("page.html").render(
        title=names[0] if len(runs) == 1 else "comparison",
        runs=shown,
        counted=COUNTED,
        curves=draw.curves({name: facts["series"] for name, facts in shown.items()}),
        losses=draw.losses({name: facts["losses"] for name, facts in shown.items()}),
        legend=next(iter(shown.values()))["legend"],
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    return out.resolve()


def _shown(value: Any) -> Any:
    """What the page shows of a value: text without characters that a page may not hold."""
    return visible(value) if type(value) is str else value  # not of markup, which is escaped already


def run_names(runs: Sequence[Run]) -> list[str]:
    """Folder names, with as many of the folders above as it takes to tell them apart.

    Example:
        >>> run_names([Run("here/plop"), Run("there/plop")])
        ['here/plop', 'there/plop']
    """
    places = [run.folder.resolve().parts for run in runs]
    for depth in range(1, max(map(len, places))):
        names = ["/".join(parts[-depth:]) for parts in places]
        if len(set(names)) == len(names):
            break
    return names


def _facts(run: Run) -> dict[str, Any]:
    """Everything the page shows of one run."""
    confusions, groups = run.confusions(), run.groups()
    plan = json.loads((run.folder / "plan.json").read_text(encoding="utf-8"))
    samples = run.arrays("samples.npz")
    classes = [str(name) for name in samples["classes"]]
    background = run.has_background()
    each = [step_figures(confusion, groups, background) for confusion in confusions]
    iou = np.full((len(confusions), len(classes)), np.nan)
    for step, confusion in enumerate(confusions):
        iou[step, : len(confusion)] = class_iou(confusion)
    fallen = class_forgetting(confusions)
    metrics = run.metrics()
    epochs = [line for line in metrics if line["kind"] == "epoch"]
    legend = [
        {"name": name, "colour": "#{:02x}{:02x}{:02x}".format(*colour)}
        for name, colour in zip(classes, samples["colours"], strict=True)
    ]
    pseudo = [(line["step"], line["pseudo"]) for line in epochs if "pseudo" in line]
    environment = run.folder / "environment.json"
    recipe, comparisons = recorded_recipe(run), compare_run(run)
    return {
        "not_comparable": "; ".join(comparability(recipe)) if recipe else "",
        "published": comparisons,
        "published_notes": notes_on(comparisons),
        "figures": run_figures(confusions, groups, background),
        "remarks": run_remarks(confusions, groups, background, *run.tested()),
        "series": {key: [figure[key] for figure in each] for key in ("all", "old", "new")},
        "warnings": [f"after step {line['step']}: {text}" for line in metrics for text in line.get("warnings", ())],
        "losses": [(line["step"], line["loss"]) for line in epochs],
        "pseudo_labels": draw.svg_uri(draw_pseudo_labels(pseudo, {entry["name"]: entry["colour"] for entry in legend}))
        if pseudo
        else None,
        "heat_map": draw.heat_map(iou, classes, groups),
        "plan": plan,
        "plan_map": draw.svg_uri(draw_plan(plan)),
        "domain_map": _domain_map(run),
        "classes": [
            {
                "name": name,
                "group": groups[row],
                "iou": None if row >= len(iou[-1]) or np.isnan(iou[-1, row]) else iou[-1, row],
                "forgetting": None if row >= len(fallen) or np.isnan(fallen[row]) else fallen[row],
            }
            for row, name in enumerate(classes)
        ],
        "samples": _sample_rows(run, samples, len(confusions)),
        "steps": len(confusions),
        "legend": legend,
        "recipe": (run.folder / "recipe.yaml").read_text(encoding="utf-8"),
        "environment": json.loads(environment.read_text(encoding="utf-8")) if environment.is_file() else {},
    }


def _domain_map(run: Run) -> str | None:
    """mIoU of each domain after each step, or None where the scenario has no domains."""
    names, confusions = run.domain_confusions()
    if not names:
        return None
    values = domain_figures(confusions, run.has_background())["domains"]
    met = [int(np.flatnonzero(~np.isnan(column))[0]) if (~np.isnan(column)).any() else 0 for column in values.T]
    return draw.heat_map(values, names, met)


def _sample_rows(run: Run, samples: dict[str, np.ndarray], steps: int) -> list[dict[str, Any]]:
    """Image, truth and the prediction after each step, of every sample image."""
    predictions = [run.arrays(f"steps/{step:02d}/predictions.npz") for step in range(steps)]
    return [
        {
            "name": str(name),
            "image": draw.thumbnail(samples[f"image{number}"]),
            "truth": draw.coloured(samples[f"truth{number}"], samples["colours"]),
            "steps": [draw.coloured(said[f"prediction{number}"], samples["colours"]) for said in predictions],
        }
        for number, name in enumerate(samples["names"])
    ]

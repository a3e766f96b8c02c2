"""The report of one or several runs: a self-contained HTML file."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader

from contseg.atomic import atomic_file, writable
from contseg.engine.inputs import marks
from contseg.engine.panoptic_sums import panoptic_of
from contseg.engine.run import EXPLAIN, MAPS, ORIGINS, Run
from contseg.errors import ContsegError, visible
from contseg.evaluation.metrics import class_forgetting, class_iou, domain_figures, run_figures, step_figures
from contseg.evaluation.remarks import run_remarks
from contseg.manifest import Manifest
from contseg.recipes.published import COUNTED
from contseg.replaceable import require_replaceable
from contseg.report import figures as draw
from contseg.report import tables
from contseg.report.comparison import comparability, compare_run, notes_on, recorded_recipe, run_names
from contseg.report.confusions import confusion_tables
from contseg.report.earth import earth_table
from contseg.report.header import facts_line, origin_of, title_of
from contseg.report.origins import label_origins
from contseg.report.panoptic import panoptic_tables
from contseg.report.pseudo_map import draw_pseudo_labels, pseudo_legend
from contseg.report.samples import sample_tables
from contseg.report.tables import Facts
from contseg.report.why import why
from contseg.report.words import sentences

MARK = "<title>contseg: "
"""A text in every report."""
SCRIPT = files("contseg.report").joinpath("templates/page.js").read_text(encoding="utf-8")


def write_report(folders: Sequence[Path | str] | Path | str, out: Path | str) -> Path:
    """Write a report; everything in it is recomputed from the folders of the runs.

    Runs with the same classes, sample images or plan share a table of them.

    Args:
        folders: runs (or a single one) with at least one finished step.

    Returns:
        `out`.

    Raises:
        ContsegError: a folder contains no run or no finished step; or `out` exists and is no report, or cannot be written.
    """
    out = Path(out)
    require_replaceable(out, MARK)
    folders = [folders] if isinstance(folders, (str, Path)) else folders
    runs = [Run(folder).require() for folder in folders]
    for run in runs:
        if not run.confusions():
            raise ContsegError(f"{run.folder}: no step is finished yet, so there is nothing to report")
    page = environment().get_template("page.html").render(_content(runs))
    with writable(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    in_run = any(out.parent == run.folder for run in runs)
    with Manifest(out.parent).writing(out) if in_run else atomic_file(out) as partial:
        partial.write_text(page, encoding="utf-8")
    return out


def _content(runs: Sequence[Run]) -> dict[str, Any]:
    """What the template shows."""
    names = run_names(runs)
    shown = {name: _facts(run) | draw.run_style(place) for place, (name, run) in enumerate(zip(names, runs, strict=True))}
    return {
        "title": title_of(shown),
        "facts": facts_line(shown),
        "sentences": sentences(shown),
        "warnings": _warnings(shown),
        "runs": shown,
        "columns": tables.figure_columns(shown),
        "counted": COUNTED,
        "published_keys": tables.published_keys(shown),
        "earth": earth_table(shown),
        "curves": draw.curves([facts["series"] for facts in shown.values()]),
        "losses": draw.losses([facts["losses"] for facts in shown.values()]),
        "samples": sample_tables(shown),
        "classes": tables.class_tables(shown),
        "confusions": confusion_tables(shown),
        "panoptic": panoptic_tables(shown),
        "domains": tables.domain_tables(shown),
        "plans": tables.plan_tables(shown),
        "environments": tables.together(shown, lambda facts: json.dumps(_versions(facts), sort_keys=True)),
    }


def environment(*packages: str) -> Environment:
    """The template environment: text is escaped, and a metric that was not measured is a dash.

    Args:
        packages: further packages with templates.
    """
    loader = ChoiceLoader([PackageLoader(package) for package in (*packages, "contseg.report")])
    made = Environment(loader=loader, autoescape=True, finalize=_shown, trim_blocks=True, lstrip_blocks=True)
    made.globals |= {"script": SCRIPT, "script_hash": script_hash(), "levels": tables.LEVELS, "shade": tables.shade}
    made.filters["percent"] = lambda value: "–" if value is None else f"{100 * value:.1f}"
    made.filters["whole"] = lambda value: "–" if value is None else f"{100 * value:.0f}"
    made.filters["figure"] = lambda value: "–" if value is None else f"{value:.1f}"
    made.filters["cosine"] = lambda value: "–" if value is None else f"{value:.2f}"
    made.filters["loss"] = lambda value: "±0.0" if abs(value) < 0.0005 else f"{-100 * value:+.1f}".replace("-", "−")
    made.filters["dots"] = draw.dots
    made.filters["signed"] = lambda value: "" if value is None else f" ({value:+.1f})"
    return made


def script_hash() -> str:
    """The hash of the only script that the policy of a page allows."""
    return "sha256-" + base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()


def _shown(value: Any) -> Any:
    """The value without characters that are not allowed in a page."""
    return visible(value) if type(value) is str else value  # markup is escaped already


def _facts(run: Run) -> dict[str, Any]:
    """Everything that the report shows about a run."""
    confusions, groups = run.confusions(), run.groups()
    background = run.has_background()
    each = [step_figures(confusion, groups, background) for confusion in confusions]
    samples, predictions = _samples(run, len(confusions))
    classes = [str(name) for name in samples["classes"]]
    metrics = run.metrics()
    epochs = [line for line in metrics if line["kind"] == "epoch"]
    recipe, comparisons = recorded_recipe(run), compare_run(run)
    domains, matrices = run.domain_confusions()
    return {
        "not_comparable": "; ".join(comparability(recipe)) if recipe else "",
        "published": comparisons,
        "published_notes": notes_on(comparisons),
        "figures": run_figures(confusions, groups, background),
        "remarks": run_remarks(confusions, groups, background, *run.tested()),
        "series": {key: [figure[key] for figure in each] for key in draw.CURVES},
        "panoptic": panoptic_of(run),
        "warnings": [
            *marks(run),
            *(f"after step {line['step']}: {text}" for line in metrics for text in line.get("warnings", ())),
        ],
        "losses": [(line["step"], line["loss"]) for line in epochs],
        "pseudo": _pseudo_labels(epochs, dict(zip(classes, map(tables.html_colour, samples["colours"]), strict=True))),
        "origins": label_origins(_origins(run, len(confusions)), samples["colours"]),
        "steps": len(confusions),
        "classes": classes,
        "groups": groups,
        "iou": [class_iou(confusion) for confusion in confusions],
        "fallen": class_forgetting(confusions),
        "domains": domains,
        "by_domain": domain_figures(matrices, background)["domains"] if domains else None,
        "samples": samples,
        "predictions": predictions,
        "maps": run.arrays(MAPS) if run.is_readable(MAPS) else {},
        "why": why(run.arrays(EXPLAIN)) if run.is_readable(EXPLAIN) else None,
        "plan": run.require_plan(),
        "recipe": (run.folder / "recipe.yaml").read_text(encoding="utf-8"),
        "confusions": confusions,
        "background": background,
        **origin_of(run),
    }


def _warnings(runs: Mapping[str, Facts]) -> list[tuple[str, str]]:
    """The warnings of all runs, each with the name of its run."""
    found = [
        (name, f"not comparable with published numbers: {facts['not_comparable']}")
        for name, facts in runs.items()
        if facts["not_comparable"]
    ]
    return found + [(name, text) for name, facts in runs.items() for text in facts["warnings"]]


def _versions(facts: Facts) -> dict[str, Any]:
    """The environment without what the head of the page shows."""
    return {key: value for key, value in facts["environment"].items() if key not in ("date", "contseg", "commit")}


def _samples(run: Run, steps: int) -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
    """The sample images with truth, names and colours, and their predictions after each step."""
    return run.arrays("samples.npz"), [run.arrays(f"steps/{step:02d}/predictions.npz") for step in range(steps)]


def _origins(run: Run, steps: int) -> dict[int, dict[str, np.ndarray]]:
    """Step to its training images with pseudo labels; without steps that have none, or whose file is damaged."""
    places = {step: f"steps/{step:02d}/{ORIGINS}" for step in range(steps)}
    return {step: run.arrays(place) for step, place in places.items() if run.is_readable(place)}


def _pseudo_labels(epochs: Sequence[dict[str, Any]], colours: dict[str, str]) -> dict[str, Any] | None:
    """The drawing of a run's pseudo labels and its legend, or None without pseudo labels."""
    found = [(line["step"], line["pseudo"]) for line in epochs if "pseudo" in line]
    if not found:
        return None
    return {"drawing": draw.drawing(draw_pseudo_labels(found, colours)), "legend": pseudo_legend(found, colours)}

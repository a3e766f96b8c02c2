"""The content of a report's tables: classes, domains and plans of several runs."""

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from contseg.report import figures as draw

Facts = dict[str, Any]
"""Everything that a report shows about a run."""

FOLDED = 40
"""Tables with more classes are folded."""
LEVELS = 10
"""Number of shades of a cell; 0 is no shade."""


def shade(share: float) -> int:
    """The shade of a cell, 0 to `LEVELS`, for a share in [0, 1].

    Example:
        >>> shade(0.0), shade(0.44), shade(1.0), shade(-0.2)
        (0, 4, 10, 0)
    """
    return round(LEVELS * min(1.0, max(0.0, share)))


def together(runs: Mapping[str, Facts], key: Callable[[Facts], Hashable]) -> list[dict[str, Facts]]:
    """Groups of runs with the same key; groups and runs are in the order of the runs.

    Example:
        >>> together({"a": {"plan": 1}, "b": {"plan": 2}, "c": {"plan": 1}}, lambda facts: facts["plan"])
        [{'a': {'plan': 1}, 'c': {'plan': 1}}, {'b': {'plan': 2}}]
    """
    groups: dict[Hashable, dict[str, Facts]] = {}
    for name, facts in runs.items():
        groups.setdefault(key(facts), {})[name] = facts
    return list(groups.values())


FIGURES = {
    "old": "old", "new": "new", "all": "all", "forgetting": "forgetting", "average": "average", "harmonic": "harmonic",
    "all_with_background": "all with background",
}  # fmt: skip
PLAN = {
    "domains": "domains", "train_images": "train", "memory_images": "memory", "val_images": "val", "test_images": "test",
}  # fmt: skip
ALWAYS = ("old", "new", "all", "forgetting")


def figure_columns(runs: Mapping[str, Facts]) -> dict[str, str]:
    """Metric to title of the columns of results, without those that no run measured; `ALWAYS` are shown in any case.

    Example:
        >>> list(figure_columns({"a": {"figures": dict.fromkeys(FIGURES) | {"average": 0.5}}}))
        ['old', 'new', 'all', 'forgetting', 'average']
    """
    return {
        key: title
        for key, title in FIGURES.items()
        if key in ALWAYS or any(facts["figures"][key] is not None for facts in runs.values())
    }


def class_tables(runs: Mapping[str, Facts]) -> list[dict[str, Any]]:
    """A table of IoU per class after each step, for all runs with the same classes in the same steps.

    Returns:
        of each table `runs`; `steps`, the new classes of each step; `bars`, the classes from best to worst after the last
        step, on average over the runs, absent ones last; `folded`; `several_steps`; `forgets`, run to
        whether its forgetting was measured.
    """
    tables = []
    for group in together(runs, lambda facts: (tuple(facts["classes"]), facts["groups"])):
        first = next(iter(group.values()))
        rows = [_class_row(number, group) for number in range(len(first["classes"]))]
        steps = dict.fromkeys(first["groups"][: len(rows)])
        tables.append(
            {
                "runs": group,
                "steps": {step: [row for row in rows if row["step"] == step] for step in sorted(steps)},
                "bars": sorted((row for row in rows if row["known"]), key=lambda row: row["mean"], reverse=True),
                "folded": len(rows) > FOLDED,
                "several_steps": any(facts["steps"] > 1 for facts in group.values()),
                "forgets": {
                    name: any(row["runs"][place]["forgetting"] is not None for row in rows)
                    for place, name in enumerate(group)
                },
            }
        )
    return tables


def _class_row(number: int, group: Mapping[str, Facts]) -> dict[str, Any]:
    first = next(iter(group.values()))
    steps = max(facts["steps"] for facts in group.values())
    runs = [_class_in_run(number, facts, steps) for facts in group.values()]
    last = [run["last"] for run in runs if run["last"] is not None]
    return {
        "name": first["classes"][number],
        "step": first["groups"][number],
        "known": any(run["cells"][-1]["known"] for run in runs),
        "mean": float(np.mean(last)) if last else -1.0,
        "fallen": max((run["forgetting"] for run in runs if run["forgetting"] is not None), default=-1.0),
        "runs": runs,
    }


def _class_in_run(number: int, facts: Facts, steps: int) -> dict[str, Any]:
    cells = []
    for iou in facts["iou"]:
        value = _measured(iou[number]) if number < len(iou) else None
        cells.append({"known": number < len(iou), "value": value, "shade": 0 if value is None else shade(value)})
    fallen = _measured(facts["fallen"][number]) if number < len(facts["fallen"]) else None
    return {
        "cells": cells,
        "last": cells[-1]["value"],
        "curve": draw.curve([cell["value"] for cell in cells], steps),
        "forgetting": fallen,
        "shade": 0 if fallen is None else shade(fallen),
    }


def _measured(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def domain_tables(runs: Mapping[str, Facts]) -> list[dict[str, Any]]:
    """A table of mIoU per domain after each step, for all runs with the same domains; no table without domains."""
    groups = together({name: facts for name, facts in runs.items() if facts["domains"]}, lambda facts: facts["domains"])
    tables = []
    for group in groups:
        rows = []
        for number, domain in enumerate(next(iter(group.values()))["domains"]):
            values = [[_measured(step[number]) for step in facts["by_domain"]] for facts in group.values()]
            cells = [[{"value": one, "shade": 0 if one is None else shade(one)} for one in run] for run in values]
            rows.append({"name": domain, "runs": cells})
        tables.append({"runs": group, "rows": rows})
    return tables


def published_keys(runs: Mapping[str, Facts]) -> list[str]:
    """The metrics for which a number was published next to a run."""
    rows = [one.row for facts in runs.values() for one in facts["published"]]
    return [key for key in ("old", "new", "all") if any(getattr(row, key) is not None for row in rows)]


def plan_tables(runs: Mapping[str, Facts]) -> list[dict[str, Any]]:
    """Every plan once, with the runs that share it.

    Warnings of a plan also depend on the batch, so each is listed with its runs.

    Returns:
        of each plan `runs`, `plan`, `classes` (name and, of each step, the number of training images with the class, its
        shade, and whether the class is annotated), `warnings` (text to runs), `folded`, `columns` (key of a step to title,
        without empty columns).
    """
    tables = []
    for group in together(runs, lambda facts: json.dumps(facts["plan"] | {"warnings": None}, sort_keys=True)):
        plan = next(iter(group.values()))["plan"]
        warnings: dict[str, list[str]] = {}
        for name, facts in group.items():
            for text in facts["plan"]["warnings"]:
                warnings.setdefault(text, []).append(name)
        most = max((max(step["train_holding"], default=0) for step in plan["steps"]), default=0)
        classes = [
            {
                "name": name,
                "steps": [
                    {
                        "images": step["train_holding"][number],
                        # logarithmic, as classes differ by orders of magnitude
                        "shade": shade(np.log1p(step["train_holding"][number]) / np.log1p(max(1, most))),
                        "annotated": name in step["new_classes"],
                    }
                    for step in plan["steps"]
                ],
            }
            for number, name in enumerate(plan["class_names"])
        ]
        tables.append(
            {
                "columns": {key: title for key, title in PLAN.items() if any(step.get(key) for step in plan["steps"])},
                "runs": group,
                "plan": plan,
                "classes": classes,
                "warnings": warnings,
                "folded": len(classes) > FOLDED,
            }
        )
    return tables


def html_colour(colour: Sequence[int]) -> str:
    """(R, G, B) in HTML notation.

    Example:
        >>> html_colour((128, 0, 255))
        '#8000ff'
    """
    red, green, blue = (int(part) for part in colour)
    return f"#{red:02x}{green:02x}{blue:02x}"

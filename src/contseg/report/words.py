"""What runs learned, kept and lost: one sentence each."""

from collections.abc import Mapping
from typing import Any

from contseg.errors import counted
from contseg.evaluation.remarks import ONE_STEP
from contseg.report.tables import Facts

MOST = 5
"""Number of runs that a sentence names."""


def sentences(runs: Mapping[str, Facts]) -> dict[str, str]:
    """ "Learned", "kept" and "lost" to a sentence with the metrics of the runs after their last step.

    IoU in %; background is not counted; a dash: not measured.
    """
    if len(runs) > 1:
        return {
            "learned": f"mIoU of the classes of later steps: {_ranked(runs, 'new')}.",
            "kept": f"mIoU of the classes of step 0: {_ranked(runs, 'old')}.",
            "lost": f"Points of IoU that a class lost since its best, on average: {_ranked(runs, 'forgetting')}.",
        }
    (facts,) = runs.values()
    return {"learned": _learned(facts), "kept": _kept(facts), "lost": _lost(facts)}


def _learned(facts: Facts) -> str:
    later = [row for row in _rows(facts) if row["step"] > 0]
    if not later:
        figure = _percent(facts["figures"]["all"])
        return f"{_classes(len(_rows(facts)))} in one step; their mIoU is {figure}."
    what = "its IoU" if len(later) == 1 else "their mIoU"
    text = f"{_classes(len(later))} after step 0; {what} at the end is {_percent(facts['figures']['new'])}"
    measured = sorted((row for row in later if row["last"] is not None), key=lambda row: row["last"])
    if len(measured) < 2:
        return f"{text}."
    worst, best = measured[0], measured[-1]
    return f"{text}, from {worst['name']} with {_percent(worst['last'])} to {best['name']} with {_percent(best['last'])}."


def _kept(facts: Facts) -> str:
    old = [row for row in _rows(facts) if row["step"] == 0]
    now, first = facts["series"]["old"][-1], facts["series"]["old"][0]
    if len(facts["series"]["old"]) == 1:
        return f"{_classes(len(old))} of step 0 have a mIoU of {_percent(now)}; no step came after it."
    text = f"The mIoU of the {_classes(len(old))} of step 0 is {_percent(now)} at the end"
    return f"{text}; after step 0 it was {_percent(first)}."


def _lost(facts: Facts) -> str:
    fallen = [row for row in _rows(facts) if row["fallen"] is not None]
    mean = facts["figures"]["forgetting"]
    if mean is None:
        reason = facts["remarks"].get("forgetting", ONE_STEP)
        return f"– ({reason})."
    text = f"{_points(mean)} points of IoU since their best, on average over {_classes(len(fallen))}"
    worst = max(fallen, key=lambda row: row["fallen"])
    if worst["fallen"] < 0.0005:
        return f"{text}; no class lost any."
    best = worst["last"] + worst["fallen"]
    return f"{text}; the most: {worst['name']}, from {_percent(best)} to {_percent(worst['last'])}."


def _rows(facts: Facts) -> list[dict[str, Any]]:
    """Name, step, last IoU and forgetting of the classes so far, without background."""
    last, fallen = facts["iou"][-1], facts["fallen"]
    start = int(facts["background"])
    return [
        {
            "name": facts["classes"][place],
            "step": facts["groups"][place],
            "last": None if last[place] != last[place] else float(last[place]),
            "fallen": None if fallen[place] != fallen[place] else float(fallen[place]),
        }
        for place in range(start, len(last))
    ]


def _ranked(runs: Mapping[str, Facts], key: str) -> str:
    """The best runs with their metric, then those where it was not measured."""
    values = {name: facts["figures"][key] for name, facts in runs.items()}
    sign = 1 if key == "forgetting" else -1
    names = sorted(values, key=lambda name: (values[name] is None, sign * (values[name] or 0)))
    texts = [f"{name} {'–' if values[name] is None else _points(values[name])}" for name in names]
    more = len(texts) - MOST
    return ", ".join(texts[:MOST]) + (f" and {counted(more, 'more run')}" if more > 0 else "")


def _classes(count: int) -> str:
    return f"{count} class{'' if count == 1 else 'es'}"


def _points(value: float) -> str:
    return f"{100 * value:.1f}".replace("-", "−")


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"

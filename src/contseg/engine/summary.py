"""The summary of a run: its metrics, recomputed from the confusion matrices."""

from typing import Any

import numpy as np

from contseg.engine.panoptic_sums import panoptic_of
from contseg.engine.run import Run
from contseg.evaluation.metrics import domain_figures, run_figures
from contseg.evaluation.panoptic import MEANS
from contseg.evaluation.remarks import domain_remarks, run_remarks

PERCENT = (
    "old", "new", "all", "average", "forgetting", "harmonic", "old_with_background", "all_with_background",
    "average_with_background", "accuracy",
)  # fmt: skip


def summarise(run: Run) -> dict[str, Any]:
    """The metrics of a run in percent, recomputed from its confusion matrices, and the seconds it took.

    A metric that was not measured is None, and `notes` gives the reason; `measured` and `pixels` count what the metrics
    average over.

    Raises:
        ContsegError: the confusion matrix of a finished step is missing or damaged.
    """
    measured = run.confusions(), run.groups(), run.has_background()
    figures, notes = run_figures(*measured), run_remarks(*measured, *run.tested())
    seconds = sum(line["seconds"] for line in run.metrics() if line["kind"] == "step")
    domains, domain_notes = _domain_summary(run)
    panoptic = panoptic_of(run)
    return {
        **{key: None if figures[key] is None else round(100 * figures[key], 4) for key in PERCENT},
        **domains,
        **(_panoptic_summary(panoptic) if panoptic else {}),
        "measured": figures["measured"],
        "pixels": figures["pixels"],
        "notes": notes | domain_notes,
        "seconds": round(seconds, 1),
        "steps": len(run.confusions()),
        "plan": run.plan_hash,
    }


def _panoptic_summary(figures: dict[str, Any]) -> dict[str, Any]:
    """Means of PQ, SQ and RQ after the last step, in percent, by group of classes; of PQ also over steps."""

    def percent(value: float | None) -> float | None:
        return None if value is None else round(100 * value, 4)

    found = {name: {key: percent(figures[name][key]) for key in MEANS} for name in ("pq", "sq", "rq")}
    over_steps = {key: percent(figures["pq"][key]) for key in ("average", "forgetting")}
    found["pq"] |= over_steps | {"harmonic": percent(figures["harmonic"])}
    return found | {"measured_segments": figures["measured"]}


def _domain_summary(run: Run) -> tuple[dict[str, Any], dict[str, str]]:
    """Metrics per domain after the last step, in percent, and remarks; both empty if the scenario has no domains."""
    names, confusions = run.domain_confusions()
    if not names:
        return {}, {}
    figures = domain_figures(confusions, run.has_background())
    last, forgetting = figures["domains"][-1], figures["domain_forgetting"]
    percents = {
        "domains": {
            name: None if np.isnan(value) else round(100 * float(value), 4) for name, value in zip(names, last, strict=True)
        },
        "domain_forgetting": None if forgetting is None else round(100 * forgetting, 4),
    }
    return percents, domain_remarks(figures, names)
